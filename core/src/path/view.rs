//! What is shown of the ways: for each what was sent, what came, and what follows; and why the one
//! in use was chosen.
//!
//! It decides words and shapes. Texts of codes are stable, sentences are for people.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Paths;
use super::candidate::{CandidateAddress, CandidateType};
use super::nat::Mapping;
use super::on_probe::ProbeOutcome;
use super::path_set::{Obstacle, PathState};
use super::probe_track::PROVEN;
use super::score::PathClass;
use crate::transmit::NextHop;

/// Why a way is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PathReason {
    /// The connection was made by it.
    First,
    /// A direct way was proven in both directions.
    DirectProven,
    /// It is quicker than the one before.
    Faster,
    /// The other end uses it, and leads.
    Agreed,
    /// The direct way loses more, or takes much longer.
    DirectWorse,
    /// The one before fell silent.
    Silent,
    /// The other end does not hear this one on the way before.
    PeerLeft,
    /// The peer's address has changed.
    PeerMoved,
    /// The relay before does not lead to the peer any more.
    RelayLost,
    /// It is the first since there was none.
    OnlyWay,
    /// There is none.
    NoWay,
}

impl PathReason {
    /// The stable text of the reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::DirectProven => "direct_proven",
            Self::Faster => "faster",
            Self::Agreed => "agreed",
            Self::DirectWorse => "direct_worse",
            Self::Silent => "silent",
            Self::PeerLeft => "peer_left",
            Self::PeerMoved => "peer_moved",
            Self::RelayLost => "relay_lost",
            Self::OnlyWay => "only_way",
            Self::NoWay => "no_way",
        }
    }

    /// The reason as a sentence for a person.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::First => "the connection was made through this relay",
            Self::DirectProven => "a direct way answered in both directions",
            Self::Faster => "it is clearly quicker than the way before",
            Self::Agreed => "the other end uses it, so both directions take one way",
            Self::DirectWorse => "the direct way loses more packets, or takes much longer",
            Self::Silent => "the way before fell silent",
            Self::PeerLeft => "the other end does not hear this one on the way before",
            Self::PeerMoved => "the other end's address has changed",
            Self::RelayLost => "the relay before does not lead to the other end any more",
            Self::OnlyWay => "it is the first way since there was none",
            Self::NoWay => "no relay leads to the other end, and no direct way does",
        }
    }
}

/// What the probes of one way have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PathVerdict {
    /// It answers, and may be used.
    Answers,
    /// It has answered, and too little to be used.
    Proving,
    /// Probes are being sent, and nothing has come.
    Trying,
    /// It was not tried yet.
    Waiting,
    /// It never answered.
    NoAnswer,
    /// It has answered, and does not any more.
    FellSilent,
    /// The NATs of both ends choose a new port for every destination.
    CannotWork,
    /// The system cannot send there.
    Unsendable,
}

/// One way, for people and `--json`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PathView {
    /// Direct, or by a relay.
    pub class: PathClass,
    /// Where it leads: an address, or a relay's channel.
    pub to: String,
    /// The peer's address, of a direct way.
    pub address: Option<SocketAddr>,
    /// How that became known.
    pub kind: Option<CandidateType>,
    /// Where the peer sees this end by it.
    pub observed: Option<SocketAddr>,
    /// Whether packets go by it.
    pub in_use: bool,
    /// Whether the peer said that its packets go by it.
    pub used_by_peer: bool,
    /// Probes sent.
    pub sent: u64,
    /// Answers that came.
    pub answered: u64,
    /// Time since the latest answer.
    pub answer_age_ms: Option<u64>,
    /// The smoothed round trip (RFC 6298 §2).
    pub latency_ms: Option<f64>,
    /// The least of the latest 16 round trips.
    pub least_ms: Option<f64>,
    /// The share of the latest 32 probes that was not answered in time, 0 to 1.
    pub loss: f64,
    /// What follows from that.
    pub verdict: PathVerdict,
    /// The same as a sentence for a person.
    pub sentence: String,
}

/// What the peer last said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct PeerView {
    /// How its packets are sent.
    pub sends: PathClass,
    /// Whether it hears nothing of this end on the direct way that it uses.
    pub is_deaf: bool,
    /// Its NAT, as far as it was told.
    pub mapping: Mapping,
}

/// How many of what has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct PathCounters {
    /// Changes of way.
    pub switches: u64,
    /// Questions of the peer that were answered.
    pub pings: u64,
    /// Answers of the peer that counted.
    pub pongs: u64,
    /// See [`ProbeOutcome::Forged`].
    pub forged: u64,
    /// See [`ProbeOutcome::Reflected`].
    pub reflected: u64,
    /// See [`ProbeOutcome::Replayed`].
    pub replayed: u64,
    /// See [`ProbeOutcome::Displaced`].
    pub displaced: u64,
    /// See [`ProbeOutcome::Stray`].
    pub stray: u64,
}

impl PathCounters {
    pub(super) const fn count(&mut self, heard: ProbeOutcome) {
        let counter = match heard {
            ProbeOutcome::Ping => &mut self.pings,
            ProbeOutcome::Pong => &mut self.pongs,
            ProbeOutcome::Forged => &mut self.forged,
            ProbeOutcome::Reflected => &mut self.reflected,
            ProbeOutcome::Replayed => &mut self.replayed,
            ProbeOutcome::Displaced => &mut self.displaced,
            ProbeOutcome::Stray => &mut self.stray,
            ProbeOutcome::TooEarly => return,
        };
        *counter = counter.saturating_add(1);
    }
}

/// The ways of one connection, for people and `--json`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PathsView {
    /// Direct or by a relay; `None` if there is no way.
    pub class: Option<PathClass>,
    /// Where the way in use leads.
    pub to: Option<String>,
    /// Time since it is in use.
    pub age_ms: u64,
    /// Why it is.
    pub reason: PathReason,
    /// The same as a sentence for a person.
    pub sentence: &'static str,
    /// Whether it has gone silent and packets go by another way as well.
    pub suspect: bool,
    /// Its smoothed round trip, by probes.
    pub latency_ms: Option<f64>,
    /// The least of its latest round trips.
    pub least_ms: Option<f64>,
    /// Its share of probes lost, 0 to 1.
    pub loss: f64,
    /// This end's NAT.
    pub mapping: Mapping,
    /// What this end told the other.
    pub candidates: Vec<CandidateAddress>,
    /// What the peer said.
    pub peer: PeerView,
    /// Rounds of knocking.
    pub rounds: u32,
    /// Until direct ways may be used again after failures.
    pub held_off_ms: Option<u64>,
    /// Bytes that wait, or are kept to be sent again.
    pub kept_bytes: usize,
    /// Dispatches dropped because too many waited.
    pub dropped: u64,
    /// Counters.
    pub counters: PathCounters,
    /// Every way, the one in use first.
    #[serde(rename = "ways")]
    pub paths: Vec<PathView>,
}

impl Paths {
    /// The state as plain data, with ages in place of instants.
    #[must_use]
    pub fn view(&self, now: Instant) -> PathsView {
        let now = self.now.max(now);
        let used = self.in_use();
        let mut ways: Vec<_> = self.ways.all.iter().map(|way| self.way_view(way, now)).collect();
        ways.sort_by_key(|way| (!way.in_use, way.class, way.kind));
        let sends = if self.peer.sends_direct { PathClass::Direct } else { PathClass::Relayed };
        PathsView {
            class: used.map(PathState::class),
            to: used.map(|way| to(way.via)),
            age_ms: age_ms(self.select.since(), now),
            reason: self.reason,
            sentence: self.reason.sentence(),
            suspect: self.select.suspect_since().is_some(),
            latency_ms: used.and_then(|way| way.track.smoothed()).map(as_ms),
            least_ms: used.and_then(|way| way.track.least()).map(as_ms),
            loss: used.map_or(0.0, |way| way.track.loss().0),
            mapping: self.meeting.mapping,
            candidates: self.meeting.candidates.clone(),
            peer: PeerView {
                sends,
                is_deaf: self.peer.is_deaf,
                mapping: self.meeting.theirs.map_or(Mapping::Unknown, |(mapping, _)| mapping),
            },
            rounds: self.meeting.round,
            held_off_ms: self.select.held_off_until(now).map(|until| age_ms(now, until)),
            kept_bytes: self.hold.bytes() + self.replay.bytes(),
            dropped: self.hold.dropped(),
            counters: self.counters,
            paths: ways,
        }
    }

    fn way_view(&self, way: &PathState, now: Instant) -> PathView {
        let track = &way.track;
        let verdict = verdict(way);
        PathView {
            class: way.class(),
            to: to(way.via),
            address: match way.via {
                NextHop::Direct(route) => Some(route.remote),
                NextHop::Relayed(_) => None,
            },
            kind: way.kind,
            observed: way.observed,
            in_use: self.select.is_in_use(way.via),
            used_by_peer: way.is_used_by_peer,
            sent: track.sent,
            answered: track.answered,
            answer_age_ms: track.last_answer.map(|at| age_ms(at, now)),
            latency_ms: track.smoothed().map(as_ms),
            least_ms: track.least().map(as_ms),
            loss: track.loss().0,
            verdict,
            sentence: sentence(way, verdict, now),
        }
    }
}

fn verdict(way: &PathState) -> PathVerdict {
    let track = &way.track;
    if track.is_answering() {
        return if track.streak >= PROVEN { PathVerdict::Answers } else { PathVerdict::Proving };
    }
    match way.obstacle {
        Some(Obstacle::CannotMeet) => return PathVerdict::CannotWork,
        Some(Obstacle::Unsendable) => return PathVerdict::Unsendable,
        None => {}
    }
    match (track.answered, track.sent, track.is_knocking()) {
        (1.., _, _) => PathVerdict::FellSilent,
        (0, 0, _) => PathVerdict::Waiting,
        (0, 1.., true) => PathVerdict::Trying,
        (0, 1.., false) => PathVerdict::NoAnswer,
    }
}

fn sentence(way: &PathState, verdict: PathVerdict, now: Instant) -> String {
    let track = &way.track;
    let latency = track.smoothed().map_or(0.0, as_ms);
    match verdict {
        PathVerdict::Answers => format!("answers in {latency:.0} ms"),
        PathVerdict::Proving => format!("answered in {latency:.0} ms, not often enough yet"),
        PathVerdict::Trying => format!("no answer to {} probes so far", track.sent),
        PathVerdict::Waiting => "not tried yet".to_owned(),
        PathVerdict::NoAnswer => format!("no answer to {} probes", track.sent),
        PathVerdict::FellSilent => {
            let age = track.last_answer.map_or(0, |at| age_ms(at, now) / 1_000);
            format!("answered until {age} s ago, and not since")
        }
        PathVerdict::CannotWork => {
            "cannot work: both ends' NATs choose a new port for every destination".to_owned()
        }
        PathVerdict::Unsendable => "this system cannot send there".to_owned(),
    }
}

fn to(via: NextHop) -> String {
    match via {
        NextHop::Direct(route) => route.remote.to_string(),
        NextHop::Relayed(channel) => channel.to_string(),
    }
}

fn age_ms(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

fn as_ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
