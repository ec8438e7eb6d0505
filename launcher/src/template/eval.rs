//! From a tree and a value to text.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    TemplateError,
    parse::{Block, Expr, Function, Node},
};

/// Prints all nodes, at most `limit` bytes.
pub(super) fn render(nodes: &[Node], root: &Value, limit: usize) -> Result<String, TemplateError> {
    let mut printer = Printer { root, text: String::new(), limit };
    printer.nodes(nodes, root)?;
    Ok(printer.text)
}

struct Printer<'v> {
    root: &'v Value,
    text: String,
    limit: usize,
}

impl<'v> Printer<'v> {
    fn nodes(&mut self, nodes: &[Node], at_hand: &Value) -> Result<(), TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.push(text)?,
                Node::Print(value) => {
                    let value = self.value(value, at_hand)?;
                    let text = shown(&value);
                    self.push(&text)?;
                }
                Node::Block { kind, value, body, otherwise } => {
                    let value = self.value(value, at_hand)?;
                    self.block(*kind, &value, at_hand, body, otherwise)?;
                }
            }
        }
        Ok(())
    }

    fn block(
        &mut self,
        kind: Block,
        value: &Value,
        at_hand: &Value,
        body: &[Node],
        otherwise: &[Node],
    ) -> Result<(), TemplateError> {
        if !is_true(value) {
            return self.nodes(otherwise, at_hand);
        }
        match (kind, value) {
            (Block::If, _) => self.nodes(body, at_hand),
            (Block::Range, Value::Array(items)) => items.iter().try_for_each(|item| self.nodes(body, item)),
            (Block::Range, Value::Object(fields)) => {
                fields.values().try_for_each(|item| self.nodes(body, item))
            }
            (Block::With | Block::Range, value) => self.nodes(body, value),
        }
    }

    fn push(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.text.len() + text.len() > self.limit {
            return Err(TemplateError::new(0, format!("it makes more than {} bytes of text", self.limit)));
        }
        self.text.push_str(text);
        Ok(())
    }

    fn value<'a>(&self, expr: &Expr, at_hand: &'a Value) -> Result<Cow<'a, Value>, TemplateError>
    where
        'v: 'a,
    {
        Ok(match expr {
            Expr::Path { is_root, keys } => {
                let start: &'a Value = if *is_root { self.root } else { at_hand };
                Cow::Borrowed(walk(start, keys))
            }
            Expr::Field(value, keys) => {
                let value = self.value(value, at_hand)?;
                Cow::Owned(walk(&value, keys).clone())
            }
            Expr::Number(number) => Cow::Owned(Value::from(*number)),
            Expr::Quoted(text) => Cow::Owned(Value::from(text.as_str())),
            Expr::Call { at, function, arguments } => {
                let values: Result<Vec<_>, _> = arguments.iter().map(|a| self.value(a, at_hand)).collect();
                Cow::Owned(call(*function, &values?).map_err(|what| TemplateError::new(*at, what))?)
            }
        })
    }
}

/// What lies at the end of a path; nothing when it leads nowhere.
fn walk<'a>(start: &'a Value, keys: &[String]) -> &'a Value {
    keys.iter().fold(start, |value, key| {
        let fields = value.as_object();
        fields.and_then(|fields| fields.get(key).or_else(|| spelt(fields, key))).unwrap_or(&Value::Null)
    })
}

/// A field whatever case and underscores its name is written with.
fn spelt<'a>(fields: &'a serde_json::Map<String, Value>, key: &str) -> Option<&'a Value> {
    let bare = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let wanted = bare(key);
    fields.iter().find(|(name, _)| bare(name) == wanted).map(|(_, value)| value)
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// What Go's templates print for a key that a map does not have.
const NO_VALUE: &str = "<no value>";

/// Text as it is, all else as JSON; nothing as a word that cannot be taken for a value.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => NO_VALUE.to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn call(function: Function, arguments: &[Cow<'_, Value>]) -> Result<Value, String> {
    Ok(match (function, arguments) {
        (Function::Json, [value]) => Value::from(value.to_string()),
        (Function::Len, [value]) => Value::from(length(value)?),
        (Function::Index, [value, places @ ..]) if !places.is_empty() => {
            let mut found = value.as_ref();
            for place in places {
                found = element(found, place)?;
            }
            found.clone()
        }
        (Function::Not, [value]) => Value::from(!is_true(value)),
        (Function::Eq, [first, others @ ..]) if !others.is_empty() => Value::from(others.contains(first)),
        (Function::Ne, [first, second]) => Value::from(first != second),
        (Function::And, [.., last]) => {
            arguments.iter().find(|value| !is_true(value)).unwrap_or(last).clone().into_owned()
        }
        (Function::Or, [.., last]) => {
            arguments.iter().find(|value| is_true(value)).unwrap_or(last).clone().into_owned()
        }
        (Function::Print, values) => Value::from(values.iter().map(|value| shown(value)).collect::<String>()),
        (function, values) => {
            let name = format!("{function:?}").to_lowercase();
            return Err(format!("`{name}` cannot do anything with {} values", values.len()));
        }
    })
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::Null => Ok(0),
        Value::String(text) => Ok(text.len()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(fields) => Ok(fields.len()),
        Value::Bool(_) | Value::Number(_) => {
            Err(format!("`len` counts lists, objects and text, and {value} is none"))
        }
    }
}

fn element<'a>(value: &'a Value, place: &Value) -> Result<&'a Value, String> {
    let found = match (value, place) {
        (Value::Array(items), Value::Number(number)) => {
            number.as_u64().and_then(|n| usize::try_from(n).ok()).and_then(|n| items.get(n))
        }
        (Value::Object(_), Value::String(key)) => return Ok(walk(value, std::slice::from_ref(key))),
        (Value::Null, _) => Some(&Value::Null),
        _ => None,
    };
    found.ok_or_else(|| format!("`index` finds no element {place}"))
}
