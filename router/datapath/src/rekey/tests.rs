use proptest::prelude::*;

use super::*;

const QUICK: RekeyConfig = RekeyConfig {
    max_age: Duration::from_secs(100),
    max_bytes: 1000,
    pace: Duration::from_secs(10),
    overlap: Duration::from_secs(20),
};

fn start() -> Instant {
    // A test has one origin of time.
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    Instant::now()
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn who_has_not_heard_from_the_other_end_keeps_its_key() {
    let t = start();
    let mut rekey = Rekey::new(QUICK, t);
    assert_eq!((rekey.sending(), rekey.taken()), (0, 0..=1));
    assert_eq!(rekey.poll_timeout(), None);
    assert!(!rekey.handle_timeout(t + s(10_000)));
    rekey.handle_taken(0, t + s(1));
    assert!(rekey.handle_timeout(t + s(100)));
    assert_eq!((rekey.sending(), rekey.taken()), (1, 0..=2));
    // The other end's router died: its kernel takes epoch 1, and nobody knows whether it will ever take 2.
    assert!(!rekey.handle_timeout(t + s(10_000)));
    assert_eq!((rekey.sending(), rekey.taken()), (1, 0..=2));
}

#[test]
fn who_sees_the_other_end_ahead_follows_and_forgets_the_former_key_later() {
    let t = start();
    let mut rekey = Rekey::new(QUICK, t);
    rekey.handle_taken(1, t + s(5));
    assert_eq!((rekey.sending(), rekey.taken()), (1, 0..=2));
    assert!(!rekey.handle_timeout(t + s(24)));
    assert!(rekey.handle_timeout(t + s(25)));
    assert_eq!(rekey.taken(), 1..=2);
}

#[test]
fn former_keys_are_forgotten_even_when_the_next_comes_sooner() {
    let t = start();
    let mut rekey = Rekey::new(QUICK, t);
    for epoch in 0..50 {
        rekey.handle_taken(epoch, t + s(10) * epoch);
        rekey.handle_timeout(t + s(10) * epoch);
        assert!(rekey.taken().count() <= 4, "{:?}", rekey.taken());
    }
}

#[test]
fn keys_that_live_shortly_are_looked_at_often() {
    let short = RekeyConfig::with_max_age(s(1));
    assert_eq!((short.pace, short.overlap, short.look()), (s(1), s(2), Duration::from_millis(250)));
    let long = RekeyConfig::with_max_age(s(7200));
    assert_eq!(long, RekeyConfig { max_age: s(7200), ..RekeyConfig::default() });
}

#[test]
fn much_is_encrypted_with_several_keys_but_not_in_a_hurry() {
    let t = start();
    let mut rekey = Rekey::new(QUICK, t);
    rekey.handle_taken(0, t);
    rekey.handle_sent(999);
    assert_eq!(rekey.poll_timeout().map(|(at, _)| at), Some(t + s(100)));
    rekey.handle_sent(1000);
    assert_eq!(rekey.poll_timeout().map(|(at, _)| at), Some(t + s(10)));
}

#[test]
fn a_key_is_given_out_once() {
    let mut rekey = Rekey::new(QUICK, start());
    assert!(rekey.give_out(KeyUse::Send, EspOver::Ip, 0));
    assert!(rekey.give_out(KeyUse::Take, EspOver::Ip, 0));
    assert!(!rekey.give_out(KeyUse::Send, EspOver::Ip, 0));
}

#[test]
fn an_epoch_that_nobody_could_use_is_not_believed() {
    let mut rekey = Rekey::new(QUICK, start());
    rekey.handle_taken(2, start());
    rekey.handle_taken(u32::MAX, start());
    assert_eq!((rekey.sending(), rekey.taken()), (0, 0..=1));
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// This many seconds pass.
    Wait(u64),
    /// One end sends; it is lost, or under way for this many seconds (at most as long as a key is taken after it was left).
    Send(usize, Option<u64>),
    /// One end looks at its counters and timers.
    Look(usize),
    /// One end has encrypted much.
    Wear(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = 0..2_usize;
    let step = prop_oneof![
        (1..15_u64).prop_map(Step::Wait),
        (end.clone(), proptest::option::weighted(0.8, 0..15_u64))
            .prop_map(|(end, late)| Step::Send(end, late)),
        end.clone().prop_map(Step::Look),
        end.prop_map(Step::Wear),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    /// Whatever is lost or late, whoever looks rarely or never again: what is sent is taken when it arrives.
    #[test]
    fn nothing_is_sent_that_the_other_end_does_not_take(steps in steps(), dies in proptest::option::of(0..300_usize)) {
        let mut now = start();
        let mut ends = [Rekey::new(QUICK, now), Rekey::new(QUICK, now)];
        // On their way: to whom, with which epoch, until when. And what was counted and not looked at.
        let mut flying: Vec<(usize, u32, Instant)> = Vec::new();
        let mut counted = [BTreeSet::new(), BTreeSet::new()];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Wait(seconds) => now += s(seconds),
                Step::Send(end, Some(late)) => flying.push((1 - end, ends[end].sending(), now + s(late))),
                Step::Send(_, None) => {}
                Step::Look(end) if end == 1 && dies.is_some_and(|dies| number > dies) => {}
                Step::Look(end) => {
                    for epoch in std::mem::take(&mut counted[end]) {
                        ends[end].handle_taken(epoch, now);
                    }
                    ends[end].handle_timeout(now);
                }
                Step::Wear(end) => ends[end].handle_sent(1000),
            }
            for (to, epoch, _) in flying.extract_if(.., |(_, _, at)| *at <= now) {
                prop_assert!(ends[to].taken().contains(&epoch), "{epoch} is not taken: {:?}", ends[to]);
                counted[to].insert(epoch);
            }
        }
    }
}
