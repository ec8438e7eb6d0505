//! Label selectors, in one canonical form: two selectors that ask for the same compare equal, however they were
//! written.

use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::Labels;

/// What a requirement asks of the value of its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// The key is there, with one of these values, which are in order.
    In(Arc<[String]>),
    /// The key is absent, or has none of these values, which are in order.
    NotIn(Arc<[String]>),
    /// The key is there.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

/// One condition of a selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    key: String,
    operator: Operator,
}

/// Conditions that must all hold. Without any, everything is selected.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// In order. Shared, as there are many copies of one selector.
    requirements: Arc<[Requirement]>,
}

/// A requirement that the API would not have accepted. The object is at fault; nothing was kept of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// `In` and `NotIn` need a value at least.
    #[error("operator {operator} for label `{key}` needs at least one value")]
    NoValues {
        /// The label.
        key: String,
        /// As it was written.
        operator: String,
    },
    /// `Exists` and `DoesNotExist` take none.
    #[error("operator {operator} for label `{key}` takes no values")]
    Values {
        /// The label.
        key: String,
        /// As it was written.
        operator: String,
    },
    /// None of the four.
    #[error("`{operator}` for label `{key}` is not an operator: In, NotIn, Exists, DoesNotExist")]
    UnknownOperator {
        /// The label.
        key: String,
        /// As it was written.
        operator: String,
    },
}

impl Requirement {
    /// The label `key` has exactly this value; an entry of `matchLabels`.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), operator: Operator::In(Arc::new([value.into()])) }
    }

    /// An entry of `matchExpressions`.
    ///
    /// # Errors
    /// What the API would refuse: an unknown operator, or values where there may be none and the reverse.
    pub fn parse(key: &str, operator: &str, values: &[String]) -> Result<Self, InvalidSelector> {
        let names = || (key.to_owned(), operator.to_owned());
        let sorted: BTreeSet<&String> = values.iter().collect();
        let set: Arc<[String]> = sorted.into_iter().cloned().collect();
        let parsed = match operator {
            "In" => Operator::In(set),
            "NotIn" => Operator::NotIn(set),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => {
                let (key, operator) = names();
                return Err(InvalidSelector::UnknownOperator { key, operator });
            }
        };
        let (key, operator) = names();
        match (&parsed, values.is_empty()) {
            (Operator::In(_) | Operator::NotIn(_), true) => Err(InvalidSelector::NoValues { key, operator }),
            (Operator::Exists | Operator::DoesNotExist, false) => {
                Err(InvalidSelector::Values { key, operator })
            }
            _ => Ok(Self { key, operator: parsed }),
        }
    }

    /// The label that it is about.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it asks for.
    #[must_use]
    pub const fn operator(&self) -> &Operator {
        &self.operator
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.binary_search(v).is_ok()),
            Operator::NotIn(values) => value.is_none_or(|v| values.binary_search(v).is_err()),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Selector {
    /// The empty selector.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Whether all requirements hold.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// The conditions, in order.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter()
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        let sorted: BTreeSet<Requirement> = requirements.into_iter().collect();
        Self { requirements: sorted.into_iter().collect() }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[String]| values.join(",");
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{}={}", self.key, list(values)),
            Operator::In(values) => write!(f, "{} in ({})", self.key, list(values)),
            Operator::NotIn(values) => write!(f, "{} notin ({})", self.key, list(values)),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn parse(operator: &str, values: &[&str]) -> Result<Selector, InvalidSelector> {
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        Ok(Selector::from_iter([Requirement::parse("app", operator, &values)?]))
    }

    /// NP-41, E03: each operator with the key absent, present, present with another and with an empty value.
    #[test]
    fn operators_say_what_the_api_says() {
        let worlds = [labels(&[]), labels(&[("app", "a")]), labels(&[("app", "b")]), labels(&[("app", "")])];
        let table = [
            ("In", &["a"][..], [false, true, false, false]),
            ("In", &["a", ""], [false, true, false, true]),
            ("NotIn", &["a"], [true, false, true, true]),
            ("NotIn", &["a", ""], [true, false, true, false]),
            ("Exists", &[], [false, true, true, true]),
            ("DoesNotExist", &[], [true, false, false, false]),
        ];
        for (operator, values, expected) in table {
            let selector = parse(operator, values).unwrap();
            let seen = worlds.each_ref().map(|labels| selector.matches(labels));
            assert_eq!(seen, expected, "{operator} {values:?}");
        }
    }

    /// NP-40.
    #[test]
    fn all_requirements_must_hold_and_none_select_everything() {
        let both: Selector =
            [Requirement::equals("app", "a"), Requirement::equals("tier", "db")].into_iter().collect();
        assert!(both.matches(&labels(&[("app", "a"), ("tier", "db"), ("more", "x")])));
        assert!(!both.matches(&labels(&[("app", "a")])));
        assert!(Selector::everything().matches(&labels(&[])));
    }

    /// NP-42.
    #[test]
    fn values_must_be_there_exactly_where_they_mean_something() {
        assert!(matches!(parse("In", &[]), Err(InvalidSelector::NoValues { .. })));
        assert!(matches!(parse("NotIn", &[]), Err(InvalidSelector::NoValues { .. })));
        assert!(matches!(parse("Exists", &["a"]), Err(InvalidSelector::Values { .. })));
        assert!(matches!(parse("DoesNotExist", &["a"]), Err(InvalidSelector::Values { .. })));
        assert!(matches!(parse("in", &["a"]), Err(InvalidSelector::UnknownOperator { .. })));
    }

    /// NP-43.
    #[test]
    fn selectors_that_ask_for_the_same_are_equal_however_written() {
        let labels: Selector = [Requirement::equals("app", "a")].into_iter().collect();
        assert_eq!(labels, parse("In", &["a"]).unwrap());
        assert_eq!(parse("In", &["a", "b"]), parse("In", &["b", "a", "b"]));
        assert_ne!(parse("In", &["a"]), parse("NotIn", &["a"]));
    }
}
