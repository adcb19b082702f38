//! `adit demo`: a connector, an agent and what lies between them, in one process on loopback with
//! throwaway identities, which work and recover from the usual failures of tunnels; and two peers
//! that discover each other through a relay, go direct, are cut and return to the direct path.
//!
//! It verifies what it shows: every byte by hash, every response by content. In the first act
//! heartbeats and retries are much quicker than the defaults, so that the recoveries fit into half
//! a minute; the second act uses the defaults.

mod between;
mod fetch;
mod meeting;
mod path;
mod report;
mod service;
mod steps;
mod world;

use std::time::Duration;

use self::between::RelayedPair;
use self::report::DemoReport;
use self::world::DemoWorld;
use crate::base::exit::{Exit, ExitError};
use crate::base::signals;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit demo           a table of what was shown, in some ten seconds
  adit demo --keep    leave the tunnel up afterwards and print its URL
  adit demo --json    the same as a JSON report on stdout")]
pub(crate) struct DemoArgs {
    /// Leave the tunnel up afterwards and print the URL of its local end
    #[arg(long)]
    pub(crate) keep: bool,

    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The whole demonstration ends within this time.
const LIMIT: Duration = Duration::from_secs(170);

/// Runs the demonstration and reports on it.
///
/// # Errors
/// If a step failed, or no step could run.
pub(crate) async fn run(arguments: &DemoArgs) -> Result<(), ExitError> {
    let mut report = DemoReport::new();
    report.print_line(&format!("shorter timers in the first act: {}", world::SHORTENED_TIMES));
    let ended = signals::asked_to_end()?;
    tokio::pin!(ended);
    let shown = async {
        let mut world = DemoWorld::start().await?;
        steps::all(&mut world, &mut report).await;
        let mut between = RelayedPair::start(&world.authority, &world.service, true).await?;
        meeting::all(&mut between, &world.service, &mut report, meeting::LIMIT).await;
        anyhow::Ok(world)
    };
    let world = tokio::select! {
        world = tokio::time::timeout(LIMIT, shown) => match world {
            Ok(world) => Ok(world.map_err(|error| degraded(format!("{error:#}")))?),
            Err(_) => Err(degraded(format!("not done within {LIMIT:?}"))),
        },
        () = &mut ended => Err(degraded("ended by a signal")),
    };
    report
        .print(arguments.json)
        .map_err(|error| degraded(format!("stdout cannot be written: {error}")))?;
    let world = world?;
    if !report.is_ok() {
        return Err(degraded("not everything held; the table says what"));
    }
    if arguments.keep {
        eprintln!("The tunnel stays up: {} (Ctrl-C ends it)", world.url());
        ended.await;
    }
    Ok(())
}

fn degraded(sentence: impl Into<String>) -> ExitError {
    ExitError::new(Exit::Degraded, sentence)
}
