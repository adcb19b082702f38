//! The results of the demonstration: shown live on stderr, and at the end as a table or as JSON on
//! stdout. It judges no result; the steps do.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use console::{Style, measure_text_width, pad_str};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::base::screen;

/// The name and version of the JSON report's shape. A key's meaning changes only with the number.
const SCHEMA: &str = "adit.demo/1";

/// The result of one step.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    id: &'static str,
    what: &'static str,
    ok: bool,
    /// The figure for people, or the failure.
    figure: String,
    /// The figure for programs, when the step has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
}

/// One observed lifecycle transition.
#[derive(Debug, Serialize)]
struct SeenTransition {
    at_ms: u64,
    who: &'static str,
    what: String,
}

/// A figure that a step measured.
#[derive(Debug)]
pub(super) struct StepFigure {
    pub(super) text: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
}

impl StepFigure {
    pub(super) fn millis(time: Duration, text: impl Into<String>) -> Self {
        Self { text: text.into(), value: time.as_secs_f64() * 1e3, unit: "ms" }
    }
}

/// The report as it grows.
#[derive(Debug)]
pub(super) struct DemoReport {
    start: Instant,
    checks: Vec<Check>,
    transitions: Vec<SeenTransition>,
    bars: MultiProgress,
    live: bool,
}

#[derive(Serialize)]
struct DemoJson<'a> {
    schema: &'static str,
    version: &'static str,
    ok: bool,
    seconds: f64,
    checks: &'a [Check],
    transitions: &'a [SeenTransition],
}

impl DemoReport {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            checks: Vec::new(),
            transitions: Vec::new(),
            bars: MultiProgress::new(),
            live: io::stderr().is_terminal(),
        }
    }

    /// Returns true if every step succeeded, and there was one.
    pub(super) fn is_ok(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }

    /// Prints a line on stderr.
    pub(super) fn print_line(&self, line: &str) {
        let line = format!("{:7.3} s  {line}", self.start.elapsed().as_secs_f64());
        self.bars.suspend(|| eprintln!("{line}"));
    }

    /// Returns a progress bar for bytes, visible if stderr is a terminal.
    pub(super) fn bar(&self, what: &str, bytes: u64) -> ProgressBar {
        if !self.live {
            return ProgressBar::hidden();
        }
        let bar = self.bars.add(ProgressBar::new(bytes));
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }

    /// Records a lifecycle transition of a node.
    pub(super) fn on_transition(&mut self, who: &'static str, what: String) {
        self.print_line(&format!("{who}: {what}"));
        let at_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.transitions.push(SeenTransition { at_ms, who, what });
    }

    /// Records the end of a step. Returns true if it succeeded.
    pub(super) fn on_check(
        &mut self,
        id: &'static str,
        what: &'static str,
        result: anyhow::Result<StepFigure>,
    ) -> bool {
        let ok = result.is_ok();
        let check = match result {
            Ok(StepFigure { text, value, unit }) => {
                Check { id, what, ok: true, figure: text, value: Some(value), unit: Some(unit) }
            }
            Err(error) => {
                Check { id, what, ok: false, figure: format!("{error:#}"), value: None, unit: None }
            }
        };
        self.print_line(&format!("{} {what}: {}", if check.ok { "✓" } else { "✗" }, check.figure));
        self.checks.push(check);
        ok
    }

    /// Prints the report to stdout.
    ///
    /// # Errors
    /// If stdout is closed.
    pub(super) fn print(&self, json: bool) -> io::Result<()> {
        let text = if json { self.json()? } else { self.table(screen::is_coloured(&io::stdout())) };
        io::stdout().write_all(text.as_bytes())
    }

    fn json(&self) -> io::Result<String> {
        let mut text = serde_json::to_string_pretty(&DemoJson {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            ok: self.is_ok(),
            seconds: self.start.elapsed().as_secs_f64(),
            checks: &self.checks,
            transitions: &self.transitions,
        })?;
        text.push('\n');
        Ok(text)
    }

    pub(super) fn table(&self, colour: bool) -> String {
        let widest = self.checks.iter().map(|check| measure_text_width(check.what)).max();
        let width = widest.unwrap_or(0).max("what".len());
        let pad = |text: &str| pad_str(text, width, console::Alignment::Left, None).into_owned();
        let mut text = format!("{}  result    figure\n", pad("what"));
        for check in &self.checks {
            let (word, style) = match check.ok {
                true => ("verified", Style::new().green()),
                false => ("FAILED  ", Style::new().red()),
            };
            let word = style.force_styling(colour).apply_to(word);
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}  {word}  {}", pad(check.what), check.figure);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> DemoReport {
        let mut report = DemoReport::new();
        report.on_check("page", "a page", Ok(StepFigure::millis(Duration::from_millis(3), "3 ms")));
        report
    }

    #[test]
    fn a_report_holds_when_every_step_did_and_there_was_one() {
        assert!(!DemoReport::new().is_ok());
        let mut report = report();
        assert!(report.is_ok());
        report.on_check("large", "a large file", Err(anyhow::anyhow!("it broke off")));
        assert!(!report.is_ok());
    }

    #[test]
    fn the_table_aligns_and_the_json_is_versioned() {
        let mut report = report();
        report.on_transition("agent", "connecting → connected".into());
        report.on_check("large", "a large file", Err(anyhow::anyhow!("it broke off")));
        assert_eq!(
            report.table(false),
            "what          result    figure\n\
             a page        verified  3 ms\n\
             a large file  FAILED    it broke off\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["schema"], "adit.demo/1");
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][0]["unit"], "ms");
        assert_eq!(json["checks"][1]["ok"], false);
        assert_eq!(json["transitions"][0]["who"], "agent");
    }
}
