//! What two ends that fit come to.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use weave_link::{Encryption, Side, Suite};
use weave_model::EspOver;

use crate::harness::{End, Outcome, connect, contains};

const AES: Encryption = Encryption::Encrypted { suite: Suite::Aes256Gcm };

#[test]
fn routers_with_one_password_come_to_the_same_keys_and_know_each_other() {
    let (dialer, listener) = (End::dialer(&["secret"]), End::listener(&["secret"]));
    let outcome = connect(&dialer, &listener);
    assert_eq!(outcome.sent.len(), 6);
    let (at_dialer, at_listener) = outcome.both();
    assert_eq!(at_dialer.tiebreak, at_listener.tiebreak);
    assert_eq!(at_dialer.keys.sleeve_send(0, 0), at_listener.keys.sleeve_receive(0, 0));
    assert_eq!(at_dialer.keys.sleeve_receive(7, 3), at_listener.keys.sleeve_send(7, 3));
    assert_eq!(at_dialer.keys.esp_send(EspOver::Ip, 1), at_listener.keys.esp_receive(EspOver::Ip, 1));
    assert_ne!(at_dialer.keys.sleeve_send(0, 0), at_dialer.keys.sleeve_receive(0, 0));
    assert_eq!((at_dialer.encryption, at_listener.encryption), (AES, AES));
    assert_eq!((at_dialer.password_slot, at_listener.password_slot), (Some(0), Some(0)));
    assert_eq!((at_dialer.version, at_dialer.features), (1, 0b11));

    let remote = at_dialer.remote;
    assert_eq!(remote.name, listener.hello.name);
    assert_eq!(remote.uid, listener.hello.uid);
    assert_eq!(remote.nickname, listener.hello.nickname);
    assert_eq!(remote.sleeve_index, listener.hello.sleeve_index);
    assert_eq!(remote.public_key, listener.credentials.identity.public_key());
    assert_eq!(at_listener.remote.name, dialer.hello.name);
    assert_eq!(at_listener.remote.public_key, dialer.credentials.identity.public_key());
}

#[test]
fn without_passwords_the_mesh_is_open_and_the_link_has_keys_all_the_same() {
    let trusting = |end: End| end.with_hello(|hello| hello.trusts_remote = true);
    for change in [|end| end, trusting] {
        let outcome = connect(&change(End::dialer(&[])), &change(End::listener(&[])));
        let (at_dialer, at_listener) = outcome.both();
        assert_eq!(
            (at_dialer.encryption, at_listener.encryption),
            (Encryption::OpenMesh, Encryption::OpenMesh)
        );
        assert_eq!((at_dialer.password_slot, at_listener.password_slot), (None, None));
        assert_eq!(at_dialer.keys.sleeve_send(0, 0), at_listener.keys.sleeve_receive(0, 0));
    }
}

#[test]
fn a_password_is_rotated_without_a_moment_at_which_two_routers_do_not_fit() {
    let steps: [&[&str]; 4] = [&["old"], &["old", "new"], &["new", "old"], &["new"]];
    // While the operator goes round, some routers are one step behind the others.
    for (index, step) in steps.iter().enumerate() {
        for other in &steps[index..(index + 2).min(steps.len())] {
            for (dialing, listening) in [(step, other), (other, step)] {
                let (at_dialer, at_listener) =
                    connect(&End::dialer(dialing), &End::listener(listening)).both();
                let slot = listening.iter().position(|password| *password == dialing[0]);
                assert_eq!(at_listener.password_slot, slot);
                assert_eq!(at_dialer.password_slot, Some(0));
                assert_eq!(at_dialer.tiebreak, at_listener.tiebreak);
            }
        }
    }
}

#[test]
fn any_of_four_passwords_is_found() {
    let listener = End::listener(&["a", "b", "c", "d"]);
    for (slot, password) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let (_, at_listener) = connect(&End::dialer(&[password]), &listener).both();
        assert_eq!(at_listener.password_slot, Some(slot));
    }
}

#[test]
fn aes_is_used_only_where_both_have_it_in_hardware() {
    let without = |end: End| end.with_hello(|hello| hello.aes_hardware = false);
    let chacha = Encryption::Encrypted { suite: Suite::ChaCha20Poly1305 };
    for (dialer, listener) in [
        (without(End::dialer(&["secret"])), End::listener(&["secret"])),
        (End::dialer(&["secret"]), without(End::listener(&["secret"]))),
    ] {
        let (at_dialer, at_listener) = connect(&dialer, &listener).both();
        assert_eq!((at_dialer.encryption, at_listener.encryption), (chacha, chacha));
    }
}

#[test]
fn the_data_plane_is_in_the_clear_only_where_both_trust_the_subnet() {
    for (dialer_trusts, listener_trusts, expected) in
        [(true, true, Encryption::TrustedSubnets), (true, false, AES), (false, true, AES)]
    {
        let dialer = End::dialer(&["secret"]).with_hello(|hello| hello.trusts_remote = dialer_trusts);
        let listener = End::listener(&["secret"]).with_hello(|hello| hello.trusts_remote = listener_trusts);
        let (at_dialer, at_listener) = connect(&dialer, &listener).both();
        assert_eq!((at_dialer.encryption, at_listener.encryption), (expected, expected));
    }
}

#[test]
fn only_features_that_both_have_are_in_force() {
    let dialer = End::dialer(&[]).with_hello(|hello| hello.features = 0b0110 | 1 << 40);
    let listener = End::listener(&[]).with_hello(|hello| hello.features = 0b0011 | 1 << 40);
    let (at_dialer, at_listener) = connect(&dialer, &listener).both();
    assert_eq!((at_dialer.features, at_listener.features), (0b0010 | 1 << 40, 0b0010 | 1 << 40));
    assert_eq!(at_dialer.remote.features, 0b0011 | 1 << 40);
}

#[test]
fn equal_seeds_give_equal_bytes_and_keys_and_other_seeds_give_others() {
    let run = |seed| {
        let Outcome { dialer, sent, .. } = connect(
            &End::dialer(&["secret"]).with_seed(seed),
            &End::listener(&["secret"]).with_seed(seed + 1),
        );
        let Ok(Some(link)) = dialer else { panic!("no link") };
        (sent, *link.keys.sleeve_send(0, 0).expose(), link.tiebreak)
    };
    assert_eq!(run(10), run(10));
    let ((one, key_of_one, tiebreak_of_one), (other, key_of_other, tiebreak_of_other)) = (run(10), run(20));
    assert!(one.iter().zip(&other).all(|(one, other)| one != other));
    assert_ne!(key_of_one, key_of_other);
    assert_ne!(tiebreak_of_one, tiebreak_of_other);
}

/// Two releases that differ here cannot speak with each other: raise the protocol version before you change
/// it.
#[test]
fn the_bytes_on_the_wire_and_the_keys_are_those_of_version_1() {
    let outcome = connect(&End::dialer(&["secret"]), &End::listener(&["old", "secret"]));
    let lengths: Vec<_> = outcome.sent.iter().map(|(_, message)| message.len()).collect();
    assert_eq!(lengths, [71, 38 + 1 + 2 * 65, 50, 81 + 60 + 16, 49 + 60 + 16, 33]);
    let sent = outcome.sent.iter().flat_map(|(_, message)| message.clone()).collect::<Vec<_>>();
    let (link, _) = outcome.both();
    assert_eq!(
        hex(&Sha256::digest(sent)),
        "d1c9ff4237da504400229cf3bd367dac7292217ad35874e2d57a21616dd824be"
    );
    assert_eq!(
        hex(link.keys.sleeve_send(1, 2).expose()),
        "fa3536e040f1f1e520b2e5a6f18753125f4ffe8340c5412ef5b35d67b8788926"
    );
    assert_eq!(
        hex(link.keys.esp_receive(EspOver::Ip, 3).expose()),
        "740db6a6a4f37a015ba106b3a87c63582145e7bf658539337ef84783a172282ad7b5309e"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn each_link_has_its_own_tiebreak() {
    let tiebreaks: BTreeSet<_> = (10..20)
        .map(|seed| connect(&End::dialer(&[]).with_seed(seed), &End::listener(&[])).both().0.tiebreak)
        .collect();
    assert_eq!(tiebreaks.len(), 10);
}

#[test]
fn nothing_that_tells_who_somebody_is_can_be_read_on_the_stream() {
    for passwords in [&["secret"][..], &[]] {
        let (dialer, listener) = (End::dialer(passwords), End::listener(passwords));
        for (_, message) in connect(&dialer, &listener).sent {
            for end in [&dialer, &listener] {
                assert!(!contains(&message, end.hello.nickname.as_bytes()));
                assert!(!contains(&message, &end.hello.name.0));
                assert!(!contains(&message, &end.credentials.identity.public_key()));
            }
        }
    }
}

#[test]
fn the_longest_names_still_fit_and_a_router_can_reach_itself_and_be_told_so() {
    let long = |hello: &mut weave_link::LocalHello| {
        hello.nickname = "n".repeat(300);
        hello.software = "s".repeat(300);
    };
    let dialer = End::dialer(&["secret"]).with_hello(long);
    let listener = End { side: Side::Listener, ..dialer.clone() }.with_seed(99);
    let outcome = connect(&dialer, &listener);
    assert_eq!(outcome.sent.iter().map(|(_, message)| message.len()).max(), Some(447));
    let (at_dialer, _) = outcome.both();
    assert_eq!((at_dialer.remote.name, at_dialer.remote.uid), (dialer.hello.name, dialer.hello.uid));
}
