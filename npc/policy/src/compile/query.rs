//! Which pods a selector is about, and an index that finds the queries a pod may answer to.

use crate::{
    Operator, Requirement, Selector,
    compile::{
        pods::Description,
        texts::{Text, Texts},
    },
    few::{Few, members, remove_from},
    number::ByNumber,
};

/// Key and value.
pub(super) type Label = (Text, Text);

/// A set of pods by labels. Holds its texts until they are released.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    pub(super) within: Within,
    pub(super) pods: Conditions,
}

/// Namespaces of a query.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Within {
    /// The one of this name.
    Namespace(Text),
    /// Those that we know, with such labels.
    Namespaces(Conditions),
}

impl Query {
    /// The pods that `pods` selects in the namespaces that `namespaces` selects; without that in `namespace`.
    pub(super) fn new(
        namespace: &str,
        namespaces: Option<&Selector>,
        pods: &Selector,
        texts: &mut Texts,
    ) -> Self {
        let within = match namespaces {
            None => Within::Namespace(texts.acquire(namespace)),
            Some(selector) => Within::Namespaces(Conditions::new(selector, texts)),
        };
        Self { within, pods: Conditions::new(pods, texts) }
    }

    /// Whether the pod is one of them, by its own labels and those of its namespace.
    pub(super) fn matches(&self, pod: &Description, namespace: Option<&[Label]>) -> bool {
        let is_within = match &self.within {
            Within::Namespace(name) => pod.namespace == *name,
            Within::Namespaces(conditions) => namespace.is_some_and(|labels| conditions.hold(labels)),
        };
        is_within && self.pods.hold(&pod.labels)
    }

    /// Gives up its texts.
    pub(super) fn release(&self, texts: &mut Texts) {
        match &self.within {
            Within::Namespace(name) => texts.release(*name),
            Within::Namespaces(conditions) => conditions.release(texts),
        }
        self.pods.release(texts);
    }
}

/// A selector.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Conditions(Box<[Condition]>);

/// One of its requirements. Values are in order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Condition {
    Is(Text, Text),
    In(Text, Box<[Text]>),
    NotIn(Text, Box<[Text]>),
    Exists(Text),
    DoesNotExist(Text),
}

impl Conditions {
    fn new(selector: &Selector, texts: &mut Texts) -> Self {
        let mut conditions: Box<[Condition]> =
            selector.requirements().map(|requirement| Condition::new(requirement, texts)).collect();
        conditions.sort_unstable();
        Self(conditions)
    }

    /// Whether all of them hold.
    fn hold(&self, labels: &[Label]) -> bool {
        self.0.iter().all(|condition| condition.holds(labels))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    fn release(&self, texts: &mut Texts) {
        for condition in self.iter() {
            let (key, values) = condition.texts();
            texts.release(key);
            values.iter().for_each(|value| texts.release(*value));
        }
    }

    /// The condition that fewest things fulfil, by the look of it: fewest values, or else a key that must be there.
    fn anchor(&self) -> Option<&Condition> {
        let rank = |condition: &&Condition| match condition {
            Condition::Is(..) => Some(1),
            Condition::In(_, values) => Some(values.len()),
            Condition::Exists(_) => Some(usize::MAX),
            Condition::NotIn(..) | Condition::DoesNotExist(_) => None,
        };
        self.iter().filter(|condition| rank(condition).is_some()).min_by_key(rank)
    }
}

impl Condition {
    fn new(requirement: &Requirement, texts: &mut Texts) -> Self {
        let key = texts.acquire(requirement.key());
        let mut list = |values: &[String]| -> Box<[Text]> {
            let mut list: Box<[Text]> = values.iter().map(|value| texts.acquire(value)).collect();
            list.sort_unstable();
            list
        };
        match requirement.operator() {
            Operator::In(values) => match &*list(values) {
                [only] => Self::Is(key, *only),
                several => Self::In(key, several.into()),
            },
            Operator::NotIn(values) => Self::NotIn(key, list(values)),
            Operator::Exists => Self::Exists(key),
            Operator::DoesNotExist => Self::DoesNotExist(key),
        }
    }

    fn holds(&self, labels: &[Label]) -> bool {
        let value = |key: &Text| labels.iter().find(|(k, _)| k == key).map(|(_, value)| value);
        match self {
            Self::Is(key, wanted) => value(key) == Some(wanted),
            Self::In(key, values) => value(key).is_some_and(|v| values.binary_search(v).is_ok()),
            Self::NotIn(key, values) => value(key).is_none_or(|v| values.binary_search(v).is_err()),
            Self::Exists(key) => value(key).is_some(),
            Self::DoesNotExist(key) => value(key).is_none(),
        }
    }

    fn texts(&self) -> (Text, &[Text]) {
        match self {
            Self::Is(key, value) => (*key, std::slice::from_ref(value)),
            Self::In(key, values) | Self::NotIn(key, values) => (*key, values),
            Self::Exists(key) | Self::DoesNotExist(key) => (*key, &[]),
        }
    }
}

/// Queries by something that a pod must have to be meant: its namespace, and a label of its own or of its namespace.
#[derive(Debug)]
pub(super) struct QueryIndex<Q> {
    by_anchor: ByNumber<Anchor, Few<Q>>,
}

/// What a pod must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Anchor {
    whose: Whose,
    needed: Needed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    /// The pod's, in this namespace.
    PodIn(Text),
    /// The pod's, in any namespace that we know.
    Pod,
    /// The namespace's.
    Namespace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Needed {
    Pair(Label),
    Key(Text),
    Nothing,
}

impl<Q> Default for QueryIndex<Q> {
    fn default() -> Self {
        Self { by_anchor: ByNumber::default() }
    }
}

impl<Q: Ord + Copy> QueryIndex<Q> {
    pub(super) fn insert(&mut self, name: Q, query: &Query) {
        for anchor in anchors(query) {
            self.by_anchor.entry(anchor).or_default().insert(name);
        }
    }

    pub(super) fn remove(&mut self, name: Q, query: &Query) {
        for anchor in anchors(query) {
            remove_from(&mut self.by_anchor, &anchor, &name);
        }
    }

    /// Some queries, all that match the pod among them; in order, each once.
    pub(super) fn candidates(&self, pod: &Description, namespace: Option<&[Label]>) -> Vec<Q> {
        let mut found = Vec::new();
        self.collect(Whose::PodIn(pod.namespace), &pod.labels, &mut found);
        if let Some(labels) = namespace {
            self.collect(Whose::Namespace, labels, &mut found);
            self.collect(Whose::Pod, &pod.labels, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn collect(&self, whose: Whose, labels: &[Label], found: &mut Vec<Q>) {
        let mut look = |needed| found.extend(members(&self.by_anchor, &Anchor { whose, needed }));
        look(Needed::Nothing);
        for label in labels {
            look(Needed::Key(label.0));
            look(Needed::Pair(*label));
        }
    }
}

/// The anchors of a query: who answers to it has one of them.
fn anchors(query: &Query) -> Vec<Anchor> {
    let (whose, condition) = match &query.within {
        Within::Namespace(namespace) => (Whose::PodIn(*namespace), query.pods.anchor()),
        Within::Namespaces(conditions) => match conditions.anchor() {
            None => (Whose::Pod, query.pods.anchor()),
            some => (Whose::Namespace, some),
        },
    };
    let anchor = |needed| Anchor { whose, needed };
    match condition {
        Some(Condition::Is(key, value)) => vec![anchor(Needed::Pair((*key, *value)))],
        Some(Condition::In(key, values)) => {
            values.iter().map(|value| anchor(Needed::Pair((*key, *value)))).collect()
        }
        Some(Condition::Exists(key)) => vec![anchor(Needed::Key(*key))],
        None | Some(Condition::NotIn(..) | Condition::DoesNotExist(_)) => vec![anchor(Needed::Nothing)],
    }
}
