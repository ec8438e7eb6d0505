//! Whole routers' IPAM on virtual time, on bad days made from seeds.
//!
//! After every single step: no address is held by two live containers. Before anything failed: 95 of 100 addresses find a
//! user. After quiet: all rings are equal, tile the ranges, and whoever asks gets an address until the last one is used.
//!
//! `SIM_SEED=n` runs one seed with its log; `SIM_FROM` and `SIM_SEEDS` choose another set.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

#[path = "sim/deeds.rs"]
mod deeds;
#[path = "sim/forgetting.rs"]
mod forgetting;
#[path = "sim/full.rs"]
mod full;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/node.rs"]
mod node;
#[path = "sim/stories.rs"]
mod stories;
#[path = "sim/world.rs"]
mod world;

use world::{Day, World};

fn number(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test chooses its seeds")]
    let given = std::env::var(name);
    given.ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Runs the days that the environment asks for, or those with the first seeds.
fn days(day: Day, default: u64) {
    let seed = number("SIM_SEED", u64::MAX);
    if seed != u64::MAX {
        return World::new(seed, day, true).run();
    }
    let (from, count) = (number("SIM_FROM", 0), number("SIM_SEEDS", default));
    let is_failing = |seed: &u64| std::panic::catch_unwind(|| World::new(*seed, day, false).run()).is_err();
    let failing: Vec<u64> = (from..from + count).filter(is_failing).collect();
    assert!(failing.is_empty(), "failing seeds of {day:?}: {failing:?}; replay one with SIM_SEED");
}

#[test]
fn no_address_is_ever_held_twice_and_all_rings_agree_after_quiet() {
    days(Day::Bad, 500);
}

#[test]
fn newcomers_clones_leaping_clocks_and_faults_that_follow_each_other_change_nothing_about_that() {
    days(Day::Worse, 500);
}

/// Days on which a rule was found wanting.
mod once {
    use super::world::{Day, World};

    fn run(seed: u64) {
        World::new(seed, Day::Bad, false).merciless().run();
    }

    #[test]
    fn a_removed_router_that_returns_does_not_bring_back_what_was_divided_without_it() {
        run(622);
    }

    #[test]
    fn a_promise_to_a_router_that_began_another_life_blocks_nobody_for_ever() {
        for seed in [47, 135, 339, 584, 598] {
            run(seed);
        }
    }

    #[test]
    fn a_router_that_returns_after_it_was_declared_dead_is_not_the_one_that_was_meant() {
        run(32_578);
    }

    #[test]
    fn a_removal_outweighs_however_many_lives_its_authors_have_not_heard_of() {
        run(40_131);
    }

    #[test]
    fn two_routers_with_stores_from_the_past_come_to_hear_each_other() {
        run(32_009);
    }

    #[test]
    fn a_return_that_only_a_restored_router_knew_of_is_not_a_return_yet() {
        run(53_633);
    }

    #[test]
    fn a_store_from_the_past_does_not_rely_on_the_removals_that_it_remembers() {
        for seed in [51_637, 57_303] {
            run(seed);
        }
    }

    #[test]
    fn routers_that_are_removed_one_after_the_other_do_not_have_to_agree_with_each_other() {
        for seed in [60_824, 75_491, 96_610] {
            run(seed);
        }
    }

    #[test]
    fn what_containers_hold_is_not_lost_to_a_ring_that_everybody_had_forgotten() {
        for seed in [4_258, 17_827, 22_632] {
            run(seed);
        }
    }

    #[test]
    fn a_ring_that_arrives_in_pieces_is_the_same_as_in_one() {
        run(19_234);
    }

    #[test]
    fn a_bequest_to_an_heir_that_dies_is_known_to_somebody_else() {
        for seed in [909, 1757] {
            run(seed);
        }
    }

    #[test]
    fn two_routers_that_take_over_the_same_space_do_not_wait_for_each_other_for_ever() {
        for seed in [37, 42, 306, 962, 5055] {
            run(seed);
        }
    }

    fn run_worse(seeds: &[u64]) {
        for seed in seeds {
            World::new(*seed, Day::Worse, false).run();
        }
    }

    #[test]
    fn what_lies_scattered_at_one_router_serves_those_who_wait_at_another() {
        run_worse(&[6_002_183]);
    }

    #[test]
    fn newcomers_that_nobody_counted_do_not_divide_the_ranges_twice() {
        run_worse(&[6_002_207, 6_002_425, 6_003_060, 6_003_293, 6_003_390, 6_003_710, 6_007_172]);
    }

    #[test]
    fn a_router_that_died_at_its_start_is_a_failure_before_the_ranges_are_full() {
        run_worse(&[6_001_661, 6_002_882, 6_006_576]);
    }

    #[test]
    fn who_was_removed_has_no_say_about_a_clone_of_one_that_does_not_know_of_its_return() {
        run_worse(&[6_009_886]);
    }

    #[test]
    fn what_an_operator_settled_once_is_not_unsettled_by_what_others_still_know_of_it() {
        run_worse(&[6_002_306]);
    }

    #[test]
    fn nobody_says_of_a_router_that_has_a_clone_that_its_earlier_containers_are_gone() {
        run_worse(&[7_007_409]);
    }

    #[test]
    fn a_clone_is_found_when_the_only_router_that_can_tell_it_leaves() {
        run_worse(&[6_005_248]);
    }
}
