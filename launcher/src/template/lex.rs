//! From text to pieces: what is printed as it is, and the words of actions.

use super::TemplateError;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Printed as it is.
    Text(String),
    /// What stands between `{{` and `}}`, and where it begins.
    Action(usize, Vec<Token>),
}

/// A word of an action, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

/// What a word is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// `.a.b`, or `$.a`: from the whole value.
    Path {
        is_root: bool,
        keys: Vec<String>,
    },
    /// A keyword or a function.
    Name(String),
    Number(i64),
    Quoted(String),
    Open,
    Close,
    Bar,
}

/// Cuts a template into pieces.
pub(super) fn lex(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let at = text.len() - rest.len();
        let (plain, action) = match rest.split_once("{{") {
            Some((plain, action)) => (plain, Some(action)),
            None => (rest, None),
        };
        let start = at + plain.len();
        let mut plain = if trim_next { plain.trim_start() } else { plain };
        let Some(action) = action else {
            push_text(&mut pieces, plain);
            return Ok(pieces);
        };
        let is_trimming = |text: &str| text.starts_with('-') && text[1..].starts_with(char::is_whitespace);
        let body = if is_trimming(action) {
            plain = plain.trim_end();
            &action[1..]
        } else {
            action
        };
        push_text(&mut pieces, plain);
        let open = || TemplateError::new(start, "the action that begins here is not closed by }}");
        if let Some(comment) = body.trim_start().strip_prefix("/*") {
            let (_, behind) = comment.split_once("*/").ok_or_else(open)?;
            let (trim, behind) = close(behind.trim_start()).ok_or_else(open)?;
            (trim_next, rest) = (trim, behind);
            continue;
        }
        let offset = text.len() - body.len();
        let (tokens, behind) = words(body, offset)?;
        let (trim, behind) = close(behind).ok_or_else(open)?;
        pieces.push(Piece::Action(start, tokens));
        (trim_next, rest) = (trim, behind);
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Behind `}}` or `-}}`; whether white space is to go.
fn close(text: &str) -> Option<(bool, &str)> {
    match text.strip_prefix("}}") {
        Some(rest) => Some((false, rest)),
        None => text.strip_prefix("-}}").map(|rest| (true, rest)),
    }
}

/// The words up to the end of the action, and the rest.
fn words(body: &str, offset: usize) -> Result<(Vec<Token>, &str), TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = body;
    loop {
        rest = rest.trim_start();
        let at = offset + body.len() - rest.len();
        let Some(first) = rest.chars().next().filter(|_| close(rest).is_none()) else {
            return Ok((tokens, rest));
        };
        let (kind, behind) = match first {
            '(' => (Kind::Open, &rest[1..]),
            ')' => (Kind::Close, &rest[1..]),
            '|' => (Kind::Bar, &rest[1..]),
            '"' => quoted(rest, at)?,
            '.' | '$' => path(rest, at)?,
            '-' | '0'..='9' => number(rest, at)?,
            'a'..='z' | 'A'..='Z' | '_' => {
                let (name, behind) = take(rest, is_word);
                (Kind::Name(name.to_owned()), behind)
            }
            other => return Err(TemplateError::new(at, format!("`{other}` means nothing here"))),
        };
        tokens.push(Token { at, kind });
        rest = behind;
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn take(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !wanted(c)).unwrap_or(text.len()))
}

fn path(text: &str, at: usize) -> Result<(Kind, &str), TemplateError> {
    let (is_root, mut rest) = match text.strip_prefix('$') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut keys = Vec::new();
    while let Some(behind) = rest.strip_prefix('.') {
        let (key, behind) = take(behind, is_word);
        if key.is_empty() {
            // A lone dot is the value at hand.
            if keys.is_empty() && !is_root && !behind.starts_with('.') {
                return Ok((Kind::Path { is_root, keys }, behind));
            }
            return Err(TemplateError::new(
                at,
                "a path is names with one dot before each, such as .router.name",
            ));
        }
        keys.push(key.to_owned());
        rest = behind;
    }
    Ok((Kind::Path { is_root, keys }, rest))
}

fn number(text: &str, at: usize) -> Result<(Kind, &str), TemplateError> {
    let (digits, rest) = take(text, |c| c.is_ascii_digit() || c == '-');
    let number = digits.parse().map_err(|_| TemplateError::new(at, format!("`{digits}` is not a number")))?;
    Ok((Kind::Number(number), rest))
}

/// As JSON writes text.
fn quoted(text: &str, at: usize) -> Result<(Kind, &str), TemplateError> {
    let wrong =
        || TemplateError::new(at, "the quote that begins here is not closed, or has an unknown escape");
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let is_end = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    });
    let (end, _) = end.ok_or_else(wrong)?;
    let (literal, rest) = text.split_at(end + 1);
    Ok((Kind::Quoted(serde_json::from_str(literal).map_err(|_| wrong())?), rest))
}
