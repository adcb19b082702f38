//! The program against a minimal forwarder on quinn, or one path of it against another, over
//! loopback, in alternation.
//!
//! It decides what is measured, how long, and in what order. It never judges: it prints medians and
//! ratios, and docs/benchmarks.md has the figures to expect.
//!
//! ```text
//! cargo bench -p adit --bench program -- [FILTER] [--quick] [--json] [--systems ONE,OTHER]
//! ```

mod load;
mod reference;
mod report;
mod tunnel;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use load::backend::Backend;
use load::{Case, Direction, Length};
use report::{Figure, Report};
use tunnel::{System, Tunnel};

/// Each measure is taken this often on each system, alternating.
const ROUNDS: usize = 3;

#[derive(clap::Parser)]
#[command(name = "program", about = "Measure adit against a minimal quinn forwarder")]
struct Args {
    /// Select the measures with this text in their names
    filter: Option<String>,
    /// Shorter rounds: under a minute in all
    #[arg(long)]
    quick: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// What is measured: one alone, or two and the ratio of the second by the first
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["reference", "adit"])]
    systems: Vec<System>,
    /// Passed by `cargo bench`; without it there is no measurement
    #[arg(long, hide = true)]
    bench: bool,
    /// Passed by some test runners: no measurement
    #[arg(long, hide = true)]
    test: bool,
    /// Be the reference's accepting end, with the certificates in this directory
    #[arg(long, hide = true, requires_all = ["quic", "tcp"])]
    reference_connector: Option<PathBuf>,
    /// Be the reference's dialling end, with the certificates in this directory
    #[arg(long, hide = true, requires_all = ["quic", "tcp"])]
    reference_agent: Option<PathBuf>,
    /// UDP address of the reference's connector
    #[arg(long, hide = true)]
    quic: Option<SocketAddr>,
    /// TCP address that the reference dials or listens on
    #[arg(long, hide = true)]
    tcp: Option<SocketAddr>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    if let (Some(quic), Some(tcp)) = (args.quic, args.tcp) {
        return match (&args.reference_connector, &args.reference_agent) {
            (Some(dir), None) => reference::connector(dir, quic, tcp),
            (None, Some(dir)) => reference::agent(dir, quic, tcp),
            (None, None) | (Some(_), Some(_)) => bail!("one end of the reference at a time"),
        }
        .map(|()| ExitCode::SUCCESS);
    }
    if args.test || !args.bench {
        return Ok(ExitCode::SUCCESS);
    }
    let start = Instant::now();
    let report = measure(args)?;
    eprintln!("measured in {:.0} s", start.elapsed().as_secs_f64());
    print!("{}", if args.json { report.to_json()? } else { report.to_table() });
    Ok(if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measure(args: &Args) -> Result<Report> {
    let length = if args.quick { Length::QUICK } else { Length::FULL };
    let systems = args.systems.clone();
    let cases = cases(args.filter.as_deref());
    if cases.is_empty() {
        bail!("no measure is named so");
    }
    let backend = Backend::start().context("starting the backend")?;
    let mut tunnels = systems
        .iter()
        .map(|&system| {
            Tunnel::start(system, backend.addr())
                .with_context(|| format!("{} cannot be measured", system.as_str()))
        })
        .collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(1));

    let mut report = Report::new(systems, length.window);
    for (name, case) in cases {
        eprintln!("{name} …");
        for _ in 0..if case.is_steady() { 1 } else { ROUNDS } {
            let round: Vec<Result<Vec<Figure>>> = tunnels
                .iter_mut()
                .map(|tunnel| {
                    let figures = load::run(case, tunnel, &backend, length);
                    let settled = backend.settle();
                    tunnel.check()?;
                    tunnel.check_path()?;
                    figures.and_then(|figures| settled.map(|()| figures))
                })
                .collect();
            report.add(&name, round);
        }
    }
    Ok(report)
}

/// Returns every measure, memory first, before any traffic has passed through the processes.
fn cases(filter: Option<&str>) -> Vec<(String, Case)> {
    let mut cases = vec![("idle memory".to_owned(), Case::Memory)];
    for direction in [Direction::Download, Direction::Upload] {
        for streams in [1, 8, 64] {
            let name = format!("{} {streams}", direction.as_str());
            cases.push((name, Case::Bulk { streams, direction }));
        }
    }
    for bytes in [1, 1024] {
        cases.push((format!("echo {bytes} B"), Case::Echo { bytes }));
    }
    cases.push(("echo 1024 B on 64".to_owned(), Case::Requests { connections: 64, bytes: 1024 }));
    for streams in [0, 1, 8] {
        cases.push((format!("request beside {streams} bulk"), Case::Beside { streams }));
    }
    cases.push(("new connections, 16 at once".to_owned(), Case::Connections { at_once: 16 }));
    cases.retain(|(name, _)| filter.is_none_or(|filter| name.contains(filter)));
    cases
}
