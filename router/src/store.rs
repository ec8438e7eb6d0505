//! What must survive a restart, in sled: identity, ring, allocations, attachments, names given by hand, targets.
//!
//! A write is durable when [`Store::write`] returns: sled's log has been flushed to disk. Keys are grouped by a
//! short prefix, so that each core restores its own part and knows nothing of the others.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use crate::exit::{Exit, Fatal};

/// Bumped when the meaning of what is stored changes.
const FORMAT: u8 = 1;
const FORMAT_KEY: &[u8] = b"format";
/// sled's page cache in bytes. The whole state of a large host is below a megabyte.
const CACHE: u64 = 4 << 20;

/// The part of the store that a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Ring, allocations and consensus state.
    Ipam,
    /// Containers that are attached.
    Attachment,
    /// Names that were given or taken away by hand.
    Name,
    /// Identity, incarnation and the like: one value per name.
    Router,
}

impl Part {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Ipam => b"i/",
            Self::Attachment => b"a/",
            Self::Name => b"n/",
            Self::Router => b"r/",
        }
    }

    fn key(self, key: &[u8]) -> Vec<u8> {
        [self.prefix(), key].concat()
    }
}

/// One change; `None` deletes.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) part: Part,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// The opened store. One process holds it at a time.
#[derive(Clone)]
pub(crate) struct Store {
    db: sled::Db,
    path: Arc<Path>,
}

impl Store {
    /// Opens `PREFIX-data`, and makes it where there is none.
    pub(crate) fn open(prefix: &Path) -> anyhow::Result<Self> {
        let path = path_for(prefix);
        let existed = path.exists();
        if existed {
            refuse_foreign(&path)?;
        } else if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make the directory {} for the store", parent.display()))?;
        }
        let db = sled::Config::new()
            .path(&path)
            .cache_capacity(CACHE)
            .flush_every_ms(None)
            .open()
            .map_err(|error| explain_open(&path, &error))?;
        restrict(&path)?;
        let store = Self { db, path: path.as_path().into() };
        store.check_format(&path, existed)?;
        Ok(store)
    }

    fn check_format(&self, path: &Path, existed: bool) -> anyhow::Result<()> {
        let found = self.db.get(FORMAT_KEY).map_err(|error| explain_open(path, &error))?;
        match found.as_deref() {
            Some([FORMAT]) => Ok(()),
            None if !existed || self.db.is_empty() => {
                self.db.insert(FORMAT_KEY, &[FORMAT])?;
                self.db.flush().with_context(|| format!("cannot write the store {}", path.display()))?;
                Ok(())
            }
            Some([newer]) if *newer > FORMAT => Err(Fatal::error(
                Exit::Store,
                format!(
                    "the store {} was written by a newer weaver (format {newer}, this one reads {FORMAT}); it was not \
                     changed. Run that version, or start with another --db-prefix",
                    path.display()
                ),
            )),
            Some(_) | None => Err(Fatal::error(
                Exit::Store,
                format!(
                    "the store {} was not written by this version of weaver; it was not changed. Start with \
                     another --db-prefix, or move it away (this router then loses its name and addresses)",
                    path.display()
                ),
            )),
        }
    }

    /// Applies all changes at once and returns when they are on disk.
    pub(crate) fn write(&self, changes: &[Change]) -> anyhow::Result<()> {
        let mut batch = sled::Batch::default();
        for change in changes {
            let key = change.part.key(&change.key);
            match &change.value {
                Some(value) => batch.insert(key, value.as_slice()),
                None => batch.remove(key),
            }
        }
        let written = self.db.apply_batch(batch).and_then(|()| self.db.flush());
        written.map(drop).map_err(|error| explain_write(&self.path, &error))
    }

    /// All pairs of one part, keys without the prefix.
    pub(crate) fn read_all(&self, part: Part) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let prefix = part.prefix();
        self.db
            .scan_prefix(prefix)
            .map(|pair| {
                let (key, value) = pair.context("cannot read the store")?;
                Ok((key[prefix.len()..].to_vec(), value.to_vec()))
            })
            .collect()
    }

    /// One value of the router's own part.
    pub(crate) fn router_value(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self.db.get(Part::Router.key(name.as_bytes())).context("cannot read the store")?;
        Ok(found.map(|value| value.to_vec()))
    }

    /// Sets one value of the router's own part, durably.
    pub(crate) fn set_router_value(&self, name: &str, value: &[u8]) -> anyhow::Result<()> {
        let key = name.as_bytes().to_vec();
        self.write(&[Change { part: Part::Router, key, value: Some(value.to_vec()) }])
    }
}

/// The directory that a `--db-prefix` names.
pub(crate) fn path_for(prefix: &Path) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push("-data");
    PathBuf::from(name)
}

/// Refuses a path that something else than sled has filled, before sled writes anything into it.
pub(crate) fn refuse_foreign(path: &Path) -> anyhow::Result<()> {
    let foreign = |what: &str| -> anyhow::Error {
        Fatal::error(
            Exit::Store,
            format!(
                "{} {what}, so it is not a store of weaver; it was not changed. Give another --db-prefix",
                path.display()
            ),
        )
    };
    if !path.is_dir() {
        return Err(foreign("is not a directory"));
    }
    let mut entries = std::fs::read_dir(path)
        .with_context(|| format!("cannot look into the store {}", path.display()))?
        .filter_map(Result::ok)
        .peekable();
    if entries.peek().is_some() && !path.join("conf").is_file() {
        return Err(foreign("holds other files"));
    }
    Ok(())
}

/// The store holds the identity key: only its owner may look.
fn restrict(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot restrict the store {} to its owner", path.display()))
}

fn explain_open(path: &Path, error: &sled::Error) -> anyhow::Error {
    let text = error.to_string();
    if text.contains("could not acquire lock") {
        let message = format!(
            "the store {} is in use by another weaver; stop that one, or give this one its own --db-prefix",
            path.display()
        );
        return Fatal::error(Exit::Conflict, message);
    }
    if let Some(full) = full_disk(path, error) {
        return full;
    }
    if let sled::Error::Io(io) = error
        && io.kind() == std::io::ErrorKind::PermissionDenied
    {
        let message = format!("not permitted to open the store {}; run weaver as root", path.display());
        return Fatal::error(Exit::Permission, message);
    }
    Fatal::error(
        Exit::Store,
        format!(
            "the store {} cannot be read ({text}); it was not repaired or replaced. Restore it from a backup, or \
             move it away: this router then starts with a new name and without its addresses",
            path.display()
        ),
    )
}

fn explain_write(path: &Path, error: &sled::Error) -> anyhow::Error {
    full_disk(path, error).unwrap_or_else(|| {
        Fatal::error(Exit::Store, format!("the store {} cannot be written ({error})", path.display()))
    })
}

/// What is to be said if an error comes of a full disk. sled tells some of these by their text alone.
fn full_disk(path: &Path, error: &sled::Error) -> Option<anyhow::Error> {
    let sled::Error::Io(io) = error else { return None };
    let is_full = io.kind() == std::io::ErrorKind::StorageFull || io.to_string().contains("os error 28");
    is_full.then(|| {
        let path = path.display();
        let message = format!(
            "the disk is full that the store {path} is on; make room there and start the router again"
        );
        Fatal::error(Exit::Store, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TempDir(PathBuf);

    impl TempDir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("weave-store-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn change(key: &str, value: Option<&str>) -> Change {
        Change { part: Part::Ipam, key: key.into(), value: value.map(|v| v.as_bytes().to_vec()) }
    }

    #[test]
    fn what_was_written_is_there_after_reopening_and_parts_do_not_mix() {
        let dir = TempDir::new("reopen");
        let prefix = dir.0.join("weave");
        let store = Store::open(&prefix).unwrap();
        store.write(&[change("ring", Some("one")), change("gone", Some("x"))]).unwrap();
        store.write(&[change("gone", None)]).unwrap();
        store.set_router_value("ring", b"other").unwrap();
        drop(store);
        let store = Store::open(&prefix).unwrap();
        assert_eq!(store.read_all(Part::Ipam).unwrap(), vec![(b"ring".to_vec(), b"one".to_vec())]);
        assert_eq!(store.router_value("ring").unwrap().as_deref(), Some(&b"other"[..]));
    }

    #[test]
    fn a_second_opener_is_told_who_is_in_the_way() {
        let dir = TempDir::new("second");
        let prefix = dir.0.join("weave");
        let _first = Store::open(&prefix).unwrap();
        let error = Store::open(&prefix).err().unwrap();
        assert_eq!(crate::exit::exit_for(&error), Exit::Conflict);
        assert!(error.to_string().contains("in use by another weaver"), "{error}");
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let dir = TempDir::new("foreign");
        let prefix = dir.0.join("weave");
        let path = path_for(&prefix);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("precious"), "data").unwrap();
        let error = Store::open(&prefix).err().unwrap();
        assert_eq!(crate::exit::exit_for(&error), Exit::Store);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn a_store_of_a_newer_version_is_said_to_be_that_and_left_alone() {
        let dir = TempDir::new("newer");
        let prefix = dir.0.join("weave");
        let store = Store::open(&prefix).unwrap();
        store.db.insert(FORMAT_KEY, &[FORMAT + 1]).unwrap();
        drop(store);
        let error = Store::open(&prefix).err().unwrap();
        assert_eq!(crate::exit::exit_for(&error), Exit::Store);
        assert!(error.to_string().contains("written by a newer weaver (format 2"), "{error}");
        let db = sled::open(path_for(&prefix)).unwrap();
        assert_eq!(db.get(FORMAT_KEY).unwrap().as_deref(), Some(&[FORMAT + 1][..]));
    }

    #[test]
    fn a_damaged_store_is_refused_with_advice() {
        let dir = TempDir::new("damaged");
        let prefix = dir.0.join("weave");
        drop(Store::open(&prefix).unwrap());
        std::fs::write(path_for(&prefix).join("conf"), b"not a configuration at all").unwrap();
        let error = Store::open(&prefix).err().unwrap();
        assert_eq!(crate::exit::exit_for(&error), Exit::Store, "{error}");
    }
}
