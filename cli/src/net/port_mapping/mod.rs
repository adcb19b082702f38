//! Makes the gateway of a home network map the node's socket (PCP, NAT-PMP, UPnP), so that peers
//! reach it where NATs prevent a direct path: requested in the background, kept, and released at
//! the end.
//!
//! It decides when a gateway is asked, and what its status is; no other part waits for it. A
//! gateway is not trusted: its answer is one more address that peers probe.

mod ask;
mod rules;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_tokio::core::drive::{Events, Handle};
use adit_tokio::core::event::Event;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub(crate) use self::ask::is_translated;
use self::ask::{MappingTarget, PortMapper, SystemGateway};
pub(crate) use self::rules::Protocol;
use self::rules::{Grant, again, plain, renewal};

/// How long to wait after a change of networks: addresses and routes change one after the other.
const SETTLED: Duration = Duration::from_secs(1);

/// How long the end of the program waits for the gateway to release a mapping.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum PortMappingState {
    /// No gateway was asked: no relay has seen a NAT yet, or it was switched off.
    #[default]
    NotAsked,
    /// This machine has no gateway, or no address that needs it.
    NotNeeded,
    /// No port is mapped; the result of each protocol.
    None { gateway: Ipv4Addr, why: Vec<String> },
    /// Peers outside reach the socket there.
    Mapped { protocol: Protocol, gateway: Ipv4Addr, external: SocketAddr },
}

impl PortMappingState {
    pub(crate) const fn external(&self) -> Option<SocketAddr> {
        match self {
            Self::Mapped { external, .. } => Some(*external),
            Self::NotAsked | Self::NotNeeded | Self::None { .. } => None,
        }
    }
}

impl fmt::Display for PortMappingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("not asked for: no relay sees a NAT here"),
            Self::NotNeeded => f.write_str("not asked for: no gateway, or no private address"),
            Self::None { gateway, why } => {
                write!(f, "none by the gateway {gateway}: {}", why.join("; "))
            }
            Self::Mapped { protocol, gateway, external } => {
                write!(f, "{external} leads here, by {protocol} of the gateway {gateway}")
            }
        }
    }
}

/// The present state of a node's gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortMappingStatus(Arc<Mutex<PortMappingState>>);

impl PortMappingStatus {
    pub(crate) fn get(&self) -> PortMappingState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: PortMappingState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Keeps a node's socket mapped for as long as this lives, and then releases the mapping in the
/// background.
#[derive(Debug)]
pub(crate) struct PortMappingTask {
    stop: watch::Sender<bool>,
    /// Closed once there is no mapping left to release.
    done: watch::Receiver<()>,
}

impl PortMappingTask {
    /// Starts once a relay sees the node, with its socket bound to `bound`, behind a NAT; without
    /// relays, now. `changed` reports other networks.
    pub(crate) fn start(
        (handle, bound): (Handle, SocketAddr),
        port_mapping: PortMappingStatus,
        changed: watch::Receiver<()>,
        has_relays: bool,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (is_done, done) = watch::channel(());
        let events = handle.events();
        tokio::spawn(async move {
            let _is_done = is_done;
            let mut signals = Interrupts { stopped, changed };
            let is_behind = async { !has_relays || is_behind_nat(events).await };
            let is_behind = tokio::select! {
                is_behind = is_behind => is_behind,
                () = signals.stop() => false,
            };
            if is_behind {
                let mapper = SystemGateway { bound };
                keep(&mapper, &mut signals, |state| publish(&handle, &port_mapping, state)).await;
            }
        });
        Self { stop, done }
    }

    /// Makes the gateway release its mapping, for a moment at most.
    pub(crate) async fn release(&self) {
        self.stop.send_replace(true);
        let mut done = self.done.clone();
        let over = async { while done.changed().await.is_ok() {} };
        let _ = timeout(RELEASE_TIMEOUT, over).await;
    }
}

/// Maps a socket for a moment, to determine whether the gateway would.
pub(crate) async fn probe(bound: SocketAddr) -> PortMappingState {
    let mapper = SystemGateway { bound };
    let Some(target) = mapper.target() else { return PortMappingState::NotNeeded };
    match first(&mapper, target).await {
        Ok((held, state, _)) => {
            mapper.close(held).await;
            state
        }
        Err(state) => state,
    }
}

fn publish(handle: &Handle, port_mapping: &PortMappingStatus, state: PortMappingState) {
    match &state {
        PortMappingState::Mapped { .. } => tracing::info!("port mapping: {state}"),
        PortMappingState::NotAsked
        | PortMappingState::NotNeeded
        | PortMappingState::None { .. } => {
            tracing::debug!("port mapping: {state}");
        }
    }
    handle.set_mapped_addresses(state.external().into_iter().collect());
    port_mapping.set(state);
}

/// Waits for a relay that sees the socket at an address that is not this machine's. Returns true if
/// one did before the node ended.
async fn is_behind_nat(mut events: Events) -> bool {
    while let Some(event) = events.next().await {
        if let Event::Observed { address, .. } = event
            && is_translated(address)
        {
            return true;
        }
    }
    false
}

/// What interrupts the loop.
struct Interrupts {
    stopped: watch::Receiver<bool>,
    changed: watch::Receiver<()>,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    Due,
    Changed,
    Stopped,
}

impl Interrupts {
    /// Completes when it is to end.
    async fn stop(&mut self) {
        // If the sender is dropped, it is to end as well.
        let _ = self.stopped.wait_for(|is_stopped| *is_stopped).await;
    }

    async fn wait(&mut self, due: Option<Instant>) -> Wake {
        let Self { stopped, changed } = self;
        let due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let change = async {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            _ = stopped.wait_for(|is_stopped| *is_stopped) => return Wake::Stopped,
            () = change => {}
            () = due => return Wake::Due,
        }
        tokio::select! {
            _ = stopped.wait_for(|is_stopped| *is_stopped) => Wake::Stopped,
            () = sleep(SETTLED) => Wake::Changed,
        }
    }
}

/// Asks until a port is mapped, keeps the mapping, and begins again when it is lost or the network
/// changes.
async fn keep<A: PortMapper>(
    mapper: &A,
    signals: &mut Interrupts,
    publish: impl Fn(PortMappingState),
) {
    let mut failures = 0;
    loop {
        let due = match mapper.target() {
            None => {
                publish(PortMappingState::NotNeeded);
                None
            }
            Some(target) => match first(mapper, target).await {
                Ok((held, state, grant)) => {
                    failures = 0;
                    publish(state.clone());
                    if hold(mapper, target, (held, state, grant), signals, &publish).await
                        == Wake::Stopped
                    {
                        return;
                    }
                    continue;
                }
                Err(state) => {
                    publish(state);
                    failures += 1;
                    Some(Instant::now() + again(failures))
                }
            },
        };
        match signals.wait(due).await {
            Wake::Stopped => return,
            Wake::Changed => failures = 0,
            Wake::Due => {}
        }
    }
}

/// Returns the mapping of the first protocol that grants a useful one, or the result of each.
async fn first<A: PortMapper>(
    mapper: &A,
    target: MappingTarget,
) -> Result<(A::Held, PortMappingState, Grant), PortMappingState> {
    let gateway = target.gateway;
    let mut why = Vec::new();
    for protocol in Protocol::ORDER {
        let refused = match mapper.open(protocol, target).await {
            Ok((held, grant)) => match grant.checked() {
                Ok(grant) => {
                    let external = grant.external;
                    return Ok((
                        held,
                        PortMappingState::Mapped { protocol, gateway, external },
                        grant,
                    ));
                }
                Err(refused) => {
                    mapper.close(held).await;
                    refused
                }
            },
            Err(failed) => failed,
        };
        why.push(format!("{protocol}: {}", plain(&refused)));
    }
    Err(PortMappingState::None { gateway, why })
}

/// Renews a mapping until it is lost, the network changes, or it is to end; then it is released.
async fn hold<A: PortMapper>(
    mapper: &A,
    target: MappingTarget,
    (mut held, mut state, grant): (A::Held, PortMappingState, Grant),
    signals: &mut Interrupts,
    publish: &impl Fn(PortMappingState),
) -> Wake {
    let mut ends = Instant::now() + grant.lifetime;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        let due = renewal(left).map_or(ends, |wait| Instant::now() + wait);
        let wake = signals.wait(Some(due)).await;
        let is_over = match wake {
            Wake::Stopped => true,
            Wake::Changed => mapper.target() != Some(target),
            Wake::Due => Instant::now() >= ends,
        };
        if is_over {
            publish(PortMappingState::NotAsked);
            mapper.close(held).await;
            return wake;
        }
        let renewed = mapper.renew(&mut held).await.and_then(Grant::checked);
        match (renewed, &mut state) {
            (Ok(grant), PortMappingState::Mapped { external, .. }) => {
                ends = Instant::now() + grant.lifetime;
                if *external != grant.external {
                    *external = grant.external;
                    publish(state.clone());
                }
            }
            (Ok(_), _) => {}
            (Err(why), _) => tracing::debug!("the port mapping is not renewed: {}", plain(&why)),
        }
    }
}

#[cfg(test)]
mod tests;
