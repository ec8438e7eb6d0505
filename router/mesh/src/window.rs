//! Which broadcasts of an origin were seen.

/// How far behind the newest a broadcast may come.
const WIDTH: u64 = 128;

/// Sequence numbers of one origin: the newest, and which of the 128 up to it were seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    tag: u32,
    newest: u64,
    seen: u128,
}

impl Window {
    /// Notes a broadcast of the run `tag`; `false` if it was seen, or is so old that it may have been.
    pub(crate) const fn admit(&mut self, tag: u32, sequence: u64) -> bool {
        if tag != self.tag {
            *self = Self { tag, newest: 0, seen: 0 };
        }
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.seen = if ahead < WIDTH { self.seen << ahead | 1 } else { 1 };
            self.newest = sequence;
            return true;
        }
        let behind = self.newest - sequence;
        if behind >= WIDTH || self.seen >> behind & 1 == 1 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_is_admitted_twice_and_nothing_recent_is_refused(sequences in prop::collection::vec(1..400u64, 1..300)) {
            let (mut window, mut seen, mut newest) = (Window::default(), BTreeSet::new(), 0);
            for sequence in sequences {
                let is_recent = sequence + WIDTH > newest;
                let fresh = seen.insert(sequence);
                prop_assert_eq!(window.admit(1, sequence), fresh && is_recent);
                newest = newest.max(sequence);
            }
        }
    }

    #[test]
    fn a_new_run_starts_afresh() {
        let mut window = Window::default();
        assert!(window.admit(1, 9));
        assert!(!window.admit(1, 9));
        assert!(window.admit(2, 9));
    }
}
