//! The two overlays of a link, and which of them is in use: the kernel's where it works, else the sleeve.

use std::time::Instant;

use crate::{Overlay, OverlayKind, OverlayStatus, rtt};

/// The longest note on an overlay, in bytes.
const MAX_NOTE: usize = 200;

/// What is known of one overlay.
#[derive(Debug)]
struct State {
    /// What the data plane said last.
    told: Option<Overlay>,
    /// Since when it is up, or not.
    since: Instant,
    /// Why it is not up.
    note: String,
}

/// Both overlays of a link.
#[derive(Debug)]
pub(crate) struct Overlays {
    sleeve: State,
    fastdp: State,
    in_use_since: Instant,
    /// RTT class of the overlay in use, as it is published.
    class: u8,
}

impl State {
    const fn new(now: Instant) -> Self {
        Self { told: None, since: now, note: String::new() }
    }

    /// As it is, if frames get through.
    fn up(&self) -> Option<Overlay> {
        self.told.filter(|overlay| overlay.up)
    }
}

impl Overlays {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { sleeve: State::new(now), fastdp: State::new(now), in_use_since: now, class: 0 }
    }

    /// The overlay in use, if one is up.
    pub(crate) fn in_use(&self) -> Option<Overlay> {
        self.fastdp.up().or_else(|| self.sleeve.up())
    }

    /// Since when the overlay in use is that one, or since when there is none.
    pub(crate) const fn in_use_since(&self) -> Instant {
        self.in_use_since
    }

    pub(crate) const fn class(&self) -> u8 {
        self.class
    }

    /// Takes in what the data plane says of an overlay.
    pub(crate) fn set(&mut self, overlay: Overlay, now: Instant) {
        let before = self.in_use();
        let state = self.state_mut(overlay.kind);
        if state.up().is_some() != overlay.up {
            state.since = now;
        }
        if overlay.up {
            state.note.clear();
        }
        state.told = Some(overlay);
        let after = self.in_use();
        if before.map(|o| o.kind) != after.map(|o| o.kind) {
            self.in_use_since = now;
        }
        if let Some(overlay) = after {
            self.class = if before.is_some() {
                rtt::next_class(self.class, overlay.rtt)
            } else {
                rtt::class(overlay.rtt)
            };
        }
    }

    /// Takes in why an overlay is not up, in words for an operator; what does not fit is cut off.
    pub(crate) fn note(&mut self, kind: OverlayKind, text: &str) {
        let mut note = String::new();
        for letter in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if note.len() + letter.len_utf8() > MAX_NOTE {
                break;
            }
            note.push(letter);
        }
        self.state_mut(kind).note = note;
    }

    /// Both, the preferred one first.
    pub(crate) fn status(&self) -> [OverlayStatus; 2] {
        [OverlayKind::Fastdp, OverlayKind::Sleeve].map(|kind| {
            let (state, in_use) = (self.state(kind), self.in_use().map(|overlay| overlay.kind));
            let up = state.up();
            let note = match (up, in_use) {
                (None, _) if !state.note.is_empty() => state.note.clone(),
                (None, _) if state.told.is_none() => "not up yet".to_owned(),
                (None, _) => "frames do not get through".to_owned(),
                (Some(_), Some(other)) if other != kind => format!("works; {other} is preferred"),
                (Some(_), _) => String::new(),
            };
            OverlayStatus {
                kind,
                up: up.is_some(),
                in_use: in_use == Some(kind),
                since: state.since,
                mtu: up.map(|overlay| overlay.mtu),
                rtt: up.map(|overlay| overlay.rtt),
                note,
            }
        })
    }

    /// What was noted of overlays, when none is up; else nothing.
    pub(crate) fn complaint(&self) -> String {
        let noted = |(kind, state): (OverlayKind, &State)| {
            (!state.note.is_empty()).then(|| format!("{kind}: {}", state.note))
        };
        let states = [(OverlayKind::Fastdp, &self.fastdp), (OverlayKind::Sleeve, &self.sleeve)];
        if self.in_use().is_some() {
            return String::new();
        }
        states.into_iter().filter_map(noted).collect::<Vec<_>>().join("; ")
    }

    const fn state(&self, kind: OverlayKind) -> &State {
        match kind {
            OverlayKind::Sleeve => &self.sleeve,
            OverlayKind::Fastdp => &self.fastdp,
        }
    }

    const fn state_mut(&mut self, kind: OverlayKind) -> &mut State {
        match kind {
            OverlayKind::Sleeve => &mut self.sleeve,
            OverlayKind::Fastdp => &mut self.fastdp,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn overlay(kind: OverlayKind, up: bool) -> Overlay {
        Overlay { kind, up, mtu: 1400, rtt: Duration::from_millis(3) }
    }

    #[allow(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn fastdp_is_used_while_it_is_up_and_the_sleeve_otherwise() {
        let start = origin();
        let mut overlays = Overlays::new(start);
        let script = [
            (OverlayKind::Sleeve, true, Some(OverlayKind::Sleeve), 1),
            (OverlayKind::Fastdp, true, Some(OverlayKind::Fastdp), 2),
            (OverlayKind::Sleeve, false, Some(OverlayKind::Fastdp), 2),
            (OverlayKind::Sleeve, true, Some(OverlayKind::Fastdp), 2),
            (OverlayKind::Fastdp, false, Some(OverlayKind::Sleeve), 5),
            (OverlayKind::Sleeve, false, None, 6),
        ];
        for (step, (kind, up, in_use, since)) in (1..).zip(script) {
            overlays.set(overlay(kind, up), start + SECOND * step);
            assert_eq!(overlays.in_use().map(|o| o.kind), in_use, "step {step}");
            assert_eq!(overlays.in_use_since(), start + SECOND * since, "step {step}");
        }
    }

    #[test]
    fn what_is_not_in_use_says_why() {
        let start = origin();
        let mut overlays = Overlays::new(start);
        let notes = |overlays: &Overlays| overlays.status().map(|status| status.note);
        assert_eq!(notes(&overlays), ["not up yet", "not up yet"]);
        overlays.note(OverlayKind::Fastdp, "no answer on UDP 6784");
        assert_eq!(overlays.complaint(), "fastdp: no answer on UDP 6784");
        overlays.set(overlay(OverlayKind::Sleeve, true), start);
        assert_eq!(notes(&overlays), ["no answer on UDP 6784", ""]);
        assert_eq!(overlays.complaint(), "");
        overlays.set(overlay(OverlayKind::Fastdp, true), start + SECOND);
        assert_eq!(notes(&overlays), ["", "works; fastdp is preferred"]);
        overlays.set(overlay(OverlayKind::Fastdp, false), start + SECOND * 2);
        assert_eq!(notes(&overlays), ["frames do not get through", ""], "an old note is not shown again");
        let [fastdp, sleeve] = overlays.status();
        assert_eq!((fastdp.since, sleeve.since), (start + SECOND * 2, start));
        assert_eq!((fastdp.mtu, sleeve.mtu), (None, Some(1400)));
    }

    #[test]
    fn a_note_is_cut_to_its_bound_and_harmless_in_a_terminal() {
        let mut overlays = Overlays::new(origin());
        overlays.note(OverlayKind::Sleeve, &"\u{1b}é".repeat(1000));
        let [_, sleeve] = overlays.status();
        assert!(sleeve.note.len() <= MAX_NOTE && sleeve.note.starts_with(" é é"));
    }
}
