//! Being told when somebody else changes our table.

use std::{io, os::fd::AsFd, time::Duration};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{
    attribute,
    transaction::{GENERIC_LEN, NFTABLES},
};
use crate::{HostError, netlink::split, poll::wait_readable};

/// The group to which nf_tables tells its changes (`NFNLGRP_NFTABLES`).
const GROUP: u32 = 7;
/// Room for the notifications of some thousand elements.
const BUFFER: usize = 1024 * 1024;

/// Who made a change, as far as can be told: a socket, of this program or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Author(pub(super) u32);

/// News about a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Somebody changed it.
    ChangedBy(Author),
    /// So much happened at once that it is not known whether somebody did.
    Lost,
}

/// Listens to changes of one table, in the network namespace in which it was made.
pub struct TableWatch {
    socket: Socket,
    table: String,
}

impl TableWatch {
    /// Begins to listen to table `inet NAME`.
    ///
    /// # Errors
    /// [`HostError::NoPermission`], or what else the kernel says.
    pub fn new(table: &str) -> Result<Self, HostError> {
        let failed = |error| HostError::from_io("listening to nftables", error);
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.set_rx_buf_sz(BUFFER).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.add_membership(GROUP).map_err(failed)?;
        Ok(Self { socket, table: table.to_owned() })
    }

    /// Waits for changes to the table, at most for `patience`, and tells who made them, us included.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&self, patience: Duration) -> Result<Vec<Notice>, HostError> {
        let failed = |error| HostError::from_io("listening to nftables", error);
        if !wait_readable(&[self.socket.as_fd()], Some(patience)).map_err(failed)? {
            return Ok(Vec::new());
        }
        match self.socket.recv_from_full() {
            Ok((datagram, _)) => {
                let mut notices: Vec<Notice> = split(&datagram)
                    .iter()
                    .filter(|answer| answer.kind >> 8 == NFTABLES && self.is_about_us(&answer.payload))
                    .map(|answer| Notice::ChangedBy(Author(answer.port)))
                    .collect();
                notices.dedup();
                Ok(notices)
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(vec![Notice::Lost]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// The first attribute of every message of nf_tables, but for generations, is the name of the table.
    fn is_about_us(&self, payload: &[u8]) -> bool {
        const TABLE: u16 = 1;
        let name = payload.get(GENERIC_LEN..).and_then(|body| attribute::find(body, TABLE));
        name.and_then(attribute::text).as_deref() == Some(&self.table)
    }
}
