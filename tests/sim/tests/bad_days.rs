//! A thousand bad days, and some good ones: see the crate documentation. One that fails is replayed with
//! `cargo xtask sim --peers N --seed S`.

use std::ops::Range;

use weave_sim::{Plan, run};

/// Runs all of them, then tells of those that failed.
fn days(seeds: Range<u64>, peers: impl Fn(u64) -> usize) {
    let failed: Vec<String> = seeds
        .filter_map(|seed| {
            let plan = Plan::bad_day(peers(seed), seed);
            let failure = run(&plan).err()?;
            Some(format!("cargo xtask sim --peers {} --seed {seed}\n    {failure}", plan.peers))
        })
        .collect();
    assert!(failed.is_empty(), "{} days went wrong; replay with\n{}", failed.len(), failed.join("\n"));
}

/// Mostly small meshes, where every fault has somebody to hit; some middling ones.
fn mixed(seed: u64) -> usize {
    match seed % 25 {
        0..20 => 3 + (seed % 5) as usize,
        20..24 => 8 + (seed / 25 % 5) as usize,
        _ => 13 + (seed / 25 % 4) as usize,
    }
}

#[test]
fn all_agree_after_every_bad_day_and_no_address_is_held_twice_1() {
    days(0..330, mixed);
}

#[test]
fn all_agree_after_every_bad_day_and_no_address_is_held_twice_2() {
    days(330..660, mixed);
}

#[test]
fn all_agree_after_every_bad_day_and_no_address_is_held_twice_3() {
    days(660..990, mixed);
}

#[test]
fn big_meshes_agree_after_every_bad_day_and_no_address_is_held_twice() {
    days(990..1_000, |seed| 21 + (seed % 10) as usize);
}

#[test]
fn hosts_that_only_work_agree_within_seconds() {
    for seed in 0..20 {
        let plan = Plan::calm(5, seed);
        let outcome = run(&plan).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        assert!(outcome.grants > 0, "seed {seed}: nobody got an address");
        assert!(outcome.agreed_after.as_secs() < 5, "seed {seed}: agreed after {:?}", outcome.agreed_after);
    }
}

#[test]
fn a_hundred_hosts_with_a_dozen_links_each_agree_and_are_quiet() {
    let mut plan = Plan::calm(100, 1);
    plan.limit_links(12);
    let outcome = run(&plan).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(outcome.change_p99.as_secs_f64() < 1.0, "changes take {:?} to reach all", outcome.change_p99);
    assert!(outcome.steady_mean < 300.0, "{:.0} B/s at rest", outcome.steady_mean);
}
