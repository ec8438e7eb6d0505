//! Waiting until no packet sees what was before.

use std::io;

use socket2::{Domain, Socket, Type};

use crate::HostError;

/// Returns when every packet that was going through a chain at the time of the call has left it: what a transaction
/// before it has put out of force, is then read by nobody. Takes some milliseconds.
///
/// Chains run within one read-side section of RCU, and this waits for a grace period: `MEMBARRIER_CMD_GLOBAL` is
/// `synchronize_rcu` (`kernel/sched/membarrier.c`), and where that is not offered (`nohz_full`), a packet socket waits
/// for one when it is closed (`packet_release`).
///
/// # Errors
/// [`HostError::NoPermission`] where neither is allowed.
pub fn await_packets_under_way() -> Result<(), HostError> {
    // SAFETY: The call takes numbers, and touches no memory of ours.
    if unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0 {
        return Ok(());
    }
    tracing::debug!("membarrier: {}", io::Error::last_os_error());
    let opened = Socket::new(Domain::PACKET, Type::RAW, None);
    opened.map(drop).map_err(|error| HostError::from_io("waiting for packets under way", error))
}
