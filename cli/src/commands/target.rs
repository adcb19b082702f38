//! The arguments of `adit ping` and `adit bench`, and whom both of them dial.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::duration;
use crate::base::stop::Stop;
use crate::homedir::Home;
use crate::roles::once::Target;

/// Shortest and longest measurement: less says nothing, and a connector gives a stream 60 s.
const SECONDS: (f64, f64) = (0.1, 30.0);

/// Which connector, and how long it may take to reach it.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// A service that is known here: its connector is asked
    #[arg(value_name = "PEER", required_unless_present = "config")]
    peer: Option<String>,

    /// An agent's configuration file, which names the connector and this device's certificate
    #[arg(short, long, value_name = "FILE", conflicts_with = "peer")]
    config: Option<PathBuf>,

    /// Give up when there is no connection after this time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

impl TargetArgs {
    /// Whom to dial.
    ///
    /// # Errors
    /// What is wrong with the file, or that nothing is known of the peer.
    pub(crate) fn target(&self, home: Result<Home, Stop>) -> Result<Target, Stop> {
        match (&self.config, &self.peer) {
            (Some(path), _) => Target::from_file(path, home.as_ref()),
            (None, Some(peer)) => Target::known(peer, &home?),
            (None, None) => Err(Stop::usage("say whom to ask: a known service, or -c agent.toml")),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit ping web                          five pings, a second apart, and a summary
  adit ping -c agent.toml -n 1 --json    a single one, as JSON

It ends with 0 when any ping was answered, and with 4 when none was.")]
pub(crate) struct PingArgs {
    #[command(flatten)]
    pub(crate) to: TargetArgs,

    /// How many pings
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,

    /// Time from one ping to the next
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    pub(crate) interval: Duration,

    /// Print one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit bench web                               all of it, in half a minute
  adit bench web --seconds 0.5                 rougher and sooner
  adit bench -c agent.toml --json > now.json   for programs

The connector itself is the other end: no service behind it is used.")]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) to: TargetArgs,

    /// How long each measurement takes, 0.1 to 30 seconds
    #[arg(long, value_name = "NUMBER", default_value = "3", value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// Print one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let (least, most) = SECONDS;
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(Duration::from_secs_f64(number)),
        Ok(_) | Err(_) => Err(format!("write a number of seconds from {least} to {most}, like 3")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_takes_at_least_a_tenth_of_a_second_and_at_most_thirty() {
        assert_eq!(seconds("0.1"), Ok(Duration::from_millis(100)));
        assert_eq!(seconds("30"), Ok(Duration::from_secs(30)));
        for text in ["0.09", "30.1", "-1", "NaN", "inf", "3s", ""] {
            assert!(seconds(text).unwrap_err().ends_with("like 3"), "{text}");
        }
    }
}
