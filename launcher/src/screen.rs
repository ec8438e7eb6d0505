//! What a terminal gets beyond a pipe: colours, and lines that fit.
//!
//! Views are made by the API crate, the same for everybody. Here a line that is wider than the terminal loses what it
//! can do without, and states are coloured where they stand: never by the word alone, which may be a nickname.

use std::{
    borrow::Cow,
    env,
    ffi::OsStr,
    io::{self, IsTerminal as _},
};

/// What a text is made of: where its states stand, and what its lines can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Labels and values, sentences, and tables with heads. Nothing of it is cut.
    Page,
    /// `-> ADDRESS STATE DETAILS`; the details are the least important.
    Links,
    /// `PEER`, and `   -> ADDRESS PEER STATE`; the names are the least important.
    Peers,
    /// Columns, the last of them the least important.
    Columns,
    /// `ID MAC ADDRESS…`; the MAC is the least important.
    Containers,
}

/// Where text is printed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Screen {
    /// Columns of the terminal; none where nothing is to be cut.
    width: Option<usize>,
    has_colours: bool,
}

/// Codes of ECMA-48: SGR.
const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Stands for what was cut.
const CUT: char = '…';
/// Labels of a page end in this column (see `views::status`).
const LABELS_END: usize = 15;

impl Screen {
    /// Standard output, if it is a terminal; else neither colours nor cuts.
    pub(crate) fn of_output() -> Self {
        let output = io::stdout();
        if !output.is_terminal() {
            return Self::default();
        }
        let width = rustix::termios::tcgetwinsize(&output).ok().map(|size| usize::from(size.ws_col));
        Self {
            width: width.filter(|columns| *columns > 0),
            has_colours: wants_colours(env::var_os("NO_COLOR").as_deref(), env::var_os("TERM").as_deref()),
        }
    }

    /// The text as it is to be shown.
    pub(crate) fn dress(self, text: &str, shape: Shape) -> String {
        let mut dressed = String::with_capacity(text.len());
        // Where the states of a table stand: its head says so.
        let mut state_at = None;
        for line in text.lines() {
            let fitting = self.width.map_or(Cow::Borrowed(line), |width| fit(line, width, shape));
            if self.has_colours {
                dressed += &coloured(&fitting, shape, &mut state_at);
            } else {
                dressed += &fitting;
            }
            dressed.push('\n');
        }
        dressed
    }
}

/// What <https://no-color.org> says, and what a terminal says that knows no colours.
fn wants_colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

fn fit(line: &str, width: usize, shape: Shape) -> Cow<'_, str> {
    if line.chars().count() <= width {
        return Cow::Borrowed(line);
    }
    match shape {
        Shape::Page => Cow::Borrowed(line),
        Shape::Columns if line.starts_with("conflict: ") => Cow::Borrowed(line),
        Shape::Links | Shape::Columns => Cow::Owned(start(line, width)),
        Shape::Peers => Cow::Owned(without_names(line, width)),
        Shape::Containers => without_mac(line),
    }
}

/// At most so many characters from the start, the last of them a sign that there is more.
fn start(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let kept: String = line.chars().take(width.saturating_sub(1)).collect();
    format!("{}{CUT}", kept.trim_end())
}

/// The state of a peer's link stays in sight.
fn without_names(line: &str, width: usize) -> String {
    let Some((names, state)) = line.rsplit_once(' ').filter(|_| line.starts_with(' ')) else {
        return start(line, width);
    };
    let room = width.saturating_sub(state.chars().count() + 1);
    format!("{} {state}", start(names.trim_end(), room))
}

fn without_mac(line: &str) -> Cow<'_, str> {
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(id), Some(mac), Some(addresses)) if mac.matches(':').count() == 5 => {
            Cow::Owned(format!("{id} {CUT} {addresses}"))
        }
        _ => Cow::Borrowed(line),
    }
}

fn coloured(line: &str, shape: Shape, state_at: &mut Option<usize>) -> String {
    match shape {
        Shape::Page => page_line(line, state_at),
        Shape::Links => {
            let state = line.split_whitespace().nth(2).unwrap_or_default();
            let at = line.char_indices().skip(3).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            at.map_or_else(|| line.to_owned(), |at| painted_from(line, at, state))
        }
        Shape::Peers if line.starts_with(' ') => {
            let at = line.rfind(' ').unwrap_or_default();
            painted_from(line, at, &line[at + 1..])
        }
        Shape::Peers => paint(line, BOLD),
        Shape::Columns | Shape::Containers => line.to_owned(),
    }
}

/// A label with its value, the head of a table, or a row of it.
fn page_line(line: &str, state_at: &mut Option<usize>) -> String {
    if line.is_empty() {
        *state_at = None;
    } else if is_head(line) {
        *state_at = line.find("STATE").map(|at| line[..at].chars().count());
        return paint(line, BOLD);
    } else if let Some(column) = *state_at {
        let at = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
        let state = line[at..].split(' ').next().unwrap_or_default();
        return painted_from(line, at, state);
    }
    match line.split_at_checked(LABELS_END) {
        Some((label, value)) if value.starts_with(": ") => match label.trim_start() {
            "Service" => paint(line, BOLD),
            "Error" => format!("{}{value}", paint(label, RED)),
            "Warning" => format!("{}{value}", paint(label, YELLOW)),
            // Counts and states, and no name.
            "Connections" | "Peers" => {
                let all = ["established", "pending", "retrying", "connecting", "failed"];
                all.iter().fold(line.to_owned(), |line, state| painted_from(&line, LABELS_END, state))
            }
            _ => line.to_owned(),
        },
        _ => line.to_owned(),
    }
}

/// Nothing but words in capitals, two or more.
fn is_head(line: &str) -> bool {
    line.chars().all(|c| c.is_ascii_uppercase() || c == ' ') && line.split_whitespace().nth(1).is_some()
}

/// Colours the first `state` at or after a place, if it is one.
fn painted_from(line: &str, at: usize, state: &str) -> String {
    let colour = match state {
        "established" => GREEN,
        "pending" | "retrying" | "connecting" => YELLOW,
        "failed" => RED,
        _ => return line.to_owned(),
    };
    let Some(begin) = line[at..].find(state).map(|found| at + found) else { return line.to_owned() };
    let (before, rest) = line.split_at(begin);
    format!("{before}{}{}", paint(state, colour), &rest[state.len()..])
}

fn paint(text: &str, code: &str) -> String {
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: &str = "\
-> 192.0.2.12:6783       established encrypted   fastdp aa:00:00:00:00:02(failed) mtu=1376
<- [2001:db8::1]:40112   pending     encrypted   sleeve
-> failed:6783           failed      no answer within 10s, retry: in 12s
";

    fn colours(text: &str, shape: Shape) -> String {
        Screen { width: None, has_colours: true }.dress(text, shape)
    }

    fn cut(text: &str, shape: Shape, width: usize) -> String {
        Screen { width: Some(width), has_colours: false }.dress(text, shape)
    }

    #[test]
    fn a_pipe_gets_what_the_view_says() {
        assert_eq!(Screen::default().dress(LINKS, Shape::Links), LINKS);
    }

    #[test]
    fn states_are_coloured_where_they_stand_and_nicknames_are_not() {
        let text = colours(LINKS, Shape::Links);
        assert!(
            text.contains("\x1b[32mestablished\x1b[0m encrypted   fastdp aa:00:00:00:00:02(failed) "),
            "{text}"
        );
        assert!(text.contains("\x1b[33mpending\x1b[0m     encrypted"), "{text}");
        assert!(text.contains("-> failed:6783           \x1b[31mfailed\x1b[0m      no answer"), "{text}");
        let peers = "aa:01(failed)\n   -> 192.0.2.12:6783       aa:02(established)    pending\n";
        assert_eq!(
            colours(peers, Shape::Peers),
            "\x1b[1maa:01(failed)\x1b[0m\n   -> 192.0.2.12:6783       aa:02(established)    \x1b[33mpending\x1b[0m\n"
        );
    }

    #[test]
    fn headings_are_bold_and_what_is_wrong_stands_out() {
        let page = "        Service: router
    Connections: 3 (1 established, 2 failed)
           Name: aa:01(pending)
        Warning: 192.0.2.99:6783 failed
    ADDRESS     STATE        PEER
->  STATE:6783  established  aa:02(failed)
";
        assert_eq!(
            colours(page, Shape::Page),
            "\x1b[1m        Service: router\x1b[0m
    Connections: 3 (1 \x1b[32mestablished\x1b[0m, 2 \x1b[31mfailed\x1b[0m)
           Name: aa:01(pending)
\x1b[33m        Warning\x1b[0m: 192.0.2.99:6783 failed
\x1b[1m    ADDRESS     STATE        PEER\x1b[0m
->  STATE:6783  \x1b[32mestablished\x1b[0m  aa:02(failed)
"
        );
    }

    #[test]
    fn lines_lose_what_they_can_do_without() {
        let text = cut(LINKS, Shape::Links, 40);
        assert_eq!(
            text,
            "-> 192.0.2.12:6783       established en…\n<- [2001:db8::1]:40112   pending     en…\n-> failed:6783           failed      no…\n"
        );
        let peers = "aa:01(a)\n   -> 192.0.2.12:6783       aa:02(established)                    pending\n";
        assert_eq!(cut(peers, Shape::Peers, 44), "aa:01(a)\n   -> 192.0.2.12:6783       aa:02(e… pending\n");
        let containers = "0123456789ab 02:00:00:00:00:09 10.32.0.1/12 fd00::1/64\nc1 10.32.0.1/12\n";
        assert_eq!(
            cut(containers, Shape::Containers, 40),
            "0123456789ab … 10.32.0.1/12 fd00::1/64\nc1 10.32.0.1/12\n"
        );
    }

    #[test]
    fn sentences_and_pages_are_never_cut() {
        let conflict = "conflict: two rings, one of aa:01 and one of aa:02\n";
        assert_eq!(cut(conflict, Shape::Columns, 20), conflict);
        assert_eq!(cut(LINKS, Shape::Page, 20), LINKS);
    }

    #[test]
    fn no_width_is_too_small_and_no_text_too_odd() {
        for width in 1..60 {
            for shape in [Shape::Links, Shape::Peers, Shape::Columns, Shape::Containers, Shape::Page] {
                for text in [LINKS, "   ", "ä ö ü …………………… ß\n", " x\n\n", "-> \n", "   ->\n"]
                {
                    let screen = Screen { width: Some(width), has_colours: true };
                    assert_eq!(screen.dress(text, shape).lines().count(), text.lines().count());
                }
                for line in cut(LINKS, Shape::Links, width).lines() {
                    assert!(line.chars().count() <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn colours_can_be_refused() {
        let of = |no_color: Option<&str>, term: Option<&str>| {
            wants_colours(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(of(None, Some("xterm")) && of(Some(""), Some("xterm")));
        assert!(!of(Some("1"), Some("xterm")) && !of(None, Some("dumb")) && !of(None, None));
    }
}
