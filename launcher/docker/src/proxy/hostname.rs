//! Which host name a container gets that has none of its own. Pure.

use regex::Regex;
use serde_json::Value;

/// Longest host name, bytes (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// How host names follow from what containers are called.
#[derive(Debug, Clone)]
pub struct Hostnames {
    label: Option<String>,
    pattern: Regex,
    replacement: String,
}

impl Hostnames {
    /// A container's label `label`, or else its name, with every match of `pattern` replaced; `$1` and `${name}` in the
    /// replacement stand for groups of the pattern.
    ///
    /// # Errors
    /// Says what is wrong with the pattern.
    pub fn new(label: Option<String>, pattern: &str, replacement: String) -> Result<Self, String> {
        let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
        Ok(Self { label, pattern, replacement })
    }

    /// The host name of a container that is made under `name`; none if what comes out is no host name.
    pub(super) fn of(&self, container: &Value, name: Option<&str>) -> Option<String> {
        let label = self.label.as_ref().and_then(|label| container["Labels"][label.as_str()].as_str());
        let called = label.filter(|label| !label.is_empty()).or(name)?;
        let host = self.pattern.replace_all(called, &self.replacement);
        if is_label(&host) {
            return Some(host.into_owned());
        }
        tracing::warn!(called, %host, "that is no host name; the container gets the engine's");
        None
    }
}

fn is_label(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=MAX_LABEL).contains(&name.len())
        && name.chars().all(fits)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(hostnames: &Hostnames, labels: Value, name: Option<&str>) -> Option<String> {
        hostnames.of(&json!({ "Labels": labels }), name)
    }

    #[test]
    fn a_name_is_its_own_host_name_unless_it_cannot_be_one() {
        let plain = Hostnames::new(None, "(.*)", "$1".to_owned()).unwrap();
        assert_eq!(of(&plain, json!({}), Some("web")).as_deref(), Some("web"));
        assert_eq!(of(&plain, json!(null), None), None);
        for odd in ["under_score", "-web", "web-", "", &"a".repeat(64)] {
            assert_eq!(of(&plain, json!({}), Some(odd)), None, "{odd}");
        }
    }

    #[test]
    fn a_label_comes_first_and_a_pattern_shapes_both() {
        let pattern = "^aws-[0-9]+-(.*)$";
        let shaped = Hostnames::new(Some("service".to_owned()), pattern, "my-app-$1".to_owned()).unwrap();
        assert_eq!(of(&shaped, json!({}), Some("aws-12798186823-foo")).as_deref(), Some("my-app-foo"));
        assert_eq!(of(&shaped, json!({ "service": "shop" }), Some("x")).as_deref(), Some("shop"));
        assert_eq!(of(&shaped, json!({ "service": "" }), Some("x")).as_deref(), Some("x"));
        assert!(Hostnames::new(None, "(", String::new()).unwrap_err().contains("unclosed group"));
    }
}
