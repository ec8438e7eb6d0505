//! Being told when somebody changes policies.

use std::{io, os::fd::AsFd as _, time::Duration};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};

use super::channel::failed;
use crate::{HostError, poll::wait_readable};

/// The group to which xfrm tells changes of policies (`XFRMNLGRP_POLICY`).
const GROUP: u32 = 4;

/// Listens to changes of policies, whoever makes them, in the network namespace of the thread that made it.
pub struct PolicyWatch(Socket);

impl PolicyWatch {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel has no xfrm, or [`HostError::NoPermission`].
    pub fn new() -> Result<Self, HostError> {
        let mut socket = Socket::new(NETLINK_XFRM).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.add_membership(GROUP).map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        Ok(Self(socket))
    }

    /// Waits for a change, at most for `patience`, and tells whether there was one. Several at once are one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&self, patience: Duration) -> Result<bool, HostError> {
        let failed = |error| HostError::from_io("listening to xfrm", error);
        if !wait_readable(&[self.0.as_fd()], Some(patience)).map_err(failed)? {
            return Ok(false);
        }
        loop {
            match self.0.recv_from_full() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                // So many that some were lost: changes all the same.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(true),
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

impl std::fmt::Debug for PolicyWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyWatch").finish_non_exhaustive()
    }
}
