//! What is looked up, in which order, and when an old answer is used: against a scripted source.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;

#[derive(Debug, Default)]
struct Answers {
    services: BTreeMap<String, Vec<SrvRecord>>,
    hosts: BTreeMap<String, Vec<String>>,
    hangs: bool,
    asked: Mutex<Vec<String>>,
}

impl Resolver for Answers {
    async fn services(&self, name: String) -> io::Result<Vec<SrvRecord>> {
        self.asked.lock().unwrap().push(name.clone());
        if self.hangs {
            return std::future::pending().await;
        }
        Ok(self.services.get(&name).cloned().unwrap_or_default())
    }

    async fn hosts(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.lock().unwrap().push(format!("{host}:{port}"));
        let none = || io::Error::new(io::ErrorKind::NotFound, "no such host");
        let found = self.hosts.get(host).ok_or_else(none)?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
    }
}

fn answers(services: &[(u16, u16, &str)], hosts: &[(&str, &[&str])]) -> Answers {
    let services = services.iter().map(|&(priority, port, target)| SrvRecord {
        priority,
        weight: 0,
        port,
        target: target.to_owned(),
    });
    Answers {
        services: [("_adit._udp.home.example.".to_owned(), services.collect())].into(),
        hosts: hosts.iter().map(|(host, all)| ((*host).to_owned(), owned(all))).collect(),
        ..Answers::default()
    }
}

fn owned(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn place(text: &str) -> HostAddress {
    HostAddress::try_from(text.to_owned()).unwrap()
}

async fn found(source: &Answers, text: &str) -> Result<Vec<String>, String> {
    let found = lookup(source, &place(text), &mut Rng::new([1; 32], "test")).await;
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn with_a_port_no_records_are_asked_for() {
    let source = answers(&[(1, 9, "relay.example")], &[("home.example", &["192.0.2.1"])]);
    assert_eq!(found(&source, "home.example:7").await.unwrap(), ["192.0.2.1:7"]);
    assert_eq!(*source.asked.lock().unwrap(), ["home.example:7"]);
    assert_eq!(found(&source, "[2001:db8::7]:7").await.unwrap(), ["[2001:db8::7]:7"]);
    assert_eq!(found(&source, "192.0.2.9").await.unwrap(), ["192.0.2.9:4433"]);
    assert_eq!(source.asked.lock().unwrap().len(), 1, "an address is not asked about");
}

#[tokio::test]
async fn without_a_port_srv_records_apply_by_priority() {
    let source = answers(
        &[(20, 2, "second.example"), (10, 1, "first.example"), (30, 3, "gone.example")],
        &[
            ("first.example", &["2001:db8::1", "2001:db8::2", "192.0.2.1"]),
            ("second.example", &["192.0.2.2"]),
        ],
    );
    let expected =
        ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:2"].map(String::from);
    assert_eq!(found(&source, "adit://home.example").await.unwrap(), expected);
    let asked = source.asked.lock().unwrap().clone();
    assert_eq!(asked[0], "_adit._udp.home.example.");
    assert_eq!(asked[1..], ["first.example:1", "second.example:2", "gone.example:3"]);
}

#[tokio::test]
async fn without_records_it_is_the_host_itself_at_the_usual_port() {
    let source = answers(&[], &[("home.example", &["192.0.2.1"])]);
    assert_eq!(found(&source, "home.example").await.unwrap(), ["192.0.2.1:4433"]);
}

#[tokio::test(start_paused = true)]
async fn a_nameserver_that_hangs_costs_its_time_and_no_more() {
    let mut source = answers(&[], &[("home.example", &["192.0.2.1"])]);
    source.hangs = true;
    let start = tokio::time::Instant::now();
    assert_eq!(found(&source, "home.example").await.unwrap(), ["192.0.2.1:4433"]);
    assert_eq!(start.elapsed().as_secs(), LOOKUP_TIMEOUT.as_secs());
}

#[tokio::test]
async fn a_record_without_a_target_means_no_service() {
    let source = answers(&[(0, 0, "")], &[("home.example", &["192.0.2.1"])]);
    assert!(found(&source, "home.example").await.unwrap_err().contains("no such service"));
}

#[tokio::test]
async fn only_so_many_hosts_and_addresses_are_taken() {
    let hosts: Vec<_> = (0..=MAX_HOSTS).map(|number| format!("h{number}.example")).collect();
    let records: Vec<_> = hosts.iter().map(|host| (1, 1, host.as_str())).collect();
    let source = answers(&records, &[]);
    assert_eq!(found(&source, "home.example").await.unwrap_err(), "no such host");
    assert_eq!(source.asked.lock().unwrap().len(), 1 + MAX_HOSTS);
    let all: Vec<String> = (0..=MAX_ADDRESSES).map(|last| format!("192.0.2.{last}")).collect();
    let mut source = answers(&[], &[]);
    source.hosts.insert("home.example".to_owned(), all);
    assert_eq!(found(&source, "home.example").await.unwrap().len(), MAX_ADDRESSES);
}

#[tokio::test]
async fn an_ipv4_address_gets_the_prefix_of_a_network_with_ipv6_alone() {
    let source = answers(&[], &[(nat64::NAME, &["192.0.0.170", "64:ff9b::192.0.0.170"])]);
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (literal, local) = (address("192.0.2.33:7"), address("127.0.0.1:7"));
    let detour = address("[64:ff9b::192.0.2.33]:7");
    assert_eq!(by_nat64(&source, vec![literal], || true).await, [detour, literal]);
    assert_eq!(*source.asked.lock().unwrap(), ["ipv4only.arpa:0"]);
    assert_eq!(by_nat64(&source, vec![literal], || false).await, [literal]);
    assert_eq!(by_nat64(&source, vec![local], || true).await, [local]);
    assert_eq!(source.asked.lock().unwrap().len(), 1, "asked where it is needed alone");
    let other = answers(&[], &[]);
    assert_eq!(by_nat64(&other, vec![literal], || true).await, [literal], "no NAT64 here");
}

#[test]
fn what_was_good_has_to_do_when_nothing_is_to_be_learnt() {
    let (memory, place) = (AddressCache::default(), place("home.example"));
    let lost = || Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
    assert_eq!(recall(lost(), &place, &memory).unwrap_err().kind(), io::ErrorKind::TimedOut);
    let good: SocketAddr = ([192, 0, 2, 1], 4433).into();
    assert_eq!(recall(Ok(vec![good]), &place, &memory).unwrap(), [good]);
    assert_eq!(recall(lost(), &place, &memory).unwrap(), [good]);
    let better: SocketAddr = ([192, 0, 2, 2], 4433).into();
    assert_eq!(recall(Ok(vec![better]), &place, &memory).unwrap(), [better]);
    assert_eq!(recall(lost(), &place, &memory).unwrap(), [better], "the newest");
}
