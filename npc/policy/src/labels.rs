//! Labels of a pod or namespace.

use std::{collections::BTreeMap, sync::Arc};

/// Keys with a value each, in order of keys. Copies share them: there are many objects, and more who look at them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Arc<[(String, String)]>);

impl Labels {
    /// No labels.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new([]))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&String> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: String, value: String) {
        *self = self.iter().map(|(k, v)| (k.clone(), v.clone())).chain([(key, value)]).collect();
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<(String, String)> for Labels {
    /// Of two values of a key the last counts.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        labels.into_iter().collect::<BTreeMap<String, String>>().into()
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        Self(labels.into_iter().collect())
    }
}

impl<const N: usize> From<[(String, String); N]> for Labels {
    fn from(labels: [(String, String); N]) -> Self {
        labels.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_a_map_whose_copies_do_not_change_with_it() {
        let text = |text: &str| text.to_owned();
        let mut labels =
            Labels::from([(text("b"), text("1")), (text("a"), text("2")), (text("b"), text("3"))]);
        let before = labels.clone();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [(&text("a"), &text("2")), (&text("b"), &text("3"))]);
        labels.insert(text("aa"), text("4"));
        labels.insert(text("b"), text("5"));
        let seen = ["a", "aa", "b", "c"].map(|key| labels.get(key).map(String::as_str));
        assert_eq!(seen, [Some("2"), Some("4"), Some("5"), None]);
        assert_eq!((before.len(), labels.len(), Labels::default().is_empty()), (2, 3, true));
    }
}
