//! A thousand bad days: see the crate documentation. `WEAVE_SIM_SEED` style replays go through
//! `cargo xtask sim --peers N --seed S`.

use weave_sim::{Plan, run};

fn days(peers: impl Fn(u64) -> usize, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let plan = Plan::bad_day(peers(seed), seed);
        if let Err(failure) = run(&plan) {
            panic!("{failure}\nreplay with: cargo xtask sim --peers {} --seed {seed}", plan.peers);
        }
    }
}

#[test]
fn small_meshes_agree_after_every_bad_day_and_no_address_is_held_twice() {
    days(|seed| 3 + (seed % 6) as usize, 0..100);
}

#[test]
fn hosts_that_only_work_agree_within_seconds() {
    for seed in 0..20 {
        let plan = Plan { with_faults: false, ..Plan::bad_day(5, seed) };
        let outcome = run(&plan).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        assert!(outcome.grants > 0, "seed {seed}: nobody got an address");
    }
}
