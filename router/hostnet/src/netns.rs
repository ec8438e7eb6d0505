//! Network namespaces: naming one, holding one, and working inside one.
//!
//! The only file that calls `setns`. A thread that entered another namespace ends there: worker threads of a runtime
//! are never moved, so nothing that runs later can find itself in the wrong network.

use std::{
    fmt,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd},
        unix::fs::MetadataExt,
    },
    panic,
    path::PathBuf,
    thread,
};

use rtnetlink::sys::{Socket, TokioSocket};

use crate::HostError;

/// How a caller names a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetnsRef {
    /// A file, such as `/run/netns/blue` or `/proc/123/ns/net`.
    Path(PathBuf),
    /// The namespace that a process is in.
    Pid(u32),
}

/// An open namespace. It lives at least as long as this value, even if its processes end.
#[derive(Debug)]
pub struct Netns {
    file: File,
    id: (u64, u64),
    name: NetnsRef,
}

impl NetnsRef {
    /// Opens the namespace.
    ///
    /// # Errors
    /// [`HostError::NamespaceGone`] when the process or file does not exist (any more), [`HostError::NoPermission`],
    /// or what else the kernel says.
    pub fn open(&self) -> Result<Netns, HostError> {
        let path = match self {
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        };
        let file = File::open(&path).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH | libc::ENOTDIR) => HostError::NamespaceGone(self.clone()),
            _ => HostError::from_io(format!("opening {}", path.display()), error),
        })?;
        Netns::new(file, self.clone())
    }
}

impl fmt::Display for NetnsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Pid(pid) => write!(f, "process {pid}"),
        }
    }
}

impl Netns {
    fn new(file: File, name: NetnsRef) -> Result<Self, HostError> {
        let meta = file.metadata().map_err(|e| HostError::from_io(format!("looking at {name}"), e))?;
        Ok(Self { file, id: (meta.dev(), meta.ino()), name })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<Self, HostError> {
        let path = PathBuf::from("/proc/thread-self/ns/net");
        NetnsRef::Path(path).open()
    }

    /// Whether both are the same namespace.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// How the caller named it.
    #[must_use]
    pub const fn name(&self) -> &NetnsRef {
        &self.name
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `work` inside `netns`, on a thread of its own, and waits for it. Keep `work` short: the caller is blocked.
///
/// # Errors
/// [`HostError::NotANamespace`], [`HostError::NoPermission`], or when no thread can be started.
pub fn in_netns<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> Result<T, HostError> {
    let starting = |e| HostError::from_io("starting a thread", e);
    thread::scope(|scope| {
        let inside = || enter(netns).map(|()| work());
        let thread = thread::Builder::new().name("weave-netns".to_owned()).spawn_scoped(scope, inside);
        thread.map_err(starting)?.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

/// Moves the calling thread into `netns`, for good.
fn enter(netns: &Netns) -> Result<(), HostError> {
    // SAFETY: `setns` takes two integers and touches no memory of ours; the descriptor is open while it is borrowed.
    let answer = unsafe { libc::setns(netns.as_fd().as_raw_fd(), libc::CLONE_NEWNET) };
    if answer == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL) => Err(HostError::NotANamespace(netns.name.clone())),
        _ => Err(HostError::from_io(format!("entering the network namespace of {}", netns.name), error)),
    }
}

/// Hands a netlink socket over to the runtime.
pub(crate) fn tokio_socket(socket: Socket) -> io::Result<TokioSocket> {
    socket.set_non_blocking(true)?;
    // SAFETY: the descriptor was just given up by `socket`, so the new owner is the only one.
    Ok(unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_exist_has_no_namespace() {
        let error = NetnsRef::Pid(u32::MAX - 1).open().unwrap_err();
        assert!(matches!(error, HostError::NamespaceGone(_)), "{error}");
        let error = NetnsRef::Path("/run/netns/no-such-namespace".into()).open().unwrap_err();
        assert!(matches!(error, HostError::NamespaceGone(_)), "{error}");
    }

    #[test]
    fn our_own_namespace_is_recognised_by_any_name() {
        let own = Netns::current().unwrap();
        let by_pid = NetnsRef::Pid(std::process::id()).open().unwrap();
        assert!(own.is_same(&by_pid));
    }
}
