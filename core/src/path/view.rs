//! What is shown of the paths: for each what was sent, what came, and what follows; and why the
//! active one was selected.
//!
//! It decides words and shapes, and never what is shown by them. Texts of codes are stable,
//! sentences are for people.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidate::{CandidateAddress, CandidateType};
use super::liveness::ActivePath;
use super::nat::Mapping;
use super::packets::PacketBuffers;
use super::path_set::PathSet;
use super::path_state::{Obstacle, PathState};
use super::probe_flags::ProbeFlags;
use super::probe_track::PROVEN;
use super::prober::ProbeOutcome;
use super::punching::PunchingRounds;
use super::score::PathClass;
use crate::probe::FULL_LEN;
use crate::transmit::NextHop;

/// Why a path is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PathReason {
    /// The connection was made on it.
    First,
    /// A direct path was proven in both directions.
    DirectProven,
    /// It is quicker than the one before.
    Faster,
    /// The other end uses it, and leads.
    Agreed,
    /// The direct path loses more, or takes much longer.
    DirectWorse,
    /// The one before fell silent.
    Silent,
    /// The one before carries small packets only.
    TooNarrow,
    /// The one before answers probes, and the connection's own packets were not acknowledged.
    Unacknowledged,
    /// The other end receives nothing from this one on the path before.
    PeerLeft,
    /// The peer's address has changed.
    PeerMoved,
    /// The relay before does not lead to the peer any more.
    RelayLost,
    /// It is the first since there was none.
    #[serde(rename = "only_way")]
    OnlyPath,
    /// There is none.
    #[serde(rename = "no_way")]
    NoPath,
}

impl PathReason {
    /// Returns the stable text of the reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::DirectProven => "direct_proven",
            Self::Faster => "faster",
            Self::Agreed => "agreed",
            Self::DirectWorse => "direct_worse",
            Self::Silent => "silent",
            Self::TooNarrow => "too_narrow",
            Self::Unacknowledged => "unacknowledged",
            Self::PeerLeft => "peer_left",
            Self::PeerMoved => "peer_moved",
            Self::RelayLost => "relay_lost",
            Self::OnlyPath => "only_way",
            Self::NoPath => "no_way",
        }
    }

    /// Returns the reason as a sentence for a person.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::First => "the connection was made through this relay",
            Self::DirectProven => "a direct path answered in both directions",
            Self::Faster => "it is clearly quicker than the path before",
            Self::Agreed => "the other end uses it, so both directions take one path",
            Self::DirectWorse => "the direct path loses more packets, or takes much longer",
            Self::Silent => "the path before fell silent",
            Self::TooNarrow => "the path before carries small packets only",
            Self::Unacknowledged => {
                "the path before answered probes, but carried no packets of the connection"
            }
            Self::PeerLeft => "the other end receives nothing from this one on the path before",
            Self::PeerMoved => "the other end's address has changed",
            Self::RelayLost => "the relay before does not lead to the other end any more",
            Self::OnlyPath => "it is the first path since there was none",
            Self::NoPath => "no relay leads to the other end, and no direct path does",
        }
    }
}

/// What the probes of one path have shown.
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
    /// It answers small probes, and none of the size of a packet.
    Narrow,
    /// The NATs of both ends use a new port for every destination.
    CannotWork,
    /// The system cannot send there.
    Unsendable,
}

impl PathVerdict {
    /// Returns the stable text of the verdict, as `--json` carries it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Proving => "proving",
            Self::Trying => "trying",
            Self::Waiting => "waiting",
            Self::NoAnswer => "no_answer",
            Self::FellSilent => "fell_silent",
            Self::Narrow => "narrow",
            Self::CannotWork => "cannot_work",
            Self::Unsendable => "unsendable",
        }
    }
}

/// One path, for people and `--json`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct PathView {
    /// Direct, or through a relay.
    pub class: PathClass,
    /// Where it leads: an address, or a relay's channel.
    pub to: String,
    /// The peer's address, of a direct path.
    pub address: Option<SocketAddr>,
    /// How that became known.
    pub kind: Option<CandidateType>,
    /// Where the peer sees this end on it.
    pub observed: Option<SocketAddr>,
    /// Whether packets take it.
    pub in_use: bool,
    /// Whether the peer advertised that its packets take it.
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
    /// The share of the latest 32 probes that was not answered in time, 0 to 1; all, of a path that
    /// carries no packets of the connection.
    pub loss: f64,
    /// The largest packets that it is known to carry, in bytes of UDP payload.
    pub packet_size: Option<u16>,
    /// What follows from that.
    pub verdict: PathVerdict,
    /// The same as a sentence for a person.
    pub sentence: String,
}

/// What the peer last advertised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PeerView {
    /// How its packets are sent.
    pub sends: PathClass,
    /// Whether it receives nothing from this end on the direct path that it uses.
    pub has_one_way_loss: bool,
    /// Its NAT, as far as it is known.
    pub mapping: Mapping,
}

/// How many of what has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PathCounters {
    /// Changes of the active path.
    pub switches: u64,
    /// Pings of the peer that were answered.
    pub pings: u64,
    /// Answers of the peer that counted.
    pub pongs: u64,
    /// Probes that are none, or not the peer's.
    pub forged: u64,
    /// Probes of this end that came back.
    pub reflected: u64,
    /// Probes of the peer that were seen before.
    pub replayed: u64,
    /// Probes of the peer that came directly where they were relayed, or the reverse.
    pub displaced: u64,
    /// Probes of the peer that nothing waited for, or that were too many.
    pub stray: u64,
}

impl PathCounters {
    pub(super) const fn count(&mut self, outcome: ProbeOutcome) {
        let counter = match outcome {
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

/// The paths of one connection, for people and `--json`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct PathsView {
    /// Direct or through a relay; `None` if there is no path.
    pub class: Option<PathClass>,
    /// Where the active path leads.
    pub to: Option<String>,
    /// Time since it is active.
    pub age_ms: u64,
    /// Why it is.
    pub reason: PathReason,
    /// The same as a sentence for a person.
    pub sentence: &'static str,
    /// Whether it has fallen silent and copies go to a backup.
    pub suspect: bool,
    /// Its smoothed round trip, by probes.
    pub latency_ms: Option<f64>,
    /// The least of its latest round trips.
    pub least_ms: Option<f64>,
    /// Its share of probes lost, 0 to 1.
    pub loss: f64,
    /// This end's NAT.
    pub mapping: Mapping,
    /// The addresses that this end offers the peer.
    pub candidates: Vec<CandidateAddress>,
    /// What the peer advertises.
    pub peer: PeerView,
    /// Punching rounds.
    pub rounds: u32,
    /// Until direct paths may be used again after failures.
    pub held_off_ms: Option<u64>,
    /// Bytes that wait, or are kept to be sent again.
    pub kept_bytes: usize,
    /// Dispatches dropped because too many waited.
    pub dropped: u64,
    /// Counters.
    pub counters: PathCounters,
    /// Every path, the active one first.
    #[serde(rename = "candidate_pairs")]
    pub paths: Vec<PathView>,
}

/// Returns what is shown of all paths, with ages in place of instants.
pub(super) fn overview(
    (set, active, is_stalled): (&PathSet, &ActivePath, bool),
    peer: ProbeFlags,
    rounds: &PunchingRounds,
    packets: &PacketBuffers,
    counters: PathCounters,
    now: Instant,
) -> PathsView {
    let mut paths: Vec<_> =
        set.iter().map(|path| path_view(path, active.is(path.hop()), is_stalled, now)).collect();
    paths.sort_by_key(|path| (!path.in_use, path.class, path.kind));
    let used = active.hop().and_then(|hop| set.get(hop));
    PathsView {
        class: used.map(PathState::class),
        to: used.map(|path| to(path.hop())),
        age_ms: age_ms(active.since(), now),
        reason: active.reason(),
        sentence: active.reason().sentence(),
        suspect: active.is_suspect(),
        latency_ms: used.and_then(|path| path.track().smoothed()).map(as_ms),
        least_ms: used.and_then(|path| path.track().least()).map(as_ms),
        loss: used.map_or(0.0, |path| loss(path, is_stalled)),
        mapping: rounds.mapping(),
        candidates: rounds.candidates().to_vec(),
        peer: PeerView {
            sends: if peer.sends_direct { PathClass::Direct } else { PathClass::Relayed },
            has_one_way_loss: peer.has_one_way_loss,
            mapping: rounds.peer_mapping(),
        },
        rounds: rounds.number(),
        held_off_ms: active.held_off_until(now).map(|until| age_ms(now, until)),
        kept_bytes: packets.bytes(),
        dropped: packets.dropped(),
        counters,
        paths,
    }
}

/// Returns what is shown of one path.
fn path_view(path: &PathState, is_active: bool, is_stalled: bool, now: Instant) -> PathView {
    let track = path.track();
    let verdict = verdict(path);
    PathView {
        class: path.class(),
        to: to(path.hop()),
        address: match path.hop() {
            NextHop::Direct(route) => Some(route.remote),
            NextHop::Relayed(_) => None,
        },
        kind: path.kind(),
        observed: path.observed(),
        in_use: is_active,
        used_by_peer: path.is_used_by_peer(),
        sent: track.sent(),
        answered: track.answered(),
        answer_age_ms: track.last_answer().map(|at| age_ms(at, now)),
        latency_ms: track.smoothed().map(as_ms),
        least_ms: track.least().map(as_ms),
        loss: loss(path, is_active && is_stalled),
        packet_size: path.size().known().filter(|_| path.is_direct()),
        verdict,
        sentence: sentence(path, verdict, now),
    }
}

/// Returns the share that is lost: all, if packets of the connection are.
fn loss(path: &PathState, is_stalled: bool) -> f64 {
    if is_stalled || path.size().is_narrow() { 1.0 } else { path.track().loss().0 }
}

fn verdict(path: &PathState) -> PathVerdict {
    let track = path.track();
    if track.is_answering() {
        let is_proven = track.streak() >= PROVEN && path.size().is_proven();
        return match (path.size().is_narrow(), is_proven) {
            (true, _) => PathVerdict::Narrow,
            (false, true) => PathVerdict::Answers,
            (false, false) => PathVerdict::Proving,
        };
    }
    match path.obstacle() {
        Some(Obstacle::CannotMeet) => return PathVerdict::CannotWork,
        Some(Obstacle::Unsendable) => return PathVerdict::Unsendable,
        None => {}
    }
    match (track.answered(), track.sent(), track.is_punching()) {
        (1.., _, _) => PathVerdict::FellSilent,
        (0, 0, _) => PathVerdict::Waiting,
        (0, 1.., true) => PathVerdict::Trying,
        (0, 1.., false) => PathVerdict::NoAnswer,
    }
}

fn sentence(path: &PathState, verdict: PathVerdict, now: Instant) -> String {
    let track = path.track();
    let latency = track.smoothed().map_or(0.0, as_ms);
    match verdict {
        PathVerdict::Answers => format!("answers in {latency:.0} ms"),
        PathVerdict::Proving => format!("answered in {latency:.0} ms, not often enough yet"),
        PathVerdict::Trying => format!("no answer to {} probes so far", track.sent()),
        PathVerdict::Waiting => "not tried yet".to_owned(),
        PathVerdict::NoAnswer => format!("no answer to {} probes", track.sent()),
        PathVerdict::FellSilent => {
            let age = track.last_answer().map_or(0, |at| age_ms(at, now) / 1_000);
            format!("answered until {age} s ago, and not since")
        }
        PathVerdict::Narrow => {
            format!("carries small packets only: no answer to probes of {FULL_LEN} bytes")
        }
        PathVerdict::CannotWork => {
            "cannot work: both ends' NATs choose a new port for every destination".to_owned()
        }
        PathVerdict::Unsendable => "this system cannot send there".to_owned(),
    }
}

/// Returns where a hop leads, as a text.
fn to(hop: NextHop) -> String {
    match hop {
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
