//! In what order addresses are dialled: by the priorities and weights of their records, and the
//! families in turn. It is pure; the caller supplies the randomness.

use std::net::SocketAddr;

use adit_tokio::core::rng::Rng;

/// One SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SrvRecord {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// The host; empty if it is the root, which means that there is no such service.
    pub(super) target: String,
}

/// Returns the records by ascending priority; within one, drawn without replacement, each in
/// proportion to its weight, as RFC 2782 requires ("Usage rules").
pub(super) fn by_weight(mut services: Vec<SrvRecord>, rng: &mut Rng) -> Vec<SrvRecord> {
    services.retain(|it| !it.target.is_empty());
    // Those without weight first, so that they are drawn only when the random number is zero.
    services.sort_by_key(|it| (it.priority, it.weight != 0));
    let mut ordered = Vec::with_capacity(services.len());
    while let Some(priority) = services.first().map(|it| it.priority) {
        let alike = services.iter().take_while(|it| it.priority == priority);
        let total: u64 = alike.map(|it| u64::from(it.weight)).sum();
        let mut left = rng.u64() % (total + 1);
        // The first with a running sum that reaches the random number.
        let drawn = services.iter().take_while(|it| it.priority == priority).position(|it| {
            let is_it = u64::from(it.weight) >= left;
            left = left.saturating_sub(it.weight.into());
            is_it
        });
        ordered.push(services.remove(drawn.unwrap_or_default()));
    }
    ordered
}

/// Returns the families in turn, each in the order it was given, beginning with the first (RFC 8305
/// §4); each address once.
pub(crate) fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (one, other): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut other = other.into_iter();
    let mut mixed = Vec::with_capacity(addresses.len());
    for address in one {
        mixed.push(address);
        mixed.extend(other.next());
    }
    mixed.extend(other);
    let mut seen = std::collections::BTreeSet::new();
    mixed.retain(|address| seen.insert(*address));
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, target: &str) -> SrvRecord {
        SrvRecord { priority, weight, port: 1, target: target.to_owned() }
    }

    fn targets(services: Vec<SrvRecord>, seed: u8) -> Vec<String> {
        let ordered = by_weight(services, &mut Rng::new([seed; 32], "test"));
        ordered.into_iter().map(|it| it.target).collect()
    }

    #[test]
    fn a_lower_priority_comes_first_whatever_its_weight() {
        for seed in 0..100 {
            let all = vec![service(20, 65_535, "c"), service(10, 0, "b"), service(0, 1, "a")];
            assert_eq!(targets(all, seed), ["a", "b", "c"]);
        }
    }

    #[test]
    fn within_a_priority_each_is_first_in_proportion_to_its_weight() {
        let mut rng = Rng::new([7; 32], "test");
        let mut first = [0_u32; 3];
        for _ in 0..10_000 {
            let all = vec![service(1, 60, "a"), service(1, 30, "b"), service(1, 10, "c")];
            let ordered = by_weight(all, &mut rng);
            assert_eq!(ordered.len(), 3);
            match ordered[0].target.as_str() {
                "a" => first[0] += 1,
                "b" => first[1] += 1,
                _ => first[2] += 1,
            }
        }
        assert!((5_700..6_400).contains(&first[0]), "{first:?}");
        assert!((2_700..3_300).contains(&first[1]), "{first:?}");
        assert!((800..1_200).contains(&first[2]), "{first:?}");
    }

    #[test]
    fn without_weights_all_are_there_and_beside_weights_they_are_seldom_first() {
        let mut all = targets(vec![service(1, 0, "b"), service(1, 0, "a")], 3);
        all.sort();
        assert_eq!(all, ["a", "b"]);
        let mut rng = Rng::new([8; 32], "test");
        let first = (0..10_000).filter(|_| {
            let all = vec![service(1, 99, "heavy"), service(1, 0, "light")];
            by_weight(all, &mut rng)[0].target == "light"
        });
        let first = first.count();
        assert!((40..200).contains(&first), "{first} of 10,000, one in a hundred is meant");
    }

    #[test]
    fn the_same_seed_gives_the_same_order_and_no_target_is_no_service() {
        let all: Vec<_> = (0..9).map(|n| service(1, n, &format!("host{n}"))).collect();
        assert_eq!(targets(all.clone(), 1), targets(all.clone(), 1));
        assert!((2..9).any(|seed| targets(all.clone(), seed) != targets(all.clone(), 1)));
        assert!(targets(vec![service(0, 0, "")], 1).is_empty());
    }

    #[test]
    fn families_take_turns_and_none_is_dialled_twice() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (address("[::1]:1"), address("[::1]:2"), address("127.0.0.1:1"));
        assert_eq!(in_turn(&[a, b, a, c]), [a, c, b]);
        assert!(in_turn(&[]).is_empty());
    }
}
