//! How long a connection stands still after an outage, with the real program: from the end of the
//! outage to the next byte of an echo that never stops asking.
//!
//! It decides what is cut and for how long. `ADIT_LAB_RUNS` sets how often each case is repeated, and
//! prints the distribution of each; without it each is tried once.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::nat::Kind;
use super::net::{Net, Site};
use super::stage::{Party, PathClass, Stage, USUAL_LIMIT, connected, public_connector};

const SECOND: Duration = Duration::from_secs(1);
const OUTAGE: Duration = Duration::from_secs(10);

/// The time between two questions: it bounds what is measured from below.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The longest standstill that passes, beside the load of other tests. The figures that are aimed at
/// are in docs/benchmarks.md.
const BOUND: Duration = Duration::from_secs(6);

/// A connection through the tunnel that asks all the time.
pub(crate) struct Pulse {
    tcp: TcpStream,
    answers: mpsc::Receiver<Instant>,
}

impl Pulse {
    pub(crate) fn start(site: &Site, address: SocketAddr) -> Self {
        let tcp = site.host.enter(|| TcpStream::connect(address).unwrap());
        let (mut from, mut to) = (tcp.try_clone().unwrap(), tcp.try_clone().unwrap());
        let (heard, answers) = mpsc::channel();
        thread::spawn(move || {
            while to.write_all(b"?").is_ok() {
                thread::sleep(ASK_EVERY);
            }
        });
        thread::spawn(move || {
            while from.read(&mut [0; 1_024]).is_ok_and(|count| count > 0) {
                if heard.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Self { tcp, answers }
    }

    /// Forgets the answers so far.
    fn forget(&self) {
        while self.answers.try_recv().is_ok() {}
    }

    /// Returns true if no answer came since [`Pulse::forget`].
    fn is_silent(&self) -> bool {
        self.answers.try_recv().is_err()
    }

    /// Waits for an answer after `since`. Returns how long it took.
    pub(crate) fn after(&self, since: Instant) -> Duration {
        loop {
            let at = self.answers.recv_timeout(60 * SECOND).expect("nothing for a minute");
            if at > since {
                return at - since;
            }
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let _ = self.tcp.shutdown(std::net::Shutdown::Both);
    }
}

/// What is out.
#[derive(Debug, Clone, Copy)]
enum Out {
    Cable,
    BeyondTheRouter,
}

fn runs() -> usize {
    std::env::var("ADIT_LAB_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1)
}

/// Cuts a link for a while, again and again, and checks how long nothing comes after each time.
fn check(mode: &str, site: &Site, address: SocketAddr) {
    let pulse = Pulse::start(site, address);
    pulse.after(Instant::now());
    for out in [Out::Cable, Out::BeyondTheRouter] {
        let mut all: Vec<_> = (0..runs())
            .map(|_| {
                match out {
                    Out::Cable => site.unplug(),
                    Out::BeyondTheRouter => site.block_all(),
                }
                thread::sleep(SECOND);
                pulse.forget();
                thread::sleep(OUTAGE - SECOND);
                assert!(pulse.is_silent(), "{mode}, {out:?}: answers arrive during the outage");
                let end = Instant::now();
                match out {
                    Out::Cable => site.replug(),
                    Out::BeyondTheRouter => site.allow_all(),
                }
                let standstill = pulse.after(end);
                // What the outage changed settles before the next one.
                thread::sleep(5 * SECOND);
                standstill
            })
            .collect();
        all.sort();
        let at = |percent: usize| all[(all.len() * percent).div_ceil(100).max(1) - 1];
        println!("{mode}, {out:?}: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
        assert!(at(100) < BOUND, "{mode}, {out:?}: {all:?}");
    }
}

#[test]
fn a_direct_path_carries_soon_after_an_outage_of_ten_seconds() {
    let Some(mut stage) = Stage::new() else { return };
    let (_connector, agent, address) = connected(&mut stage, [Kind::PortRestricted; 2]);
    agent.goes(PathClass::Direct, USUAL_LIMIT);
    check("direct", &agent.site, address);
}

#[test]
fn a_relayed_path_carries_soon_after_an_outage_of_ten_seconds() {
    let Some(mut stage) = Stage::new() else { return };
    let (_connector, agent, address) = connected(&mut stage, [Kind::Symmetric; 2]);
    agent.goes(PathClass::Relayed, USUAL_LIMIT);
    check("relayed", &agent.site, address);
}

#[test]
fn a_connection_without_a_relay_carries_soon_after_an_outage_of_ten_seconds() {
    let Some(mut net) = Net::new() else { return };
    let (_server, _web, _connector, invite) = public_connector(&mut net);
    let mut agent = Party::at(net.site(0, Kind::PortRestricted));
    let address = agent.connect(&invite);
    check("plain", &agent.site, address);
}
