//! Objects from the files of a directory.
//!
//! A file that cannot be read or parsed counts as it was when that last worked, so that a slip while editing opens
//! nothing. Files are read again when their size, time of change or identity is another.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::Read,
    mem::MaybeUninit,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, TrySendError},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};
use weave_policy::{Change, Labels, Namespace, World};

use crate::{manifest, source::Event};

/// The largest file that is read, in bytes: ten times what the API server takes for one object.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// How often one looks where the file system does not tell of changes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long after a change it is waited for more of them: editors and tools write files in several steps.
const SETTLE: Duration = Duration::from_millis(10);

/// A directory of manifests.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    files: BTreeMap<PathBuf, Manifest>,
}

/// A file as it was read.
#[derive(Debug)]
struct Manifest {
    stamp: Stamp,
    objects: Vec<Change>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Directory {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, files: BTreeMap::new() }
    }

    /// All objects of all files. Of two with the same name, that of the later file counts.
    pub(crate) fn read(&mut self) -> anyhow::Result<World> {
        let mut files = BTreeMap::new();
        for path in self.manifests()? {
            let known = self.files.remove(&path);
            files.extend(refresh(&path, known).map(|manifest| (path, manifest)));
        }
        self.files = files;
        let mut world = World::default();
        for object in self.files.values().flat_map(|manifest| &manifest.objects) {
            world.apply(object.clone());
        }
        imply_namespaces(&mut world);
        Ok(world)
    }

    fn manifests(&self) -> anyhow::Result<Vec<PathBuf>> {
        let reading = || format!("reading directory {}", self.path.display());
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.path).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let is_manifest =
                path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|wanted| e == *wanted));
            if is_manifest && !is_hidden {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Tells of changes, from a thread of its own, until nobody listens.
    pub(crate) fn watch(&self, events: SyncSender<Event>) -> anyhow::Result<()> {
        use inotify::{CreateFlags, WatchFlags};
        let watching = || format!("cannot watch the directory {}", self.path.display());
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).with_context(watching)?;
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVE;
        inotify::add_watch(&inotify, &self.path, flags).with_context(watching)?;
        let listen = move || {
            loop {
                wait(&inotify, LOOK_EVERY);
                drain(&inotify);
                while wait(&inotify, SETTLE) {
                    drain(&inotify);
                }
                // If the queue is full, the daemon will look soon enough.
                if let Err(TrySendError::Disconnected(_)) = events.try_send(Event::News) {
                    return;
                }
            }
        };
        thread::Builder::new().name("npc-directory".to_owned()).spawn(listen).with_context(watching)?;
        Ok(())
    }
}

fn wait(inotify: &rustix::fd::OwnedFd, patience: Duration) -> bool {
    let patience = Timespec::try_from(patience).ok();
    let mut fds = [PollFd::new(inotify, PollFlags::IN)];
    poll(&mut fds, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

fn drain(inotify: &rustix::fd::OwnedFd) {
    let mut buffer = [const { MaybeUninit::uninit() }; 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    while reader.next().is_ok() {}
}

/// The file as it is now; `None` if it is gone.
fn refresh(path: &Path, known: Option<Manifest>) -> Option<Manifest> {
    let opened =
        File::open(path).and_then(|file| file.metadata().map(|metadata| (file, Stamp::of(&metadata))));
    let complain = |error: anyhow::Error| {
        tracing::error!(file = %path.display(), "cannot use it: {error:#}; what it said before counts");
    };
    match opened {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            complain(error.into());
            known
        }
        Ok((_, stamp)) if known.as_ref().is_some_and(|manifest| manifest.stamp == stamp) => known,
        Ok((file, stamp)) => Some(load(path, file, stamp).unwrap_or_else(|error| {
            complain(error);
            Manifest { stamp, objects: known.map(|manifest| manifest.objects).unwrap_or_default() }
        })),
    }
}

fn load(path: &Path, file: File, stamp: Stamp) -> anyhow::Result<Manifest> {
    if stamp.size > MAX_FILE {
        bail!("it has {} bytes, more than {MAX_FILE}", stamp.size);
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    let parsed = manifest::parse(&text)?;
    for complaint in &parsed.complaints {
        tracing::error!(file = %path.display(), "{complaint}");
    }
    Ok(Manifest { stamp, objects: parsed.objects })
}

/// Namespaces of pods and policies are there even if no file describes them.
pub(crate) fn imply_namespaces(world: &mut World) {
    let of_pods = world.pods.keys().map(|id| id.namespace.clone());
    let of_policies = world.policies.keys().map(|id| id.namespace.clone());
    for name in of_pods.chain(of_policies).collect::<Vec<_>>() {
        let namespace = || Namespace::new(name.clone(), Labels::new());
        world.namespaces.entry(name.clone()).or_insert_with(namespace);
    }
}
