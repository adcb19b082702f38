//! How many worlds a sweep plays, and which of them failed: shared by every suite of random worlds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Failures after which a thread stops.
const ENOUGH: usize = 5;

/// Returns a number that the environment may set.
#[expect(clippy::disallowed_methods, reason = "a sweep is as long as whoever runs it wants")]
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().expect("a number"))
}

/// Plays `count` worlds from `first` on, on all processors. Returns the results of those that held,
/// and the seeds of those that did not.
pub(crate) fn sweep<T: Send>(
    (first, count): (u64, u64),
    play: impl Fn(u64) -> T + Sync,
) -> (Vec<T>, Vec<u64>) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let parts: Vec<_> = std::thread::scope(|scope| {
        let part = |n| {
            let seeds = (first..first + count).filter(move |seed| seed % threads == n);
            scope.spawn(|| played(seeds, &play))
        };
        let workers: Vec<_> = (0..threads).map(part).collect();
        workers.into_iter().map(|worker| worker.join().expect("panics are caught")).collect()
    });
    let (mut held, mut failed) = (Vec::new(), Vec::new());
    for (reports, seeds) in parts {
        held.extend(reports);
        failed.extend(seeds);
    }
    (held, failed)
}

/// Plays the worlds of a list of at least `least` seeds that failed once, and returns those that
/// fail again. A package lacks the lists of the repository: there it plays none and prints so.
pub(crate) fn replay<T>(file: &str, least: usize, play: impl Fn(u64) -> T) -> Vec<u64> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    if package.join("Cargo.toml.orig").exists() {
        eprintln!("SKIPPED: a package has no {file}");
        return Vec::new();
    }
    let path = package.join("../proptest-regressions").join(file);
    let list = std::fs::read_to_string(path).expect("the stored seeds can be read");
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let seeds = lines.map(|line| line.split(' ').next().and_then(|s| s.parse().ok()));
    let seeds: Vec<u64> = seeds.map(|seed| seed.expect("a seed")).collect();
    assert!(seeds.len() >= least, "a failure that was found is not forgotten");
    played(seeds.into_iter(), &play).1
}

fn played<T>(seeds: impl Iterator<Item = u64>, play: &impl Fn(u64) -> T) -> (Vec<T>, Vec<u64>) {
    let (mut held, mut failed) = (Vec::new(), Vec::new());
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| play(seed))) {
            Ok(report) => held.push(report),
            Err(_) => {
                eprintln!("seed {seed} failed");
                failed.push(seed);
            }
        }
        if failed.len() > ENOUGH {
            break;
        }
    }
    (held, failed)
}
