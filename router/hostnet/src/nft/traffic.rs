//! What the elements of a set have counted.

use super::{
    attribute,
    program::{Program, Session, SetSpec, Value},
    readback::{absent, elements_in, parts},
};
use crate::HostError;

/// What an element of a set was found for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets as the kernel handles them: those of one burst that it has joined count once.
    pub packets: u64,
    /// Their bytes from the network header on, each joined packet's headers once.
    pub bytes: u64,
}

impl Session {
    /// What the elements of a set of `program` have counted, by their keys. Nothing if there is no such set, or the kernel
    /// does not count by element.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn traffic(&self, program: &Program, set: &SetSpec) -> Result<Vec<(Vec<Value>, Traffic)>, HostError> {
        let answers = absent(self.dump_set(program, set))?.unwrap_or_default();
        Ok(elements_in(&answers).filter_map(|element| counted(set, element)).collect())
    }
}

/// The key of an element and what its counter says; `None` if it has none.
fn counted(set: &SetSpec, element: &[u8]) -> Option<(Vec<Value>, Traffic)> {
    const KEY: u16 = 1;
    const VALUE: u16 = 1;
    const EXPRESSION: u16 = 7;
    const DATA: u16 = 2;
    const BYTES: u16 = 1;
    const PACKETS: u16 = 2;
    let key = parts(set, attribute::find(attribute::find(element, KEY)?, VALUE)?)?;
    let data = attribute::find(attribute::find(element, EXPRESSION)?, DATA)?;
    let number = |kind| Some(u64::from_be_bytes(attribute::find(data, kind)?.try_into().ok()?));
    Some((key, Traffic { packets: number(PACKETS)?, bytes: number(BYTES)? }))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{attribute::Attributes, expression::expression, program::Field},
        *,
    };

    #[test]
    fn an_element_tells_what_it_was_found_for() {
        let set = SetSpec { has_counters: true, ..SetSpec::of("set", &[Field::Port]) };
        let number = |number: u64| number.to_be_bytes();
        let counter = Attributes::default().bytes(1, &number(4_000)).bytes(2, &number(3));
        let key = Attributes::default().bytes(1, &[0, 53]);
        let without = Attributes::default().nested(1, &key);
        assert_eq!(counted(&set, without.as_bytes()), None);
        let element = without.nested(7, &expression("counter", &counter));
        let expected = (vec![Value::Port(53)], Traffic { packets: 3, bytes: 4_000 });
        assert_eq!(counted(&set, element.as_bytes()), Some(expected));
    }
}
