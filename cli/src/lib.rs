//! The program `adit`: parses the command line, runs one command, and exits with a code that
//! scripts can use. Decisions about the tunnel are `adit-core`'s.
//!
//! A module names only modules of lower layers, and modules of one layer do not know each other
//! (`tests/layers.rs`).
//!
//! | layer | module | what is there |
//! |---|---|---|
//! | 8 | `commands` | one file for each command: its arguments and what it does |
//! | 7 | `roles` | agent, connector, relay, and what connects once: composition alone |
//! | 7 | `diagnose` | what a network allows |
//! | 6 | `forward` | TCP and Unix sockets over the tunnel: `ingress` and `egress` |
//! | 6 | `enrol` | from an invite to a certificate, and to the next one |
//! | 6 | `observe` | what a running process reports, and how it is shown |
//! | 5 | `net` | nodes, names, dialling, relays, the TCP fallback, port mapping |
//! | 4 | `identity` | this machine's mesh, its memberships, invites, and the files of each |
//! | 3 | `config` | configuration files |
//! | 3 | `control` | how commands talk to an `adit` that runs on this machine |
//! | 2 | `homedir` | where files are kept, and how they are written |
//! | 1 | `address` | how endpoints are written |
//! | 0 | `base` | exit codes, output, units, tasks, signals, logging, random bytes |
//!
//! The library is internal to the program: it has no stable interface for other crates. `testing`
//! has what tests and fuzzers need of it.

mod address;
mod base;
mod commands;
mod config;
mod control;
mod diagnose;
mod enrol;
mod forward;
mod homedir;
mod identity;
mod net;
mod observe;
mod roles;
#[doc(hidden)]
pub mod testing;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use crate::base::exit::{Exit, ExitError};
use crate::base::{descriptors, logging, output};
use crate::commands::Args;
use crate::homedir::Home;

/// How long the end of the program waits for a call to a disk or a resolver that does not answer.
/// What is written is complete or not there, so that it may be cut short.
const DISK_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the program on the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    logging::start(args.verbose);
    descriptors::raise();
    let home = Home::find(args.home.as_deref());
    let result = runtime().and_then(|runtime| {
        let result = runtime.block_on(args.command.run(home));
        runtime.shutdown_timeout(DISK_TIMEOUT);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            output::message(format_args!("adit: {stop}"));
            stop.exit().into()
        }
    }
}

/// One thread runs everything: measured, a tunnel on a runtime of several threads transfers 0.74
/// times as much at 1.3 times the processor time.
fn runtime() -> Result<tokio::runtime::Runtime, ExitError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        ExitError::new(Exit::Degraded, format!("cannot create the async runtime: {error}"))
    })
}
