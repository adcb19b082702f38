//! BBR on a simulated bottleneck: rate, round trip, queue and loss, packet by packet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::pacer::Pacer;
use super::Bbr;
use crate::rng::Rng;
use crate::timer::anchor;

const MTU: u64 = 1_200;

/// A path in one direction; acknowledgements return without loss.
#[derive(Debug, Clone, Copy)]
struct Path {
    rtt: Duration,
    /// Bytes a second.
    rate: f64,
    /// Bytes that may wait.
    queue: f64,
    loss: f64,
}

impl Path {
    const fn new(rtt: u64, mbits: f64, queue_ms: f64, loss: f64) -> Self {
        let rate = mbits * 125_000.0;
        Self { rtt: Duration::from_millis(rtt), rate, queue: rate * queue_ms / 1_000.0, loss }
    }
}

/// What one flow did.
#[derive(Debug, Default, Clone, Copy)]
struct Run {
    delivered: u64,
    sent: u64,
    dropped: u64,
    /// The sum over packets of the time in the queue, in seconds.
    queued: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    Ack(usize, u64),
    Wake(usize),
}

/// Flows with always something to send, over one path.
struct Scene {
    path: Path,
    rng: Rng,
    now: Instant,
    free_at: Instant,
    flows: Vec<Flow>,
    agenda: BTreeMap<(Instant, u64), Happens>,
    next: u64,
}

struct Flow {
    bbr: Bbr,
    pacer: Pacer,
    /// Packets that are neither acknowledged nor lost: by number, when they were sent.
    out: BTreeMap<u64, Instant>,
    number: u64,
    largest: u64,
    is_waiting: bool,
    run: Run,
}

impl Flow {
    fn new(rng: Rng, now: Instant) -> Self {
        let (bbr, pacer) = (Bbr::new(rng, MTU as u16, now), Pacer::default());
        let (out, run) = (BTreeMap::new(), Run::default());
        Self { bbr, pacer, out, number: 0, largest: 0, is_waiting: false, run }
    }
}

impl Scene {
    fn new(path: Path, seed: u8) -> Self {
        let (rng, now) = (Rng::new([seed; 32], "path"), anchor());
        let (flows, agenda) = (Vec::new(), BTreeMap::new());
        Self { path, rng, now, free_at: now, flows, agenda, next: 0 }
    }

    fn add_flow(&mut self) {
        let rng = Rng::new(self.rng.seed(), "flow");
        self.flows.push(Flow::new(rng, self.now));
        self.send(self.flows.len() - 1);
    }

    fn at(&mut self, when: Instant, what: Happens) {
        self.next += 1;
        self.agenda.insert((when, self.next), what);
    }

    fn run(&mut self, time: Duration) -> Vec<Run> {
        let end = self.now + time;
        let before: Vec<Run> = self.flows.iter().map(|flow| flow.run).collect();
        while let Some(next) = self.agenda.first_entry().filter(|next| next.key().0 <= end) {
            let ((when, _), what) = next.remove_entry();
            self.now = when;
            match what {
                Happens::Ack(flow, number) => self.on_ack(flow, number),
                Happens::Wake(flow) => {
                    self.flows[flow].is_waiting = false;
                    self.send(flow);
                }
            }
        }
        self.now = end;
        let after = self.flows.iter().map(|flow| flow.run);
        let since = |(after, before): (Run, &Run)| Run {
            delivered: after.delivered - before.delivered,
            sent: after.sent - before.sent,
            dropped: after.dropped - before.dropped,
            queued: after.queued - before.queued,
        };
        after.zip(&before).map(since).collect()
    }

    fn on_ack(&mut self, index: usize, number: u64) {
        let (now, flow) = (self.now, &mut self.flows[index]);
        if let Some(sent) = flow.out.remove(&number) {
            flow.run.delivered += MTU;
            flow.bbr.on_ack(sent, MTU);
        }
        flow.largest = flow.largest.max(number);
        let in_flight = flow.out.len() as u64 * MTU;
        flow.bbr.on_end_acks(in_flight, false, now);
        let lost: Vec<u64> =
            flow.out.range(..flow.largest.saturating_sub(2)).map(|it| *it.0).collect();
        if let Some(latest) = lost.last().map(|number| flow.out[number]) {
            for number in &lost {
                flow.out.remove(number);
            }
            flow.bbr.on_lost(latest, lost.len() as u64 * MTU, false, now);
        }
        self.send(index);
    }

    fn send(&mut self, index: usize) {
        loop {
            let (now, flow) = (self.now, &mut self.flows[index]);
            let rate = flow.bbr.pacing_rate();
            let allowed = rate.map_or(44, |rate| flow.pacer.allow(rate, MTU, 44, now));
            let room = flow.bbr.window().saturating_sub(flow.out.len() as u64 * MTU) / MTU;
            let packets = allowed.min(room as usize);
            if let (0, Some(rate), true) = (allowed, rate, room > 0) {
                flow.pacer.wait(rate, MTU, now);
                if let Some(due) = flow.pacer.due().filter(|_| !flow.is_waiting) {
                    flow.is_waiting = true;
                    self.at(due, Happens::Wake(index));
                }
                return;
            }
            if packets == 0 {
                return;
            }
            flow.pacer.on_sent(packets * MTU as usize);
            let first = flow.number;
            for number in first..first + packets as u64 {
                flow.number += 1;
                flow.out.insert(number, now);
            }
            flow.bbr.on_sent(packets as u64 * MTU, now);
            for number in first..first + packets as u64 {
                self.carry(index, number);
            }
        }
    }

    fn carry(&mut self, index: usize, number: u64) {
        self.flows[index].run.sent += MTU;
        let is_lost = self.rng.unit() < self.path.loss;
        let starts = self.free_at.max(self.now);
        let wait = starts.saturating_duration_since(self.now);
        if wait.as_secs_f64() * self.path.rate > self.path.queue {
            self.flows[index].run.dropped += MTU;
            return;
        }
        self.free_at = starts + Duration::from_secs_f64(MTU as f64 / self.path.rate);
        self.flows[index].run.queued += wait.as_secs_f64();
        if !is_lost {
            self.at(self.free_at + self.path.rtt, Happens::Ack(index, number));
        }
    }

    /// Returns the parts of the link that the flows of a run used in `time`.
    fn shares(&self, runs: &[Run], time: Duration) -> Vec<f64> {
        let most = self.path.rate * time.as_secs_f64();
        runs.iter().map(|run| run.delivered as f64 / most).collect()
    }
}

/// What one flow must reach after its startup.
struct Aim {
    path: Path,
    /// The least part of the link.
    part: f64,
    /// The largest part of its packets that overflow the queue.
    dropped: f64,
    /// The largest mean time in the queue, in milliseconds.
    queued: f64,
}

const fn aim(path: Path, part: f64, dropped: f64, queued: f64) -> Aim {
    Aim { path, part, dropped, queued }
}

/// Returns what is not reached, in words.
fn missed(aim: &Aim, seed: u8) -> Option<String> {
    let mut scene = Scene::new(aim.path, seed);
    scene.add_flow();
    // Startup: nine doublings of a flight of ten packets fill the longest of the paths.
    scene.run(aim.path.rtt * 15);
    let time = Duration::from_secs(10);
    let runs = scene.run(time);
    let (part, run) = (scene.shares(&runs, time)[0], runs[0]);
    let dropped = run.dropped as f64 / run.sent as f64;
    let queued = run.queued * 1_000.0 * MTU as f64 / run.sent as f64;
    let holds = part >= aim.part && dropped <= aim.dropped && queued <= aim.queued;
    (!holds)
        .then(|| format!("{:?}: part {part:.3} dropped {dropped:.4} queued {queued:.1}", aim.path))
}

#[test]
fn one_flow_fills_its_path_and_hardly_queues() {
    let aims = [
        aim(Path::new(50, 100.0, 50.0, 0.0), 0.97, 0.002, 3.0),
        aim(Path::new(100, 200.0, 50.0, 0.0), 0.97, 0.005, 5.0),
        aim(Path::new(40, 10.0, 21.0, 0.0), 0.97, 0.002, 4.0),
        aim(Path::new(20, 10.0, 1_000.0, 0.0), 0.97, 0.0, 8.0),
    ];
    let missed: Vec<String> = aims.iter().filter_map(|aim| missed(aim, 7)).collect();
    assert_eq!(missed, Vec::<String>::new());
}

#[test]
fn loss_without_a_queue_does_not_slow_it_down() {
    let aims = [
        aim(Path::new(50, 100.0, 50.0, 0.01), 0.95, 0.002, 3.0),
        aim(Path::new(150, 100.0, 50.0, 0.01), 0.94, 0.01, 10.0),
        aim(Path::new(50, 100.0, 50.0, 0.05), 0.70, 0.002, 3.0),
        aim(Path::new(40, 1.0, 200.0, 0.03), 0.90, 0.0, 60.0),
    ];
    for seed in 0..3 {
        let missed: Vec<String> = aims.iter().filter_map(|aim| missed(aim, seed)).collect();
        assert_eq!(missed, Vec::<String>::new());
    }
}

#[test]
fn a_queue_of_a_few_packets_is_not_flooded() {
    let aims = [
        aim(Path::new(50, 100.0, 3.0, 0.0), 0.95, 0.02, 1.0),
        aim(Path::new(50, 100.0, 1.0, 0.0), 0.95, 0.03, 1.0),
        aim(Path::new(50, 100.0, 10.0, 0.01), 0.93, 0.01, 2.0),
    ];
    let missed: Vec<String> = aims.iter().filter_map(|aim| missed(aim, 7)).collect();
    assert_eq!(missed, Vec::<String>::new());
}

#[test]
fn a_flow_that_begins_later_gets_more_than_a_quarter_of_its_fair_share() {
    for (queue, seed) in [5.0, 50.0].into_iter().flat_map(|queue| (0..6).map(move |it| (queue, it)))
    {
        let mut scene = Scene::new(Path::new(50, 50.0, queue, 0.0), seed);
        scene.add_flow();
        scene.run(Duration::from_secs(5));
        scene.add_flow();
        scene.run(Duration::from_secs(2));
        let time = Duration::from_secs(30);
        let runs = scene.run(time);
        let shares = scene.shares(&runs, time);
        assert!(shares.iter().all(|share| *share >= 0.5 / 4.0), "{queue} ms {seed}: {shares:?}");
        assert!(shares.iter().sum::<f64>() >= 0.95, "{queue} ms {seed}: {shares:?}");
    }
}

#[test]
fn a_path_that_becomes_slower_or_faster_is_followed() {
    for (seed, mbits) in (0..6).flat_map(|seed| [5.0, 50.0].map(|mbits| (seed, mbits))) {
        let mut scene = Scene::new(Path::new(40, 55.0 - mbits, 50.0, 0.0), seed);
        scene.add_flow();
        scene.run(Duration::from_secs(20));
        scene.path = Path::new(40, mbits, 50.0, 0.0);
        scene.run(Duration::from_secs(20));
        let time = Duration::from_secs(10);
        let runs = scene.run(time);
        let share = scene.shares(&runs, time)[0];
        let queued = runs[0].queued * 1_000.0 * MTU as f64 / runs[0].sent as f64;
        assert!(share >= 0.9, "{mbits} Mbit/s {seed}: {share:.3}");
        assert!(queued <= 10.0, "{mbits} Mbit/s {seed}: {queued:.1} ms");
    }
}
