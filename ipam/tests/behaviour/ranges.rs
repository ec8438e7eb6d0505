//! Which addresses are managed, and where an allocation goes.

use weave_ipam::{Config, ConfigError, Init, Ipam, Refusal, RestoreError};

use crate::lab::{Lab, addresses, config, name};

const LONE: Init = Init::Consensus { peers: 1 };

fn with_defaults(ranges: &[&str], defaults: &[&str]) -> Config {
    let default_subnets = defaults.iter().map(|s| s.parse().unwrap()).collect();
    Config { default_subnets, ..config(0, ranges, LONE) }
}

fn lone(config: Config) -> Lab {
    let mut lab = Lab::empty();
    lab.add(config);
    lab
}

#[test]
fn without_a_subnet_an_allocation_goes_to_the_first_range_of_each_family() {
    let ranges = ["10.32.0.0/24", "10.40.0.0/24", "fd00:1::/112", "fd00:2::/112"];
    let mut lab = lone(config(0, &ranges, LONE));
    assert_eq!(lab.allocate(0, "a", None), addresses(&["10.32.0.1/24", "fd00:1::1/112"]));
    assert_eq!(lab.allocate(0, "a", Some("10.40.0.0/24")), addresses(&["10.40.0.1/24"]));
    assert_eq!(lab.allocate(0, "a", Some("fd00:2::/120")), addresses(&["fd00:2::1/120"]));
    assert_eq!(lab.node(0).status().active, 4);
}

#[test]
fn without_a_subnet_an_allocation_goes_to_the_default_subnets_where_they_are_given() {
    let ranges = ["10.32.0.0/16", "fd00:1::/64"];
    let mut lab = lone(with_defaults(&ranges, &["10.32.7.0/24"]));
    assert_eq!(lab.allocate(0, "a", None), addresses(&["10.32.7.1/24"]));
    let mut lab = lone(with_defaults(&ranges, &["fd00:1::7:0/112", "10.32.9.0/24"]));
    assert_eq!(lab.allocate(0, "a", None), addresses(&["fd00:1::7:1/112", "10.32.9.1/24"]));
}

#[test]
fn a_subnet_across_two_ranges_is_outside_of_both() {
    let mut lab = lone(config(0, &["10.32.0.0/24", "10.32.1.0/24"], LONE));
    let subnet = "10.32.0.0/23".parse().unwrap();
    assert_eq!(lab.allocate(0, "a", Some("10.32.0.0/23")), Err(Refusal::OutOfRange { subnet }));
}

#[test]
fn space_is_donated_in_every_range_on_its_own() {
    let ranges = ["10.32.0.0/28", "10.40.0.0/24", "fd00:1::/120"];
    let mut lab = Lab::consensus(2, &ranges);
    // Both halves of the first range are used up by one router, which has much left in the others.
    for n in 0..14 {
        assert!(lab.allocate(0, &format!("c{n}"), Some("10.32.0.0/28")).is_ok(), "{n}");
    }
    let subnet = "10.32.0.0/28".parse().unwrap();
    let request = lab.ask_allocate(1, "late", Some("10.32.0.0/28"), 3_000);
    assert_eq!(lab.answer(request, 4_000), Err(Refusal::Exhausted { subnet }));
    assert_eq!(lab.allocate(1, "b", Some("10.40.0.0/24")), addresses(&["10.40.0.128/24"]));
    // Either family or none: nothing is held of an allocation that cannot be served whole.
    let request = lab.ask_allocate(1, "both", None, 3_000);
    assert_eq!(lab.answer(request, 4_000), Err(Refusal::Exhausted { subnet }));
    assert_eq!(lab.node(1).status().active, 1);
}

#[test]
fn whoever_has_most_free_is_asked_first() {
    let mut lab = Lab::consensus(3, &["10.32.0.0/26"]);
    for n in 0..15 {
        lab.allocate(0, &format!("c{n}"), None).unwrap();
    }
    // The second router keeps a few, the third all of its own.
    for n in 0..10 {
        lab.allocate(1, &format!("d{n}"), None).unwrap();
    }
    lab.run(3_000);
    let before: Vec<u128> = shares(&lab);
    for n in 0..2 {
        lab.allocate(0, &format!("e{n}"), None).unwrap();
    }
    let after = shares(&lab);
    assert_eq!(before[1], after[1]);
    assert!(before[2] > after[2] && before[0] < after[0], "{before:?} {after:?}");
}

fn shares(lab: &Lab) -> Vec<u128> {
    let owners = lab.node(0).status().owners;
    (0..3).map(|index| owners.iter().filter(|o| o.peer == name(index)).map(|o| o.addresses).sum()).collect()
}

#[test]
fn ranges_that_cannot_be_managed_are_refused_with_the_reason() {
    let open = |config: Config| {
        let lab = Lab::empty();
        match Ipam::new(config, std::iter::empty(), [0; 32], lab.now) {
            Err(RestoreError::Config(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(open(config(0, &[], LONE)), ConfigError::NoRange);
    let overlap = open(config(0, &["10.32.0.0/16", "10.32.7.0/24"], LONE));
    assert!(matches!(overlap, ConfigError::Overlap(..)), "{overlap}");
    for range in
        ["10.32.0.0/31", "230.1.0.0/16", "128.0.0.0/1", "fd00::/127", "ff00::/16", "::/0", "::ffff:0:0/96"]
    {
        assert_eq!(open(config(0, &[range], LONE)), ConfigError::Unusable(range.parse().unwrap()), "{range}");
    }
    for defaults in [&["10.40.0.0/24"][..], &["10.32.0.0/31"], &["10.32.0.0/24", "10.32.1.0/24"]] {
        let error = open(with_defaults(&["10.32.0.0/16"], defaults));
        assert!(matches!(error, ConfigError::DefaultSubnet(_)), "{defaults:?}: {error}");
    }
    assert_eq!(open(config(0, &["10.32.0.0/16"], Init::Seed(Vec::new()))), ConfigError::NoSeeds);
}
