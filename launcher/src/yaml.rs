//! Values as YAML. Only the writing half, and only what JSON can say: every text that could be taken for something
//! else is written as JSON writes it, which YAML 1.2 reads alike.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The value as a YAML document, with a line end.
pub(crate) fn to_string(value: &Value) -> String {
    let mut text = String::new();
    if let Some(items) = list(value) {
        sequence(&mut text, items, 0);
    } else if let Some(fields) = object(value) {
        mapping(&mut text, fields, 0);
    } else {
        let _ = writeln!(text, "{}", scalar(value));
    }
    text
}

fn list(value: &Value) -> Option<&Vec<Value>> {
    value.as_array().filter(|items| !items.is_empty())
}

fn object(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|fields| !fields.is_empty())
}

fn mapping(text: &mut String, fields: &Map<String, Value>, depth: usize) {
    for (key, value) in fields {
        indent(text, depth);
        entry(text, key, value, depth);
    }
}

fn entry(text: &mut String, key: &str, value: &Value, depth: usize) {
    let key = quoted(key);
    if let Some(items) = list(value) {
        let _ = writeln!(text, "{key}:");
        sequence(text, items, depth);
    } else if let Some(fields) = object(value) {
        let _ = writeln!(text, "{key}:");
        mapping(text, fields, depth + 1);
    } else {
        let _ = writeln!(text, "{key}: {}", scalar(value));
    }
}

/// The first field of an object stands on the line of its dash. A list in a list is written as JSON does.
fn sequence(text: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(text, depth);
        text.push_str("- ");
        let Some(fields) = object(item) else {
            let _ = writeln!(text, "{}", scalar(item));
            continue;
        };
        for (number, (key, value)) in fields.iter().enumerate() {
            if number > 0 {
                indent(text, depth + 1);
            }
            entry(text, key, value, depth + 1);
        }
    }
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), quoted)
}

/// Plain only if nobody could take it for a number, a truth value, nothing, or a piece of syntax.
fn quoted(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_indented_and_doubtful_words_are_quoted() {
        let value = serde_json::json!({
            "peers": [{"name": "aa:01", "ok": true, "via": ["b", "10.0.0.1/8"]}, {"name": "no", "links": []}],
            "none": null, "empty": {}, "n": 1.5, "text": "a: b\n", "deep": {"x": {"y": "plain-word"}},
            "lists": [[1, 2], "x"],
        });
        let expected = r#"deep:
  x:
    "y": plain-word
empty: {}
lists:
- [1,2]
- x
"n": 1.5
none: null
peers:
- name: "aa:01"
  ok: true
  via:
  - b
  - "10.0.0.1/8"
- links: []
  name: "no"
text: "a: b\n"
"#;
        assert_eq!(to_string(&value), expected);
        let back: Value = serde_saphyr::from_str(expected).unwrap();
        assert_eq!(back, value);
        assert_eq!(to_string(&serde_json::json!([])), "[]\n");
        assert_eq!(to_string(&serde_json::json!("7")), "\"7\"\n");
    }
}
