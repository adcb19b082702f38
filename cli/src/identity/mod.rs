//! This machine's identity: its own mesh, its memberships in the meshes of others, the invites that
//! lead to them, and the files of each that a running program watches.

pub(crate) mod credentials;
pub(crate) mod follow;
pub(crate) mod invite;
pub(crate) mod member;
pub(crate) mod mesh;
pub(crate) mod revocation;
pub(crate) mod saved_service;
pub(crate) mod source;
pub(crate) mod throwaway;
