//! Exit codes, shared by `weave` and `weaver` so that one table documents both.

/// How a process of ours ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything asked for was done.
    Ok,
    /// The command line makes no sense: unknown flag, bad value, missing argument. 1, as it was with Weave Net.
    Usage,
    /// It failed, for a reason that no other code names.
    Failed,
    /// No router runs where the command looked for one, or it does not answer.
    NotRunning,
    /// What was named does not exist, or the service that knows it is switched off.
    NotFound,
    /// A deadline passed before it was done.
    Deadline,
    /// It collides with something that exists: an address that is held, a range that overlaps, a busy port.
    Conflict,
    /// The system does not let this user do it.
    Permission,
    /// The store cannot be read, is damaged, or belongs to another router or version.
    Store,
    /// Nothing is broken, but something ought to be looked at (`weave doctor`).
    Warnings,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Usage,
        Self::Failed,
        Self::NotRunning,
        Self::NotFound,
        Self::Deadline,
        Self::Conflict,
        Self::Permission,
        Self::Store,
        Self::Warnings,
    ];

    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 1,
            Self::Failed => 2,
            Self::NotRunning => 3,
            Self::NotFound => 4,
            Self::Deadline => 5,
            Self::Conflict => 6,
            Self::Permission => 7,
            Self::Store => 8,
            Self::Warnings => 9,
        }
    }

    /// What the number means, as `--help` prints it.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Usage => "the command line makes no sense",
            Self::Failed => "failed",
            Self::NotRunning => "no router runs here, or it does not answer",
            Self::NotFound => "no such thing, or the service is switched off",
            Self::Deadline => "a deadline passed first",
            Self::Conflict => "collides with something that exists",
            Self::Permission => "not permitted",
            Self::Store => "the store is damaged, cannot be written, or belongs to another router",
            Self::Warnings => "works, but something ought to be looked at",
        }
    }

    /// The code as a process ends with it, if it is one of ours.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_distinct_and_found_again() {
        for (index, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), index);
            assert_eq!(Exit::from_code(i32::from(exit.code())), Some(exit));
        }
        assert_eq!(Exit::from_code(99), None);
    }
}
