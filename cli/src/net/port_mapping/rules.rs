//! Which questions a gateway gets, and which of its answers are used: which protocols in which
//! order, which addresses count, when a mapping is renewed, and when a gateway is asked again.
//!
//! Values in, values out: it does no IO and reads no clock. A gateway's answer is untrusted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

/// Requested lifetime of a mapping: RFC 6886 recommends twice that, and what a crash leaves behind
/// expires sooner.
pub(super) const LIFETIME: Duration = Duration::from_secs(3_600);

/// The shortest mapping that is kept: one that expires sooner is renewed too often for its use.
const SHORTEST: Duration = Duration::from_secs(60);

/// Pause before a gateway without a mapping is asked again, doubled up to the longest: most never
/// map a port, but one that was restarted may answer later.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3_600));

/// Maximum number of characters shown of a gateway's own message.
const LONGEST_WORDS: usize = 160;

/// A protocol by which a gateway maps ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

impl Protocol {
    /// From the most informative protocol to the most expensive one.
    pub(super) const ORDER: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];

    /// Returns its name for programs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat_pmp",
            Self::Upnp => "upnp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// What a gateway claims to have granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) external: SocketAddr,
    pub(super) lifetime: Duration,
}

impl Grant {
    /// Returns the same, if it is of use.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn checked(self) -> Result<Self, String> {
        let ip = self.external.ip();
        if !is_global(ip) {
            return Err(format!(
                "it maps to {ip}, which is not on the internet: there is another NAT behind it"
            ));
        }
        if self.external.port() == 0 {
            return Err("it maps no port".to_owned());
        }
        if self.lifetime < SHORTEST {
            return Err(format!("it maps for {} s only", self.lifetime.as_secs()));
        }
        Ok(Self { lifetime: self.lifetime.min(LIFETIME), ..self })
    }
}

/// Returns when a mapping that is valid for `left` is renewed: at half of it (RFC 6887 §11.2.1),
/// and at half of what is left each time that fails. Returns `None` if it is too late.
pub(super) fn renewal(left: Duration) -> Option<Duration> {
    (left >= SHORTEST / 4).then(|| left / 2)
}

/// Returns the pause after the gateway failed to map this many times in a row.
pub(super) fn again(failures: u32) -> Duration {
    let (first, longest) = RETRY_DELAY;
    first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(longest)
}

/// Returns true if an address of this machine is reachable only through a NAT.
pub(super) fn is_behind_nat(local: Ipv4Addr) -> bool {
    local.is_private() || is_shared(local)
}

/// Returns true for the addresses that customers of a carrier share (RFC 6598).
const fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 64
}

/// Returns true if an address is reachable from the internet, as far as the address shows.
fn is_global(ip: IpAddr) -> bool {
    let IpAddr::V4(ip) = ip.to_canonical() else { return false };
    let [first, ..] = ip.octets();
    !(ip.is_private()
        || is_shared(ip)
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || first == 0
        || first >= 240)
}

/// Returns the message of a gateway or a library about a failure, without control characters and no
/// longer than a line.
pub(super) fn plain(said: &str) -> String {
    let replace = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    said.chars().map(replace).take(LONGEST_WORDS).collect()
}

/// Returns the gateway of the preferred default route in Linux's table of routes.
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "other systems are asked otherwise")
)]
pub(super) fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    let gateway = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, destination, gateway, _, _, _, metric, mask, ..] = words[..] else { return None };
        let number = |word: &str| u32::from_str_radix(word, 16).ok();
        let is_default = number(destination)? == 0 && number(mask)? == 0;
        // The file prints the address's bytes as a number in the machine's byte order.
        let gateway = Ipv4Addr::from(number(gateway)?.to_ne_bytes());
        let metric: u32 = metric.parse().ok()?;
        (is_default && !gateway.is_unspecified()).then_some((metric, gateway))
    };
    routes.lines().filter_map(gateway).min_by_key(|(metric, _)| *metric).map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(external: &str, seconds: u64) -> Result<Grant, String> {
        let lifetime = Duration::from_secs(seconds);
        Grant { external: external.parse().unwrap(), lifetime }.checked()
    }

    #[test]
    fn a_mapping_to_where_the_internet_does_not_lead_is_refused_with_its_reason() {
        for inside in [
            "10.0.0.1:1",
            "172.16.0.1:1",
            "192.168.0.1:1",
            "100.64.0.1:1",
            "100.127.255.255:1",
            "127.0.0.1:1",
            "169.254.0.1:1",
            "224.0.0.1:1",
            "0.0.0.0:1",
            "255.255.255.255:1",
            "[::ffff:10.0.0.1]:1",
            "[2001:db8::1]:1",
        ] {
            let why = grant(inside, 3_600).unwrap_err();
            assert!(why.contains("another NAT"), "{inside}: {why}");
        }
        for outside in ["203.0.113.5:1", "100.63.255.255:1", "100.128.0.1:1", "172.32.0.1:1"] {
            assert!(grant(outside, 3_600).is_ok(), "{outside}");
        }
        assert!(grant("203.0.113.5:0", 3_600).is_err());
    }

    #[test]
    fn zero_lifetime_is_refused_and_infinite_is_renewed() {
        assert!(grant("203.0.113.5:1", 59).is_err());
        assert!(grant("203.0.113.5:1", 60).is_ok());
        assert_eq!(grant("203.0.113.5:1", u64::from(u32::MAX)).unwrap().lifetime, LIFETIME);
    }

    #[test]
    fn a_gateways_words_move_no_cursor_and_fill_no_screen() {
        assert_eq!(plain("no\u{1b}[2J\nway"), "no\u{fffd}[2J\u{fffd}way");
        assert_eq!(plain(&"é".repeat(100_000)).chars().count(), LONGEST_WORDS);
    }

    #[test]
    fn a_renewal_is_at_half_of_what_is_left_until_it_is_too_late() {
        assert_eq!(renewal(LIFETIME), Some(LIFETIME / 2));
        assert_eq!(renewal(Duration::from_secs(15)), Some(Duration::from_millis(7_500)));
        assert_eq!(renewal(Duration::from_millis(14_999)), None);
    }

    #[test]
    fn a_gateway_that_maps_nothing_is_asked_ever_more_rarely_and_never_not_at_all() {
        let pauses = [1, 2, 3, 6, 7, 8, u32::MAX].map(|n| again(n).as_secs());
        assert_eq!(pauses, [60, 120, 240, 1_920, 3_600, 3_600, 3_600]);
    }

    #[test]
    fn only_an_address_that_a_nat_leads_to_needs_a_mapping() {
        for inside in ["10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "100.127.0.1"] {
            assert!(is_behind_nat(inside.parse().unwrap()), "{inside}");
        }
        for other in ["127.0.0.1", "169.254.0.1", "203.0.113.1", "100.128.0.1", "0.0.0.0"] {
            assert!(!is_behind_nat(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_default_gateway_is_that_of_the_preferred_default_route() {
        let head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let lan = "eth0 0001A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        let wifi = "wlan0 00000000 0101A8C0 0003 0 0 600 00000000 0 0 0\n";
        let cable = "eth0 00000000 FE01A8C0 0003 0 0 100 00000000 0 0 0\n";
        let half = "tun0 00000000 0100000A 0003 0 0 0 00000080 0 0 0\n";
        let all = format!("{head}{lan}{wifi}{cable}{half}");
        assert_eq!(default_gateway(&all), Some(Ipv4Addr::new(192, 168, 1, 254)));
        assert_eq!(default_gateway(&format!("{head}{lan}")), None);
        assert_eq!(default_gateway("x\ny 1 2 3\n\u{0} g g g g g g g g g g"), None);
    }
}
