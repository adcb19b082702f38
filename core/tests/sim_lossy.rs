//! One stream over paths that lose packets for reasons other than congestion, in virtual time: how
//! much of the link it fills, with BBR and with Cubic.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU64;
use std::time::Duration;

use adit_core::config::{Builder, Congestion, Transport};
use adit_core::testing::link::{Conditions, Loss};
use adit_core::testing::pair::{Flow, Pair};

const SECOND: Duration = Duration::from_secs(1);

/// A path in both directions.
#[derive(Debug, Clone, Copy)]
struct Path {
    rtt: u64,
    mbits: u64,
    loss: f64,
    /// Milliseconds of the rate.
    queue: u64,
}

impl Path {
    fn conditions(self) -> Conditions {
        let rate = self.mbits * 125_000;
        Conditions {
            latency: Duration::from_millis(self.rtt) / 2,
            loss: if self.loss > 0.0 { Loss::Random(self.loss) } else { Loss::None },
            bandwidth: NonZeroU64::new(rate),
            queue: (rate * self.queue / 1_000) as usize,
            ..Conditions::default()
        }
    }
}

/// Returns the part of the link that a stream fills in `measured`, after `skipped`, and the part of
/// the packets that are declared lost.
fn goodput(
    path: Path,
    congestion: Congestion,
    (skipped, measured): (Duration, Duration),
    seed: u64,
) -> (f64, f64) {
    let with = |builder: Builder| {
        let transport = Transport::default().stream_window(16 << 20).send_window(32 << 20);
        builder.transport(transport.congestion(congestion))
    };
    let mut pair = Pair::with(seed, path.conditions(), with, with);
    let (to_connector, _) = pair.connect();
    let (ours, theirs) = pair.open(to_connector, "db");
    let mut flow = Flow::new((pair.agent, ours), (pair.connector, theirs), u64::MAX >> 1);
    let mut run = |time: Duration, flow: &mut Flow| {
        let before = flow.read();
        let until = pair.world.now() + time;
        flow.advance(&mut pair.world);
        while pair.world.step(until) {
            flow.advance(&mut pair.world);
        }
        flow.read() - before
    };
    run(skipped, &mut flow);
    let bytes = run(measured, &mut flow);
    let statistics = pair.agent().peer_snapshot(to_connector).unwrap().transport;
    let lost = statistics.packets_lost as f64 / statistics.packets_sent as f64;
    (bytes as f64 / (path.mbits as f64 * 125_000.0 * measured.as_secs_f64()), lost)
}

#[test]
fn loss_that_is_not_congestion_leaves_most_of_the_link() {
    for (rtt, loss, part) in [(50, 0.01, 0.85), (50, 0.05, 0.6), (150, 0.01, 0.8)] {
        let path = Path { rtt, mbits: 20, loss, queue: 50 };
        let (bbr, _) = goodput(path, Congestion::Bbr, (2 * SECOND, 4 * SECOND), 1);
        assert!(bbr >= part, "{path:?}: {bbr:.3}");
        let (cubic, _) = goodput(path, Congestion::Cubic, (2 * SECOND, 4 * SECOND), 1);
        assert!(cubic < bbr / 2.0, "{path:?}: {cubic:.3} is no longer less than {bbr:.3}");
    }
}

#[test]
fn a_path_without_loss_is_filled_and_its_queue_does_not_overflow_for_long() {
    for (rtt, mbits, queue) in [(50, 20, 50), (40, 10, 26), (50, 20, 3)] {
        let path = Path { rtt, mbits, loss: 0.0, queue };
        let (part, lost) = goodput(path, Congestion::Bbr, (2 * SECOND, 4 * SECOND), 1);
        assert!(part >= 0.9, "{path:?}: {part:.3}");
        assert!(lost <= 0.02, "{path:?}: {lost:.4} lost");
    }
}
