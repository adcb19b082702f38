//! Many addresses, one connection: they are dialled one after another, a little apart, and the first
//! that connects is kept (RFC 8305). It decides the distance, and [`names`](crate::names) the order; what a connection is for
//! is its caller's business.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::drive::{Events, Peer};
use adit_tokio::core::error::{Category, Failure};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::lifecycle;
use crate::node::{self, Node};
use crate::stop::Stop;

/// How long an address is alone before the next is dialled beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// One address being dialled, or connected.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) node: Node,
    pub(crate) peer: Peer,
    pub(crate) events: Events,
    /// When it was dialled.
    pub(crate) since: Instant,
}

/// Why no address is connected.
#[derive(Debug)]
pub(crate) enum Defeat {
    /// All were given up, and this is the most telling reason.
    Failed(Failure),
    /// This machine cannot dial, or was told something that cannot be dialled.
    Stopped(Stop),
}

/// Dials one address, from a node of its own.
///
/// # Errors
/// When the name or the address cannot be dialled.
pub(crate) fn dial(core: &Config, name: &str, address: SocketAddr) -> Result<Attempt, Stop> {
    let node = node::start(node::local_for(address), core.clone())?;
    let events = node.handle.events();
    let since = Instant::now();
    let peer = node.handle.dial(Dial::new(address, name)).map_err(|error| {
        Stop::usage(format!("the connector \"{name}\" at {address}: {error}; correct it"))
    })?;
    tracing::debug!(%address, "dialling");
    Ok(Attempt { node, peer, events, since })
}

/// Dials the addresses, each once and in this order, until one is connected. Where there is but one, there is nothing to wait for,
/// and its attempt is given as it is. This machine may lack a family, which is no failure as long as
/// there is another.
///
/// # Errors
/// Why none is connected.
pub(crate) async fn race(
    core: &Config,
    name: &str,
    addresses: &[SocketAddr],
) -> Result<Attempt, Defeat> {
    if let [only] = addresses {
        return dial(core, name, *only).map_err(Defeat::Stopped);
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut rest: VecDeque<_> = addresses.iter().copied().filter(|it| seen.insert(*it)).collect();
    let (is_over, over) = watch::channel(false);
    let mut running = JoinSet::new();
    let mut defeat = None;
    loop {
        if let Some(address) = rest.pop_front() {
            match dial(core, name, address) {
                Ok(attempt) => drop(running.spawn(run(attempt, address, over.clone()))),
                Err(stop) => {
                    defeat.get_or_insert(Defeat::Stopped(stop));
                    continue;
                }
            }
        }
        let is_last = rest.is_empty();
        let ended = tokio::select! {
            ended = running.join_next() => ended,
            () = tokio::time::sleep(HEAD_START), if !is_last => continue,
        };
        match ended {
            Some(Ok(Ok(winner))) => {
                is_over.send_replace(true);
                running.detach_all();
                return Ok(winner);
            }
            Some(Ok(Err(failure))) => defeat = Some(worse(defeat, failure)),
            // A task that was aborted: nobody does that while the race goes on.
            Some(Err(_)) => {}
            None if is_last => {
                let nothing = || Defeat::Stopped(Stop::usage("the connector has no address"));
                return Err(defeat.unwrap_or_else(nothing));
            }
            None => {}
        }
    }
}

/// Follows one attempt until it is connected, is given up, or another has won.
async fn run(
    mut attempt: Attempt,
    address: SocketAddr,
    mut over: watch::Receiver<bool>,
) -> Result<Attempt, Failure> {
    let lost = Failure::new(adit_tokio::core::error::Code::Cancelled, "another address won");
    let peer = attempt.peer.clone();
    let connected = peer.connected();
    tokio::pin!(connected);
    loop {
        tokio::select! {
            biased;
            result = &mut connected => return match result {
                Ok(()) => Ok(attempt),
                Err(failure) => {
                    tracing::debug!(%address, %failure, "given up");
                    Err(failure)
                }
            },
            Some(event) = attempt.events.next() => {
                if let Some(line) = lifecycle::line(&event) {
                    tracing::debug!(%address, "{line}");
                }
            }
            _ = over.changed() => {
                attempt.node.retire();
                return Err(lost);
            }
        }
    }
}

/// Of two reasons the one that a person can do something about: being refused says more than
/// silence, which another address may well give.
fn worse(before: Option<Defeat>, now: Failure) -> Defeat {
    match before {
        Some(Defeat::Failed(before)) if before.category() == Category::Authentication => {
            Defeat::Failed(before)
        }
        Some(Defeat::Failed(_) | Defeat::Stopped(_)) | None => Defeat::Failed(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::authority::Authority;

    const SOON: Duration = Duration::from_secs(5);

    /// A connector that listens on `address`, and what an agent of it dials with.
    fn pair(address: SocketAddr) -> (Node, Config) {
        let authority = Authority::new().unwrap();
        let config = |name, listening| {
            let tls = authority.device(name).unwrap();
            Config::builder(tls).listening(listening).build().unwrap()
        };
        (node::start(address, config("connector", true)).unwrap(), config("agent", false))
    }

    /// Two addresses of which one has nobody behind it.
    fn addresses() -> (SocketAddr, SocketAddr) {
        let v4 = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (v4, SocketAddr::new("::1".parse().unwrap(), v4.port()))
    }

    async fn winner(core: &Config, addresses: &[SocketAddr]) -> SocketAddr {
        let race = race(core, "connector", addresses);
        let attempt = tokio::time::timeout(SOON, race).await.unwrap().unwrap();
        tokio::time::timeout(SOON, attempt.peer.connected()).await.unwrap().unwrap();
        attempt.peer.remote().unwrap()
    }

    #[tokio::test]
    async fn the_other_family_wins_when_the_preferred_one_is_silent() {
        let (v4, v6) = addresses();
        let (_connector, core) = pair(v4);
        assert_eq!(winner(&core, &[v6, v6, v4]).await, v4);
    }

    #[tokio::test]
    async fn the_preferred_family_wins_when_both_answer() {
        let (v4, v6) = addresses();
        let (_connector, core) = pair(v4);
        assert_eq!(winner(&core, &[v4, v6]).await, v4);
    }

    #[tokio::test]
    async fn the_last_of_many_wins_when_all_others_are_silent() {
        let (v4, _) = addresses();
        let (_connector, core) = pair(v4);
        let silent: Vec<_> =
            (0..3).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut all: Vec<_> = silent.iter().map(|s| s.local_addr().unwrap()).collect();
        all.push(v4);
        assert_eq!(winner(&core, &all).await, v4);
    }

    #[tokio::test]
    async fn a_stranger_on_one_address_does_not_end_the_race() {
        let ((v4, _), (other, _)) = (addresses(), addresses());
        let (_stranger, _) = pair(other);
        let (_connector, core) = pair(v4);
        assert_eq!(winner(&core, &[other, v4]).await, v4);
    }

    #[tokio::test]
    async fn strangers_on_all_addresses_are_what_the_race_is_lost_to() {
        let ((one, _), (other, _)) = (addresses(), addresses());
        let ((_a, _), (_b, core)) = (pair(one), pair(other));
        let authority = Authority::new().unwrap();
        let core = core.with_tls(authority.device("agent").unwrap());
        let both = [one, other];
        let lost = tokio::time::timeout(SOON, race(&core, "connector", &both)).await.unwrap();
        let Err(Defeat::Failed(failure)) = lost else { panic!("somebody won") };
        assert_eq!(failure.category(), Category::Authentication);
    }

    #[tokio::test]
    async fn one_address_is_not_waited_for() {
        let (v4, _) = addresses();
        let (connector, core) = pair(v4);
        connector.driver.abort().await;
        let only = [v4];
        let race = race(&core, "connector", &only);
        assert!(tokio::time::timeout(SOON, race).await.unwrap().is_ok());
    }
}
