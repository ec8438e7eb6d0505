//! Names, keys and values of labels, each as a number: they are compared and looked up all the time.

use std::{collections::BTreeMap, sync::Arc};

use crate::number::ByNumber;

/// A text that is in use. Never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Text(u32);

/// The texts in use, counted by their uses.
#[derive(Debug, Default)]
pub(super) struct Texts {
    last: u32,
    by_text: BTreeMap<Arc<str>, Text>,
    entries: ByNumber<Text, (Arc<str>, u32)>,
}

impl Texts {
    /// Counts one more use.
    pub(super) fn acquire(&mut self, text: &str) -> Text {
        if let Some(number) = self.by_text.get(text) {
            let number = *number;
            self.acquire_again(number);
            return number;
        }
        self.last += 1;
        let (number, text) = (Text(self.last), Arc::<str>::from(text));
        self.by_text.insert(text.clone(), number);
        self.entries.insert(number, (text, 1));
        number
    }

    /// Counts one more use of a text that is in use.
    pub(super) fn acquire_again(&mut self, number: Text) {
        if let Some((_, uses)) = self.entries.get_mut(&number) {
            *uses += 1;
        }
    }

    /// Counts one use less.
    pub(super) fn release(&mut self, number: Text) {
        let Some((text, uses)) = self.entries.get_mut(&number) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.by_text.remove(text);
            self.entries.remove(&number);
        }
    }

    /// The number of a text, if anybody uses it.
    pub(super) fn find(&self, text: &str) -> Option<Text> {
        self.by_text.get(text).copied()
    }

    /// How many are in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_text.len(), self.entries.len());
        self.entries.len()
    }

    /// The text of a number; empty if nobody uses it any more.
    pub(super) fn text(&self, number: Text) -> &str {
        self.entries.get(&number).map_or("", |(text, _)| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_number_as_long_as_it_is_used() {
        let mut texts = Texts::default();
        let (a, b) = (texts.acquire("a"), texts.acquire("b"));
        assert_eq!((texts.acquire("a"), texts.find("b"), texts.text(a)), (a, Some(b), "a"));
        texts.release(a);
        assert_eq!(texts.find("a"), Some(a));
        texts.release(a);
        assert_eq!((texts.find("a"), texts.text(a)), (None, ""));
        assert_ne!(texts.acquire("a"), a);
        assert_eq!(texts.len(), 2);
    }
}
