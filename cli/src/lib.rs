//! The program `adit`: reads what it is told to do, does it, and exits with a code that says how
//! it went. It decides nothing about the tunnel: that is `adit-core`'s.
//!
//! | folder | what is there |
//! |---|---|
//! | `args` | the command line |
//! | `config` | configuration files |
//! | `home` | the directory in which a person's identities live, and how files are written there |
//! | `mesh` | one's own certificate authority: devices, invites, revocation |
//! | `invite`, `enrol` | from a one-use text to a certificate, both ends |
//! | `relay`, `relays`, `registration` | a relay; attached to relays; registered at them |
//! | `carriers` | relays by TCP, where UDP is blocked |
//! | `check` | what a network allows |
//! | `ping`, `bench` | what a tunnel does, measured |
//! | `forward` | TCP and Unix sockets over the tunnel |
//! | `control` | how commands talk to an `adit` that runs on this machine |
//! | `status` | what runs on this machine, and by which paths, for people and for programs |
//!
//! The library is the program's own: it promises nothing to other crates. What tests and fuzzers need
//! of it is in `testing`.

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

use clap::Parser as _;

use crate::base::stop::{Exit, Stop};
use crate::base::{logging, output};
use crate::commands::Args;
use crate::homedir::Home;

/// Runs the program on the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    logging::start(args.verbose);
    let home = Home::find(args.home.as_deref());
    let result = runtime().and_then(|runtime| runtime.block_on(args.command.run(home)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            output::say(format_args!("adit: {stop}"));
            stop.exit().into()
        }
    }
}

/// One thread runs everything: measured, a tunnel on a runtime of several threads carries 0.74
/// times as much at 1.3 times the processor time.
fn runtime() -> Result<tokio::runtime::Runtime, Stop> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Stop::new(Exit::Degraded, format!("the system gave no event queue: {error}"))
    })
}
