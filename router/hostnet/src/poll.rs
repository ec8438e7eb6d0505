//! Waiting: `poll(2)` on a few descriptors, and a wake-up that other threads can ring.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

/// The most descriptors that one [`wait_readable`] takes.
pub const MAX_WAIT: usize = 4;

/// Blocks until one of the descriptors is readable or the time is over (`None`: for ever).
///
/// Returns whether something is readable; an interrupted wait counts as a time-out. Times are rounded up to whole
/// milliseconds so that a caller with a deadline does not wake just before it.
///
/// # Errors
/// When the kernel refuses, or more than [`MAX_WAIT`] descriptors are given.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<bool> {
    wait(fds, libc::POLLIN, timeout)
}

/// Blocks until the descriptor takes more output or the time is over; returns whether it does.
///
/// # Errors
/// When the kernel refuses.
pub fn wait_writable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    wait(&[fd], libc::POLLOUT, Some(timeout))
}

fn wait(fds: &[BorrowedFd<'_>], events: i16, timeout: Option<Duration>) -> io::Result<bool> {
    if fds.len() > MAX_WAIT {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut polled = [libc::pollfd { fd: -1, events, revents: 0 }; MAX_WAIT];
    for (entry, fd) in polled.iter_mut().zip(fds) {
        entry.fd = fd.as_raw_fd();
    }
    let milliseconds =
        timeout.map_or(-1, |t| i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: `polled` is an array of as many pollfd as the count says, alive during the call.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) };
    match ready {
        0 => Ok(false),
        n if n > 0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

/// A wake-up (eventfd): rung by any thread, waited for by one.
#[derive(Debug)]
pub struct Waker(File);

impl Waker {
    /// A wake-up that has not been rung.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(File::from(fd)))
    }

    /// Makes the descriptor readable. Ringing twice is as good as once; it never blocks.
    pub fn wake(&self) {
        // A full counter means that it is readable already.
        let _full = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Takes the ring back.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // Nothing to read means that nobody rang.
        let _empty = (&self.0).read(&mut count);
    }
}

impl std::os::fd::AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_ring_wakes_the_waiter_until_it_is_taken_back() {
        let waker = Waker::new().unwrap();
        let readable = || wait_readable(&[waker.as_fd()], Some(Duration::ZERO)).unwrap();
        assert!(!readable());
        waker.wake();
        waker.wake();
        assert!(readable());
        waker.clear();
        assert!(!readable());
    }
}
