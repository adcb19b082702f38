//! stub
use std::time::Instant;
use std::net::SocketAddr;
use bytes::Bytes;
use crate::error::Failure;
use crate::id::PeerId;
use crate::message::Message;
use crate::probe::LEN;
use crate::timer::Deadline;
use crate::tls::KeyDigest;
#[derive(Debug, Clone, Default)] pub struct Config;
#[derive(Debug, Clone, PartialEq, serde::Serialize)] pub struct View;
pub struct Client { pub key: KeyDigest, pub mesh: Option<KeyDigest>, pub serial: String }
pub enum Action { Say { client: PeerId, message: Message }, Break { client: PeerId, failure: Failure } }
#[derive(Debug)] pub struct Relay;
#[derive(Debug)] pub struct Responder;
impl Responder { pub fn new(_: [u8;32]) -> Self { Self } pub fn answer(&self, _: &[u8], _: SocketAddr) -> Option<[u8; LEN]> { None } }
impl Relay {
 pub fn new(_: Config, _: [u8;32], _: Instant) -> Self { Self }
 pub fn on_attached(&mut self, _: PeerId, _: Client, _: SocketAddr, _: Instant) {}
 pub fn on_moved(&mut self, _: PeerId, _: SocketAddr, _: Instant) {}
 pub fn on_detached(&mut self, _: PeerId, _: Instant) {}
 pub fn handle_message(&mut self, _: PeerId, _: &Message, _: Instant) {}
 pub fn forward(&mut self, _: PeerId, _: Bytes, _: Instant) {}
 pub fn poll_ready(&mut self) -> Option<PeerId> { None }
 pub fn next_size(&self, _: PeerId) -> Option<usize> { None }
 pub fn poll_packet(&mut self, _: PeerId) -> Option<Bytes> { None }
 pub fn poll(&mut self, _: Instant) -> Option<Action> { None }
 pub fn deadline(&self) -> Option<Deadline> { None }
 pub fn view(&self, _: Instant) -> View { View }
}
