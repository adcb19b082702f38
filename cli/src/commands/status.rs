//! `adit status`: asks every running `adit` on this machine for its status, shows it, and sets its
//! exit code by it. It changes no state, except that it removes the sockets of killed processes.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::exit::{Exit, ExitError};
use crate::base::screen::AlternateScreen;
use crate::base::{layout, output, signals};
use crate::control::{self, ControlRequest};
use crate::homedir::Home;
use crate::observe::render;
use crate::observe::schema::ProcessStatus;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit status                   every running adit, and its connections
  adit status --watch           the same, refreshed every second, until Ctrl-C
  adit status --json | jq '.processes[].peers[].state'

Exit codes:
  0 all are connected   4 no adit runs here   5 a connection is missing")]
pub(crate) struct StatusArgs {
    /// Refresh every second, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,

    /// Print one line of JSON, with --watch one every second
    #[arg(long)]
    pub(crate) json: bool,
}

/// Interval of `--watch`.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The reports of all running processes, complete, also of a later version of `adit`.
#[derive(Debug, Serialize)]
pub(super) struct Survey {
    processes: Vec<Map<String, Value>>,
    unanswered: Vec<Unanswered>,
}

/// A process that did not report.
#[derive(Debug, Serialize)]
struct Unanswered {
    socket: String,
    error: String,
}

/// Shows it once, or until asked to end.
///
/// # Errors
/// That no process runs, that something is degraded, or that it cannot be printed.
pub(crate) async fn run(arguments: &StatusArgs, home: &Home) -> Result<(), ExitError> {
    match arguments.watch {
        false => once(arguments.json, home).await,
        true => {
            let ended = signals::asked_to_end()?;
            tokio::select! {
                stop = watch(arguments.json, home) => stop,
                () = ended => Ok(()),
            }
        }
    }
}

async fn once(json: bool, home: &Home) -> Result<(), ExitError> {
    let survey = survey(home).await?;
    let (seen, unanswered) = survey.read();
    if json {
        output::json(SCHEMA, &survey)?;
    } else if !seen.is_empty() || !unanswered.is_empty() {
        output::text_line(&render::text(&seen, &unanswered, now(), layout::width()))?;
    }
    verdict(&seen, &unanswered, home)
}

/// The name and version of the JSON schema.
const SCHEMA: &str = "adit.status/1";

async fn watch(json: bool, home: &Home) -> Result<(), ExitError> {
    let unwritable =
        |error| ExitError::new(Exit::Degraded, format!("the terminal cannot be written: {error}"));
    let mut screen = match json {
        true => None,
        // Dropped at a signal as well, which brings back what the terminal showed before.
        false => AlternateScreen::of_stdout().map_err(unwritable)?,
    };
    let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let survey = survey(home).await?;
        if json {
            output::json(SCHEMA, &survey)?;
            continue;
        }
        let (seen, unanswered) = survey.read();
        let text = match seen.is_empty() && unanswered.is_empty() {
            true => layout::wrap(&nothing(home), layout::width()),
            false => render::text(&seen, &unanswered, now(), layout::width()),
        };
        match &mut screen {
            Some(screen) => screen.draw(&text).map_err(unwritable)?,
            None => output::text_line(&format!("{text}\n"))?,
        }
    }
}

pub(super) async fn survey(home: &Home) -> Result<Survey, ExitError> {
    let mut survey = Survey { processes: Vec::new(), unanswered: Vec::new() };
    for heard in control::ask_all(home, ControlRequest::Status).await? {
        match heard.answer {
            Ok(process) => survey.processes.push(process),
            Err(error) => survey.unanswered.push(Unanswered { socket: heard.socket, error }),
        }
    }
    Ok(survey)
}

impl Survey {
    /// Returns the part of it for people, with sentences about the processes that are not
    /// understood.
    pub(super) fn read(&self) -> (Vec<ProcessStatus>, Vec<String>) {
        let mut unanswered: Vec<_> =
            self.unanswered.iter().map(|u| format!("{}: {}", u.socket, u.error)).collect();
        let mut seen = Vec::new();
        for process in &self.processes {
            match serde_json::from_value(Value::Object(process.clone())) {
                Ok(process) => seen.push(process),
                Err(error) => unanswered.push(format!(
                    "its status cannot be read: {error}; run the same version of adit"
                )),
            }
        }
        (seen, unanswered)
    }
}

fn verdict(seen: &[ProcessStatus], unanswered: &[String], home: &Home) -> Result<(), ExitError> {
    if seen.is_empty() && unanswered.is_empty() {
        return Err(ExitError::new(Exit::Unreachable, nothing(home)));
    }
    let mut wrong = seen.iter().flat_map(ProcessStatus::troubles).chain(unanswered.iter().cloned());
    let Some(first) = wrong.next() else { return Ok(()) };
    let sentence = match wrong.count() {
        0 => first,
        more => format!("{first}; and {more} more"),
    };
    Err(ExitError::new(Exit::Degraded, sentence))
}

pub(super) fn nothing(home: &Home) -> String {
    format!(
        "no adit runs here with the home {}; start one with adit connector or adit agent, \
         or name the home of one with --home",
        home.path().display()
    )
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
