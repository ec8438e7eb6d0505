//! From pieces to a tree.

use super::{
    TemplateError,
    lex::{Kind, Piece, Token},
};

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Printed as it is.
    Text(String),
    /// A value that is printed.
    Print(Expr),
    /// `range`, `if` and `with`, with what stands between them and `end`.
    Block { kind: Block, value: Expr, body: Vec<Self>, otherwise: Vec<Self> },
}

/// How a block treats its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    Range,
    If,
    With,
}

/// A value, or how it is computed.
#[derive(Debug)]
pub(super) enum Expr {
    /// From the value at hand, or from the whole one.
    Path {
        is_root: bool,
        keys: Vec<String>,
    },
    /// Of another expression.
    Field(Box<Self>, Vec<String>),
    Number(i64),
    Quoted(String),
    Call {
        at: usize,
        function: Function,
        arguments: Vec<Self>,
    },
}

/// What can be done with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Json,
    Len,
    Index,
    Not,
    Eq,
    Ne,
    And,
    Or,
    Print,
}

/// How deep blocks and brackets may nest.
const MAX_DEPTH: usize = 64;

impl Function {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "json" => Self::Json,
            "len" => Self::Len,
            "index" => Self::Index,
            "not" => Self::Not,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "and" => Self::And,
            "or" => Self::Or,
            "print" => Self::Print,
            _ => return None,
        })
    }
}

/// Makes a tree of all pieces.
pub(super) fn parse(pieces: &[Piece]) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { pieces, next: 0 };
    let (nodes, end) = parser.nodes(0)?;
    match end {
        End::Text => Ok(nodes),
        End::Else(at, _) | End::Block(at) => {
            Err(TemplateError::new(at, "nothing is open that this could end"))
        }
    }
}

/// What ended a row of nodes.
enum End<'p> {
    /// The text did.
    Text,
    /// An `else`, with the words behind it.
    Else(usize, &'p [Token]),
    /// An `end`.
    Block(usize),
}

struct Parser<'p> {
    pieces: &'p [Piece],
    next: usize,
}

impl<'p> Parser<'p> {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, End<'p>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.next) {
            self.next += 1;
            let (at, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action(at, tokens) => (*at, tokens.as_slice()),
            };
            match keyword(tokens) {
                Some(("end", [])) => return Ok((nodes, End::Block(at))),
                Some(("else", rest)) => return Ok((nodes, End::Else(at, rest))),
                Some((word, rest)) if block(word).is_some() => nodes.push(self.block(at, word, rest, depth)?),
                _ => nodes.push(Node::Print(expression(at, tokens)?)),
            }
        }
        Ok((nodes, End::Text))
    }

    fn block(&mut self, at: usize, word: &str, rest: &[Token], depth: usize) -> Result<Node, TemplateError> {
        if depth >= MAX_DEPTH {
            return Err(TemplateError::new(at, format!("more than {MAX_DEPTH} blocks deep")));
        }
        let kind = block(word).unwrap_or(Block::If);
        let value = expression(at, rest)?;
        let unclosed =
            || TemplateError::new(at, format!("the {{{{{word}}}}} that begins here has no {{{{end}}}}"));
        let (body, end) = self.nodes(depth + 1)?;
        let otherwise = match end {
            End::Block(_) => Vec::new(),
            End::Else(_, []) => match self.nodes(depth + 1)? {
                (nodes, End::Block(_)) => nodes,
                (_, End::Text) => return Err(unclosed()),
                (_, End::Else(at, _)) => return Err(TemplateError::new(at, "a second {{else}}")),
            },
            // `else if` ends with the `end` of the `if` before it.
            End::Else(at, behind) => match keyword(behind) {
                Some(("if", rest)) => vec![self.block(at, "if", rest, depth + 1)?],
                _ => return Err(TemplateError::new(at, "behind {{else there may only be if")),
            },
            End::Text => return Err(unclosed()),
        };
        Ok(Node::Block { kind, value, body, otherwise })
    }
}

fn keyword(tokens: &[Token]) -> Option<(&str, &[Token])> {
    match tokens {
        [Token { kind: Kind::Name(name), .. }, rest @ ..] => Some((name, rest)),
        _ => None,
    }
}

fn block(word: &str) -> Option<Block> {
    match word {
        "range" => Some(Block::Range),
        "if" => Some(Block::If),
        "with" => Some(Block::With),
        _ => None,
    }
}

fn expression(at: usize, tokens: &[Token]) -> Result<Expr, TemplateError> {
    let mut words = Words { tokens, next: 0, end: at };
    let value = words.pipeline(0)?;
    match words.peek() {
        None => Ok(value),
        Some(token) => {
            Err(TemplateError::new(token.at, "a closing ) without an opening one, or one value too many"))
        }
    }
}

struct Words<'t> {
    tokens: &'t [Token],
    next: usize,
    end: usize,
}

impl<'t> Words<'t> {
    fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.next)
    }

    fn here(&self) -> usize {
        self.peek().map_or(self.end, |token| token.at)
    }

    /// Commands with bars between them.
    fn pipeline(&mut self, depth: usize) -> Result<Expr, TemplateError> {
        let mut value = self.command(depth, None)?;
        while self.peek().is_some_and(|token| token.kind == Kind::Bar) {
            self.next += 1;
            value = self.command(depth, Some(value))?;
        }
        Ok(value)
    }

    /// A value, or a function with its arguments; `piped` is its last one.
    fn command(&mut self, depth: usize, piped: Option<Expr>) -> Result<Expr, TemplateError> {
        let at = self.here();
        let Some(Token { kind: Kind::Name(name), .. }) = self.peek() else {
            return match piped {
                None => self.operand(depth),
                Some(_) => Err(TemplateError::new(at, "behind a bar there has to be a function")),
            };
        };
        let unknown = || TemplateError::new(at, format!("there is no function `{name}`"));
        let function = Function::named(name).ok_or_else(unknown)?;
        self.next += 1;
        let mut arguments = Vec::new();
        while self.peek().is_some_and(|token| !matches!(token.kind, Kind::Bar | Kind::Close)) {
            arguments.push(self.operand(depth)?);
        }
        arguments.extend(piped);
        Ok(Expr::Call { at, function, arguments })
    }

    fn operand(&mut self, depth: usize) -> Result<Expr, TemplateError> {
        let missing = TemplateError::new(self.here(), "a value is missing, such as .router.name");
        let Some(token) = self.peek() else { return Err(missing) };
        if depth >= MAX_DEPTH {
            return Err(TemplateError::new(token.at, format!("more than {MAX_DEPTH} brackets deep")));
        }
        self.next += 1;
        match &token.kind {
            Kind::Path { is_root, keys } => Ok(Expr::Path { is_root: *is_root, keys: keys.clone() }),
            Kind::Number(number) => Ok(Expr::Number(*number)),
            Kind::Quoted(text) => Ok(Expr::Quoted(text.clone())),
            Kind::Open => self.bracket(token.at, depth),
            Kind::Name(name) => {
                Err(TemplateError::new(token.at, format!("put ( ) around `{name}` and its arguments")))
            }
            Kind::Close | Kind::Bar => Err(missing),
        }
    }

    /// What stands in brackets, and a path right behind them.
    fn bracket(&mut self, open: usize, depth: usize) -> Result<Expr, TemplateError> {
        let value = self.pipeline(depth + 1)?;
        let Some(Token { kind: Kind::Close, at }) = self.peek() else {
            return Err(TemplateError::new(open, "the ( that begins here has no )"));
        };
        self.next += 1;
        match self.peek() {
            Some(Token { kind: Kind::Path { is_root: false, keys }, at: next })
                if *next == at + 1 && !keys.is_empty() =>
            {
                self.next += 1;
                Ok(Expr::Field(Box::new(value), keys.clone()))
            }
            _ => Ok(value),
        }
    }
}
