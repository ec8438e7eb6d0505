//! What operators call routers, beside the names that the cores speak of.

use weave_ipam::Ipam;
use weave_model::PeerName;

/// Length of a name as text: six bytes in hexadecimal, with colons.
const NAME_LENGTH: usize = 17;

/// The text with `(nickname)` behind each name of a router whose nickname is known. The ring's reasons and refusals name
/// routers wherever they fit in, so it is their words that are completed.
pub(crate) fn with_nicknames(text: &str, ipam: Option<&Ipam>) -> String {
    with_labels(text, |peer| ipam.and_then(|ipam| ipam.nickname(peer)))
}

/// The name with the nickname, if that is known.
pub(crate) fn label(peer: PeerName, nickname: &str) -> String {
    if nickname.is_empty() { peer.to_string() } else { format!("{peer}({nickname})") }
}

fn with_labels<'a>(text: &str, nickname: impl Fn(PeerName) -> Option<&'a str>) -> String {
    let ends = |c: char| !c.is_ascii_hexdigit() && c != ':';
    let mut labelled = String::with_capacity(text.len());
    for piece in text.split_inclusive(ends) {
        let word = piece.trim_end_matches(ends);
        labelled.push_str(word);
        let has_label = piece.ends_with('(');
        let peer = Some(word).filter(|word| word.len() == NAME_LENGTH && !has_label);
        if let Some(nickname) = peer.and_then(|word| nickname(word.parse().ok()?)) {
            labelled.push('(');
            labelled.push_str(nickname);
            labelled.push(')');
        }
        labelled.push_str(piece.get(word.len()..).unwrap_or_default());
    }
    labelled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_followed_by_what_is_known_of_them_and_nothing_else_changes() {
        let called = |peer: PeerName| (peer.0[5] == 2).then_some("h2");
        let cases = [
            (
                "not heard: 02:00:00:00:00:02, 02:00:00:00:00:03",
                "not heard: 02:00:00:00:00:02(h2), 02:00:00:00:00:03",
            ),
            ("peers (02:00:00:00:00:02) - use 'rmpeer'", "peers (02:00:00:00:00:02(h2)) - use 'rmpeer'"),
            ("02:00:00:00:00:02(h2) is alive", "02:00:00:00:00:02(h2) is alive"),
            ("10.32.0.7/12 of fd00:1::/64, é", "10.32.0.7/12 of fd00:1::/64, é"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(with_labels(text, called), expected);
        }
    }

    #[test]
    fn a_label_is_the_name_alone_where_nothing_else_is_known() {
        let peer = PeerName([2, 0, 0, 0, 0, 2]);
        assert_eq!(label(peer, ""), "02:00:00:00:00:02");
        assert_eq!(label(peer, "h2"), "02:00:00:00:00:02(h2)");
    }
}
