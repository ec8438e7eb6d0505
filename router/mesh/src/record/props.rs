//! Merge laws, against an oracle that simply remembers what the owner said at every version.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::link_state::KeyTag;

const OWNER: PeerName = PeerName([1; 6]);

/// Everything live in a record, as plain values.
type View = (BTreeMap<PeerName, (u8, Option<KeyTag>)>, BTreeMap<FactKey, Bytes>);

fn view(record: &Record) -> View {
    let links = record.links().map(|(name, state)| (name, shown(state))).collect();
    let facts =
        record.namespaces().flat_map(|ns| record.facts(ns).map(move |(k, v)| ((ns, k.clone()), v.clone())));
    (links, facts.collect())
}

fn shown(state: LinkState) -> (u8, Option<KeyTag>) {
    (state.bits(), state.far())
}

/// What happens to an owner and three replicas.
#[derive(Debug, Clone)]
enum Step {
    Set {
        key: u8,
        value: u8,
    },
    Remove {
        key: u8,
    },
    Link {
        to: u8,
        state: LinkState,
    },
    Restart,
    /// Some record (0 is the owner's) forgets removals.
    Collect {
        which: usize,
    },
    /// `to` is sent what it lacks by `from`.
    Sync {
        from: usize,
        to: usize,
    },
    /// `from` makes a delta for what `to` has; it arrives later, perhaps twice.
    Delay {
        from: usize,
        to: usize,
    },
    /// A delayed delta arrives somewhere.
    Arrive {
        which: prop::sample::Index,
        to: usize,
        again: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let up = (0..4u8, 0..3u32).prop_map(|(class, far)| LinkState::new(class, None, false, KeyTag(far)));
    let state = prop_oneof![Just(LinkState::GONE), up];
    prop_oneof![
        4 => (0..5u8, 0..3u8).prop_map(|(key, value)| Step::Set { key, value }),
        3 => (0..5u8).prop_map(|key| Step::Remove { key }),
        3 => (0..4u8, state).prop_map(|(to, state)| Step::Link { to, state }),
        1 => Just(Step::Restart),
        2 => (0..4usize).prop_map(|which| Step::Collect { which }),
        4 => (0..4usize, 1..4usize).prop_map(|(from, to)| Step::Sync { from, to }),
        4 => (0..4usize, 1..4usize).prop_map(|(from, to)| Step::Delay { from, to }),
        4 => (any::<prop::sample::Index>(), 1..4usize, any::<bool>())
            .prop_map(|(which, to, again)| Step::Arrive { which, to, again }),
    ]
}

/// Applies a step; every write of the owner is entered in `history`.
fn apply(
    step: Step,
    records: &mut [Record; 4],
    delayed: &mut Vec<Delta>,
    history: &mut BTreeMap<Stamp, View>,
) {
    match step {
        Step::Set { key, value } => {
            records[0].set_fact(20, &[key], Some(Bytes::from(vec![value]))).unwrap();
        }
        Step::Remove { key } => {
            records[0].set_fact(20, &[key], None).unwrap();
        }
        Step::Link { to, state } => {
            records[0].set_link(PeerName([9, 9, 9, 9, 9, to]), state);
        }
        Step::Restart => {
            let life = Life { incarnation: records[0].stamp().life.incarnation + 1, tag: 5 };
            records[0] = Record::new(life);
            records[0].set_fact(0, b"", Some(Bytes::from_static(b"info"))).unwrap();
        }
        Step::Collect { which } => records[which].collect(),
        Step::Sync { from, to } => {
            let delta = records[from].delta(OWNER, records[to].stamp());
            let merged = records[to].merge(delta);
            assert!(
                matches!(merged, Merged::News(_) | Merged::Stale),
                "a delta for what one has is never a gap"
            );
        }
        Step::Delay { from, to } => delayed.push(records[from].delta(OWNER, records[to].stamp())),
        Step::Arrive { which, to, again } if !delayed.is_empty() => {
            let at = which.index(delayed.len());
            let delta = if again { delayed[at].clone() } else { delayed.remove(at) };
            records[to].merge(delta);
        }
        Step::Arrive { .. } => {}
    }
    history.insert(records[0].stamp(), view(&records[0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_replica_at_a_version_shows_exactly_what_the_owner_showed_at_that_version(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut records: [Record; 4] = Default::default();
        let mut history = BTreeMap::from([(Stamp::default(), View::default())]);
        let mut delayed = Vec::new();
        for step in steps {
            let before = records.clone();
            apply(step, &mut records, &mut delayed, &mut history);
            for (replica, before) in records.iter().zip(&before).skip(1) {
                prop_assert!(replica.stamp() >= before.stamp(), "a replica never goes back");
                prop_assert_eq!(&view(replica), &history[&replica.stamp()]);
            }
        }
        // Whatever was lost, one exchange from the owner through the others mends it.
        for (from, to) in [(0, 1), (1, 2), (2, 3)] {
            apply(Step::Sync { from, to }, &mut records, &mut delayed, &mut history);
        }
        for replica in &records[1..] {
            prop_assert_eq!(replica.stamp(), records[0].stamp());
            prop_assert_eq!(view(replica), view(&records[0]));
        }
    }

    #[test]
    fn what_a_merge_reports_is_exactly_what_changed(steps in prop::collection::vec(step(), 1..80)) {
        let mut records: [Record; 4] = Default::default();
        let (mut history, mut delayed) = (BTreeMap::new(), Vec::new());
        for step in steps {
            let before = view(&records[1]);
            let Step::Sync { from, to: 1 } = step else {
                apply(step, &mut records, &mut delayed, &mut history);
                continue;
            };
            let delta = records[from].delta(OWNER, records[1].stamp());
            let (mut links, mut facts) = before;
            if let Merged::News(news) = records[1].merge(delta.clone()) {
                for (name, before, after) in news.links {
                    prop_assert_eq!(links.get(&name).copied(), before.is_up().then_some(shown(before)));
                    if after.is_up() { links.insert(name, shown(after)) } else { links.remove(&name) };
                }
                for (key, value) in news.facts {
                    prop_assert_ne!(facts.get(&key), value.as_ref(), "no news");
                    match value {
                        Some(value) => facts.insert(key, value),
                        None => facts.remove(&key),
                    };
                }
            }
            prop_assert_eq!((links, facts), view(&records[1]));
            prop_assert_eq!(records[1].merge(delta), Merged::Stale, "merging twice is merging once");
        }
    }

    #[test]
    fn deltas_give_the_same_in_every_order(
        steps in prop::collection::vec(step(), 1..60), order in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut records: [Record; 4] = Default::default();
        let (mut history, mut delayed) = (BTreeMap::new(), Vec::new());
        for step in steps.into_iter().filter(|s| !matches!(s, Step::Arrive { .. })) {
            apply(step, &mut records, &mut delayed, &mut history);
        }
        // Whole states: those never gap, so order and repetition must not matter at all.
        let whole: Vec<Delta> = records.iter().map(|record| record.delta(OWNER, Stamp::default())).collect();
        let (mut forth, mut shuffled) = (Record::default(), Record::default());
        whole.iter().for_each(|delta| { forth.merge(delta.clone()); });
        order.iter().for_each(|i| { shuffled.merge(whole[i % whole.len()].clone()); });
        prop_assert_eq!(view(&forth), view(&shuffled));
        prop_assert_eq!(forth.stamp(), shuffled.stamp());
    }

    #[test]
    fn size_is_the_sum_of_what_is_kept(steps in prop::collection::vec(step(), 1..100)) {
        let mut records: [Record; 4] = Default::default();
        let (mut history, mut delayed) = (BTreeMap::new(), Vec::new());
        for step in steps {
            apply(step, &mut records, &mut delayed, &mut history);
            for record in &records {
                let facts = record.facts.values().flatten().map(|(key, fact)| fact.cost(key)).sum::<usize>();
                prop_assert_eq!(record.size, facts + record.links.len() * Cell::COST);
            }
        }
    }
}

#[test]
fn an_owner_with_no_room_left_refuses_and_changes_nothing() {
    let mut record = Record::new(Life { incarnation: 1, tag: 1 });
    let value = |n: u8| Some(Bytes::from(vec![n; 60_000]));
    let fits = (0..).take_while(|n| record.set_fact(20, &[*n], value(1)).is_ok()).count();
    assert_eq!(fits, MAX_OWN / 60_017);
    let before = record.clone();
    assert_eq!(record.set_fact(20, &[99], value(1)), Err(Merged::TooLarge));
    assert_eq!(view(&record), view(&before));
    assert_eq!(record.set_fact(20, &[0], None), Ok(true));
    assert_eq!(record.set_fact(20, &[99], value(1)), Ok(true));
}
