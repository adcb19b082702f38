//! The second act, in order: two peers discover each other through a relay, go direct, are cut,
//! fall back and return to the direct path, during one transfer, of which every byte is verified.
//! It decides what to wait for, and measures it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use adit_tokio::core::lifecycle::State;
use adit_tokio::core::path::PathClass;
use anyhow::{Context as _, ensure};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::between::RelayedPair;
use super::fetch::{self, Fetched};
use super::report::{DemoReport, StepFigure};
use super::service::{self, DemoService};
use super::steps::{note, shown};

/// Maximum wait: a working path is replaced by a better one after 10 s at the latest.
pub(super) const LIMIT: Duration = Duration::from_secs(15);

/// Interval at which a condition is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How long the transfer continues undisturbed after each change.
const QUIET: Duration = Duration::from_secs(1);

/// How long the transfer may take to end after the request to end.
const GRACE: Duration = Duration::from_secs(5);

/// Longest pause of the transfer.
#[derive(Debug)]
struct Pauses {
    last: Cell<Instant>,
    longest: Cell<Duration>,
}

impl Pauses {
    /// Returns a counter that starts at `now`.
    fn since(now: Instant) -> Self {
        Self { last: Cell::new(now), longest: Cell::default() }
    }

    /// Restarts the counter at `now`.
    fn begin(&self, now: Instant) {
        self.last.set(now);
        self.longest.set(Duration::ZERO);
    }

    /// Ends a pause, as a byte arrived.
    fn end_one(&self, now: Instant) {
        self.longest.set(self.longest(now));
        self.last.set(now);
    }

    /// Returns the longest time without a byte, including one that continues.
    fn longest(&self, now: Instant) -> Duration {
        self.longest.get().max(now - self.last.get())
    }
}

/// Runs all steps until one fails: after that, the next ones have no meaning. No wait takes longer
/// than `limit`.
pub(super) async fn all(
    between: &mut RelayedPair,
    service: &DemoService,
    report: &mut DemoReport,
    limit: Duration,
) {
    let pauses = Pauses::since(Instant::now());
    let (local, peer) = (between.port.local, between.peer.clone());
    let (over, mut is_over) = watch::channel(false);
    let transfer = async {
        let fetched = async {
            peer.connected().await?;
            fetch::get(local, "/live", |_| pauses.end_one(Instant::now())).await
        };
        let too_late = async {
            // Fails only if the sender, which outlives this, is dropped.
            let _ = is_over.wait_for(|is_over| *is_over).await;
            sleep(GRACE).await;
        };
        tokio::select! {
            fetched = fetched => fetched,
            () = too_late => anyhow::bail!("it did not end"),
        }
    };
    let shown = async {
        show(between, &pauses, report, limit).await;
        service.end_live();
        over.send_replace(true);
    };
    let (fetched, ()) = tokio::join!(transfer, shown);
    let verified = fetched.and_then(|fetched| verify(&fetched, between.reconnections()));
    report.on_check("transfer", "a transfer over all of it", verified);
}

async fn show(
    between: &mut RelayedPair,
    pauses: &Pauses,
    report: &mut DemoReport,
    limit: Duration,
) {
    report.print_line(
        "two peers that know only each other's names connect through a relay, 80 ms away",
    );
    let met = meet(between, report, limit).await;
    if !report.on_check("relayed", "met at a relay", met) {
        return;
    }
    let direct = go_direct(between, report, limit).await;
    if !report.on_check("direct", "a direct path found", direct) {
        return;
    }
    sleep(QUIET).await;
    report.print_line("dropping all packets on the direct path, without notice to either peer");
    let back = fall_back(between, pauses, report, limit).await;
    if !report.on_check("cut", "the direct path cut", back) {
        return;
    }
    report.print_line("the direct path is open again, without notice to either peer");
    let again = come_back(between, report, limit).await;
    report.on_check("open", "the direct path open again", again);
    sleep(QUIET).await;
}

async fn meet(
    between: &mut RelayedPair,
    report: &mut DemoReport,
    limit: Duration,
) -> anyhow::Result<StepFigure> {
    let peer = between.peer.clone();
    let is_up = move |_: &RelayedPair| matches!(peer.state(), State::Connected { .. });
    let took = until(between, report, ("a connection through the relay", limit), is_up).await?;
    let path = between.path().context("there is no path")?;
    ensure!(path.class == Some(PathClass::Relayed), "the first path is not the relay's");
    Ok(StepFigure::millis(took, format!("connected after {}, {}", shown(took), path.sentence)))
}

async fn go_direct(
    between: &mut RelayedPair,
    report: &mut DemoReport,
    limit: Duration,
) -> anyhow::Result<StepFigure> {
    let both = |between: &RelayedPair| between.both_go(PathClass::Direct);
    let took = until(between, report, ("a direct path", limit), both).await?;
    let path = between.path().context("there is no path")?;
    let round_trip = |class| {
        let pair = path.paths.iter().find(|it| it.class == class);
        let ms = pair.and_then(|it| it.latency_ms).context("a path without a round trip")?;
        anyhow::Ok(shown(Duration::from_secs_f64(ms / 1e3)))
    };
    let (relayed, direct) = (round_trip(PathClass::Relayed)?, round_trip(PathClass::Direct)?);
    let text = format!("after {}: round trip {relayed} before, {direct} now", shown(took));
    Ok(StepFigure::millis(took, text))
}

async fn fall_back(
    between: &mut RelayedPair,
    pauses: &Pauses,
    report: &mut DemoReport,
    limit: Duration,
) -> anyhow::Result<StepFigure> {
    pauses.begin(Instant::now());
    between.cut(true);
    let both = |between: &RelayedPair| between.both_go(PathClass::Relayed);
    let took = until(between, report, ("the relay's path", limit), both).await?;
    sleep(QUIET).await;
    let still = pauses.longest(Instant::now());
    ensure!(still < limit, "no byte came after the cut");
    let text = format!(
        "by the relay again after {}; the transfer stood still for {}",
        shown(took),
        shown(still)
    );
    Ok(StepFigure::millis(still, text))
}

async fn come_back(
    between: &mut RelayedPair,
    report: &mut DemoReport,
    limit: Duration,
) -> anyhow::Result<StepFigure> {
    between.cut(false);
    let both = |between: &RelayedPair| between.both_go(PathClass::Direct);
    let took = until(between, report, ("the direct path", limit), both).await?;
    let path = between.path().context("there is no path")?;
    Ok(StepFigure::millis(took, format!("directly again after {}: {}", shown(took), path.sentence)))
}

fn verify(fetched: &Fetched, reconnections: u64) -> anyhow::Result<StepFigure> {
    let mebibytes = fetched.bytes >> 20;
    let expected = service::hash_of(fetched.bytes);
    ensure!(fetched.bytes > 0 && expected == Some(fetched.hash), "other bytes arrived");
    ensure!(reconnections == 0, "the connection was lost and made again");
    let text = format!("{mebibytes} MiB, hash verified, one connection all along");
    Ok(StepFigure { text, value: mebibytes as f64, unit: "MiB" })
}

/// Waits for a condition, and reports every change meanwhile.
async fn until(
    between: &mut RelayedPair,
    report: &mut DemoReport,
    (what, limit): (&str, Duration),
    is_so: impl Fn(&RelayedPair) -> bool,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    loop {
        match timeout(POLL_INTERVAL, between.events.next()).await {
            Ok(Some(event)) => note(&event, between.who(&event), report),
            Ok(None) => anyhow::bail!("the peer has ended"),
            Err(_) => {}
        }
        if is_so(between) {
            return Ok(start.elapsed());
        }
        ensure!(start.elapsed() < limit, "{what} did not come within {limit:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::throwaway::ThrowawayAuthority;

    #[tokio::test]
    async fn a_demo_without_a_direct_path_fails_with_its_transfer_complete() {
        let (authority, service) =
            (ThrowawayAuthority::new().unwrap(), DemoService::start().await.unwrap());
        let mut between = RelayedPair::start(&authority, &service, false).await.unwrap();
        let mut report = DemoReport::new();
        all(&mut between, &service, &mut report, Duration::from_secs(2)).await;
        assert!(!report.is_ok());
        let table = report.table(false);
        let rows: Vec<_> = table.lines().skip(1).collect();
        let [met, direct, transfer] = rows[..] else { panic!("{table}") };
        assert!(met.contains("verified  connected after "), "{table}");
        assert!(direct.contains("FAILED    a direct path did not come within 2s"), "{table}");
        assert!(transfer.contains("hash verified, one connection all along"), "{table}");
    }
}
