//! `weave ipam repair`: what would be done, what was done, and what is left to people.

use std::fmt::Write as _;

use weave_model::PeerName;

use crate::{RepairClaim, RepairResponse, RingMeeting};

/// What a repair would do or has done, a line for each step.
#[must_use]
pub fn repair(answer: &RepairResponse) -> String {
    if answer.is_idle() {
        return "nothing to repair\n".to_owned();
    }
    let mut text = String::new();
    if let Some(meeting) = &answer.meeting {
        self::meeting(&mut text, meeting, answer.done);
    }
    if answer.unsettled > 0 {
        unsettled(&mut text, answer);
    }
    for claim in &answer.claims {
        self::claim(&mut text, claim, answer.done);
    }
    if !answer.done && answer.meeting.as_ref().is_none_or(|meeting| meeting.gives_way) {
        text.push_str("nothing was changed; `weave ipam repair --yes` does it\n");
    }
    text
}

fn meeting(text: &mut String, meeting: &RingMeeting, done: bool) {
    let (ours, theirs) = (&meeting.ours, &meeting.theirs);
    let _ = writeln!(text, "two rings share the ranges:");
    for (whose, side) in [("ours  ", ours), ("theirs", theirs)] {
        let used = if side.used { "" } else { ", not in use" };
        let seeds = if side.seeds.is_empty() { "unknown routers".to_owned() } else { list(&side.seeds) };
        let _ = writeln!(text, "   {whose} {} (seeded by {seeds}{used})", list(&side.peers));
    }
    let _ = match (meeting.gives_way, done) {
        (true, false) => writeln!(text, "this router would go over to their ring"),
        (true, true) => writeln!(text, "this router has gone over to their ring"),
        (false, _) => writeln!(
            text,
            "our ring is kept; run `weave ipam repair` on {}, and nothing is to be done here",
            list(&theirs.peers)
        ),
    };
    if meeting.gives_way && ours.peers.len() > 1 {
        text.push_str("the others of our side have to do the same\n");
    }
}

fn unsettled(text: &mut String, answer: &RepairResponse) {
    let count = answer.unsettled;
    if answer.done {
        let _ = writeln!(text, "{count} IPs of earlier stores of this router were taken over");
        return;
    }
    let _ = writeln!(
        text,
        "{count} IPs of earlier stores of this router would be taken over; containers that `weave ps` does not list \
         and that still run here must be stopped first"
    );
    if !answer.silent.is_empty() {
        let _ = writeln!(
            text,
            "   that needs the agreement of {}, which cannot be reached: bring them back, or `weave rmpeer` them if \
             they are gone for good",
            list(&answer.silent)
        );
    }
}

fn claim(text: &mut String, claim: &RepairClaim, done: bool) {
    let RepairClaim { container, address, peer, refusal } = claim;
    let owner = peer.map_or_else(|| "its owner".to_owned(), |peer| peer.to_string());
    let short = container.short();
    let _ = match (refusal, done) {
        (None, false) => writeln!(text, "{address} of {short} would be asked of {owner}"),
        (None, true) => writeln!(text, "{address} of {short} is ours now"),
        (Some(why), _) => writeln!(
            text,
            "{address} of {short} is not ours: {why}\n   give the container another one: \
             `weave detach {address} {short}`, then `weave attach {short}`"
        ),
    };
}

fn list(peers: &[PeerName]) -> String {
    peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Exit, RingSide};

    fn peer(last: u8) -> PeerName {
        PeerName([2, 0, 0, 0, 0, last])
    }

    fn side(peers: &[u8]) -> RingSide {
        let peers: Vec<PeerName> = peers.iter().map(|last| peer(*last)).collect();
        RingSide { seeds: peers.clone(), peers, used: true }
    }

    fn answer(gives_way: bool, done: bool) -> RepairResponse {
        let claim = |container: &str, refusal: Option<&str>| RepairClaim {
            container: container.parse().unwrap(),
            address: "10.32.0.7/12".parse().unwrap(),
            peer: Some(peer(3)),
            refusal: refusal.map(str::to_owned),
        };
        RepairResponse {
            done,
            meeting: Some(RingMeeting { ours: side(&[1, 2]), theirs: side(&[3]), gives_way }),
            claims: if gives_way { vec![claim("web", done.then_some("in use there"))] } else { vec![] },
            ..RepairResponse::default()
        }
    }

    #[test]
    fn a_dry_run_names_both_sides_what_would_be_done_and_how_to_do_it() {
        let answer = answer(true, false);
        let expected = "\
two rings share the ranges:
   ours   02:00:00:00:00:01, 02:00:00:00:00:02 (seeded by 02:00:00:00:00:01, 02:00:00:00:00:02)
   theirs 02:00:00:00:00:03 (seeded by 02:00:00:00:00:03)
this router would go over to their ring
the others of our side have to do the same
10.32.0.7/12 of web would be asked of 02:00:00:00:00:03
nothing was changed; `weave ipam repair --yes` does it
";
        assert_eq!((repair(&answer).as_str(), answer.exit()), (expected, Exit::Warnings));
    }

    #[test]
    fn what_is_still_held_twice_is_named_with_the_way_out() {
        let answer = answer(true, true);
        let text = repair(&answer);
        assert!(text.contains("has gone over"), "{text}");
        assert!(text.contains("web is not ours: in use there\n"), "{text}");
        assert!(text.contains("`weave detach 10.32.0.7/12 web`"), "{text}");
        assert_eq!(answer.exit(), Exit::Conflict);
    }

    #[test]
    fn the_side_that_stays_says_where_the_repair_belongs() {
        let answer = answer(false, true);
        assert!(repair(&answer).contains("run `weave ipam repair` on 02:00:00:00:00:03"));
        assert_eq!(answer.exit(), Exit::Warnings);
        let idle = RepairResponse::default();
        assert_eq!((repair(&idle).as_str(), idle.exit()), ("nothing to repair\n", Exit::Ok));
    }

    #[test]
    fn an_old_store_names_those_who_must_agree() {
        let old = RepairResponse { unsettled: 512, silent: vec![peer(9)], ..RepairResponse::default() };
        let text = repair(&old);
        assert!(text.contains("512 IPs") && text.contains("agreement of 02:00:00:00:00:09"), "{text}");
        let done = RepairResponse { done: true, silent: vec![], ..old };
        assert_eq!(repair(&done), "512 IPs of earlier stores of this router were taken over\n");
        assert_eq!(done.exit(), Exit::Ok);
    }
}
