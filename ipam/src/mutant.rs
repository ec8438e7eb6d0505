//! Rules that a test breaks on purpose, to see that the model notices. In every other build none can be broken.

/// One broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Effects get out before what they rest on is on disk.
    ReplyBeforePersist,
    /// Space is given away under the version that it had.
    GiveWithoutVersion,
    /// Space is taken over when most members agree.
    MostAgree,
    /// A store that may be from the past is used as it is.
    TrustEveryStore,
    /// One vote makes a ring.
    LoneVote,
    /// Space is asked for before anybody else remembers the asker as a member.
    NoWitness,
    /// What was promised not to be used is forgotten with the process.
    PromisesForgotten,
}

/// Whether the rule is broken now.
#[cfg(not(test))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

#[cfg(test)]
pub(crate) use check::is;

#[cfg(test)]
mod check {
    use std::{cell::Cell, panic};

    use super::Mutant;
    use crate::simulation::world::{Day, World};

    thread_local! {
        static BROKEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    pub(crate) fn is(mutant: Mutant) -> bool {
        BROKEN.get() == Some(mutant)
    }

    /// How many seeds it takes until the model complains.
    fn seeds_until_noticed(mutant: Mutant, seeds: std::ops::Range<u64>) -> Option<u64> {
        BROKEN.set(Some(mutant));
        let is_failing = |seed: u64, day: Day| {
            panic::catch_unwind(panic::AssertUnwindSafe(|| World::new(seed, day, false).run())).is_err()
        };
        let noticed =
            seeds.clone().find(|seed| [Day::Bad, Day::Worse].into_iter().any(|day| is_failing(*seed, day)));
        BROKEN.set(None);
        noticed.map(|seed| seed + 1 - seeds.start)
    }

    fn is_noticed(mutant: Mutant) {
        is_noticed_from(mutant, 0);
    }

    /// For what takes long to be noticed: begins shortly before the first seed that does.
    fn is_noticed_from(mutant: Mutant, from: u64) {
        let seeds = seeds_until_noticed(mutant, from..from + 2_000);
        println!("{mutant:?}: noticed after {seeds:?} seeds");
        assert!(seeds.is_some(), "the model does not notice {mutant:?}");
    }

    #[test]
    fn answering_before_it_is_on_disk_is_noticed() {
        is_noticed(Mutant::ReplyBeforePersist);
    }

    #[test]
    fn giving_space_away_under_the_version_it_had_is_noticed() {
        is_noticed(Mutant::GiveWithoutVersion);
    }

    #[test]
    fn taking_space_over_when_only_most_members_agree_is_noticed() {
        is_noticed(Mutant::MostAgree);
    }

    #[test]
    fn using_a_store_that_may_be_from_the_past_is_noticed() {
        is_noticed(Mutant::TrustEveryStore);
    }

    #[test]
    fn dividing_the_ring_by_a_single_vote_is_noticed() {
        is_noticed(Mutant::LoneVote);
    }

    #[test]
    fn asking_for_space_before_others_remember_the_asker_is_noticed() {
        is_noticed(Mutant::NoWitness);
    }

    #[test]
    fn forgetting_a_promise_at_a_restart_is_noticed() {
        is_noticed_from(Mutant::PromisesForgotten, 2_000);
    }
}
