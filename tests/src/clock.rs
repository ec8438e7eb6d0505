//! The one clock of the developer tools, and waits that name what they wait for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long [`wait_until`] rests between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The present moment.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "the tools' only clock; cores under test get time as an argument"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Rests for `time`: a pace or a measured window, never a guess at how long something takes.
#[allow(clippy::disallowed_methods, reason = "pacing and measuring windows need real time")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Looks until `look` finds something, and returns it with the time it took.
///
/// # Errors
/// When `limit` passes first, naming `what` and the last thing seen; or at once when `look` fails.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Look<T>>,
) -> Result<(T, Duration)> {
    let start = now();
    loop {
        let seen = match look()? {
            Look::Found(value) => return Ok((value, start.elapsed())),
            Look::NotYet(seen) => seen,
        };
        if start.elapsed() > limit {
            bail!("waited {:.1} s for {what}; last seen: {seen}", limit.as_secs_f64());
        }
        pause(LOOK_EVERY);
    }
}

/// What one look of [`wait_until`] saw.
#[derive(Debug)]
pub enum Look<T> {
    /// What was waited for.
    Found(T),
    /// Something else, told in words for the error message.
    NotYet(String),
}

impl Look<()> {
    /// `Found` when `condition` holds, else what was seen.
    pub fn when(condition: bool, seen: impl FnOnce() -> String) -> Self {
        if condition { Self::Found(()) } else { Self::NotYet(seen()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_fails_says_what_it_waited_for_and_what_it_saw() {
        let never = || Ok(Look::<()>::NotYet("2 of 3 links".to_owned()));
        let error = wait_until("every link", Duration::from_millis(30), never).unwrap_err().to_string();
        assert!(error.contains("every link") && error.contains("2 of 3 links"), "{error}");
    }
}
