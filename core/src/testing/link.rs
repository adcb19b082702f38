//! One direction of a link: what becomes of each datagram that enters it, and when.
//!
//! It decides delay, loss, damage and order from its own seeded generator, and draws the same
//! number of times for every datagram, so that changing one condition does not change the others'
//! results. It never reads addresses, and holds no datagram.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::marks::{Mark, Marks};
use crate::rng::Rng;
use crate::transmit::Ecn;

/// Bytes of IPv4 and UDP header that a datagram costs a bottleneck beside its payload.
pub const OVERHEAD: usize = 28;

/// Most bits that one corruption flips.
pub const MAX_FLIPS: u64 = 3;

/// How a link loses datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// Not at all.
    #[default]
    None,
    /// Each on its own, with this probability.
    Random(f64),
    /// Only short ones, like a box that mistakes a flow of small datagrams for an attack.
    Short {
        /// The longest that may be lost, in bytes of payload.
        most: usize,
        /// The probability of losing one of them.
        loss: f64,
    },
    /// In bursts: the two-state model of Gilbert and Elliott, with one step per datagram.
    Bursty {
        /// The probability of going from the good state to the bad one.
        worsen: f64,
        /// The probability of going from the bad state to the good one.
        improve: f64,
        /// The probability of losing a datagram in the bad state; the good one loses none.
        loss: f64,
    },
}

/// The conditions of one direction of a link. Probabilities are in `0.0..=1.0`, per datagram.
///
/// ```
/// use adit_core::testing::link::{Conditions, Loss};
/// use std::time::Duration;
/// let mobile = Conditions {
///     latency: Duration::from_millis(60),
///     jitter: Duration::from_millis(30),
///     loss: Loss::Bursty { worsen: 0.01, improve: 0.2, loss: 0.8 },
///     ..Conditions::default()
/// };
/// assert!(!mobile.is_cut);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// Latency of every datagram. Default: 10 ms.
    pub latency: Duration,
    /// Up to this much more latency, evenly spread; order is kept. Default: none.
    pub jitter: Duration,
    /// Which datagrams are lost. Default: none.
    pub loss: Loss,
    /// How likely a datagram is to arrive a second time, up to `hold` later. Default: 0.
    pub duplicate: f64,
    /// How likely a datagram is to be held back up to `hold`, so that later ones pass it. Default:
    /// 0.
    pub reorder: f64,
    /// The longest that reordering and duplication hold a datagram back. Default: 20 ms.
    pub hold: Duration,
    /// How likely a datagram is to have one to [`MAX_FLIPS`] bits flipped. Default: 0.
    pub corrupt: f64,
    /// Bytes a second through the bottleneck, headers included; `None` is no bottleneck. Default:
    /// none.
    pub bandwidth: Option<NonZeroU64>,
    /// Bytes that may wait for the bottleneck; what comes on top is dropped. What finds more than
    /// half of them waiting is marked, if it can be (RFC 3168). Default: 64 KiB.
    pub queue: usize,
    /// The longest datagram carried, in bytes of payload. Default: 1,472, an Ethernet's.
    pub mtu: usize,
    /// Whether the link drops every datagram in this direction. Default: no.
    pub is_cut: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: Loss::None,
            duplicate: 0.0,
            reorder: 0.0,
            hold: Duration::from_millis(20),
            corrupt: 0.0,
            bandwidth: None,
            queue: 64 * 1024,
            mtu: 1472,
            is_cut: false,
        }
    }
}

/// The fate of one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketFate {
    /// It arrives at the first instant and, if there is one, again at the second.
    Arrives(Instant, Option<Instant>),
    /// It does not arrive, for this reason.
    Dropped(Mark),
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    conditions: Conditions,
    rng: Rng,
    is_bad: bool,
    busy_until: Option<Instant>,
    last_arrival: Option<Instant>,
}

/// The random draws for one datagram, all made before any of them is used.
struct Luck {
    worsen: f64,
    loss: f64,
    duplicate: f64,
    reorder: f64,
    corrupt: f64,
    jitter: f64,
    hold: f64,
    bits: Rng,
}

impl Luck {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            worsen: rng.unit(),
            loss: rng.unit(),
            duplicate: rng.unit(),
            reorder: rng.unit(),
            corrupt: rng.unit(),
            jitter: rng.unit(),
            hold: rng.unit(),
            bits: Rng::new(rng.seed(), "bits"),
        }
    }
}

impl Link {
    /// Returns a link that is idle.
    #[must_use]
    pub fn new(conditions: Conditions, rng: Rng) -> Self {
        Self { conditions, rng, is_bad: false, busy_until: None, last_arrival: None }
    }

    /// Returns the conditions for the next datagram.
    #[must_use]
    pub const fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Returns the conditions for the next datagram, to change them.
    pub const fn conditions_mut(&mut self) -> &mut Conditions {
        &mut self.conditions
    }

    /// Takes one datagram, may flip its bits or mark its congestion, and returns when it arrives.
    pub fn carry(
        &mut self,
        payload: &mut [u8],
        ecn: &mut Option<Ecn>,
        marks: &mut Marks,
        now: Instant,
    ) -> PacketFate {
        let mut luck = Luck::draw(&mut self.rng);
        if self.conditions.is_cut {
            return PacketFate::Dropped(Mark::Cut);
        }
        if payload.len() > self.conditions.mtu {
            return PacketFate::Dropped(Mark::TooLong);
        }
        if let Some(mark) = self.lose(&luck, payload.len()) {
            return PacketFate::Dropped(mark);
        }
        let Some(sent) = self.queue(payload.len(), now) else {
            return PacketFate::Dropped(Mark::QueueFull);
        };
        if !sent.waited.is_zero() {
            marks.hit(Mark::Queued);
        }
        if sent.is_congested && ecn.is_some() {
            marks.hit(Mark::CongestionMarked);
            *ecn = Some(Ecn::Ce);
        }
        if luck.corrupt < self.conditions.corrupt && !payload.is_empty() {
            marks.hit(Mark::Corrupted);
            flip(payload, &mut luck.bits);
        }
        let delay = self.conditions.latency + self.conditions.jitter.mul_f64(luck.jitter);
        let in_order = (sent.at + delay).max(self.last_arrival.unwrap_or(now));
        let hold = self.conditions.hold.mul_f64(luck.hold);
        let first = if luck.reorder < self.conditions.reorder {
            marks.hit(Mark::HeldBack);
            in_order + hold
        } else {
            self.last_arrival = Some(in_order);
            in_order
        };
        let again = (luck.duplicate < self.conditions.duplicate).then(|| {
            marks.hit(Mark::Duplicated);
            first + hold
        });
        PacketFate::Arrives(first, again)
    }

    fn lose(&mut self, luck: &Luck, len: usize) -> Option<Mark> {
        match self.conditions.loss {
            Loss::None => None,
            Loss::Random(loss) => (luck.loss < loss).then_some(Mark::LostAlone),
            Loss::Short { most, loss } => {
                (len <= most && luck.loss < loss).then_some(Mark::LostAlone)
            }
            Loss::Bursty { worsen, improve, loss } => {
                self.is_bad =
                    if self.is_bad { luck.worsen >= improve } else { luck.worsen < worsen };
                (self.is_bad && luck.loss < loss).then_some(Mark::LostInBurst)
            }
        }
    }

    /// Returns when the datagram has left the bottleneck, unless the queue before it is full.
    fn queue(&mut self, len: usize, now: Instant) -> Option<Sent> {
        let Some(rate) = self.conditions.bandwidth else {
            self.busy_until = None;
            return Some(Sent { at: now, waited: Duration::ZERO, is_congested: false });
        };
        let start = self.busy_until.map_or(now, |busy| busy.max(now));
        let wait = start.saturating_duration_since(now);
        let len = (len + OVERHEAD) as u128;
        let waiting = wait.as_nanos() * u128::from(rate.get()) / 1_000_000_000;
        if !wait.is_zero() && waiting + len > self.conditions.queue as u128 {
            return None;
        }
        let nanos = len * 1_000_000_000 / u128::from(rate.get());
        let at = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.busy_until = Some(at);
        let is_congested = 2 * waiting > self.conditions.queue as u128;
        Some(Sent { at, waited: wait, is_congested })
    }
}

struct Sent {
    at: Instant,
    waited: Duration,
    is_congested: bool,
}

fn flip(payload: &mut [u8], bits: &mut Rng) {
    let total = payload.len() as u64 * 8;
    let first = bits.u64() % total;
    for n in 0..=bits.u64() % MAX_FLIPS {
        let bit = (first + n * 13) % total;
        payload[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::clock::origin;

    const MS: Duration = Duration::from_millis(1);

    fn link(conditions: Conditions) -> Link {
        Link::new(conditions, Rng::new([1; 32], "link"))
    }

    fn carry(link: &mut Link, len: usize, now: Instant) -> PacketFate {
        link.carry(&mut vec![0; len], &mut None, &mut Marks::new(), now)
    }

    fn arrivals(link: &mut Link, count: u32, every: Duration) -> Vec<PacketFate> {
        (0..count).map(|n| carry(link, 100, origin() + n * every)).collect()
    }

    fn share(fates: &[PacketFate], mark: Mark) -> f64 {
        let hits = fates.iter().filter(|&&fate| fate == PacketFate::Dropped(mark)).count();
        hits as f64 / fates.len() as f64
    }

    #[test]
    fn a_plain_link_delivers_once_after_its_latency() {
        let mut link = link(Conditions::default());
        assert_eq!(carry(&mut link, 100, origin()), PacketFate::Arrives(origin() + 10 * MS, None));
    }

    #[test]
    fn a_datagram_as_long_as_the_mtu_passes_and_one_byte_more_does_not() {
        let mut link = link(Conditions { mtu: 1200, ..Conditions::default() });
        assert!(matches!(carry(&mut link, 1200, origin()), PacketFate::Arrives(..)));
        assert_eq!(carry(&mut link, 1201, origin()), PacketFate::Dropped(Mark::TooLong));
    }

    #[test]
    fn a_cut_link_carries_nothing_until_it_is_healed() {
        let mut link = link(Conditions { is_cut: true, ..Conditions::default() });
        assert_eq!(carry(&mut link, 1, origin()), PacketFate::Dropped(Mark::Cut));
        link.conditions_mut().is_cut = false;
        assert!(matches!(carry(&mut link, 1, origin()), PacketFate::Arrives(..)));
    }

    #[test]
    fn random_loss_takes_its_share() {
        let mut link = link(Conditions { loss: Loss::Random(0.2), ..Conditions::default() });
        let lost = share(&arrivals(&mut link, 10_000, MS), Mark::LostAlone);
        assert!((0.18..0.22).contains(&lost), "{lost}");
    }

    #[test]
    fn a_link_that_loses_short_ones_loses_none_that_is_a_byte_longer() {
        let loss = Loss::Short { most: 99, loss: 1.0 };
        let mut link = link(Conditions { loss, ..Conditions::default() });
        assert_eq!(carry(&mut link, 99, origin()), PacketFate::Dropped(Mark::LostAlone));
        assert!(matches!(carry(&mut link, 100, origin()), PacketFate::Arrives(..)));
    }

    #[test]
    fn bursty_loss_comes_in_runs_as_long_as_the_bad_state_lasts() {
        let loss = Loss::Bursty { worsen: 0.02, improve: 0.25, loss: 1.0 };
        let mut link = link(Conditions { loss, ..Conditions::default() });
        let fates = arrivals(&mut link, 20_000, MS);
        let lost = share(&fates, Mark::LostInBurst);
        assert!((0.05..0.10).contains(&lost), "expected 0.02 / 0.27: {lost}");
        let is_lost = |fate: &PacketFate| *fate == PacketFate::Dropped(Mark::LostInBurst);
        let runs = fates.chunk_by(|a, b| is_lost(a) == is_lost(b));
        let runs = runs.filter(|run| is_lost(&run[0])).count() as f64;
        let mean = lost * fates.len() as f64 / runs;
        assert!((3.5..4.5).contains(&mean), "expected 1 / 0.25: {mean}");
    }

    #[test]
    fn jitter_spreads_arrivals_and_keeps_their_order() {
        let mut link = link(Conditions { jitter: 50 * MS, ..Conditions::default() });
        let mut last = origin();
        let mut delays = std::collections::BTreeSet::new();
        for n in 0..1000 {
            let sent = origin() + n * MS;
            let PacketFate::Arrives(at, None) = carry(&mut link, 100, sent) else { panic!("lost") };
            assert!(at >= last && at >= sent + 10 * MS && at <= sent + 60 * MS);
            delays.insert(at - sent);
            last = at;
        }
        assert!(delays.len() > 500, "{}", delays.len());
    }

    #[test]
    fn reordering_lets_later_datagrams_pass_within_the_hold() {
        let mut link = link(Conditions { reorder: 0.3, ..Conditions::default() });
        let fates = arrivals(&mut link, 1000, MS);
        let times: Vec<_> = fates
            .iter()
            .map(|fate| match *fate {
                PacketFate::Arrives(at, None) => at,
                PacketFate::Arrives(_, Some(_)) | PacketFate::Dropped(_) => panic!("{fate:?}"),
            })
            .collect();
        assert!(times.windows(2).any(|pair| pair[1] < pair[0]));
        for (n, at) in times.iter().enumerate() {
            let delay = *at - (origin() + n as u32 * MS);
            assert!((10 * MS..=30 * MS).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn a_duplicate_arrives_no_sooner_than_the_first() {
        let mut link = link(Conditions { duplicate: 1.0, ..Conditions::default() });
        for fate in arrivals(&mut link, 100, MS) {
            let PacketFate::Arrives(first, Some(again)) = fate else { panic!("{fate:?}") };
            assert!(again >= first && again <= first + 20 * MS);
        }
    }

    #[test]
    fn corruption_flips_one_to_three_bits_and_never_the_length() {
        let mut link = link(Conditions { corrupt: 1.0, ..Conditions::default() });
        let mut seen = std::collections::BTreeSet::new();
        for len in (1..=100).chain([0]) {
            let mut payload = vec![0; len];
            link.carry(&mut payload, &mut None, &mut Marks::new(), origin());
            seen.insert(payload.iter().map(|byte| byte.count_ones()).sum::<u32>());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_bottleneck_spaces_datagrams_and_drops_what_its_queue_cannot_hold() {
        let datagram = 100 + OVERHEAD;
        let mut link = link(Conditions {
            latency: Duration::ZERO,
            bandwidth: NonZeroU64::new(1000 * datagram as u64),
            queue: 3 * datagram,
            ..Conditions::default()
        });
        let sent: Vec<_> = (0..5).map(|_| carry(&mut link, 100, origin())).collect();
        let at = |n| PacketFate::Arrives(origin() + n * MS, None);
        assert_eq!(sent, [at(1), at(2), at(3), PacketFate::Dropped(Mark::QueueFull), sent[4]]);
        assert_eq!(sent[4], PacketFate::Dropped(Mark::QueueFull));
        assert_eq!(carry(&mut link, 100, origin() + MS), at(4));
    }

    #[test]
    fn congestion_is_marked_past_half_the_queue_and_only_on_what_can_carry_it() {
        let datagram = 100 + OVERHEAD;
        let mut link = link(Conditions {
            bandwidth: NonZeroU64::new(1000 * datagram as u64),
            queue: 4 * datagram,
            ..Conditions::default()
        });
        let mut carry = |mut ecn| {
            link.carry(&mut [0; 100], &mut ecn, &mut Marks::new(), origin());
            ecn
        };
        let capable = [(); 4].map(|()| carry(Some(Ecn::Ect0)));
        assert_eq!(capable[..3], [Some(Ecn::Ect0); 3]);
        assert_eq!(capable[3], Some(Ecn::Ce));
        assert_eq!(carry(None), None);
    }

    #[test]
    fn a_datagram_longer_than_the_queue_passes_an_idle_bottleneck() {
        let bandwidth = NonZeroU64::new(1);
        let mut link = link(Conditions { bandwidth, queue: 0, ..Conditions::default() });
        assert!(matches!(carry(&mut link, 100, origin()), PacketFate::Arrives(..)));
        assert_eq!(carry(&mut link, 100, origin()), PacketFate::Dropped(Mark::QueueFull));
    }

    #[test]
    fn changing_one_condition_leaves_the_luck_of_the_others_alone() {
        let calm = Conditions { loss: Loss::Random(0.5), ..Conditions::default() };
        let wild = Conditions { corrupt: 0.5, reorder: 0.5, duplicate: 0.5, ..calm.clone() };
        let losses = |conditions| {
            let fates = arrivals(&mut link(conditions), 200, MS);
            fates.iter().map(|fate| matches!(fate, PacketFate::Dropped(_))).collect::<Vec<_>>()
        };
        assert_eq!(losses(calm), losses(wild));
    }
}
