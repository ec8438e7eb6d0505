//! Kernel settings below `/proc/sys/net`.
//!
//! Which namespace they belong to is decided by the thread that opens the file. Containers often have `/proc/sys`
//! mounted read-only; nothing here is worth failing for, so a setting that cannot be written becomes a warning.

use std::{fs, io, path::Path};

use crate::{Host, HostError, Warning};

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
        let path = Path::new("/proc/sys").join(&self.key);
        let outcome = match fs::read_to_string(&path) {
            Ok(text) if text.trim() == self.value => Ok(()),
            Ok(_) => fs::write(&path, self.value),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        let error = outcome.err()?;
        let value = self.value.to_owned();
        Some(Warning::Sysctl { key: self.key.clone(), value, reason: error.to_string() })
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
