//! `adit ping`: requests that a connector answers by itself, one after the other, each timed. It
//! decides when to ask and for how long to wait; `report` formats the results.

mod report;

use std::time::Duration;

use adit_tokio::core::drive::Peer;
use adit_tokio::core::error::{Category, Failure};
use adit_tokio::core::request::{Priority, Request};
use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior};

use self::report::PingReport;
use crate::base::exit::{Exit, ExitError};
use crate::base::{duration, output, signals};
use crate::commands::target::TargetArgs;
use crate::homedir::Home;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit ping web                          five pings, a second apart, and a summary
  adit ping -c agent.toml -n 1 --json    a single one, as JSON

The exit code is 0 if any ping was answered, and 4 if none was.")]
pub(crate) struct PingArgs {
    #[command(flatten)]
    pub(crate) to: TargetArgs,

    /// Number of pings
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,

    /// Time between two pings
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    pub(crate) interval: Duration,

    /// Print one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
}

/// The name and version of the JSON schema.
const SCHEMA: &str = "adit.ping/1";

/// How long to wait for the answer to one ping: five times as long as a satellite takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// One ping.
#[derive(Debug, Clone)]
pub(crate) struct Ping {
    /// Counted from 1.
    pub(crate) sequence: u32,
    /// The round trip, or why there was none.
    pub(crate) result: Result<Duration, Failure>,
}

/// Pings this many times, or until a signal; a signal still gets a summary.
///
/// # Errors
/// Why there was no connection, or no answer at all.
pub(crate) async fn run(
    arguments: &PingArgs,
    home: Result<Home, ExitError>,
) -> Result<(), ExitError> {
    let target = arguments.to.target(home)?;
    let ended = signals::asked_to_end()?;
    tokio::pin!(ended);
    let connection = tokio::select! {
        connection = target.connect(arguments.to.timeout) => connection?,
        () = &mut ended => return Err(ExitError::new(Exit::Degraded, "ended by a signal")),
    };
    let mut report = PingReport::new(connection.reached.clone());
    let tell = |line: String| if arguments.json { Ok(()) } else { output::text(&line) };
    tell(connection.reached.to_string())?;
    let result = tokio::select! {
        result = pings(&connection.peer, arguments.count, arguments.interval, |ping| {
            let line = ping.to_string();
            report.on_ping(ping);
            tell(line)
        }) => result,
        () = &mut ended => Ok(()),
    };
    connection.leave().await;
    result?;
    tell(report.summary())?;
    if arguments.json {
        output::json(SCHEMA, &report.to_json())?;
    }
    match report.into_verdict() {
        Some(failure) => Err(unanswered(&failure)),
        None => Ok(()),
    }
}

/// Pings `count` times, the first time immediately, and passes each result to `on_ping`.
///
/// # Errors
/// That of `on_ping`.
pub(crate) async fn pings(
    peer: &Peer,
    count: u32,
    interval: Duration,
    mut on_ping: impl FnMut(Ping) -> Result<(), ExitError>,
) -> Result<(), ExitError> {
    let mut beat = tokio::time::interval(interval);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for sequence in 1..=count {
        beat.tick().await;
        on_ping(Ping { sequence, result: once(peer).await })?;
    }
    Ok(())
}

async fn once(peer: &Peer) -> Result<Duration, Failure> {
    let ping = Request::new(Bytes::from_static(br#"{"op":"ping"}"#))
        .deadline(ANSWER_TIMEOUT)
        .priority(Priority::High);
    let start = Instant::now();
    peer.request(ping).await?.collect().await?;
    Ok(start.elapsed())
}

/// Returns the error for no answer at all: unreachable, unless the failure shows that a retry
/// cannot help.
fn unanswered(last: &Failure) -> ExitError {
    let exit = match last.category() {
        Category::Authentication => Exit::Authentication,
        Category::Configuration => Exit::Usage,
        Category::Network | Category::Server | Category::Protocol | Category::Unknown => {
            Exit::Unreachable
        }
    };
    ExitError::new(exit, format!("no ping was answered: {last}; {}", last.code().suggestion()))
}

#[cfg(test)]
mod tests {
    use adit_tokio::core::error::Code;

    use super::*;
    use crate::roles::world::TestTunnel;

    #[tokio::test]
    async fn all_pings_are_answered_the_first_immediately() {
        let (world, interval) = (TestTunnel::new(1).await, Duration::from_millis(100));
        let (start, mut seen) = (Instant::now(), Vec::new());
        let on_ping = |ping: Ping| {
            seen.push((ping.sequence, ping.result.is_ok(), start.elapsed()));
            Ok(())
        };
        pings(&world.peer, 3, interval, on_ping).await.unwrap();
        assert_eq!(
            seen.iter().map(|ping| (ping.0, ping.1)).collect::<Vec<_>>(),
            [(1, true), (2, true), (3, true)]
        );
        assert!(seen[0].2 < interval && start.elapsed() >= 2 * interval, "{seen:?}");
    }

    #[tokio::test]
    async fn a_connector_that_is_gone_is_a_ping_without_an_answer() {
        let world = TestTunnel::new(1).await;
        world.peer.disconnect();
        let mut results = Vec::new();
        let on_ping = |ping: Ping| {
            results.push(ping.result);
            Ok(())
        };
        pings(&world.peer, 1, ANSWER_TIMEOUT, on_ping).await.unwrap();
        assert!(matches!(results.as_slice(), [Err(_)]), "{results:?}");
    }

    #[test]
    fn silence_is_worth_a_retry_and_a_refusal_is_not() {
        let exit = |code| unanswered(&Failure::new(code, "why")).exit();
        assert_eq!(exit(Code::DeadlineExceeded), Exit::Unreachable);
        assert_eq!(exit(Code::Overloaded), Exit::Unreachable);
        assert_eq!(exit(Code::Forbidden), Exit::Authentication);
        assert_eq!(exit(Code::NoSuchService), Exit::Usage);
    }
}
