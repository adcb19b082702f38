//! stub
use std::time::{Duration, Instant};
use std::net::SocketAddr;
use crate::id::{Channel, PeerId};
use crate::message::{Candidate, Candidates, Mapping};
use crate::probe::{Key, LEN};
use crate::rng::Rng;
use crate::timer::Deadline;
use crate::transmit::{Route, Via};
#[derive(Debug, Clone, Default)] pub struct Config;
#[derive(Debug, Clone, Copy, PartialEq, Eq)] pub enum Role { Dialler, Acceptor }
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)] pub enum Reason { A }
#[derive(Debug, Clone, PartialEq, serde::Serialize)] pub struct View;
#[derive(Debug)] pub struct Paths;
pub enum Dispatch { Send(Via), Both { first: Via, copy: Via }, Held }
pub enum Action { Probe { via: Via, bytes: [u8; LEN] }, Packets { via: Via, bytes: Vec<u8>, segment_size: Option<usize> }, Candidates(Candidates), Changed { from: Option<Via>, to: Via, reason: Reason, planned: bool }, Shrink }
impl Paths {
  pub fn new(_: Config, _: Role, _: Channel, _: Rng, _: Instant) -> Self { Self }
  pub fn set_keys(&mut self, _: (u64, Key), _: (u64, Key), _: Instant) {}
  pub fn set_local(&mut self, _: &[Candidate], _: Mapping, _: Instant) {}
  pub fn handle_candidates(&mut self, _: &Candidates, _: Instant) {}
  pub fn add_relayed(&mut self, _: Channel, _: Instant) {}
  pub fn remove_relayed(&mut self, _: Channel, _: Instant) {}
  pub fn handle_probe(&mut self, _: Via, _: &[u8], _: Instant) {}
  pub fn is_genuine(&self, _: &[u8]) -> bool { false }
  pub fn on_network_changed(&mut self, _: Instant) {}
  pub fn on_send_failed(&mut self, _: Route, _: Instant) {}
  pub fn on_received(&mut self, _: Via, _: Instant) {}
  pub fn note_rtt(&mut self, _: Duration) {}
  pub fn dispatch(&mut self, _: &[u8], _: Option<usize>, _: Instant) -> Dispatch { Dispatch::Held }
  pub fn poll(&mut self, _: Instant) -> Option<Action> { None }
  pub fn deadline(&self) -> Option<Deadline> { None }
  pub fn view(&self, _: Instant) -> View { View }
}
#[derive(Debug)] pub struct Discovery;
impl Discovery {
  pub fn new(_: Rng) -> Self { Self }
  pub fn on_welcome(&mut self, _: PeerId, _: SocketAddr, _: &[SocketAddr], _: u64, _: Key, _: Instant) {}
  pub fn on_relay_lost(&mut self, _: PeerId) {}
  pub fn set_local(&mut self, _: &[SocketAddr]) {}
  pub fn handle_probe(&mut self, _: SocketAddr, _: &[u8], _: Instant) -> bool { false }
  pub fn poll(&mut self, _: Instant) -> Option<(SocketAddr, [u8; LEN])> { None }
  pub fn deadline(&self) -> Option<Deadline> { None }
  pub fn candidates(&self) -> Vec<Candidate> { vec![] }
  pub fn mapping(&self) -> Mapping { Mapping::Unknown }
  pub fn revision(&self) -> u64 { 0 }
}
