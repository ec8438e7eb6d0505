//! A unix socket of ours: one owner, no leftovers in the way.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tokio::net::{UnixListener, UnixStream};

/// A listening socket whose file goes with it.
pub(crate) struct Listener {
    inner: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `path`, for root and the socket's group only. A socket that nobody listens at is replaced.
    pub(crate) async fn bind(path: &Path) -> anyhow::Result<Self> {
        let dir = path.parent().context("the socket's path has no directory")?;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        match UnixStream::connect(path).await {
            Ok(_) => bail!("another process listens at {} already", path.display()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)
                    .with_context(|| format!("cannot remove the leftover {}", path.display()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
        let inner =
            UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))
            .with_context(|| format!("cannot protect {}", path.display()))?;
        let metadata = fs::metadata(path)?;
        Ok(Self { inner, path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }

    /// Who may use `other` may use this one. Without that group, or the right to give files to it, it is root's alone.
    pub(crate) fn share_with_group_of(&self, other: &Path) {
        let shared = fs::metadata(other)
            .and_then(|metadata| std::os::unix::fs::chown(&self.path, None, Some(metadata.gid())));
        if let Err(error) = shared {
            tracing::info!(%error, socket = %self.path.display(), "the socket is for root only");
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.inner.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    /// Removes the file, unless it is another's by now.
    fn drop(&mut self) {
        let is_ours = fs::metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if is_ours {
            // Who finds it left over replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}
