//! Why the program stops: an exit code for scripts and a sentence for people. The mapping from the
//! tunnel's failures to exit codes is only here.

use std::fmt;
use std::process::ExitCode;

use adit_tokio::core::error::{Category, Failure};

/// The exit codes, which scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command line or the configuration has to change.
    Usage = 2,
    /// A certificate was rejected: retrying without a change cannot help.
    Authentication = 3,
    /// No answer: retrying later may help.
    Unreachable = 4,
    /// It runs, or ran, and some of it does not work.
    Degraded = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A cause that may pass by itself, as it often does while a machine boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// One of two clocks is wrong.
    Clock,
    /// This machine does not have the address yet.
    NoAddress,
    /// Another program has the port, such as one that is about to end.
    PortInUse,
}

/// The end of the program, other than by success.
#[derive(Debug, Clone)]
pub(crate) struct ExitError {
    exit: Exit,
    sentence: String,
    about_file: bool,
    obstacle: Option<Obstacle>,
}

impl ExitError {
    pub(crate) fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        let sentence = one_line(sentence.into());
        Self { exit, sentence, about_file: false, obstacle: None }
    }

    /// Returns an error for a mistake in the command line or the configuration.
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self::new(Exit::Usage, sentence)
    }

    /// Returns an error about an address that cannot be bound. If that may pass, a supervisor should
    /// start the program again.
    pub(crate) fn of_bind(error: &std::io::Error, sentence: impl Into<String>) -> Self {
        let obstacle = if error.kind() == std::io::ErrorKind::AddrNotAvailable {
            Obstacle::NoAddress
        } else if error.kind() == std::io::ErrorKind::AddrInUse {
            Obstacle::PortInUse
        } else {
            return Self::usage(sentence);
        };
        Self { obstacle: Some(obstacle), ..Self::new(Exit::Degraded, sentence) }
    }

    /// Returns the same, caused by what may pass by itself.
    pub(crate) fn because_of(self, obstacle: Obstacle) -> Self {
        Self { obstacle: Some(obstacle), ..self }
    }

    /// Returns the same about a file, where it is about the contents of one.
    pub(crate) fn within(self, path: &std::path::Path) -> Self {
        if self.about_file {
            let sentence = format!("{}: {}", path.display(), self.sentence);
            return Self { obstacle: self.obstacle, ..Self::new(self.exit, sentence) };
        }
        self
    }

    /// Returns the same with a hint of how this command avoids it.
    pub(crate) fn or_next(self, next: &str) -> Self {
        Self { sentence: format!("{}; {next}", self.sentence), ..self }
    }

    /// Returns an error for a mistake in a configuration, whichever file it came from.
    pub(crate) fn in_file(sentence: impl Into<String>) -> Self {
        Self { about_file: true, ..Self::usage(sentence) }
    }

    /// Returns true if the cause may be one of the two clocks.
    pub(crate) fn is_about_clock(&self) -> bool {
        self.obstacle == Some(Obstacle::Clock)
    }

    /// Returns the cause, if it may pass by itself.
    pub(crate) const fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }
}

/// A message may quote input from others: that must not move a terminal's cursor, nor look like
/// another line.
/// Returns true for characters that a terminal obeys or hides: controls, and those that change the
/// direction of text or take no space.
fn is_invisible(c: char) -> bool {
    adit_tokio::core::error::is_invisible(c)
}

fn one_line(sentence: String) -> String {
    if !sentence.contains(is_invisible) {
        return sentence;
    }
    let mut out = String::with_capacity(sentence.len() + 8);
    for c in sentence.chars() {
        if is_invisible(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for ExitError {}

impl From<Failure> for ExitError {
    fn from(failure: Failure) -> Self {
        let exit = match failure.category() {
            Category::Authentication => Exit::Authentication,
            Category::Configuration => Exit::Usage,
            Category::Network => Exit::Unreachable,
            Category::Server | Category::Protocol | Category::Unknown => Exit::Degraded,
        };
        let sentence = format!("{failure}; {}", next_step(&failure));
        let obstacle = is_about_clock(&failure).then_some(Obstacle::Clock);
        Self { obstacle, ..Self::new(exit, sentence) }
    }
}

/// Returns the next step after a failure.
pub(crate) fn next_step(failure: &Failure) -> &'static str {
    match is_about_clock(failure) {
        true => "set the clock that is wrong, or renew the certificate",
        false => failure.code().suggestion(),
    }
}

/// Returns true after a failure that may be caused by one of the two clocks.
pub(crate) fn is_about_clock(failure: &Failure) -> bool {
    failure.category() == Category::Authentication
        && [" clock", "expired"].iter().any(|word| failure.detail().contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_tokio::core::error::Code;

    #[test]
    fn a_refused_certificate_is_not_worth_a_retry_and_silence_is() {
        let exit = |code| ExitError::from(Failure::new(code, "why")).exit();
        assert_eq!(exit(Code::Unauthenticated), Exit::Authentication);
        assert_eq!(exit(Code::TimedOut), Exit::Unreachable);
        assert_eq!(exit(Code::VersionMismatch), Exit::Usage);
    }

    #[test]
    fn what_a_sentence_quotes_moves_no_cursor_and_begins_no_line() {
        let stop = ExitError::usage("\"a\nb\u{1b}[2J\u{9b}é\" is no name");
        assert_eq!(stop.to_string(), r#""a\nb\u{1b}[2J\u{9b}é" is no name"#);
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_leads_to_the_clocks() {
        let why = "the peer's certificate is not valid at the time of this clock";
        let stop = ExitError::from(Failure::new(Code::Unauthenticated, why));
        assert!(stop.is_about_clock());
        assert!(
            stop.to_string().ends_with("set the clock that is wrong, or renew the certificate")
        );
        assert!(!ExitError::from(Failure::new(Code::Unauthenticated, "why")).is_about_clock());
    }

    #[test]
    fn the_sentence_names_the_cause_and_the_next_step() {
        let stop = ExitError::from(Failure::new(Code::TimedOut, "no answer for 30 s"));
        assert_eq!(
            stop.to_string(),
            "timed_out: no answer for 30 s; check that the peer runs and that UDP reaches it"
        );
    }
}
