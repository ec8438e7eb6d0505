//! The socket: made safely, taken over from the dead, never from the living.

use std::{
    fs::{DirBuilder, File, Metadata, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::{UnixListener, UnixStream};
use weave_api::Exit;

/// The longest path that fits in a socket address (`sun_path` of unix(7), less its terminating zero).
const MAX_PATH: usize = 107;

/// How often and how far apart we try to become the one router that looks at the directory; each look takes
/// microseconds.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where and how to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// The socket. Its directory is made when it does not exist.
    pub socket: PathBuf,
    /// Permissions of the socket; writing is what lets a user connect.
    pub mode: u32,
    /// Permissions of the directory, if we make it.
    pub dir_mode: u32,
    /// Numeric group that the socket is given to, and its directory where that is ours alone; ours when absent.
    pub group: Option<u32>,
}

impl ListenConfig {
    /// Listens at `socket`, for its owner and its group.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), mode: 0o660, dir_mode: 0o750, group: None }
    }
}

/// Why there is no socket. Nothing was changed, except that the directory may have been made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A router listens there.
    #[error(
        "a weaver is running already: it listens at {0}; stop it with `weave stop`, or choose another --run-dir"
    )]
    AlreadyRunning(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{0} exists and is not a socket; move it away, or choose another --run-dir")]
    NotASocket(PathBuf),
    /// The path does not fit into a socket address.
    #[error("the socket path {0} is longer than {MAX_PATH} bytes; choose a shorter --run-dir")]
    TooLong(PathBuf),
    /// The path is not absolute, or has no directory.
    #[error("the socket path {0} is not absolute")]
    NotAbsolute(PathBuf),
    /// Somebody else keeps the directory locked.
    #[error(
        "another process keeps {0} locked; if no weaver is starting there, find out which with `fuser {0}`"
    )]
    Locked(PathBuf),
    /// The system refused.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl BindError {
    /// What a process that cannot go on without the socket exits with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::AlreadyRunning(_) | Self::NotASocket(_) | Self::Locked(_) => Exit::Conflict,
            Self::TooLong(_) | Self::NotAbsolute(_) => Exit::Usage,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Exit::Permission,
            Self::Io { .. } => Exit::Failed,
        }
    }
}

/// A bound socket. Dropping it removes the socket file, if it is still ours.
#[derive(Debug)]
pub struct Listener {
    pub(crate) inner: UnixListener,
    socket: PathBuf,
    /// Device and inode of the socket file.
    identity: (u64, u64),
}

impl Listener {
    /// Binds the socket. One that nobody listens on is replaced.
    ///
    /// # Errors
    /// When a router listens there, the path cannot serve, or the system refuses.
    pub async fn bind(config: &ListenConfig) -> Result<Self, BindError> {
        let socket = &config.socket;
        let dir = directory(socket)?;
        make_directory(dir, config.dir_mode)?;
        // Whoever finds a dead socket replaces it; two that start at once must not replace each other's.
        let _lock = lock(dir).await?;
        check_vacant(socket).await?;
        // Bound under another name, so that it has its permissions before anybody can see it.
        let fresh = dir.join(format!(".weave-{}.sock", std::process::id()));
        remove(&fresh)?;
        let inner = UnixListener::bind(&fresh).map_err(io_error("listen at", socket))?;
        let listener = Self::install(inner, &fresh, config);
        if listener.is_err() {
            remove(&fresh)?;
        }
        listener
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn install(inner: UnixListener, fresh: &Path, config: &ListenConfig) -> Result<Self, BindError> {
        let socket = &config.socket;
        if let Some(group) = config.group {
            std::os::unix::fs::chown(fresh, None, Some(group))
                .map_err(io_error("set the group of", socket))?;
            open_directory(directory(socket)?, group)?;
        }
        std::fs::set_permissions(fresh, Permissions::from_mode(config.mode))
            .map_err(io_error("set the permissions of", socket))?;
        let identity = identity(&std::fs::symlink_metadata(fresh).map_err(io_error("look at", socket))?);
        std::fs::rename(fresh, socket).map_err(io_error("listen at", socket))?;
        Ok(Self { inner, socket: socket.clone(), identity })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.socket).is_ok_and(|m| identity(&m) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::warn!(socket = %self.socket.display(), %error, "the control socket stays behind");
        }
    }
}

fn directory(socket: &Path) -> Result<&Path, BindError> {
    let Some(dir) = socket.parent().filter(|_| socket.is_absolute()) else {
        return Err(BindError::NotAbsolute(socket.to_owned()));
    };
    let fits = |path: &Path| path.as_os_str().len() <= MAX_PATH;
    // The name that we bind under first: up to `.weave-4194304.sock`.
    let longest = dir.join(".weave-4194304.sock");
    if fits(socket) && fits(&longest) { Ok(dir) } else { Err(BindError::TooLong(socket.to_owned())) }
}

fn make_directory(dir: &Path, mode: u32) -> Result<(), BindError> {
    DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(io_error("make the directory", dir))
}

/// Lets the group reach the socket: a directory that is closed to others is given to the group, one that is open needs nothing.
fn open_directory(dir: &Path, group: u32) -> Result<(), BindError> {
    let found = std::fs::metadata(dir).map_err(io_error("look at", dir))?;
    if found.mode() & 0o001 != 0 || found.gid() == group {
        return Ok(());
    }
    std::os::unix::fs::chown(dir, None, Some(group)).map_err(io_error("set the group of", dir))
}

async fn lock(dir: &Path) -> Result<File, BindError> {
    let file = File::open(dir).map_err(io_error("open the directory", dir))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(io_error("lock the directory", dir)(error)),
        }
    }
    Err(BindError::Locked(dir.to_owned()))
}

/// Makes sure that nobody listens at the path, and that what is there may be replaced.
async fn check_vacant(socket: &Path) -> Result<(), BindError> {
    match std::fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("look at", socket)(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(socket.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(socket).await {
        Ok(_) => Err(BindError::AlreadyRunning(socket.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A full backlog: somebody listens, and is busy.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(BindError::AlreadyRunning(socket.to_owned()))
        }
        Err(error) => Err(io_error("find out who listens at", socket)(error)),
    }
}

fn remove(path: &Path) -> Result<(), BindError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError::Io { verb, path: path.to_owned(), source }
}
