//! The secret that routers share.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The longest password accepted, in bytes.
const MAX_LEN: usize = 1024;

/// A mesh password. Wiped when dropped; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Password(Vec<u8>);

/// A password that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing left after the line end was removed.
    #[error("the password is empty; give at least one character, or no password at all for an open mesh")]
    Empty,
    /// More than 1024 bytes.
    #[error("the password has {0} bytes; at most {MAX_LEN} are accepted")]
    TooLong(usize),
}

impl Password {
    /// Takes the bytes as they are.
    ///
    /// # Errors
    /// When there are none, or more than 1024.
    pub fn new(bytes: Vec<u8>) -> Result<Self, PasswordError> {
        let password = Self(bytes);
        match password.0.len() {
            0 => Err(PasswordError::Empty),
            1..=MAX_LEN => Ok(password),
            n => Err(PasswordError::TooLong(n)),
        }
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_never_shows_in_debug_output() {
        let password = Password::new(b"hunter2".to_vec()).unwrap();
        assert!(!format!("{password:?}").contains("hunter2"));
        assert_eq!(Password::new(vec![]), Err(PasswordError::Empty));
    }
}
