//! The data plane against the real kernel: hosts, bridges and containers in namespaces of their own.
//!
//! Runs itself again inside fresh namespaces, so nothing it makes can be left behind. Where namespaces cannot be made,
//! it fails. An argument picks the tests whose name contains it.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test runner reports")]

mod capture;
mod links;
mod rig;
mod sandbox;
mod strangers;
mod traffic;

use std::{panic, process::ExitCode};

/// A test and its name.
type Test = (&'static str, fn());

const TESTS: [Test; 16] = [
    ("containers_talk_over_an_encrypted_link", traffic::containers_talk_over_an_encrypted_link),
    ("containers_talk_over_a_chacha_link", traffic::containers_talk_over_a_chacha_link),
    ("containers_talk_over_a_clear_link", traffic::containers_talk_over_a_clear_link),
    ("containers_talk_over_ipv6", traffic::containers_talk_over_ipv6),
    ("frames_longer_than_the_path_arrive", traffic::frames_longer_than_the_path_arrive),
    ("a_relay_carries_frames_between_hosts_that_cannot_meet", traffic::a_relay_carries_frames),
    ("nothing_of_a_frame_shows_on_the_wire", capture::nothing_of_a_frame_shows_on_the_wire),
    ("a_datagram_sent_again_is_dropped_and_counted", capture::a_datagram_sent_again_is_dropped_and_counted),
    ("garbage_is_dropped_and_counted", strangers::garbage_is_dropped_and_counted),
    ("quic_shares_the_port", strangers::quic_shares_the_port),
    ("the_largest_size_is_found", links::the_largest_size_is_found),
    ("a_black_hole_is_left_within_seconds", links::a_black_hole_is_left_within_seconds),
    ("a_cut_link_is_reported_and_comes_back", links::a_cut_link_is_reported_and_comes_back),
    ("a_removed_link_is_forgotten", links::a_removed_link_is_forgotten),
    ("a_peer_that_moves_is_followed", links::a_peer_that_moves_is_followed),
    ("an_idle_link_sends_nothing", links::an_idle_link_sends_nothing),
];

fn main() -> ExitCode {
    sandbox::run(|arguments| {
        let wanted = arguments.iter().find(|a| !a.starts_with('-'));
        let chosen =
            TESTS.iter().filter(|(name, _)| wanted.is_none_or(|wanted| name.contains(wanted.as_str())));
        let mut failed = Vec::new();
        for (name, test) in chosen {
            let result = panic::catch_unwind(test);
            println!("test netns::{name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
            if result.is_err() {
                failed.push(name);
            }
            rig::remove_all();
        }
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}
