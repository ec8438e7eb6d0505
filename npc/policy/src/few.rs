//! Sets that mostly have one member. A hundred thousand of them cost little.

use std::{collections::BTreeSet, hash::Hash};

use crate::number::ByNumber;

/// A set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Few<T> {
    /// With one member, or none.
    One(Option<T>),
    /// With more, as a rule.
    #[expect(
        clippy::box_collection,
        reason = "a set in place would be three words in each of the small ones"
    )]
    Many(Box<BTreeSet<T>>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::One(None)
    }
}

impl<T: Ord> Few<T> {
    /// Adds a member.
    pub(crate) fn insert(&mut self, member: T) {
        match self {
            Self::One(one @ None) => *one = Some(member),
            Self::One(Some(only)) if *only == member => {}
            Self::One(only) => {
                let only = only.take();
                *self = Self::Many(Box::new(only.into_iter().chain([member]).collect()));
            }
            Self::Many(many) => _ = many.insert(member),
        }
    }

    /// Takes a member away.
    pub(crate) fn remove(&mut self, member: &T) {
        match self {
            Self::One(one) if one.as_ref() == Some(member) => *one = None,
            Self::One(_) => {}
            Self::Many(many) => {
                many.remove(member);
                if many.len() < 2 {
                    *self = Self::One(many.pop_first());
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(one) => usize::from(one.is_some()),
            Self::Many(many) => many.len(),
        }
    }

    /// The members, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let (one, many) = match self {
            Self::One(one) => (one.as_ref(), None),
            Self::Many(many) => (None, Some(many.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// Removes a member of a set in a map, and the set when it was the last.
pub(crate) fn remove_from<K: Eq + Hash, V: Ord>(map: &mut ByNumber<K, Few<V>>, key: &K, member: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(member);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

/// The members of a set in a map; none if there is no such set.
pub(crate) fn members<'a, K: Eq + Hash, V: Ord>(
    map: &'a ByNumber<K, Few<V>>,
    key: &K,
) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
    map.get(key).into_iter().flat_map(Few::iter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0u8..5), 0..30)) {
            let (mut few, mut set) = (Few::default(), BTreeSet::new());
            for (adds, member) in steps {
                if adds {
                    few.insert(member);
                    set.insert(member);
                } else {
                    few.remove(&member);
                    set.remove(&member);
                }
                prop_assert_eq!(few.iter().copied().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!((few.len(), few.is_empty()), (set.len(), set.is_empty()));
                prop_assert_eq!(matches!(few, Few::Many(_)), set.len() > 1, "as small as can be");
            }
        }
    }
}
