use proptest::prelude::*;

use super::*;
use crate::space::Space;

const SIZE: u128 = 64;
const UNIVERSE: [Span; 2] = [Span::new(100, 100 + SIZE), Span::new(500, 500 + SIZE)];

fn owner(n: u8) -> Owner {
    Owner { peer: PeerName([2, 0, 0, 0, 0, n]), generation: 7 }
}

/// One stamp per address: what the ring stands for.
type Naive = BTreeMap<u128, Stamp>;

fn naive(ring: &Ring) -> Naive {
    ring.entries().flat_map(|e| (e.span.lo..e.span.hi).map(move |a| (a, e.stamp))).collect()
}

fn naive_join(map: &mut Naive, entry: Entry) {
    for (_, stamp) in map.range_mut(entry.span.lo..entry.span.hi) {
        *stamp = (*stamp).max(entry.stamp);
    }
}

fn is_normal(ring: &Ring) -> bool {
    let entries: Vec<Entry> = ring.entries().collect();
    let apart = entries.windows(2).all(|w| w[0].span.hi != w[1].span.lo || w[0].stamp != w[1].stamp);
    let mut by_owner: Vec<Entry> = ring.owners().flat_map(|o| ring.owned_by(o)).collect();
    by_owner.sort_unstable();
    let rebuilt = entries.iter().fold(0, |d, e| d ^ hash_run(e.span.lo, e.span.hi, e.stamp));
    apart && by_owner == entries && rebuilt == ring.digest()
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let one = (0..2_usize, 0..SIZE, 1..SIZE, 1..6_u64, 1..4_u8).prop_map(|(u, lo, len, version, n)| {
        let universe = UNIVERSE[u];
        let lo = universe.lo + lo;
        Entry { span: Span::new(lo, (lo + len).min(universe.hi)), stamp: Stamp { version, owner: owner(n) } }
    });
    prop::collection::vec(one, 0..24)
}

fn ring_with(entries: &[Entry]) -> Ring {
    let mut ring = Ring::divide(&UNIVERSE, &[owner(1), owner(2), owner(3)]);
    for entry in entries {
        ring.join(*entry);
    }
    ring
}

fn merged(a: &Ring, b: &Ring) -> Ring {
    let mut ring = a.clone();
    for entry in b.entries() {
        ring.join(entry);
    }
    ring
}

fn cut_at(entry: Entry, at: u128) -> Vec<Entry> {
    if entry.span.lo >= at || at >= entry.span.hi {
        return vec![entry];
    }
    let halves = [Span::new(entry.span.lo, at), Span::new(at, entry.span.hi)];
    halves.map(|span| Entry { span, ..entry }).to_vec()
}

proptest! {
    #[test]
    fn a_ring_is_the_pointwise_maximum_of_what_it_was_told(told in entries()) {
        let mut oracle = naive(&ring_with(&[]));
        let mut ring = ring_with(&[]);
        for entry in told {
            let before = naive(&ring);
            let changes = ring.join(entry);
            naive_join(&mut oracle, entry);
            let changed: BTreeMap<u128, Stamp> =
                changes.iter().flat_map(|c| (c.span.lo..c.span.hi).map(move |a| (a, c.before))).collect();
            for (address, stamp) in &oracle {
                prop_assert_eq!(before[address] != *stamp, changed.contains_key(address));
            }
            prop_assert!(changed.iter().all(|(a, stamp)| before[a] == *stamp));
        }
        prop_assert_eq!(naive(&ring), oracle);
        prop_assert!(is_normal(&ring));
        prop_assert!(ring.tiles(&UNIVERSE));
    }

    #[test]
    fn merging_is_associative_commutative_and_idempotent(a in entries(), b in entries(), c in entries()) {
        let (a, b, c) = (ring_with(&a), ring_with(&b), ring_with(&c));
        let (ab, ba) = (merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(naive(&ab), naive(&ba));
        prop_assert_eq!(ab.digest(), ba.digest());
        prop_assert_eq!(naive(&merged(&ab, &c)), naive(&merged(&a, &merged(&b, &c))));
        prop_assert_eq!(merged(&ab, &b).digest(), ab.digest());
        prop_assert!(is_normal(&merged(&ab, &c)));
    }

    #[test]
    fn coalescing_changes_no_owner_and_leaves_one_run_per_stretch(told in entries(), n in 1..4_u8) {
        let mut ring = ring_with(&told);
        let before = naive(&ring);
        let own: Vec<Span> = ring.owned_by(owner(n)).map(|e| e.span).collect();
        for span in own {
            ring.coalesce(owner(n), span);
        }
        let after = naive(&ring);
        for (address, stamp) in &before {
            prop_assert_eq!(stamp.owner, after[address].owner);
            prop_assert!(after[address] >= *stamp);
        }
        let own: Vec<Entry> = ring.owned_by(owner(n)).collect();
        prop_assert!(own.windows(2).all(|w| w[0].span.hi < w[1].span.lo));
        prop_assert!(is_normal(&ring));
    }

    #[test]
    fn what_is_touched_is_enough_to_keep_a_copy(told in entries()) {
        let mut ring = ring_with(&[]);
        let mut copy: BTreeMap<u128, (u128, Stamp)> = BTreeMap::new();
        for entry in told {
            ring.join(entry);
            for (lo, run) in ring.take_touched() {
                match run {
                    Some(run) => copy.insert(lo, run),
                    None => copy.remove(&lo),
                };
            }
        }
        prop_assert!(copy.is_empty() || copy == ring.runs);
    }

    #[test]
    fn a_ring_put_together_from_pieces_is_the_one_that_was_cut_up(
        told in entries(),
        cuts in prop::collection::vec(100..564_u128, 0..12),
    ) {
        let ring = ring_with(&told);
        let mut pieces: Vec<Entry> = ring.entries().collect();
        for at in cuts {
            pieces = pieces.into_iter().flat_map(|piece| cut_at(piece, at)).collect();
        }
        let again = Ring::assemble(&UNIVERSE, ring.seeds(), &pieces);
        prop_assert!(again.is_some_and(|again| is_normal(&again) && again.digest() == ring.digest()));
    }

    #[test]
    fn a_window_shows_what_walking_shows(told in entries(), lo in 90..580_u128, len in 0..90_u128) {
        let ring = ring_with(&told);
        let window = Span::new(lo, lo + len);
        let seen: Naive =
            ring.within(window).flat_map(|e| (e.span.lo..e.span.hi).map(move |a| (a, e.stamp))).collect();
        let walked: Naive = naive(&ring).into_iter().filter(|(a, _)| window.contains(*a)).collect();
        prop_assert_eq!(seen, walked);
    }
}

/// One owner's side of a long life: what is free, and what containers hold.
struct Holder {
    owner: Owner,
    space: Space,
    held: Vec<u128>,
}

/// The giver gives what it would give a stranger: an aligned chunk of what is free in the window.
fn donate(ring: &mut Ring, giver: &mut Holder, receiver: &mut Holder, window: Span) {
    let Some(chunk) = giver.space.chunk_to_give(window) else { return };
    let given: Vec<Entry> = ring.within(chunk).collect();
    for Entry { span, stamp } in given {
        assert_eq!(stamp.owner, giver.owner);
        let stamp = Stamp { version: stamp.version + 1, owner: receiver.owner };
        ring.join(Entry { span, stamp });
    }
    giver.space.remove(chunk);
    receiver.space.insert(chunk);
    ring.coalesce(receiver.owner, chunk);
}

#[test]
fn a_million_donations_allocations_and_frees_leave_a_ring_no_larger_than_ownership_needs() {
    let universe = [Span::new(0, 1 << 12)];
    let mut ring = Ring::divide(&universe, &[owner(1), owner(2), owner(3)]);
    let mut holders: Vec<Holder> = (1..=3)
        .map(|n| {
            let mut holder = Holder { owner: owner(n), space: Space::default(), held: Vec::new() };
            ring.owned_by(owner(n)).for_each(|entry| holder.space.insert(entry.span));
            holder
        })
        .collect();
    let mut state = 1_u64;
    for _ in 0..1_000_000 {
        state = mix(state, 3);
        let (n, pick) = ((state % 3) as usize, state >> 40);
        let lo = u128::from(state >> 8 & 0xfff);
        let window = Span::new(lo, (lo + (1 << (state >> 4 & 7))).min(1 << 12));
        match state >> 20 & 3 {
            0 if !holders[n].held.is_empty() => {
                let at = pick as usize % holders[n].held.len();
                let address = holders[n].held.swap_remove(at);
                holders[n].space.insert(Span::one(address));
            }
            1 => {
                if let Some(address) = holders[n].space.lowest(window) {
                    holders[n].space.remove(Span::one(address));
                    holders[n].held.push(address);
                }
            }
            _ => {
                let mut receiver = holders.remove(n);
                donate(&mut ring, &mut holders[pick as usize % 2], &mut receiver, window);
                holders.insert(n, receiver);
            }
        }
        ring.take_touched();
    }
    let map = naive(&ring);
    let stretches = 1 + map.values().zip(map.values().skip(1)).filter(|(a, b)| a.owner != b.owner).count();
    assert!(is_normal(&ring) && ring.tiles(&universe));
    assert_eq!(ring.len(), stretches);
    for holder in &holders {
        let owned: u128 = ring.owned_by(holder.owner).map(|entry| entry.span.len()).sum();
        assert_eq!(owned, holder.space.len() + holder.held.len() as u128);
        assert!(!holder.held.is_empty());
    }
}

#[test]
fn seeds_get_aligned_shares_that_differ_by_a_factor_of_two_at_most() {
    let universe = [Span::new(0, 1 << 20)];
    for n in 1..=12 {
        let seeds: Vec<Owner> = (1..=n).map(owner).collect();
        let ring = Ring::divide(&universe, &seeds);
        assert!(ring.tiles(&universe));
        let sizes: Vec<u128> =
            seeds.iter().map(|s| ring.owned_by(*s).map(|e| e.span.len()).sum::<u128>()).collect();
        assert!(sizes.iter().max().unwrap() <= &(sizes.iter().min().unwrap() * 2), "{sizes:?}");
        assert!(ring.entries().all(|e| e.span.lo % e.span.len() == 0));
    }
}

#[test]
fn a_universe_smaller_than_the_seed_list_is_still_tiled() {
    let universe = [Span::new(8, 12)];
    let seeds: Vec<Owner> = (1..=9).map(owner).collect();
    assert!(Ring::divide(&universe, &seeds).tiles(&universe));
}
