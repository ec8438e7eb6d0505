//! How far the address store had got, kept where a restart of the process finds it and a restored backup does not.
//!
//! The store itself cannot tell whether it is the latest of this router: a backup or a cloned machine looks just as good.
//! Handing out addresses from an old one would give away what newer containers hold. So the run directory has a mark, valid
//! for this boot of this machine only. Without it (after a reboot, or on a copy) the ring asks the other routers first.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use weave_ipam::StoreMark;

/// The kernel's name for this boot; new at each.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The mark's file.
pub(crate) struct MarkFile {
    path: PathBuf,
    /// What a mark must begin with to be ours.
    scope: String,
    is_failing: bool,
}

impl MarkFile {
    /// The file in the directory of the control socket, for the store with this id.
    pub(crate) fn new(dir: &Path, store_id: u64) -> Self {
        // A machine that hides its boot id gets marks that never match.
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let scope = format!("{} {store_id:016x}", boot.trim());
        Self { path: dir.join("ring-mark"), scope, is_failing: boot.is_empty() }
    }

    /// The mark of the last run, if there was one in this boot.
    pub(crate) fn read(&self) -> Option<StoreMark> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let (generation, epoch) = text.strip_prefix(&self.scope)?.trim().split_once(' ')?;
        Some(StoreMark { generation: generation.parse().ok()?, epoch: epoch.parse().ok()? })
    }

    /// Keeps a mark, after what it speaks of is on disk.
    pub(crate) fn write(&mut self, mark: StoreMark) {
        if self.is_failing {
            return;
        }
        if let Err(error) = self.replace(mark) {
            // An older mark must not stand for a newer store; without one the others are asked.
            self.is_failing = true;
            let _ = std::fs::remove_file(&self.path);
            tracing::warn!(path = %self.path.display(), %error, "cannot keep the mark of the address store");
        }
    }

    fn replace(&self, mark: StoreMark) -> std::io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = std::fs::File::create(&fresh)?;
        write!(file, "{} {} {}", self.scope, mark.generation, mark.epoch)?;
        drop(file);
        std::fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_by_the_next_run_and_not_for_another_store() {
        let dir = std::env::temp_dir().join(format!("weave-mark-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mark = StoreMark { generation: 7, epoch: 41 };
        MarkFile::new(&dir, 1).write(mark);
        assert_eq!(MarkFile::new(&dir, 1).read(), Some(mark));
        assert_eq!(MarkFile::new(&dir, 2).read(), None);
        std::fs::write(dir.join("ring-mark"), "junk").unwrap();
        assert_eq!(MarkFile::new(&dir, 1).read(), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
