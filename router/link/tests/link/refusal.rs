//! Ends that do not fit: each learns why, and nothing comes up.

use weave_link::{HandshakeError as E, Problem, Refusal};

use crate::harness::{End, connect};

#[test]
fn a_wrong_password_is_told_at_both_ends_before_anybody_says_who_it_is() {
    for (dialing, listening) in
        [(&["a"][..], &["b"][..]), (&["a"], &["b", "c", "d", "e"]), (&["a", "b"], &["b"])]
    {
        let outcome = connect(&End::dialer(dialing), &End::listener(listening));
        // Two hellos and the dialer's abort: no identity was sent.
        assert_eq!(outcome.sent.len(), 3);
        let (at_dialer, at_listener) = outcome.errors();
        assert_eq!((&at_dialer, &at_listener), (&E::WrongPassword, &E::WrongPassword));
        assert!(at_dialer.is_password_failure() && !at_dialer.retry());
        let text = at_dialer.to_string();
        assert!(
            text.starts_with("wrong password: the other side does not share any of our passwords"),
            "{text}"
        );
    }
}

#[test]
fn a_password_at_one_end_only_is_told_from_each_point_of_view() {
    let errors = connect(&End::dialer(&["a"]), &End::listener(&[])).errors();
    assert_eq!(errors, (E::PasswordMissingThere, E::PasswordMissingHere));
    let errors = connect(&End::dialer(&[]), &End::listener(&["a"])).errors();
    assert_eq!(errors, (E::PasswordMissingHere, E::PasswordMissingThere));
    let text = errors.0.to_string();
    assert!(
        text.starts_with("the other side uses a password and we do not (start with --password-file"),
        "{text}"
    );
}

#[test]
fn a_feature_that_one_end_insists_on_and_the_other_lacks_is_named_at_both_ends() {
    let feature = 1 << 35;
    let insisting = |end: End| end.with_hello(|hello| hello.features = feature);
    let errors = connect(&insisting(End::dialer(&[])), &End::listener(&[])).errors();
    assert_eq!(errors, (E::FeaturesUnknownThere(feature), E::FeaturesUnknownHere(feature)));
    let errors = connect(&End::dialer(&[]), &insisting(End::listener(&[]))).errors();
    assert_eq!(errors, (E::FeaturesUnknownHere(feature), E::FeaturesUnknownThere(feature)));
}

#[test]
fn another_protocol_is_recognised_as_such() {
    let mut listener = End::listener(&[]).start();
    assert_eq!(listener.handle_message(b"\x01WRONGMAGIC"), Err(E::NotWeave));
    let mut dialer = End::dialer(&[]).start();
    dialer.poll_transmit().unwrap();
    assert_eq!(
        dialer.handle_message(&listener.poll_transmit().unwrap()),
        Err(E::Refused(Refusal::CannotParse))
    );
}

#[test]
fn a_message_is_refused_when_it_is_empty_too_long_or_has_a_byte_too_much() {
    let refused = |bytes: &[u8]| End::listener(&["a"]).start().handle_message(bytes).unwrap_err();
    assert!(matches!(refused(&[]), E::Malformed { problem: Problem::Short, .. }));
    assert!(matches!(
        refused(&[1; weave_link::MAX_MESSAGE + 1]),
        E::Malformed { problem: Problem::TooLong, .. }
    ));
    let mut hello = End::dialer(&["a"]).start().poll_transmit().unwrap();
    hello.push(0);
    assert!(matches!(refused(&hello), E::Malformed { problem: Problem::Trailing, .. }));
    let mut hello = End::dialer(&["a"]).start().poll_transmit().unwrap();
    hello[21] = 2;
    assert!(matches!(refused(&hello), E::Malformed { problem: Problem::Field("flags"), .. }));
}

#[test]
fn the_reason_is_told_once_and_nothing_revives_a_handshake_that_failed() {
    let mut listener = End::listener(&["a"]).start();
    let mut hello = End::dialer(&[]).start().poll_transmit().unwrap();
    assert_eq!(listener.handle_message(&hello), Err(E::PasswordMissingThere));
    assert!(listener.poll_transmit().is_some());
    hello = End::dialer(&["a"]).start().poll_transmit().unwrap();
    assert_eq!(listener.handle_message(&hello), Err(E::Over));
    assert!(listener.poll_transmit().is_none() && listener.poll_established().is_none());
}

#[test]
fn an_abort_is_not_answered() {
    let mut listener = End::listener(&["a"]).start();
    listener.handle_message(&End::dialer(&["b"]).start().poll_transmit().unwrap()).unwrap();
    listener.poll_transmit().unwrap();
    for abort in [&[15, 5, 0, 0, 0, 0, 0, 0, 0, 0][..], &[15]] {
        let mut listener = End::listener(&["a"]).start();
        assert!(listener.handle_message(abort).is_err());
        assert!(listener.poll_transmit().is_none());
    }
}
