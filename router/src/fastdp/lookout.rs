//! Closes at once what others open: whoever flushes policies or rules is heard, and what is ours is put back.
//!
//! Each lock holds while the other is away ([`super::guard`]); if both are flushed together, frames can leave in the clear
//! until this has answered. The keeper looks as well, for what is not heard.

use std::{
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use weave_hostnet::{HostError, nft::TableWatch, xfrm::PolicyWatch};

use super::{devices::Devices, guard::TABLE};

/// How long one wait is; after that it is looked whether there is anything left to watch.
const PATIENCE: Duration = Duration::from_secs(1);
/// Least time between two answers: what others change again and again costs little, and what we change is heard as well.
const PACE: Duration = Duration::from_millis(20);

/// Watches for as long as there are devices.
///
/// # Errors
/// When the kernel does not tell of changes, or a thread cannot be made.
pub(super) fn start(devices: &Arc<Devices>) -> anyhow::Result<()> {
    let (policies, rules) = (PolicyWatch::new()?, TableWatch::new(TABLE)?);
    spawn("weave-policies", devices, move || policies.wait(PATIENCE))?;
    spawn("weave-rules", devices, move || Ok(!rules.wait(PATIENCE)?.is_empty()))
}

fn spawn(
    name: &str,
    devices: &Arc<Devices>,
    changes: impl Fn() -> Result<bool, HostError> + Send + 'static,
) -> anyhow::Result<()> {
    let devices = Arc::downgrade(devices);
    thread::Builder::new().name(name.to_owned()).spawn(move || run(&devices, changes))?;
    Ok(())
}

fn run(devices: &Weak<Devices>, changes: impl Fn() -> Result<bool, HostError>) {
    loop {
        let changed = changes();
        let Some(devices) = devices.upgrade() else { return };
        match changed {
            Ok(false) => {}
            Ok(true) => {
                devices.close_port();
                thread::park_timeout(PACE);
            }
            Err(error) => {
                tracing::warn!(%error, "changes of the rules for UDP 6784 are found by looking alone");
                return;
            }
        }
    }
}
