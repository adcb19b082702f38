//! smol.
