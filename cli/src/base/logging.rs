//! Sends logs to stderr, always, since stdout is for data. It never decides what is logged.

use tracing_subscriber::EnvFilter;

use super::screen;

/// Starts logging; `RUST_LOG` takes precedence over `verbosity`.
pub(crate) fn start(verbosity: u8) {
    let default = match verbosity {
        // A target includes all that begin with it. The program logs the core's events itself.
        0 => "warn,adit=info,adit_core=warn,adit_tokio=warn",
        1 => "info,adit=debug,adit_core=debug,adit_tokio=debug",
        _ => "debug,adit=trace,adit_core=trace,adit_tokio=trace",
    };
    // An empty variable is no filter: it would silence warnings too.
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|it| !it.trim().is_empty());
    let filter = wanted
        .and_then(|wanted| EnvFilter::try_new(wanted).ok())
        .unwrap_or_else(|| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(screen::is_coloured(&std::io::stderr()))
        .with_target(verbosity > 0)
        // A line that cannot be written is lost; a report of it would be another.
        .log_internal_errors(false)
        .init();
}
