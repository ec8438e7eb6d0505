use std::collections::{BTreeMap, BTreeSet};

use super::*;

const BRIDGE: LinkIndex = LinkIndex(3);
const TAP: LinkIndex = LinkIndex(7);
const VXLAN: LinkIndex = LinkIndex(8);
const CONTAINER: LinkIndex = LinkIndex(9);

fn mac(n: u8) -> Mac {
    Mac::local_unicast([0, 0, 0, 0, 0, n])
}

fn entry(n: u8, port: LinkIndex, is_ours: bool, is_fixed: bool) -> Entry {
    Entry { mac: mac(n), port, bridge: BRIDGE, is_ours, is_fixed }
}

fn set(numbers: &[u8]) -> BTreeSet<Mac> {
    numbers.iter().map(|n| mac(*n)).collect()
}

fn wanted(ports: &[(u8, LinkIndex)]) -> BTreeMap<Mac, LinkIndex> {
    ports.iter().map(|(n, port)| (mac(*n), *port)).collect()
}

fn diff(entries: &[Entry], uplinks: &[LinkIndex], wanted: &BTreeMap<Mac, LinkIndex>) -> FdbDiff {
    let names = uplinks.iter().map(|port| (*port, format!("port{}", port.0))).collect();
    plan(entries, &names, wanted).0
}

#[test]
fn only_the_difference_is_changed_and_only_what_is_ours_is_removed() {
    let entries = [
        entry(1, TAP, true, false),
        entry(2, TAP, true, false),
        entry(3, TAP, false, true),
        entry(4, CONTAINER, true, false),
    ];
    let diff = diff(&entries, &[TAP], &wanted(&[(2, TAP), (5, TAP)]));
    assert_eq!(diff, FdbDiff { added: set(&[5]), removed: set(&[1]), ..FdbDiff::default() });
}

#[test]
fn an_address_that_somebody_fixed_elsewhere_is_not_taken_over() {
    let entries = [entry(1, CONTAINER, false, true), entry(2, CONTAINER, false, false)];
    let diff = diff(&entries, &[TAP], &wanted(&[(1, TAP), (2, TAP)]));
    assert_eq!(diff, FdbDiff { added: set(&[2]), blocked: set(&[1]), ..FdbDiff::default() });
}

#[test]
fn a_station_that_changes_its_port_is_moved_by_one_request() {
    let entries = [entry(1, TAP, true, false), entry(2, VXLAN, true, false)];
    let names = BTreeMap::from([(TAP, "tap".to_owned()), (VXLAN, "vx".to_owned())]);
    let (diff, changes) = plan(&entries, &names, &wanted(&[(1, VXLAN), (2, VXLAN)]));
    assert_eq!(diff, FdbDiff { moved: set(&[1]), ..FdbDiff::default() });
    assert_eq!(changes.len(), 1);
    assert!(
        matches!(&changes[0].message, RouteNetlinkMessage::NewNeighbour(m) if m.header.ifindex == VXLAN.0)
    );
}

/// A bridge's table as a plain list, changed as the kernel would: no cleverness to share mistakes with.
fn carry_out(entries: &[Entry], changes: &[Change]) -> Vec<Entry> {
    let mut table = entries.to_vec();
    for change in changes {
        if let RouteNetlinkMessage::NewNeighbour(message) = &change.message {
            let (mac, port) = subject(message);
            table.retain(|e| e.mac != mac);
            table.push(Entry { mac, port, bridge: BRIDGE, is_ours: true, is_fixed: false });
        } else if let RouteNetlinkMessage::DelNeighbour(message) = &change.message {
            let (mac, port) = subject(message);
            assert!(
                table.iter().any(|e| e.mac == mac && e.port == port),
                "nothing is removed that is not there"
            );
            table.retain(|e| e.mac != mac || e.port != port);
        }
    }
    table
}

fn subject(message: &NeighbourMessage) -> (Mac, LinkIndex) {
    let mac = message.attributes.iter().find_map(|a| {
        if let NeighbourAttribute::LinkLayerAddress(bytes) = a {
            bytes.as_slice().try_into().ok().map(Mac)
        } else {
            None
        }
    });
    (mac.unwrap(), LinkIndex(message.header.ifindex))
}

#[test]
fn any_table_becomes_the_wanted_one_and_what_is_others_stays() {
    // Every state of one address (absent, ours or learned or fixed on each port) against every wish, two addresses
    // at a time: 10 states and 3 wishes each.
    let ports = [TAP, VXLAN, CONTAINER];
    let marks = [(true, false), (false, false), (false, true)];
    let mut states: Vec<Option<(LinkIndex, bool, bool)>> = vec![None];
    states.extend(ports.iter().flat_map(|port| marks.map(|(ours, fixed)| Some((*port, ours, fixed)))));
    let wishes = [None, Some(TAP), Some(VXLAN)];
    for (a, b) in states.iter().flat_map(|a| states.iter().map(move |b| (a, b))) {
        for (wish_a, wish_b) in wishes.iter().flat_map(|a| wishes.iter().map(move |b| (a, b))) {
            let entries: Vec<Entry> =
                [(1, a), (2, b)].iter().filter_map(|(n, s)| s.map(|(p, o, f)| entry(*n, p, o, f))).collect();
            let wanted: BTreeMap<Mac, LinkIndex> =
                [(1, wish_a), (2, wish_b)].iter().filter_map(|(n, w)| w.map(|p| (mac(*n), p))).collect();
            let names = BTreeMap::from([(TAP, String::new()), (VXLAN, String::new())]);
            let (diff, changes) = plan(&entries, &names, &wanted);
            let after = carry_out(&entries, &changes);
            for old in &entries {
                let is_taken_over = !old.is_fixed && wanted.contains_key(&old.mac);
                let stays = after.contains(old);
                assert!(old.is_ours || stays || is_taken_over, "{entries:?} {wanted:?}");
            }
            for (mac, port) in &wanted {
                let leads_there = after.iter().any(|e| e.mac == *mac && e.port == *port);
                assert!(leads_there || diff.blocked.contains(mac), "{entries:?} {wanted:?}");
            }
            let stray = |e: &&Entry| e.is_ours && names.contains_key(&e.port) && !wanted.contains_key(&e.mac);
            assert_eq!(after.iter().find(stray), None);
            let (again, nothing) = plan(&after, &names, &wanted);
            assert!(again.is_empty() && nothing.is_empty(), "a second pass has nothing to do");
            let touched = changes.iter().map(|c| c.message.clone()).collect::<Vec<_>>().len();
            assert_eq!(touched, diff.added.len() + diff.moved.len() + diff.removed.len(), "one request each");
        }
    }
}
