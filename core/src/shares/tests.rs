//! Shares alone: who makes way for whom, at the threshold and one past it, and random lives against
//! a reference that scans.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;

type Sources = Shares<SourceNetwork, WIDTHS, u32>;

fn lineage(address: &str) -> [SourceNetwork; WIDTHS] {
    SourceNetwork::lineage(address.parse().unwrap())
}

fn filled(holders: &[(&str, u32)]) -> Sources {
    let (mut shares, mut next) = (Sources::default(), 0);
    for &(address, count) in holders {
        for _ in 0..count {
            shares.set(next, lineage(address), 1);
            next += 1;
        }
    }
    shares
}

#[test]
fn the_newest_of_the_largest_source_makes_room() {
    let shares = filled(&[("192.0.2.1", 3), ("192.0.2.2", 2)]);
    let newcomer = lineage("192.0.2.3");
    assert_eq!(shares.makes_room(&newcomer, 1, MakesRoom::Newest), Some(2));
    assert_eq!(shares.makes_room(&newcomer, 1, MakesRoom::Oldest), Some(0));
    assert_eq!(shares.makes_room(&lineage("192.0.2.1"), 1, MakesRoom::Newest), None);
}

#[test]
fn a_source_that_would_have_as_much_takes_no_room() {
    let shares = filled(&[("192.0.2.1", 3), ("192.0.2.2", 1), ("192.0.2.3", 2)]);
    assert_eq!(shares.makes_room(&lineage("192.0.2.2"), 1, MakesRoom::Newest), Some(2));
    assert_eq!(shares.makes_room(&lineage("192.0.2.3"), 1, MakesRoom::Newest), None);
    assert_eq!(shares.makes_room(&lineage("192.0.2.9"), 3, MakesRoom::Newest), None);
    assert_eq!(shares.makes_room(&lineage("192.0.2.9"), 2, MakesRoom::Newest), Some(2));
}

#[test]
fn the_networks_of_one_subscriber_are_one_source() {
    let mut shares = filled(&[("198.51.100.1", 2)]);
    for n in 0..8_u32 {
        // A /48 that shows another /64 each time, half of them in another /56.
        shares.set(100 + n, lineage(&format!("2001:db8:0:{:x}::1", n * 0x80)), 1);
    }
    let room = |from: &str| shares.makes_room(&lineage(from), 1, MakesRoom::Newest);
    assert!(room("198.51.100.1").is_some_and(|id| id >= 100));
    assert!(room("2001:db8:1::1").is_some_and(|id| id >= 100));
    assert_eq!(room("2001:db8:0:1::1"), None, "within it every /56 has two");
    assert!(room("2001:db8:0:ffff::1").is_some(), "this one has none");
}

#[test]
fn the_only_item_of_a_source_stays() {
    let mut shares = Sources::default();
    shares.set(1, lineage("192.0.2.1"), 5);
    assert_eq!(shares.makes_room(&lineage("192.0.2.2"), 1, MakesRoom::Newest), None);
    shares.set(2, lineage("192.0.2.1"), 1);
    assert_eq!(shares.makes_room(&lineage("192.0.2.2"), 1, MakesRoom::Newest), Some(2));
    // Growing keeps the age.
    shares.set(1, lineage("192.0.2.1"), 6);
    assert_eq!(shares.makes_room(&lineage("192.0.2.2"), 1, MakesRoom::Newest), Some(2));
}

#[test]
fn sources_are_addresses_and_networks_of_three_widths() {
    assert_eq!(lineage("192.0.2.1"), lineage("::ffff:192.0.2.1"));
    assert_ne!(lineage("192.0.2.1")[0], lineage("192.0.2.2")[0]);
    let (one, two) = (lineage("2001:db8::1"), lineage("2001:db8:0:80::1"));
    assert_eq!(one[..2], two[..2]);
    assert_ne!(one[2], two[2]);
    // Addresses for local use are names within this node, one for each source.
    assert_ne!(lineage("fd15:70a:510c:1::1")[0], lineage("fd15:70a:510c:2::1")[0]);
}

#[test]
fn one_mesh_behind_many_addresses_is_one_holder() {
    let (mut shares, mesh) = (ClientShares::default(), KeyDigest([1; 32]));
    let origin = |n: u8, mesh| Origin::new([192, 0, 2, n].into(), mesh, KeyDigest([n; 32]));
    for n in 0..3 {
        shares.set(n, &origin(n, Some(mesh)), 1);
    }
    assert_eq!(shares.makes_room(&origin(9, None), 1), Some(2));
    assert_eq!(shares.makes_room(&origin(9, Some(mesh)), 1), None);
    assert_eq!(shares.makes_room(&origin(9, Some(KeyDigest([2; 32]))), 3), None);
    // Another source takes no room by new meshes once it has more than each of these.
    let stranger = |mesh: u8| {
        Origin::new([198, 51, 100, 1].into(), Some(KeyDigest([mesh; 32])), KeyDigest([mesh; 32]))
    };
    assert_eq!(shares.makes_room(&stranger(20), 1), Some(2));
    shares.set(20, &stranger(20), 1);
    assert_eq!(shares.makes_room(&stranger(21), 1), None);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/shares.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn totals_and_orders_follow_whatever_is_set_and_removed(
        ops in prop::collection::vec((0u32..12, 0u8..3, 0u8..3, 0usize..4), 0..200),
    ) {
        let (mut shares, mut known) = (Shares::<u8, 2, u32>::default(), BTreeMap::new());
        for (id, wide, narrow, weight) in ops {
            if weight == 0 {
                prop_assert_eq!(shares.remove(id).is_some(), known.remove(&id).is_some());
            } else {
                shares.set(id, [wide, narrow], weight);
                known.insert(id, ([wide, narrow], weight));
            }
            prop_assert_eq!(shares.total(), known.values().map(|(_, weight)| weight).sum::<usize>());
            prop_assert_eq!(shares.len(), known.len());
            let of = |wide| known.values().filter(|(path, _)| path[0] == wide).map(|(_, w)| w).sum::<usize>();
            for wide in 0..4 {
                prop_assert_eq!(shares.held(&[wide, 0], 0), of(wide));
                if let Some(id) = shares.makes_room(&[wide, 0], 1, MakesRoom::Newest) {
                    let holder = known[&id].0[0];
                    let largest = (0..3).map(of).max().unwrap_or(0);
                    prop_assert!(holder == wide || (of(holder) == largest && of(wide) + 1 < largest));
                }
            }
        }
        for id in 0..12 {
            shares.remove(id);
        }
        prop_assert!(shares.holders.is_empty() && shares.widest.is_empty() && shares.total == 0);
    }
}
