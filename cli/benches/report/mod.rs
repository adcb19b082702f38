//! Figures of all rounds: their medians, and the ratio of the two systems.
//!
//! It decides how figures are combined and printed. It never judges them.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::tunnel::System;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One number of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    unit: &'static str,
    better: Better,
    value: f64,
}

impl Figure {
    pub(crate) const fn new(unit: &'static str, better: Better, value: f64) -> Self {
        Self { unit, better, value }
    }
}

pub(crate) struct Report {
    systems: Vec<System>,
    window: Duration,
    rows: Vec<Row>,
    failures: Vec<String>,
}

/// One figure of one measure, over all rounds.
struct Row {
    measure: String,
    unit: &'static str,
    better: Better,
    /// By system, then by round.
    samples: Vec<Vec<f64>>,
}

impl Row {
    fn medians(&self) -> impl Iterator<Item = f64> {
        self.samples.iter().map(|samples| median(samples.clone()))
    }

    /// Returns the median, over the rounds, of the second system's figure divided by that of the
    /// first.
    fn ratio(&self) -> Option<f64> {
        let [first, second] = self.samples.as_slice() else { return None };
        Some(median(first.iter().zip(second).map(|(first, second)| second / first).collect()))
    }
}

impl Report {
    pub(crate) const fn new(systems: Vec<System>, window: Duration) -> Self {
        Self { systems, window, rows: Vec::new(), failures: Vec::new() }
    }

    pub(crate) const fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Adds one round of a measure: the figures of each system, in the order of the systems. A
    /// round in which one of them failed counts for neither.
    pub(crate) fn add(&mut self, measure: &str, round: Vec<Result<Vec<Figure>>>) {
        let mut by_system = Vec::new();
        for (system, figures) in self.systems.iter().zip(round) {
            match figures {
                Ok(figures) => by_system.push(figures),
                Err(e) => {
                    let failure = format!("{measure}: {}: {e:#}", system.as_str());
                    eprintln!("{failure}");
                    self.failures.push(failure);
                }
            }
        }
        if by_system.len() < self.systems.len() {
            return;
        }
        for (system, figures) in by_system.iter().enumerate() {
            for figure in figures {
                self.row(measure, figure).samples[system].push(figure.value);
            }
        }
    }

    fn row(&mut self, measure: &str, figure: &Figure) -> &mut Row {
        let known = |row: &Row| row.measure == measure && row.unit == figure.unit;
        let at = self.rows.iter().position(known).unwrap_or_else(|| {
            self.rows.push(Row {
                measure: measure.to_owned(),
                unit: figure.unit,
                better: figure.better,
                samples: vec![Vec::new(); self.systems.len()],
            });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    pub(crate) fn to_table(&self) -> String {
        let mut out = format!("{:<30}{:<14}", "measure", "figure");
        for system in &self.systems {
            let _ = write!(out, "{:>12}", system.as_str());
        }
        if self.systems.len() == 2 {
            let _ = write!(out, "{:>10}  better", "ratio");
        }
        out.push('\n');
        for row in &self.rows {
            let _ = write!(out, "{:<30}{:<14}", row.measure, row.unit);
            for median in row.medians() {
                let _ = write!(out, "{:>12}", digits(median));
            }
            if let Some(ratio) = row.ratio() {
                let _ = write!(out, "{ratio:>10.2}  {}", row.better.as_str());
            }
            out.push('\n');
        }
        for failure in &self.failures {
            let _ = writeln!(out, "FAILED {failure}");
        }
        out
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let systems: Value = self
                    .systems
                    .iter()
                    .zip(row.medians().zip(&row.samples))
                    .map(|(system, (median, samples))| {
                        (system.as_str().to_owned(), json!({"median": median, "samples": samples}))
                    })
                    .collect();
                json!({
                    "measure": row.measure,
                    "figure": row.unit,
                    "better": row.better.as_str(),
                    "systems": systems,
                    "ratio": row.ratio(),
                })
            })
            .collect();
        let report = json!({
            "window_seconds": self.window.as_secs_f64(),
            "measures": rows,
            "failures": self.failures,
        });
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }
}

impl Better {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        }
    }
}

/// Returns the middle of an odd number of values, the upper of the two middle ones otherwise.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns a number with about three significant digits.
fn digits(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
