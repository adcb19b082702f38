//! Sentences about who can reach whom: what a target lacks, from where a connector is reached, and
//! why a device may not reach one. They decide nothing else.

use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::address::{Backend, RelayAddress, is_private};
use crate::config::RemoteConnector;

/// What to do behind a home router, as the README has it.
const ROUTER: &str = "let the router forward its UDP port and name that with --advertise, or use a \
                      relay (README, \"Behind a home router\")";

/// Returns a warning if nothing listens at a target of this machine. No connection is made: it
/// would be the only one that a simple service accepts.
pub(super) async fn missing(target: &Backend) -> Option<String> {
    let is_missing = match target {
        Backend::Tcp(at) => {
            let addresses = at.resolve().await.unwrap_or_default();
            let is_free = |at: &SocketAddr| at.ip().is_loopback() && TcpListener::bind(at).is_ok();
            addresses.iter().any(is_free)
                && addresses.iter().all(|at| is_free(at) || !has_family(at))
        }
        #[cfg(unix)]
        Backend::Unix(path) => !path.exists(),
    };
    is_missing.then(|| format!("Nothing listens at {target} yet; start the service there."))
}

/// Returns true if this machine has the loopback address of a family.
fn has_family(at: &SocketAddr) -> bool {
    TcpListener::bind((at.ip(), 0)).is_ok()
}

/// Returns from where a connector can be reached, and what to do for others.
pub(super) fn from_where(addresses: &[String], relays: &[RelayAddress]) -> String {
    if let Some(relay) = relays.first() {
        return format!("It can be reached from everywhere that reaches the relay {}.", relay.at);
    }
    let (mut public, mut private) = (Vec::new(), Vec::new());
    for address in addresses {
        let ip = address.parse::<SocketAddr>().map(|address| address.ip());
        match ip.is_ok_and(is_private) {
            true => private.push(address.as_str()),
            false => public.push(address.as_str()),
        }
    }
    match (public.as_slice(), private.as_slice()) {
        ([], []) => format!("It has no address that others can reach; {ROUTER}."),
        ([], private) => format!(
            "It can be reached in this network only, at {}; for other networks {ROUTER}.",
            private.join(", ")
        ),
        (public, _) => {
            format!("It can be reached at {}, if firewalls let UDP through.", public.join(", "))
        }
    }
}

/// Returns what a device dials.
pub(super) fn dialled(remote: &RemoteConnector) -> String {
    let relays = remote.relays.iter().map(|relay| format!("the relay {}", relay.at));
    let all: Vec<_> = relays.chain(remote.addresses.iter().map(ToString::to_string)).collect();
    format!("Connecting to {}", all.join(", "))
}

/// Returns what a device without a connection can check.
pub(super) fn hint(remote: &RemoteConnector) -> String {
    if let Some(relay) = remote.relays.first() {
        return format!(
            "no connection yet: check that the relay runs and that this network lets UDP or TLS \
             through: adit check {}",
            relay.at
        );
    }
    let ips: Vec<Option<IpAddr>> =
        remote.addresses.iter().map(|at| at.host().parse().ok()).collect();
    if ips.iter().all(|ip| ip.is_some_and(|ip| ip.is_loopback())) {
        return "no connection yet: the address is of the machine that exposes, so that only it \
                reaches itself; check that adit runs there"
            .to_owned();
    }
    if ips.iter().all(|ip| ip.is_some_and(is_private)) {
        return format!(
            "no connection yet: the addresses are private, so that only machines of that network \
             reach them; from elsewhere, on the machine that exposes, {ROUTER}"
        );
    }
    "no connection yet: check that adit runs on the other machine, that its firewall and its \
     router let this UDP port in, and that this network lets UDP out: adit check"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::HostPort;

    fn remote(addresses: &[&str]) -> RemoteConnector {
        let at = |text: &&str| HostPort::try_from((*text).to_owned()).unwrap().into();
        RemoteConnector::at(addresses.iter().map(at).collect(), "connector".into())
    }

    #[test]
    fn private_addresses_lead_to_the_router_and_others_to_firewalls() {
        let from = |all: &[&str]| {
            from_where(&all.iter().map(|&it| it.to_owned()).collect::<Vec<_>>(), &[])
        };
        let private = from(&["192.168.1.9:4433", "[fd00::9]:4433"]);
        assert!(private.contains("in this network only, at 192.168.1.9:4433, [fd00::9]:4433; "));
        assert!(private.contains("--advertise") && private.contains("Behind a home router"));
        let public = from(&["192.168.1.9:4433", "203.0.113.7:4433"]);
        assert!(public.contains("reached at 203.0.113.7:4433, if"), "{public}");
        assert!(from(&["100.64.0.1:4433"]).contains("in this network only"));
        assert!(from(&["home.example:4433"]).contains("reached at home.example:4433"));
        assert!(from(&[]).contains("no address"));
    }

    #[test]
    fn a_hint_fits_the_addresses() {
        assert!(hint(&remote(&["192.168.1.9:4433"])).contains("addresses are private"));
        assert!(hint(&remote(&["127.0.0.1:4433"])).contains("only it reaches itself"));
        let far = remote(&["192.168.1.9:4433", "home.example:4433"]);
        assert!(hint(&far).contains("its firewall"));
        assert_eq!(dialled(&far), "Connecting to 192.168.1.9:4433, home.example:4433");
    }

    #[tokio::test]
    async fn a_target_without_a_listener_is_missing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(missing(&port.to_string().parse().unwrap()).await, None);
        drop(listener);
        let said = missing(&port.to_string().parse().unwrap()).await.unwrap();
        assert_eq!(
            said,
            format!("Nothing listens at localhost:{port} yet; start the service there.")
        );
        assert_eq!(missing(&"192.0.2.7:9".parse().unwrap()).await, None);
    }
}
