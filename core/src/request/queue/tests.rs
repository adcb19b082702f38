//! Tests of the order, limits, deadlines and accounting of the queue.

use super::{
    Accepted, Counts, Limit, MAX_OVERTAKES, Pressure, Priority, PriorityQueue, QueueLimits, Slot,
};
use crate::timer::{Reason, anchor};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;
use std::time::{Duration, Instant};

const NANO: Duration = Duration::from_nanos(1);
const MIB: usize = 1024 * 1024;

#[test]
fn high_goes_before_normal_before_low_and_each_in_order_of_arrival() {
    let mut queue = PriorityQueue::default();
    for item in ["l1", "n1", "h1", "h2", "n2", "l2"] {
        push(&mut queue, item);
    }
    assert_eq!(drain(&mut queue), ["h1", "h2", "n1", "n2", "l1", "l2"]);
}

#[test]
fn a_hundred_items_fit_and_one_more_is_handed_back() {
    let mut queue = PriorityQueue::default();
    for item in 0..100 {
        queue.push(Priority::Low, item, 0, None).unwrap();
    }
    let full = queue.push(Priority::High, 100, 0, None).unwrap_err();
    assert_eq!((full.item, full.limit), (100, Limit::Items));
    assert_eq!((queue.len(), queue.counts().accepted), (100, 100));
    queue.pop().unwrap();
    assert!(queue.push(Priority::High, 100, 0, None).is_ok());
}

#[test]
fn thirty_two_mebibytes_fit_and_one_byte_more_does_not() {
    let mut queue = PriorityQueue::default();
    let last = queue.push(Priority::Normal, 'a', 32 * MIB, None).unwrap();
    let full = queue.push(Priority::Normal, 'b', 1, None).unwrap_err();
    assert_eq!((full.item, full.limit), ('b', Limit::Bytes));
    assert!(queue.push(Priority::Normal, 'c', 0, None).is_ok());
    queue.remove(last.slot).unwrap();
    assert_eq!(queue.push(Priority::Normal, 'd', 32 * MIB + 1, None).unwrap_err().item, 'd');
    assert_eq!(queue.push(Priority::Normal, 'e', usize::MAX, None).unwrap_err().item, 'e');
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn pressure_begins_at_four_fifths_of_the_items() {
    let mut queue = PriorityQueue::default();
    for item in 0..79 {
        assert_eq!(queue.push(Priority::Low, item, 0, None).unwrap().pressure, Pressure::Relaxed);
    }
    assert_eq!(queue.push(Priority::Low, 79, 0, None).unwrap().pressure, Pressure::Pressured);
    queue.pop();
    assert!(!queue.is_pressured());
}

#[test]
fn pressure_begins_at_four_fifths_of_the_bytes() {
    let mut queue = PriorityQueue::new(QueueLimits { items: 100, bytes: 1_000 });
    assert_eq!(queue.push(Priority::Low, (), 799, None).unwrap().pressure, Pressure::Relaxed);
    assert_eq!(queue.push(Priority::Low, (), 1, None).unwrap().pressure, Pressure::Pressured);
}

#[test]
fn a_small_queue_is_pressured_only_from_four_fifths_on() {
    for (items, at) in [(1, 1), (3, 3), (4, 4), (5, 4), (9, 8)] {
        let mut queue = PriorityQueue::new(QueueLimits { items, bytes: 1 });
        let first = (1..=items).find(|_| {
            queue.push(Priority::Low, (), 0, None).unwrap().pressure == Pressure::Pressured
        });
        assert_eq!(first, Some(at), "of {items}");
    }
}

#[test]
fn a_low_item_is_overtaken_so_often_and_no_more() {
    let mut queue = PriorityQueue::default();
    push(&mut queue, "l");
    for _ in 0..MAX_OVERTAKES {
        push(&mut queue, "h");
        assert_eq!(queue.pop().unwrap().item, "h");
    }
    push(&mut queue, "h");
    assert_eq!(queue.pop().unwrap().item, "l");
    assert_eq!(queue.pop().unwrap().item, "h");
}

#[test]
fn when_two_classes_have_waited_long_both_have_their_turn() {
    let mut queue = PriorityQueue::default();
    push(&mut queue, "l");
    push(&mut queue, "n");
    for _ in 0..MAX_OVERTAKES + 1 {
        push(&mut queue, "h");
    }
    let order = drain(&mut queue);
    let place = |item| order.iter().position(|&other| other == item).unwrap() as u32;
    assert_eq!((place("l"), place("n")), (MAX_OVERTAKES, MAX_OVERTAKES + 1));
}

#[test]
fn a_class_that_empties_otherwise_begins_to_wait_anew() {
    let mut queue = PriorityQueue::default();
    let low = push(&mut queue, "l");
    for _ in 0..MAX_OVERTAKES {
        push(&mut queue, "h");
        queue.pop().unwrap();
    }
    queue.remove(low.slot).unwrap();
    push(&mut queue, "l");
    push(&mut queue, "h");
    assert_eq!(drain(&mut queue), ["h", "l"]);
}

#[test]
fn a_class_has_not_waited_while_it_was_empty() {
    let mut queue = PriorityQueue::default();
    for _ in 0..MAX_OVERTAKES {
        push(&mut queue, "h");
        queue.pop().unwrap();
    }
    push(&mut queue, "l");
    push(&mut queue, "h");
    assert_eq!(drain(&mut queue), ["h", "l"]);
}

#[test]
fn an_item_expires_exactly_at_its_deadline_and_not_before() {
    let now = anchor();
    let mut queue = PriorityQueue::default();
    queue.push(Priority::Low, "second", 1, Some(now + 2 * NANO)).unwrap();
    queue.push(Priority::High, "first", 1, Some(now + NANO)).unwrap();
    queue.push(Priority::High, "never", 1, None).unwrap();
    assert_eq!(queue.deadline(), Some((now + NANO, Reason::Request)));
    assert_eq!(queue.expire(now).count(), 0);
    assert_eq!(queue.expire(now + NANO).collect::<Vec<_>>(), ["first"]);
    assert_eq!(queue.deadline(), Some((now + 2 * NANO, Reason::Request)));
    assert_eq!(queue.expire(now + 3 * NANO).collect::<Vec<_>>(), ["second"]);
    assert_eq!((queue.deadline(), queue.len(), queue.bytes()), (None, 1, 1));
}

#[test]
fn what_is_not_asked_of_the_expired_stays() {
    let now = anchor();
    let mut queue = PriorityQueue::default();
    queue.push(Priority::Low, 1, 0, Some(now)).unwrap();
    queue.push(Priority::Low, 2, 0, Some(now)).unwrap();
    assert_eq!(queue.expire(now).next(), Some(1));
    assert_eq!((queue.len(), queue.counts().expired), (1, 1));
}

#[test]
fn an_item_leaves_once_by_whichever_way() {
    let now = anchor();
    let mut queue = PriorityQueue::default();
    let slot = queue.push(Priority::Normal, (), 3, Some(now)).unwrap().slot;
    let popped = queue.pop().unwrap();
    assert_eq!((popped.slot, popped.priority, popped.bytes), (slot, Priority::Normal, 3));
    assert_eq!(popped.deadline, Some(now));
    assert_eq!((queue.remove(slot), queue.expire(now).count()), (None, 0));
    assert!(queue.pop().is_none() && queue.is_empty());
    let counts = Counts { accepted: 1, delivered: 1, expired: 0, removed: 0 };
    assert_eq!(queue.counts(), counts);
}

#[test]
fn a_refusal_names_the_limit_without_the_item() {
    let mut queue = PriorityQueue::new(QueueLimits { items: 1, bytes: 1 });
    let bytes = queue.push(Priority::Low, "secret", 2, None).unwrap_err();
    queue.push(Priority::Low, "", 1, None).unwrap();
    let items = queue.push(Priority::Low, "secret", 0, None).unwrap_err();
    assert_eq!(items.to_string(), "the queue holds as many items as it may");
    assert_eq!(bytes.to_string(), "the queue has too few bytes left for the item");
    assert_eq!(
        format!("{bytes:?} {items:?}"),
        "Full { limit: Bytes, .. } Full { limit: Items, .. }"
    );
}

#[test]
fn priorities_serialise_as_their_text() {
    for priority in Priority::ALL {
        assert_eq!(serde_json::to_value(priority).unwrap(), priority.as_str());
    }
    assert_eq!(Priority::default(), Priority::Normal);
}

#[derive(Debug, Clone)]
enum Op {
    Push { priority: Priority, bytes: usize, lives: Option<u64> },
    Pop,
    Remove(usize),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let priority = prop::sample::select(Priority::ALL.to_vec());
    let op = prop_oneof![
        6 => (priority, 0usize..40, prop::option::of(0u64..50))
            .prop_map(|(priority, bytes, lives)| Op::Push { priority, bytes, lives }),
        4 => Just(Op::Pop),
        1 => (0usize..300).prop_map(Op::Remove),
        1 => (0u64..20).prop_map(Op::Pass),
    ];
    prop::collection::vec(op, 0..300)
}

struct Waiting {
    slot: Slot,
    priority: Priority,
    bytes: usize,
    deadline: Option<Instant>,
    overtaken: u32,
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/queue.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_lost_starved_or_out_of_order(ops in ops()) {
        let mut now = anchor();
        let limits = QueueLimits { items: 30, bytes: 500 };
        let mut queue = PriorityQueue::new(limits);
        let mut model: Vec<Waiting> = Vec::new();
        let mut slots = Vec::new();
        for op in ops {
            match op {
                Op::Push { priority, bytes, lives } => {
                    let deadline = lives.map(|ms| now + Duration::from_millis(ms));
                    let used: usize = model.iter().map(|waiting| waiting.bytes).sum();
                    let fits = model.len() < 30 && used + bytes <= 500;
                    let pushed = queue.push(priority, slots.len(), bytes, deadline);
                    prop_assert_eq!(pushed.is_ok(), fits);
                    if let Ok(Accepted { slot, .. }) = pushed {
                        slots.push(slot);
                        model.push(Waiting { slot, priority, bytes, deadline, overtaken: 0 });
                    }
                }
                Op::Pop => {
                    let popped = queue.pop();
                    prop_assert_eq!(popped.is_some(), !model.is_empty());
                    if let Some(popped) = popped {
                        let at = model.iter().position(|w| w.slot == popped.slot).unwrap();
                        let first = model.iter().position(|w| w.priority == popped.priority);
                        prop_assert_eq!(first, Some(at), "not the first of its class");
                        let gone = model.remove(at);
                        for priority in Priority::ALL {
                            if let Some(head) = model.iter_mut().find(|w| w.priority == priority)
                                && priority != gone.priority
                            {
                                head.overtaken += 1;
                                prop_assert!(head.overtaken <= MAX_OVERTAKES + 1, "starved");
                            }
                        }
                    }
                }
                Op::Remove(index) => {
                    if let Some(&slot) = slots.get(index) {
                        let at = model.iter().position(|waiting| waiting.slot == slot);
                        prop_assert_eq!(queue.remove(slot), at.map(|_| index));
                        at.map(|at| model.remove(at));
                    }
                }
                Op::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    let late = |w: &Waiting| w.deadline.is_some_and(|at| at <= now);
                    let expected = model.iter().filter(|waiting| late(waiting)).count();
                    prop_assert_eq!(queue.expire(now).count(), expected);
                    model.retain(|waiting| !late(waiting));
                }
            }
            let counts = queue.counts();
            let left = counts.delivered + counts.expired + counts.removed;
            prop_assert_eq!(counts.accepted, left + model.len() as u64);
            prop_assert_eq!(queue.len(), model.len());
            prop_assert_eq!(queue.bytes(), model.iter().map(|waiting| waiting.bytes).sum::<usize>());
            let earliest = model.iter().filter_map(|waiting| waiting.deadline).min();
            prop_assert_eq!(queue.deadline().map(|(at, _)| at), earliest);
        }
    }
}

fn push(queue: &mut PriorityQueue<&'static str>, item: &'static str) -> Accepted {
    let priority = match item.as_bytes()[0] {
        b'h' => Priority::High,
        b'n' => Priority::Normal,
        _ => Priority::Low,
    };
    queue.push(priority, item, 0, None).unwrap()
}

fn drain(queue: &mut PriorityQueue<&'static str>) -> Vec<&'static str> {
    std::iter::from_fn(|| queue.pop()).map(|popped| popped.item).collect()
}

#[test]
fn a_full_queue_and_its_order() {
    use crate::request::queue::{Pressure, Priority, PriorityQueue, QueueLimits};
    let mut queue = PriorityQueue::new(QueueLimits { items: 2, bytes: 1024 });
    let later = queue.push(Priority::Low, "later", 5, None).unwrap();
    assert_eq!(later.pressure, Pressure::Relaxed);
    queue.push(Priority::High, "now", 3, None).unwrap();
    assert_eq!(queue.push(Priority::High, "too many", 8, None).unwrap_err().item, "too many");
    assert_eq!(queue.pop().map(|popped| popped.item), Some("now"));
    assert_eq!(queue.remove(later.slot), Some("later"));
}
