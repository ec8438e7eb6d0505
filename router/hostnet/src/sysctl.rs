//! Kernel settings below `/proc/sys/net`.
//!
//! Which namespace they belong to is decided by the thread that opens the file. Containers often have `/proc/sys`
//! mounted read-only; nothing here is worth failing for, so a setting that cannot be written becomes a warning.

use std::{fs, io, path::Path};

use crate::{Host, HostError, Warning};

/// Where the files are; and where a container that sees the host's processes finds those that it may write, if it may look into
/// the host's first process (`CAP_SYS_PTRACE`).
const OWN: &str = "/proc/sys";
const OF_THE_HOST: &str = "/proc/1/root/proc/sys";

/// A file below `/proc/sys` and what it shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    key: String,
    value: &'static str,
}

impl Setting {
    pub(crate) const fn new(key: String, value: &'static str) -> Self {
        Self { key, value }
    }

    /// Writes it unless it is so already. A file that does not exist is a feature that this kernel lacks, or that
    /// is switched off (IPv6): there is nothing to set then.
    fn apply(&self) -> Option<Warning> {
        let mut outcome = self.write_below(OWN);
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem) {
            // The first refusal tells more than that there is no other way.
            outcome = self.write_below(OF_THE_HOST).or(outcome);
        }
        let error = outcome.err()?;
        let value = self.value.to_owned();
        Some(Warning::Sysctl { key: self.key.clone(), value, reason: error.to_string() })
    }

    fn write_below(&self, root: &str) -> io::Result<()> {
        let path = Path::new(root).join(&self.key);
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == self.value => Ok(()),
            Ok(_) => fs::write(&path, self.value),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The key of an IPv6 setting of one interface.
pub(crate) fn ipv6(interface: &str, setting: &str) -> String {
    format!("net/ipv6/conf/{interface}/{setting}")
}

/// The key of an IPv4 setting of one interface.
pub(crate) fn ipv4(interface: &str, setting: &str) -> String {
    format!("net/ipv4/conf/{interface}/{setting}")
}

impl Host {
    /// Writes `settings` in the namespace of this handle; what cannot be written becomes a warning.
    pub(crate) fn apply_sysctls(&self, settings: &[Setting]) -> Result<(), HostError> {
        let warnings: Vec<Warning> =
            self.run_inside(|| settings.iter().filter_map(Setting::apply).collect())?;
        warnings.into_iter().for_each(|warning| self.warn(warning));
        Ok(())
    }
}
