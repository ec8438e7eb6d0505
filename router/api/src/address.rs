//! Where a router's control API is: a unix socket, whose permissions say who may use it; or, where an operator has asked
//! for that, a TCP address, where a token does.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::{ApiError, ErrorCode};

/// Name of the socket in the run directory.
const SOCKET: &str = "weave.sock";
/// A shorter token can be guessed by whoever can reach the port.
const MIN_TOKEN: usize = 16;
/// Far more than any token, and far less than what a request may carry in its head.
const MAX_TOKEN: usize = 1024;

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`, and what has to be known there.
    Tcp {
        /// A name or an address, with its port.
        host: String,
        /// The word that opens the door.
        token: Token,
    },
}

impl Address {
    /// What `http_addr` says: a path with or without `unix://`, or `host:port`, for which a file with the token is needed. Without
    /// it the socket in the run directory.
    ///
    /// # Errors
    /// When it is neither, or the token is missing or cannot be one.
    pub fn of(run_dir: &Path, http_addr: Option<&str>, token_file: Option<&Path>) -> Result<Self, ApiError> {
        let Some(host) = http_addr.and_then(tcp_address) else {
            return socket_path(run_dir, http_addr).map(Self::Unix);
        };
        let file = token_file.ok_or_else(|| {
            bad(format!("the control API at {host} wants a token"))
                .with_hint("name a file with it: --http-token-file, or WEAVE_HTTP_TOKEN_FILE")
        })?;
        Ok(Self::Tcp { host: host.to_owned(), token: Token::read(file)? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp { host, .. } => f.write_str(host),
        }
    }
}

/// The `host:port` that an address of the API may be, with or without `tcp://`; none if it is a path.
#[must_use]
pub fn tcp_address(text: &str) -> Option<&str> {
    let bare = text.strip_prefix("tcp://").unwrap_or(text);
    let (host, port) = bare.rsplit_once(':')?;
    let is_host = !host.is_empty() && !host.contains('/');
    (is_host && port.parse::<u16>().is_ok()).then_some(bare)
}

/// Where the socket is: where `http_addr` says (a path, with or without `unix://`), else in the run directory.
///
/// # Errors
/// When `http_addr` is no absolute path: a TCP address, for instance.
pub fn socket_path(run_dir: &Path, http_addr: Option<&str>) -> Result<PathBuf, ApiError> {
    let Some(given) = http_addr.filter(|address| !address.is_empty()) else {
        return Ok(run_dir.join(SOCKET));
    };
    let path = Path::new(given.strip_prefix("unix://").unwrap_or(given));
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(bad(format!(
        "WEAVE_HTTP_ADDR is `{given}`, which is not the absolute path of a unix socket, nor HOST:PORT"
    ))
    .with_hint("the control API listens on a unix socket, such as /run/weave/weave.sock"))
}

fn bad(message: String) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

/// What a client has to know to use the API over TCP. Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Reads the first line of a file.
    ///
    /// # Errors
    /// When the file cannot be read, or what is in it is too short, too long, or not printable.
    pub fn read(file: &Path) -> Result<Self, ApiError> {
        let refuse = |why: String| bad(format!("the token file {}: {why}", file.display()));
        let text = fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
        let token = text.lines().next().unwrap_or_default();
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse("a token has letters, digits and signs of ASCII only".to_owned()));
        }
        if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) {
            let n = token.len();
            return Err(refuse(format!(
                "a token has {MIN_TOKEN} to {MAX_TOKEN} characters, and this has {n}"
            ))
            .with_hint("make one: head -c 32 /dev/urandom | base64"));
        }
        Ok(Self(token.to_owned()))
    }

    /// The header of HTTP that shows it.
    #[must_use]
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether a request's header shows this token, in a time that does not tell how much of it was right.
    #[must_use]
    pub fn is_shown_by(&self, header: &[u8]) -> bool {
        let wanted = self.header();
        let differing = wanted.bytes().zip(header).fold(0, |all, (a, b)| all | (a ^ b));
        differing == 0 && wanted.len() == header.len()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_in_the_run_directory_unless_the_environment_names_one() {
        let run = Path::new("/run/weave");
        let of = |given| Address::of(run, given, None);
        assert_eq!(of(None).unwrap(), Address::Unix("/run/weave/weave.sock".into()));
        assert_eq!(of(Some("")).unwrap(), Address::Unix("/run/weave/weave.sock".into()));
        assert_eq!(of(Some("unix:///tmp/w.sock")).unwrap(), Address::Unix("/tmp/w.sock".into()));
        assert_eq!(of(Some("/tmp/w.sock")).unwrap(), Address::Unix("/tmp/w.sock".into()));
        for wrong in ["w.sock", "127.0.0.1:port", ":6784", "a/b:1"] {
            let error = of(Some(wrong)).unwrap_err();
            assert!(error.to_string().contains("not the absolute path"), "{error}");
        }
    }

    #[test]
    fn tcp_is_used_only_with_a_token_that_is_worth_its_name() {
        let file = std::env::temp_dir().join(format!("weave-token-{}", std::process::id()));
        let of = |text: &str| {
            fs::write(&file, text).unwrap();
            Address::of(Path::new("/run"), Some("tcp://node-b:6784"), Some(&file))
        };
        let Address::Tcp { host, token } = of("0123456789abcdef\n").unwrap() else { panic!("no TCP") };
        assert_eq!(host, "node-b:6784");
        assert_eq!(format!("{token:?}"), "Token");
        assert!(token.is_shown_by(b"Bearer 0123456789abcdef"));
        for wrong in
            ["", "Bearer ", "Bearer 0123456789abcdee", "Bearer 0123456789abcdef0", "0123456789abcdef"]
        {
            assert!(!token.is_shown_by(wrong.as_bytes()), "{wrong}");
        }
        for (wrong, part) in [("short", "has 5"), ("", "has 0"), ("0123456789 abcdef", "of ASCII only")] {
            assert!(of(wrong).unwrap_err().to_string().contains(part), "{wrong}");
        }
        fs::remove_file(&file).unwrap();
        let error = Address::of(Path::new("/run"), Some("[::1]:6784"), None).unwrap_err();
        assert!(error.to_string().contains("WEAVE_HTTP_TOKEN_FILE"), "{error}");
    }
}
