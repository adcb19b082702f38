//! The networks that this machine is on: its own addresses, and which of them another machine could
//! reach. It decides which addresses are advertised; its callers decide to which peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use adit_tokio::core::drive::Handle;
use tokio::sync::{mpsc, watch};

use crate::base::task::Background;

/// Length of the queue of changes: each only means that the addresses must be read again.
const CHANGES: usize = 1;

/// Most addresses of this machine that are advertised: peers probe pairs of them, so that the cost
/// grows with the square. A machine with containers has dozens of bridges that lead nowhere.
const MAX_ADVERTISED: usize = 8;

/// Returns every address of this machine: those that it sends from to the Internet first, those of
/// bridges and of links without a carrier last.
pub(crate) fn addresses() -> Vec<IpAddr> {
    match netwatcher::list_interfaces() {
        Ok(interfaces) => {
            let mut all: Vec<_> = interfaces.into_values().collect();
            all.sort_by_key(|interface| (leads_nowhere(&interface.name), interface.index));
            let mut all: Vec<_> = all
                .into_iter()
                .flat_map(|interface| interface.ips)
                .map(|record| record.ip)
                .collect();
            let default = default_sources();
            all.sort_by_key(|ip| !default.contains(ip));
            all
        }
        Err(error) => {
            tracing::warn!(
                "the addresses of this machine cannot be read: {error}; name one with --advertise"
            );
            Vec::new()
        }
    }
}

/// Returns the addresses from which the system sends to the Internet, by its routes. Nothing is sent:
/// a UDP socket that is connected has the source that a packet would have.
fn default_sources() -> Vec<IpAddr> {
    // Addresses of documentation (RFC 5737, RFC 3849), which only a default route covers.
    let v4 = (Ipv4Addr::UNSPECIFIED.into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into());
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let v6 = (Ipv6Addr::UNSPECIFIED.into(), (documentation, 9).into());
    let source = |(local, remote): (IpAddr, SocketAddr)| {
        let socket = UdpSocket::bind((local, 0)).ok()?;
        socket.connect(remote).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    [v4, v6].into_iter().filter_map(source).collect()
}

/// Returns true if this machine sends to the Internet by IPv6, and has no route for IPv4.
pub(crate) fn has_ipv6_alone() -> bool {
    let sources = default_sources();
    !sources.is_empty() && sources.iter().all(IpAddr::is_ipv6)
}

/// Returns true for a bridge and for a link without a carrier, where the system shows it: other
/// machines are rarely reached through them.
fn leads_nowhere(interface: &str) -> bool {
    let of_kernel = Path::new("/sys/class/net").join(interface);
    let has_no_carrier = || {
        std::fs::read_to_string(of_kernel.join("carrier"))
            .is_ok_and(|carrier| carrier.trim() == "0")
    };
    of_kernel.join("bridge").exists() || has_no_carrier()
}

/// Returns the addresses that another machine could reach, at most [`MAX_ADVERTISED`] in the order
/// given. If there is none, it returns the loopback addresses.
pub(crate) fn reachable(all: Vec<IpAddr>, only_ipv4: bool) -> Vec<IpAddr> {
    let is_usable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_link_local(),
        // A link-local address has no meaning without the name of an interface.
        IpAddr::V6(v6) => !only_ipv4 && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    };
    let (own, mut others): (Vec<_>, Vec<_>) =
        all.into_iter().filter(is_usable).partition(IpAddr::is_loopback);
    if others.len() > MAX_ADVERTISED {
        tracing::debug!(left_out = ?&others[MAX_ADVERTISED..], "not all addresses are advertised");
        others.truncate(MAX_ADVERTISED);
    }
    if others.is_empty() { own } else { others }
}

/// Returns the addresses at which a socket that is bound to `local` is reached on the present
/// networks.
pub(crate) fn of_socket(local: SocketAddr) -> Vec<SocketAddr> {
    let own = if local.ip().is_unspecified() { addresses() } else { vec![local.ip()] };
    let own = reachable(own, local.is_ipv4());
    own.into_iter().map(|ip| SocketAddr::new(ip, local.port())).collect()
}

/// Returns the wildcard address of both families, if this machine has both.
pub(crate) fn wildcard(port: u16) -> SocketAddr {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        Err(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
    }
}

/// The IPv6 wildcard accepts IPv4 as well, if this machine has IPv6.
pub(crate) fn dual(listen: SocketAddr) -> SocketAddr {
    if listen.is_ipv4() && listen.ip().is_unspecified() {
        return wildcard(listen.port());
    }
    listen
}

/// Updates a node with the addresses at which its socket, bound to `local`, is reached, and
/// notifies `others` of every change, for the life of the returned value.
pub(crate) fn track(
    handle: Handle,
    local: SocketAddr,
    others: watch::Sender<()>,
) -> Background<()> {
    Background::spawn(advertise(handle, local, others))
}

async fn advertise(handle: Handle, local: SocketAddr, others: watch::Sender<()>) {
    let (changed, mut changes) = mpsc::channel(CHANGES);
    // A change that is in the queue already covers this one.
    let watched = netwatcher::watch_interfaces_with_callback(move |_| {
        let _ = changed.try_send(());
    });
    let _watch = match watched {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!("changes of this machine's networks cannot be seen: {error}");
            None
        }
    };
    let mut advertised = of_socket(local);
    handle.set_local_addresses(advertised.clone());
    while changes.recv().await.is_some() {
        let now = of_socket(local);
        if now != advertised {
            tracing::info!("this machine's networks changed: it has {} addresses", now.len());
            handle.set_local_addresses(now.clone());
            handle.network_changed();
            others.send_replace(());
            advertised = now;
        }
    }
    // Without a watch the advertised addresses do not change.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_keep_their_order_and_unreachable_ones_are_dropped() {
        let all =
            ips(&["127.0.0.1", "198.51.100.7", "fe80::1", "169.254.1.1", "10.0.0.5", "fd00::5"]);
        assert_eq!(reachable(all.clone(), false), ips(&["198.51.100.7", "10.0.0.5", "fd00::5"]));
        assert_eq!(reachable(all, true), ips(&["198.51.100.7", "10.0.0.5"]));
    }

    #[test]
    fn twelve_bridges_after_the_address_of_the_lan_do_not_displace_it() {
        let bridges = (0..12).map(|n| IpAddr::from([172, 17 + n, 0, 1]));
        let lan = IpAddr::from([192, 168, 1, 20]);
        let advertised = reachable([lan].into_iter().chain(bridges).collect(), false);
        assert_eq!((advertised[0], advertised.len()), (lan, MAX_ADVERTISED));
    }

    #[test]
    fn a_machine_without_a_network_reaches_itself() {
        assert_eq!(reachable(ips(&["127.0.0.1", "::1"]), true), ips(&["127.0.0.1"]));
    }

    #[test]
    fn a_socket_of_one_address_is_reached_there_alone() {
        let local: SocketAddr = "127.0.0.1:4433".parse().unwrap();
        assert_eq!(of_socket(local), [local]);
        assert!(of_socket("0.0.0.0:4433".parse().unwrap()).iter().all(SocketAddr::is_ipv4));
    }
}
