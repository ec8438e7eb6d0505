//! Templates for `weave report -f`: the part of Go's template language that Weave Net's users know.
//!
//! | written | stands for |
//! |---|---|
//! | `{{.router.name}}` | a value by its path; case and underscores are ignored, so `.Router.NickName` is `router.nickname` |
//! | `{{.}}`, `{{$.router.name}}` | the value at hand; the whole report from inside a `range` |
//! | `{{range .router.peers}}…{{else}}…{{end}}` | once for each element, or for each value of an object, in order of key; else when there is none |
//! | `{{if .dns}}…{{else if …}}…{{else}}…{{end}}` | when the value is neither missing, false, zero nor empty |
//! | `{{with .ipam}}…{{end}}` | the same, with that value at hand |
//! | `json`, `len`, `index`, `not`, `eq`, `ne`, `and`, `or`, `print` | functions: `{{json .dns}}`, `{{if eq .state "failed"}}`, `{{len (index .router.peers 0).connections}}` |
//! | `{{.name \| json}}` | the value before the bar is the last argument |
//! | `{{"\t"}}`, `{{- … -}}`, `{{/* … */}}` | text, less white space around, a comment |
//!
//! A path that leads nowhere is no error, as services may be switched off: it is false and empty, and printed as
//! `<no value>`, as Go does with maps. Nesting, size and output are bounded.

mod eval;
mod lex;
mod parse;

use serde_json::Value;

/// A template that makes sense.
#[derive(Debug)]
pub(crate) struct Template(Vec<parse::Node>);

/// Why a template makes no sense, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TemplateError {
    /// Bytes before the place.
    pub(crate) at: usize,
    /// What is wrong there.
    pub(crate) what: String,
}

/// The longest template, bytes.
const MAX_LEN: usize = 64 << 10;
/// The most text that one may produce, bytes.
const MAX_OUTPUT: usize = 256 << 20;

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it is not in the language above, or too long or too deep.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_LEN {
            return Err(TemplateError::new(MAX_LEN, "the template is longer than 64 KiB"));
        }
        parse::parse(&lex::lex(text)?).map(Self)
    }

    /// What it makes of a value.
    ///
    /// # Errors
    /// When a function does not fit its arguments, or the output would be beyond its bound.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        eval::render(&self.0, value, MAX_OUTPUT)
    }
}

impl TemplateError {
    fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at character {} of the template: {}", self.at + 1, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let value = serde_json::json!({
            "router": {"name": "aa:01", "nickname": "node-a", "peers": [
                {"name": "aa:01", "reachable": true, "connections": [1, 2]},
                {"name": "aa:02", "reachable": false, "connections": []},
            ]},
            "dns": null, "uptime_s": 7, "counts": {"b": 2, "a": 1}, "text": "a\"b",
        });
        let template = Template::parse(template).map_err(|error| error.to_string())?;
        template.render(&value).map_err(|error| error.to_string())
    }

    fn gives(template: &str, expected: &str) {
        assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
    }

    #[test]
    fn values_are_found_by_their_path_however_it_is_spelt() {
        gives("{{.router.name}} is {{ .Router.NickName }}", "aa:01 is node-a");
        gives("{{.UptimeS}} {{.uptime_s}}", "7 7");
        gives("[{{.nothing.at.all}}]{{.dns.entries}}", "[<no value>]<no value>");
        gives("{{if .nothing}}x{{else}}none{{end}} {{len .nothing}} {{json .nothing}}", "none 0 null");
        gives("{{(index .router.peers 1).name}}", "aa:02");
        gives("{{index .counts \"b\"}}", "2");
    }

    #[test]
    fn lists_and_objects_are_gone_through_in_order() {
        gives("{{range .router.peers}}{{.name}}={{len .connections}} {{end}}", "aa:01=2 aa:02=0 ");
        gives("{{range .counts}}{{.}},{{end}}", "1,2,");
        gives("{{range .dns}}x{{else}}none{{end}}", "none");
        gives("{{range .router.peers}}{{$.uptime_s}}{{end}}", "77");
        gives("{{with .router}}{{.name}}{{end}}", "aa:01");
    }

    #[test]
    fn conditions_know_what_is_empty() {
        gives("{{if .dns}}on{{else if .router.peers}}peers{{else}}off{{end}}", "peers");
        gives("{{range .router.peers}}{{if not .reachable}}{{.name}}{{end}}{{end}}", "aa:02");
        gives("{{if and (eq .uptime_s 7) (ne .router.name \"x\")}}yes{{end}}", "yes");
        gives("{{or .dns \"no dns\"}}", "no dns");
    }

    #[test]
    fn json_and_text_are_written_as_they_are() {
        gives("{{json .counts}}", r#"{"a":1,"b":2}"#);
        gives("{{.text | json}}{{\"\\t|\"}}", "\"a\\\"b\"\t|");
        gives("a {{- /* nothing */ -}} b", "ab");
        gives("{{ .uptime_s -}}   \n .", "7.");
        gives("{{print .uptime_s \"s\"}} { } }}", "7s { } }}");
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_place() {
        for (template, part) in [
            ("{{.a", "at character 1"),
            ("{{if .a}}", "no {{end}}"),
            ("{{end}}", "nothing is open"),
            ("x{{else}}", "nothing is open"),
            ("{{range}}{{end}}", "a value"),
            ("{{frob .a}}", "no function `frob`"),
            ("{{.a..b}}", "path"),
            ("{{\"x}}", "quote"),
            ("{{(.a}}", ")"),
            ("{{len .uptime_s}}", "len"),
            ("{{index .router.peers 9}}", "9"),
            ("{{define \"x\"}}{{end}}", "no function `define`"),
            ("{{}}", "a value"),
        ] {
            let error = render(template).unwrap_err();
            assert!(error.contains(part), "{template}: {error}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "{{if .a}}".repeat(1_000);
        assert!(render(&deep).unwrap_err().contains("deep"));
        let deep = format!("{{{{ {}.a{} }}}}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(render(&deep).unwrap_err().contains("deep"));
        let pieces = [
            "{{", "}}", "{{-", "-}}", ".", "router", "peers", "range ", "if ", "else", "end", "json ",
            "len ", "(", ")", "|", "\"", "\\", "$", "index ", "1", " ", "/*", "*/", "é", "not ",
        ];
        // Whatever is typed is a template or an error; every state of a small generator is a sequence of pieces.
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let _answer = render(&text);
        }
    }
}
