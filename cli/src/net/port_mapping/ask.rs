//! Asks the gateway itself, by PCP, NAT-PMP or UPnP. It decides how long each question may take;
//! `rules` judges the answers.
//!
//! Every exchange is bounded in time here, and in size by the crates that make it: a datagram of
//! PCP and NAT-PMP is read into a buffer of its maximum length, a document of UPnP to 1 MiB. Only
//! the default gateway is asked to map by UPnP; of others that answer the search only their own
//! description is fetched, from the address that answered.

use std::fmt::Display;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddAnyPortError, AddPortError, PortMappingProtocol, SearchOptions};
use tokio::time::timeout;

use super::rules::{Grant, LIFETIME, Protocol, default_gateway, is_behind_nat};
use crate::net::interfaces;

/// How long one question may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a search for UPnP may take: first of the gateway itself, then of all.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A datagram is sent again after 250 and 750 ms, and given up after 1.75 s.
const REQUEST_TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};

/// The name of this mapping in the gateway's table.
const DESCRIPTION: &str = "adit";

/// The gateway to ask, and the socket to map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MappingTarget {
    pub(super) gateway: Ipv4Addr,
    pub(super) local: Ipv4Addr,
    pub(super) port: NonZeroU16,
}

impl MappingTarget {
    /// Returns the target for the socket that is bound to `bound`, on the present network. Returns
    /// `None` if a mapping is of no use: without a gateway, or with an address that needs none.
    pub(super) fn of(bound: SocketAddr) -> Option<Self> {
        let gateway = gateway()?;
        let port = NonZeroU16::new(bound.port())?;
        // Connecting a UDP socket sends no packet, and shows which address the gateway would see.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((gateway, crab_nat::GATEWAY_PORT)).ok()?;
        let IpAddr::V4(local) = socket.local_addr().ok()?.ip() else { return None };
        let bound = bound.ip().to_canonical();
        let is_ours = bound.is_unspecified() || bound == local;
        (is_ours && is_behind_nat(local)).then_some(Self { gateway, local, port })
    }
}

#[cfg(target_os = "linux")]
fn gateway() -> Option<Ipv4Addr> {
    default_gateway(&std::fs::read_to_string("/proc/net/route").ok()?)
}

#[cfg(not(target_os = "linux"))]
fn gateway() -> Option<Ipv4Addr> {
    netdev::get_default_gateway().ok()?.ipv4.first().copied()
}

/// A gateway that maps ports; the tests have an implementation of their own.
pub(super) trait PortMapper {
    /// What is needed to renew a mapping, or to end it.
    type Held: Send;

    /// Returns the gateway to ask now, and the socket.
    fn target(&self) -> Option<MappingTarget>;

    /// Asks for a mapping.
    fn open(
        &self,
        protocol: Protocol,
        target: MappingTarget,
    ) -> impl Future<Output = Result<(Self::Held, Grant), String>> + Send;

    /// Asks for more time.
    fn renew(&self, held: &mut Self::Held) -> impl Future<Output = Result<Grant, String>> + Send;

    /// Releases it.
    fn close(&self, held: Self::Held) -> impl Future<Output = ()> + Send;
}

/// The network that this machine is on.
#[derive(Debug)]
pub(super) struct SystemGateway {
    pub(super) bound: SocketAddr,
}

/// A mapping that the gateway has.
pub(super) enum ActiveMapping {
    /// Transport PCP or NAT-PMP.
    Datagrams(Box<PortMapping>),
    Upnp {
        gateway: Box<Gateway<Tokio>>,
        local: SocketAddr,
        port: u16,
        seconds: u32,
    },
}

impl PortMapper for SystemGateway {
    type Held = ActiveMapping;

    fn target(&self) -> Option<MappingTarget> {
        MappingTarget::of(self.bound)
    }

    async fn open(
        &self,
        protocol: Protocol,
        target: MappingTarget,
    ) -> Result<(ActiveMapping, Grant), String> {
        let gateway = IpAddr::V4(target.gateway).into();
        let options = PortMappingOptions {
            external_port: Some(target.port),
            lifetime_seconds: Some(seconds(LIFETIME)),
            timeout_config: Some(REQUEST_TIMEOUTS),
        };
        let (udp, local) = (InternetProtocol::Udp, IpAddr::V4(target.local));
        let mapping = match protocol {
            Protocol::Upnp => return open_upnp(target).await,
            Protocol::Pcp => {
                let request = pcp::BaseMapRequest::new(gateway, local, udp, target.port);
                within(pcp::port_mapping(request, None, None, options)).await?
            }
            Protocol::NatPmp => {
                within(natpmp::port_mapping(gateway, udp, target.port, options)).await?
            }
        };
        match grant(&mapping).await {
            Ok(grant) => Ok((ActiveMapping::Datagrams(Box::new(mapping)), grant)),
            Err(why) => {
                self.close(ActiveMapping::Datagrams(Box::new(mapping))).await;
                Err(why)
            }
        }
    }

    async fn renew(&self, held: &mut ActiveMapping) -> Result<Grant, String> {
        match held {
            ActiveMapping::Datagrams(mapping) => {
                within(mapping.renew()).await?;
                grant(mapping).await
            }
            ActiveMapping::Upnp { gateway, local, port, seconds } => {
                let udp = PortMappingProtocol::UDP;
                within(gateway.add_port(udp, *port, *local, *seconds, DESCRIPTION)).await?;
                let ip = within(gateway.get_external_ip()).await?;
                Ok(Grant { external: SocketAddr::new(ip, *port), lifetime: LIFETIME })
            }
        }
    }

    async fn close(&self, held: ActiveMapping) {
        // It expires by itself if this is lost.
        match held {
            ActiveMapping::Datagrams(mapping) => {
                drop(timeout(ANSWER_TIMEOUT, mapping.try_drop()).await)
            }
            ActiveMapping::Upnp { gateway, port, .. } => {
                let _ = within(gateway.remove_port(PortMappingProtocol::UDP, port)).await;
            }
        }
    }
}

/// Returns what a mapping grants; NAT-PMP has a separate question for the address.
async fn grant(mapping: &PortMapping) -> Result<Grant, String> {
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip,
        PortMappingType::NatPmp => {
            let address = natpmp::external_address(mapping.gateway(), Some(REQUEST_TIMEOUTS));
            IpAddr::V4(within(address).await?)
        }
    };
    let lifetime = Duration::from_secs(mapping.lifetime().into());
    Ok(Grant { external: SocketAddr::new(ip, mapping.external_port().get()), lifetime })
}

async fn open_upnp(target: MappingTarget) -> Result<(ActiveMapping, Grant), String> {
    // Gateways answer a search that is sent to them alone, and old ones only one that is sent to
    // all.
    let all = Ipv4Addr::new(239, 255, 255, 250);
    let gateway = match find(target, target.gateway).await {
        Ok(found) => found,
        Err(_) => find(target, all).await?,
    };
    let ip = within(gateway.get_external_ip()).await?;
    let local = SocketAddr::new(target.local.into(), target.port.get());
    let udp = PortMappingProtocol::UDP;
    let mut seconds = seconds(LIFETIME);
    let mut port = target.port.get();
    let mut added = ask_port(&gateway, port, local, seconds).await?;
    if matches!(added, Err(AddPortError::OnlyPermanentLeasesSupported)) {
        seconds = 0;
        added = ask_port(&gateway, port, local, seconds).await?;
    }
    match added {
        Ok(()) => {}
        Err(AddPortError::PortInUse) => {
            let any = gateway.add_any_port(udp, local, seconds, DESCRIPTION);
            port = within(async {
                match any.await {
                    Err(AddAnyPortError::OnlyPermanentLeasesSupported) => {
                        seconds = 0;
                        gateway.add_any_port(udp, local, seconds, DESCRIPTION).await
                    }
                    other => other,
                }
            })
            .await?;
        }
        Err(error) => return Err(error.to_string()),
    }
    let grant = Grant { external: SocketAddr::new(ip, port), lifetime: LIFETIME };
    Ok((ActiveMapping::Upnp { gateway: Box::new(gateway), local, port, seconds }, grant))
}

async fn ask_port(
    gateway: &Gateway<Tokio>,
    port: u16,
    local: SocketAddr,
    seconds: u32,
) -> Result<Result<(), AddPortError>, String> {
    let add = gateway.add_port(PortMappingProtocol::UDP, port, local, seconds, DESCRIPTION);
    timeout(ANSWER_TIMEOUT, add).await.map_err(|_| "no answer in time".to_owned())
}

async fn find(target: MappingTarget, to: Ipv4Addr) -> Result<Gateway<Tokio>, String> {
    let mut options = SearchOptions::default();
    options.bind_addr = (target.local, 0).into();
    options.broadcast_address = (to, 1_900).into();
    // A gateway that is asked by address may describe itself at any kind of address.
    options.allowed_gateway_ips = vec![to.into()];
    options.timeout = Some(SEARCH_TIMEOUT);
    options.single_search_timeout = Some(SEARCH_TIMEOUT);
    let found = within(search_gateway(options)).await?;
    if found.addr.ip() == IpAddr::V4(target.gateway) {
        return Ok(found);
    }
    Err(format!("{} answers, and is not the gateway", found.addr.ip()))
}

async fn within<T, E: Display>(question: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(ANSWER_TIMEOUT, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// Returns true if an address at which a relay sees this socket is another than its own: there is a
/// NAT.
pub(crate) fn is_translated(seen: SocketAddr) -> bool {
    let ip = seen.ip().to_canonical();
    ip.is_ipv4() && !ip.is_loopback() && !interfaces::addresses().contains(&ip)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// The address of the device that answers the search. It is not a gateway of this machine.
    const HOST: Ipv4Addr = Ipv4Addr::new(127, 43, 19, 0);

    const DEVICE: &str = "<root><device><deviceList><device><serviceList><service>\
        <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
        <controlURL>/control</controlURL><SCPDURL>/actions</SCPDURL>\
        </service></serviceList></device></deviceList></device></root>";
    const ACTIONS: &str = "<scpd><actionList></actionList></scpd>";

    /// Answers searches, each with its own description, for the life of the process.
    fn answer_searches() {
        let socket = UdpSocket::bind((HOST, 1_900)).expect("the port of UPnP is free there");
        let pages = TcpListener::bind((HOST, 0)).expect("a port");
        let location = format!("http://{}/device", pages.local_addr().expect("it is bound"));
        std::thread::spawn(move || {
            let mut question = [0; 1_500];
            while let Ok((_, from)) = socket.recv_from(&mut question) {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\
                     ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
                );
                let _ = socket.send_to(answer.as_bytes(), from);
            }
        });
        std::thread::spawn(move || {
            for mut page in pages.incoming().map_while(Result::ok) {
                let mut line = String::new();
                let _ = BufReader::new(&page).read_line(&mut line);
                let body = if line.contains("/device") { DEVICE } else { ACTIONS };
                let length = body.len();
                let _ = write!(
                    page,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
    }

    #[tokio::test]
    async fn a_foreign_answer_to_the_gateway_search_is_ignored() {
        answer_searches();
        let port = NonZeroU16::new(4_433).expect("a port");
        let target = |gateway| MappingTarget { gateway, local: Ipv4Addr::LOCALHOST, port };
        let found = find(target(HOST), HOST).await.expect("the gateway itself is found");
        assert_eq!(found.addr.ip(), IpAddr::V4(HOST));
        let other = Ipv4Addr::new(127, 43, 19, 1);
        let refused = find(target(other), HOST).await.err();
        assert_eq!(refused.as_deref(), Some("127.43.19.0 answers, and is not the gateway"));
    }
}
