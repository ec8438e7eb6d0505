//! Which pods a selector is about, and an index that finds the queries a pod may answer to.

use std::collections::BTreeMap;

use crate::{
    Labels, Operator, Pod, Requirement, Selector,
    few::{Few, members, remove_from},
};

/// A set of pods by labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Query {
    pub(super) within: Within,
    pub(super) pods: Selector,
}

/// Namespaces of a query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Within {
    /// The one of this name.
    Namespace(String),
    /// Those that we know, with such labels.
    Namespaces(Selector),
}

impl Query {
    /// Whether the pod is one of them, by its own labels and those of its namespace.
    pub(super) fn matches(&self, pod: &Pod, namespace: Option<&Labels>) -> bool {
        let is_within = match &self.within {
            Within::Namespace(name) => pod.id.namespace == *name,
            Within::Namespaces(selector) => namespace.is_some_and(|labels| selector.matches(labels)),
        };
        is_within && self.pods.matches(&pod.labels)
    }
}

/// Queries by something that a pod must have to be meant: its namespace, and a label of its own or of its namespace.
#[derive(Debug)]
pub(super) struct QueryIndex<Q> {
    words: Words,
    by_anchor: BTreeMap<Anchor, Few<Q>>,
}

/// What a pod must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Anchor {
    whose: Whose,
    label: Label,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// The pod's, in this namespace.
    PodIn(Word),
    /// The pod's, in any namespace that we know.
    Pod,
    /// The namespace's.
    Namespace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Pair(Word, Word),
    Key(Word),
    /// None is needed.
    Nothing,
}

impl<Q> Default for QueryIndex<Q> {
    fn default() -> Self {
        Self { words: Words::default(), by_anchor: BTreeMap::new() }
    }
}

impl<Q: Ord + Copy> QueryIndex<Q> {
    pub(super) fn insert(&mut self, name: Q, query: &Query) {
        let words = &mut self.words;
        for anchor in anchors(query, |text| Some(words.acquire(text))) {
            self.by_anchor.entry(anchor).or_default().insert(name);
        }
    }

    pub(super) fn remove(&mut self, name: Q, query: &Query) {
        for anchor in anchors(query, |text| self.words.find(text)) {
            remove_from(&mut self.by_anchor, &anchor, &name);
        }
        let words = &mut self.words;
        // The same texts as often as they were acquired.
        let _same = anchors(query, |text| words.release(text));
    }

    /// Some queries, all that match the pod among them; in order, each once.
    pub(super) fn candidates(&self, pod: &Pod, namespace: Option<&Labels>) -> Vec<Q> {
        let mut found = Vec::new();
        let own = self.words.labels(&pod.labels);
        if let Some(within) = self.words.find(&pod.id.namespace) {
            self.collect(Whose::PodIn(within), &own, &mut found);
        }
        if let Some(labels) = namespace {
            self.collect(Whose::Namespace, &self.words.labels(labels), &mut found);
            self.collect(Whose::Pod, &own, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn collect(&self, whose: Whose, labels: &[Label], found: &mut Vec<Q>) {
        for label in labels {
            found.extend(members(&self.by_anchor, &Anchor { whose, label: *label }));
        }
    }
}

/// The anchors of a query; `word` is asked for each of its texts.
fn anchors(query: &Query, mut word: impl FnMut(&str) -> Option<Word>) -> Vec<Anchor> {
    let (whose, requirement) = match &query.within {
        Within::Namespace(namespace) => (word(namespace).map(Whose::PodIn), anchor(&query.pods)),
        Within::Namespaces(selector) => match anchor(selector) {
            None => (Some(Whose::Pod), anchor(&query.pods)),
            some => (Some(Whose::Namespace), some),
        },
    };
    let labels: Vec<Option<Label>> = match requirement.map(|r| (r.key(), r.operator())) {
        None => vec![Some(Label::Nothing)],
        Some((key, Operator::In(values))) => {
            let pair = |value: &String| {
                let (key, value) = (word(key), word(value));
                Some(Label::Pair(key?, value?))
            };
            values.iter().map(pair).collect()
        }
        Some((key, Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist)) => {
            vec![word(key).map(Label::Key)]
        }
    };
    labels.into_iter().filter_map(|label| Some(Anchor { whose: whose?, label: label? })).collect()
}

/// A text that some query needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Word(u32);

/// The texts that queries need, each with a number, counted by their uses.
#[derive(Debug, Default)]
struct Words {
    last: u32,
    by_text: BTreeMap<Box<str>, (Word, u32)>,
}

impl Words {
    fn acquire(&mut self, text: &str) -> Word {
        if let Some((word, uses)) = self.by_text.get_mut(text) {
            *uses += 1;
            return *word;
        }
        self.last += 1;
        self.by_text.insert(text.into(), (Word(self.last), 1));
        Word(self.last)
    }

    fn release(&mut self, text: &str) -> Option<Word> {
        let (word, uses) = self.by_text.get_mut(text)?;
        let word = *word;
        *uses -= 1;
        if *uses == 0 {
            self.by_text.remove(text);
        }
        Some(word)
    }

    fn find(&self, text: &str) -> Option<Word> {
        self.by_text.get(text).map(|(word, _)| *word)
    }

    /// What somebody with these labels has that queries need.
    fn labels(&self, labels: &Labels) -> Vec<Label> {
        let mut found = vec![Label::Nothing];
        for (key, value) in labels.iter() {
            let Some(key) = self.find(key) else { continue };
            found.push(Label::Key(key));
            found.extend(self.find(value).map(|value| Label::Pair(key, value)));
        }
        found
    }
}

/// The requirement that fewest things fulfil, by the look of it: fewest values, or else a key that must be there.
fn anchor(selector: &Selector) -> Option<&Requirement> {
    let rank = |requirement: &&Requirement| match requirement.operator() {
        Operator::In(values) => values.len(),
        Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => usize::MAX,
    };
    let is_positive =
        |requirement: &&Requirement| matches!(requirement.operator(), Operator::In(_) | Operator::Exists);
    selector.requirements().filter(is_positive).min_by_key(rank)
}
