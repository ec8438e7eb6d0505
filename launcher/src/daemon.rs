//! Processes that outlive us: starting one in a session of its own, finding it again, ending it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, chdir, chroot, pidfd_open, pidfd_send_signal, setsid},
};
use weave_api::Exit;

use crate::context::Failure;

/// The file system of the host's first process, where a container sees the host's processes.
const HOST_ROOT: &str = "/proc/1/root";

/// Where programs for administrators are there. Our own search path is that of our image.
const HOST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that we start and find again by its files in the run directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// `weaver`.
    Router,
    /// `weave docker-plugin`.
    DockerPlugin,
}

impl Daemon {
    const fn pid_file(self) -> &'static str {
        match self {
            Self::Router => "weaver.pid",
            Self::DockerPlugin => "docker-plugin.pid",
        }
    }

    const fn log_file(self) -> &'static str {
        match self {
            Self::Router => "weaver.log",
            Self::DockerPlugin => "docker-plugin.log",
        }
    }

    /// Forgets that there ever was one.
    pub(crate) fn remove_files(self, run_dir: &Path) {
        for file in [self.pid_file(), self.log_file()] {
            // What was not there need not be removed.
            let _ = fs::remove_file(run_dir.join(file));
        }
    }
}

/// A log as it was when its process was started.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// Where the new process's lines begin.
    start: u64,
}

impl Log {
    /// Opens it for appending.
    pub(crate) fn open(daemon: Daemon, run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(daemon.log_file());
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&path)?;
        let start = file.metadata()?.len();
        Ok(Self { path, file, start })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A handle for the process to write to.
    pub(crate) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The last lines that were written since, at most `count`.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        let text = fs::read(&self.path).unwrap_or_default();
        let start = usize::try_from(self.start).map_or(text.len(), |start| start.min(text.len()));
        let new = String::from_utf8_lossy(&text[start..]);
        let lines: Vec<_> = new.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

/// The command that starts `program` in a session of its own: ourselves, as the child's half.
pub(crate) fn detached(program: &OsStr) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("exec-detached").arg(program);
    Ok(command)
}

/// The child's half: leaves the terminal's session, then becomes the program. Returns only when that fails.
pub(crate) fn exec_detached(command: &[OsString]) -> Failure {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::usage("there is no program to run");
    };
    // It fails only where we lead a session already, which is as good.
    let _ = setsid();
    exec(program, arguments)
}

/// Becomes a program of the host: in the file system of its first process. Returns only when that fails.
pub(crate) fn exec_on_host(command: &[OsString]) -> Failure {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::usage("there is no program to run");
    };
    let entered = chroot(HOST_ROOT).and_then(|()| chdir("/"));
    match entered {
        Ok(()) => {
            let error = Command::new(program).args(arguments).env("PATH", HOST_PATH).exec();
            cannot_run(program, &error, "install it on the host")
        }
        Err(error) => Failure::new(Exit::Failed, format!("cannot enter the host's {HOST_ROOT}: {error}")),
    }
}

/// Becomes a program that came with us. Returns only when that fails.
pub(crate) fn exec_beside_us(name: &str, arguments: &[OsString]) -> Failure {
    let program = beside_us(name);
    let error = Command::new(&program).args(arguments).exec();
    cannot_run(program.as_os_str(), &error, "install it beside `weave`")
}

/// The program of this name that came with us; else whichever the PATH has.
pub(crate) fn beside_us(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|us| Some(us.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

fn exec(program: &OsStr, arguments: &[OsString]) -> Failure {
    let error = Command::new(program).args(arguments).exec();
    cannot_run(program, &error, "install it beside `weave`, or set WEAVER to its path")
}

fn cannot_run(program: &OsStr, error: &io::Error, remedy: &str) -> Failure {
    let exit =
        if error.kind() == io::ErrorKind::PermissionDenied { Exit::Permission } else { Exit::NotFound };
    Failure::new(exit, format!("cannot run {}: {error}; {remedy}", program.to_string_lossy()))
}

/// Remembers which process was started, unless that would make us forget one that lives: then ours is about to find
/// out that it is the second, and to end.
pub(crate) fn write_pid_file(daemon: Daemon, run_dir: &Path, pid: u32) -> io::Result<()> {
    if running(daemon, run_dir).is_some() {
        return Ok(());
    }
    fs::write(run_dir.join(daemon.pid_file()), format!("{pid}\n"))
}

/// Forgets the process, unless another has been started meanwhile.
pub(crate) fn remove_pid_file(daemon: Daemon, run_dir: &Path, pid: u32) {
    if read_pid(daemon, run_dir) == i32::try_from(pid).ok() {
        // What remains is recognised as stale.
        let _ = fs::remove_file(run_dir.join(daemon.pid_file()));
    }
}

/// The process that was started for this run directory, if it lives. A number that some other process has been given
/// since is recognised: that one was not started for this directory.
pub(crate) fn running(daemon: Daemon, run_dir: &Path) -> Option<i32> {
    let pid = read_pid(daemon, run_dir)?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<_> = arguments.split(|byte| *byte == 0).collect();
    let ours = arguments.windows(2).any(|w| w == [b"--run-dir".as_slice(), run_dir.as_os_str().as_bytes()]);
    ours.then_some(pid)
}

fn read_pid(daemon: Daemon, run_dir: &Path) -> Option<i32> {
    fs::read_to_string(run_dir.join(daemon.pid_file())).ok()?.trim().parse().ok()
}

/// A process held by a descriptor, so that its number cannot come to mean another.
pub(crate) struct Process {
    pid: i32,
    descriptor: OwnedFd,
}

impl Process {
    /// Takes hold of it; none if there is no such process.
    pub(crate) fn open(pid: i32) -> io::Result<Option<Self>> {
        let Some(raw) = Pid::from_raw(pid) else { return Ok(None) };
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(descriptor) => Ok(Some(Self { pid, descriptor })),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) const fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks it to end. One that has ended already is no error.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Waits until it has ended; false if it has not by then. Blocks the thread.
    pub(crate) fn ended_within(&self, patience: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
        loop {
            match poll(&mut [PollFd::new(&self.descriptor, PollFlags::IN)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_that_names_a_stranger_is_not_believed() {
        let dir = std::env::temp_dir().join(format!("weave-pid-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(running(Daemon::Router, &dir), None);
        write_pid_file(Daemon::Router, &dir, std::process::id()).unwrap();
        assert_eq!(running(Daemon::Router, &dir), None);
        remove_pid_file(Daemon::Router, &dir, 1);
        assert!(dir.join(Daemon::Router.pid_file()).exists());
        remove_pid_file(Daemon::Router, &dir, std::process::id());
        assert!(!dir.join(Daemon::Router.pid_file()).exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
