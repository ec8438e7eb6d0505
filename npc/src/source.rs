//! Where objects come from.

use std::{path::PathBuf, sync::mpsc::SyncSender};

use weave_policy::{Change, World};

use crate::directory::Directory;

/// What may wake the daemon.
#[derive(Debug)]
pub enum Event {
    /// The source has news: [`Source::poll`] says which.
    News,
    /// Somebody changed our table.
    Table(Vec<weave_hostnet::nft::Notice>),
    /// Somebody asks something; the answer goes back by the channel.
    Request(crate::control::Request, SyncSender<String>),
}

/// A source of objects. A cluster's API server will be the next.
#[derive(Debug)]
pub enum Source {
    /// Files.
    Directory(Directory),
}

impl Source {
    /// Files in a directory.
    #[must_use]
    pub fn directory(path: PathBuf) -> Self {
        Self::Directory(Directory::new(path))
    }

    /// Begins to send [`Event::News`] when there is any.
    ///
    /// # Errors
    /// When the source cannot be watched.
    pub fn watch(&self, events: SyncSender<Event>) -> anyhow::Result<()> {
        match self {
            Self::Directory(directory) => directory.watch(events),
        }
    }

    /// What changed since the last call: everything written before the call is taken into account.
    ///
    /// # Errors
    /// When the source cannot be read at all; what is known of it stays.
    pub fn poll(&mut self, known: &World) -> anyhow::Result<Vec<Change>> {
        match self {
            Self::Directory(directory) => Ok(known.changes_to(&directory.read()?)),
        }
    }
}
