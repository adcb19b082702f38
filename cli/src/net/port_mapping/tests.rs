//! The loop in virtual time, with a scripted gateway; and the real protocols against a small
//! responder on loopback.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Mutex;

use super::rules::LIFETIME;
use super::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

fn target() -> MappingTarget {
    let local = Ipv4Addr::new(192, 168, 1, 7);
    MappingTarget { gateway: GATEWAY, local, port: NonZeroU16::new(4_433).unwrap() }
}

fn granted(external: &str) -> Result<Grant, String> {
    Ok(Grant { external: external.parse().unwrap(), lifetime: LIFETIME })
}

/// A gateway that answers by a list, and then not at all.
struct Scripted {
    target: Mutex<Option<MappingTarget>>,
    answers: Mutex<VecDeque<Result<Grant, String>>>,
    /// The questions, with the time in seconds.
    asked: Mutex<Vec<(u64, String)>>,
    began: Instant,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Result<Grant, String>>) -> Self {
        let answers = Mutex::new(answers.into_iter().collect());
        let (target, asked) = (Mutex::new(Some(target())), Mutex::new(Vec::new()));
        Self { target, answers, asked, began: Instant::now() }
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push((self.began.elapsed().as_secs(), what));
    }

    fn answer(&self, what: String) -> Result<Grant, String> {
        self.note(what);
        self.answers.lock().unwrap().pop_front().unwrap_or_else(|| Err("silent".to_owned()))
    }

    fn asked(&self) -> Vec<(u64, String)> {
        self.asked.lock().unwrap().clone()
    }
}

impl PortMapper for Scripted {
    type Held = Protocol;

    fn target(&self) -> Option<MappingTarget> {
        *self.target.lock().unwrap()
    }

    async fn open(
        &self,
        protocol: Protocol,
        _: MappingTarget,
    ) -> Result<(Protocol, Grant), String> {
        self.answer(format!("open {protocol}")).map(|grant| (protocol, grant))
    }

    async fn renew(&self, held: &mut Protocol) -> Result<Grant, String> {
        self.answer(format!("renew {held}"))
    }

    async fn close(&self, held: Protocol) {
        self.note(format!("close {held}"));
    }
}

/// Lets the loop run for some seconds, runs a closure, lets it run on, and stops it. Returns the
/// states that it reported.
async fn run(
    gateway: &Scripted,
    first: u64,
    act: impl FnOnce(),
    then: u64,
) -> Vec<PortMappingState> {
    let (stop, stopped) = watch::channel(false);
    let (change, changed) = watch::channel(());
    let told = Mutex::new(Vec::new());
    let mut signals = Interrupts { stopped, changed };
    let steps = async {
        sleep(Duration::from_secs(first)).await;
        act();
        if then > 0 {
            change.send_replace(());
            sleep(Duration::from_secs(then)).await;
        }
        stop.send_replace(true);
    };
    tokio::join!(keep(gateway, &mut signals, |it| told.lock().unwrap().push(it)), steps);
    told.into_inner().unwrap()
}

fn words(asked: &[(u64, String)]) -> Vec<(u64, &str)> {
    asked.iter().map(|(at, what)| (*at, what.as_str())).collect()
}

fn mapped(protocol: Protocol, external: &str) -> PortMappingState {
    PortMappingState::Mapped { protocol, gateway: GATEWAY, external: external.parse().unwrap() }
}

#[tokio::test(start_paused = true)]
async fn the_protocols_are_asked_in_order_and_a_mapping_is_renewed_at_half_its_time_and_given_back()
{
    let at = "203.0.113.5:4433";
    let gateway = Scripted::new([Err("silent".into()), granted(at), granted(at), granted(at)]);
    let told = run(&gateway, 4_000, || {}, 0).await;
    let asked = gateway.asked();
    let expected = [
        (0, "open PCP"),
        (0, "open NAT-PMP"),
        (1_800, "renew NAT-PMP"),
        (3_600, "renew NAT-PMP"),
        (4_000, "close NAT-PMP"),
    ];
    assert_eq!(words(&asked), expected);
    assert_eq!(told, [mapped(Protocol::NatPmp, at), PortMappingState::NotAsked]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_mapping_is_withdrawn_and_requested_again() {
    let at = "203.0.113.5:4433";
    let gateway = Scripted::new([granted(at)]);
    let told = run(&gateway, 3_601, || {}, 0).await;
    let asked = gateway.asked();
    let renewals: Vec<u64> =
        asked.iter().filter(|(_, what)| what == "renew PCP").map(|(at, _)| *at).collect();
    assert_eq!(renewals[..3], [1_800, 2_700, 3_150]);
    assert_eq!(renewals.len(), 8, "{renewals:?}");
    assert!(asked.contains(&(3_600, "close PCP".to_owned())), "{asked:?}");
    assert!(
        matches!(
            told[..],
            [
                PortMappingState::Mapped { .. },
                PortMappingState::NotAsked,
                PortMappingState::None { .. }
            ]
        ),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_behind_another_nat_is_refused_with_its_reason_and_asked_ever_more_rarely() {
    let private = || granted("100.64.3.2:4433");
    let gateway = Scripted::new([private(), private(), private()]);
    let told = run(&gateway, 500, || {}, 0).await;
    let PortMappingState::None { why, .. } = &told[0] else { panic!("{told:?}") };
    assert!(why.len() == 3 && why.iter().all(|why| why.contains("another NAT")), "{why:?}");
    let asked = gateway.asked();
    let opened: Vec<u64> =
        asked.iter().filter(|(_, what)| what == "open PCP").map(|(at, _)| *at).collect();
    assert_eq!(opened, [0, 60, 180, 420]);
    // A useless mapping is released.
    assert_eq!(asked.iter().filter(|(_, what)| what.starts_with("close")).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_network_change_withdraws_and_renews_the_mapping() {
    let gateway = Scripted::new([granted("203.0.113.5:4433"), granted("198.51.100.5:7")]);
    let other = MappingTarget { gateway: Ipv4Addr::new(10, 0, 0, 1), ..target() };
    let told = run(&gateway, 10, || *gateway.target.lock().unwrap() = Some(other), 10).await;
    let asked = gateway.asked();
    let expected = [(0, "open PCP"), (11, "close PCP"), (11, "open PCP"), (20, "close PCP")];
    assert_eq!(words(&asked), expected);
    assert_eq!(told[0], mapped(Protocol::Pcp, "203.0.113.5:4433"));
    assert_eq!(told[1], PortMappingState::NotAsked);
    assert_eq!(told[2].external(), Some("198.51.100.5:7".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_network_change_ends_the_pause_before_mapping() {
    let gateway = Scripted::new([]);
    run(&gateway, 10, || {}, 5).await;
    let opened = gateway.asked().iter().filter(|(_, what)| what == "open PCP").count();
    assert_eq!(opened, 2);
    let public = Scripted::new([]);
    *public.target.lock().unwrap() = None;
    assert_eq!(run(&public, 10_000, || {}, 0).await, [PortMappingState::NotNeeded]);
    assert!(public.asked().is_empty());
}

/// Answers NAT-PMP on a loopback address of its own, as a gateway with the address `external`
/// outside. Returns `None` if that address cannot be bound.
#[cfg(target_os = "linux")]
fn responder(at: Ipv4Addr, external: Ipv4Addr) -> Option<std::thread::JoinHandle<Vec<Vec<u8>>>> {
    let socket = std::net::UdpSocket::bind((at, crab_nat::GATEWAY_PORT)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Some(std::thread::spawn(move || {
        let (mut heard, mut buffer) = (Vec::new(), [0; 1_100]);
        while let Ok((size, from)) = socket.recv_from(&mut buffer) {
            let asked = buffer[..size].to_vec();
            heard.push(asked.clone());
            let answer = match asked[..] {
                [0, 0] => [&[0, 128, 0, 0, 0, 0, 0, 9][..], &external.octets()].concat(),
                // The port inside is 7000 outside; a lifetime of 0 releases it.
                [0, 1, _, _, a, b, _, _, l1, l2, l3, l4] => {
                    let is_end = [l1, l2, l3, l4] == [0; 4];
                    let port: u16 = if is_end { 0 } else { 7_000 };
                    let [p, q] = port.to_be_bytes();
                    vec![0, 129, 0, 0, 0, 0, 0, 9, a, b, p, q, l1, l2, l3, l4]
                }
                // PCP: unsupported version.
                _ => vec![0, 128, 0, 1, 0, 0, 0, 9],
            };
            socket.send_to(&answer, from).unwrap();
            if matches!(asked[..], [0, 1, .., 0, 0, 0, 0]) {
                break;
            }
        }
        heard
    }))
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_gateway_that_speaks_nat_pmp_alone_maps_renews_and_takes_back() {
    let at = Ipv4Addr::new(127, 53, 51, 1);
    let Some(gateway) = responder(at, Ipv4Addr::new(203, 0, 113, 5)) else {
        return eprintln!("SKIPPED: {at}:5351 cannot be bound");
    };
    let ask = SystemGateway { bound: "0.0.0.0:4433".parse().unwrap() };
    let target = MappingTarget {
        gateway: at,
        local: Ipv4Addr::LOCALHOST,
        port: NonZeroU16::new(4_433).unwrap(),
    };
    let (mut held, told, _) = first(&ask, target).await.ok().unwrap();
    let external = "203.0.113.5:7000".parse().unwrap();
    assert_eq!(
        told,
        PortMappingState::Mapped { protocol: Protocol::NatPmp, gateway: at, external }
    );
    assert_eq!(ask.renew(&mut held).await.unwrap().external, external);
    ask.close(held).await;
    let heard = gateway.join().unwrap();
    assert_eq!(heard[0][0], 2, "PCP is asked first");
}
