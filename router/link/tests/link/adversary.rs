//! Somebody between the two ends, or in the place of one.

use proptest::{collection::vec, prelude::*};
use weave_link::{Handshake, HandshakeError as E, Refusal, Side};

use crate::harness::{End, connect, connect_through};

#[test]
fn a_man_in_the_middle_who_relays_every_message_gets_no_link_with_a_password() {
    // He has one TLS connection to each end, so their exporter values differ.
    let outcome =
        connect(&End::dialer(&["secret"]).with_exporter(1), &End::listener(&["secret"]).with_exporter(2));
    assert_eq!(outcome.sent.len(), 3);
    assert_eq!(outcome.errors(), (E::WrongPassword, E::WrongPassword));
}

#[test]
fn a_man_in_the_middle_who_relays_every_message_gets_no_link_in_an_open_mesh() {
    let outcome = connect(&End::dialer(&[]).with_exporter(1), &End::listener(&[]).with_exporter(2));
    assert_eq!(outcome.errors(), (E::Refused(Refusal::Misbehaved), E::NotAuthentic));
}

#[test]
fn a_mirror_is_recognised() {
    for passwords in [&["secret"][..], &[]] {
        let mut dialer = End::dialer(passwords).start();
        let hello = dialer.poll_transmit().unwrap();
        assert!(matches!(dialer.handle_message(&hello), Err(E::OutOfTurn { got: 1, .. })));

        // A mirror that has learned to change the tag.
        let mut dialer = End::dialer(passwords).start();
        let mut hello = dialer.poll_transmit().unwrap();
        hello[0] = 2;
        assert_eq!(dialer.handle_message(&hello), Err(E::Reflected));
    }
}

#[test]
fn messages_of_one_handshake_are_worth_nothing_in_another() {
    for passwords in [&["secret"][..], &[]] {
        let (dialer, listener) = (End::dialer(passwords), End::listener(passwords));
        let recorded = connect(&dialer, &listener).sent;
        let (dialer, listener) = (dialer.with_seed(50), listener.with_seed(51));
        for replayed in 0..recorded.len() {
            let wire = |number: usize, message| {
                if number == replayed { recorded[number].1.clone() } else { message }
            };
            assert_altered(replayed, &dialer, &listener, wire);
        }
    }
}

#[test]
fn a_dialer_that_replays_a_whole_recording_gets_no_further_than_its_proof() {
    let (dialer, listener) = (End::dialer(&["secret"]), End::listener(&["secret"]));
    let recorded = connect(&dialer, &listener).sent;
    let mut listener = listener.with_seed(51).start();
    listener.handle_message(&recorded[0].1).unwrap();
    assert_eq!(listener.handle_message(&recorded[2].1), Err(E::WrongPassword));
    assert!(listener.has_unproven_guess());
}

#[test]
fn a_guess_is_owed_from_our_proof_until_theirs() {
    let mut dialer = End::dialer(&["secret"]).start();
    let mut listener = End::listener(&["secret"]).start();
    let pass =
        |from: &mut Handshake, to: &mut Handshake| to.handle_message(&from.poll_transmit().unwrap()).unwrap();
    assert!(!listener.has_unproven_guess());
    pass(&mut dialer, &mut listener);
    assert!(listener.has_unproven_guess());
    pass(&mut listener, &mut dialer);
    assert!(!dialer.has_unproven_guess());
    pass(&mut dialer, &mut listener);
    assert!(!listener.has_unproven_guess());
}

#[test]
fn a_listener_that_guessed_wrong_is_known_as_such_and_an_open_mesh_has_nothing_to_guess() {
    let mut dialer = End::dialer(&["secret"]).start();
    let mut listener = End::listener(&["wrong", "too"]).start();
    listener.handle_message(&dialer.poll_transmit().unwrap()).unwrap();
    dialer.handle_message(&listener.poll_transmit().unwrap()).unwrap_err();
    assert!(dialer.has_unproven_guess() && listener.has_unproven_guess());

    let mut listener = End::listener(&[]).start();
    listener.handle_message(&End::dialer(&[]).start().poll_transmit().unwrap()).unwrap();
    assert!(!listener.has_unproven_guess());
}

#[test]
fn a_slot_that_was_not_offered_is_refused() {
    for (passwords, slot) in [(&["secret"][..], 1), (&[], 1), (&["secret"], 255)] {
        let wire = |number, mut message: Vec<u8>| {
            if number == 2 {
                message[1] = slot;
            }
            message
        };
        assert_altered(2, &End::dialer(passwords), &End::listener(passwords), wire);
    }
}

#[test]
fn confirmations_moved_to_another_slot_do_not_fit() {
    let swap = |number, mut message: Vec<u8>| {
        if number == 1 {
            let (first, second) = message[39..].split_at_mut(65);
            first.swap_with_slice(second);
        }
        message
    };
    assert_altered(1, &End::dialer(&["a"]), &End::listener(&["a", "b"]), swap);
}

/// Whoever receives message `number` altered gets no link; nor does the other, but for the last message,
/// whose sender is through already.
fn assert_altered(number: usize, dialer: &End, listener: &End, wire: impl FnMut(usize, Vec<u8>) -> Vec<u8>) {
    let outcome = connect_through(dialer, listener, wire);
    assert!(!matches!(outcome.dialer, Ok(Some(_))), "message {number}: {:?}", outcome.dialer);
    if number < 5 {
        assert!(!matches!(outcome.listener, Ok(Some(_))), "message {number}: {:?}", outcome.listener);
    }
    let (receiver, result) = match number % 2 {
        0 => (Side::Listener, outcome.listener),
        _ => (Side::Dialer, outcome.dialer),
    };
    assert!(result.is_err(), "message {number} was accepted by {receiver:?}");
}

/// Ways to spoil a message.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
    Replace(Vec<u8>),
    ReplaceKeepingTag(Vec<u8>),
}

impl Damage {
    fn apply(&self, mut message: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Flip(index, bit) => {
                let at = index.index(message.len());
                message[at] ^= 1 << bit;
            }
            Self::Cut(index) => message.truncate(index.index(message.len())),
            Self::Append(bytes) => message.extend(bytes),
            Self::Replace(bytes) => message.clone_from(bytes),
            Self::ReplaceKeepingTag(bytes) => message.splice(1.., bytes.iter().copied()).for_each(drop),
        }
        message
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(index, bit)| Damage::Flip(index, bit)),
        2 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => vec(any::<u8>(), 1..1100).prop_map(Damage::Append),
        1 => vec(any::<u8>(), 0..1100).prop_map(Damage::Replace),
        1 => vec(any::<u8>(), 0..500).prop_map(Damage::ReplaceKeepingTag),
    ]
}

fn passwords() -> impl Strategy<Value = (&'static [&'static str], &'static [&'static str])> {
    prop::sample::select(vec![(&[][..], &[][..]), (&["a"], &["a"]), (&["b"], &["a", "b"])])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_message_never_panics_and_never_gives_a_link(
        number in 0..6_usize, damage in damage(), (dialing, listening) in passwords(),
    ) {
        let mut changed = false;
        let wire = |at, message: Vec<u8>| {
            if at != number {
                return message;
            }
            let damaged = damage.apply(message.clone());
            changed = damaged != message;
            damaged
        };
        let outcome = connect_through(&End::dialer(dialing), &End::listener(listening), wire);
        prop_assert!(!changed || !matches!(outcome.dialer, Ok(Some(_))));
        prop_assert!(!changed || number == 5 || !matches!(outcome.listener, Ok(Some(_))));
    }

    #[test]
    fn a_stranger_who_says_anything_at_all_gets_nowhere(
        messages in vec((0..8_u8, vec(any::<u8>(), 0..200)), 1..5), listening: bool, password: bool,
    ) {
        let passwords: &[&str] = if password { &["a"] } else { &[] };
        let mut end = if listening { End::listener(passwords) } else { End::dialer(passwords) }.start();
        for (tag, body) in messages {
            let _ = end.handle_message(&[&[tag], &body[..]].concat());
            prop_assert!(end.poll_established().is_none());
        }
    }
}
