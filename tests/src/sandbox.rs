//! Namespaces of our own around a whole run.
//!
//! A program that wants a lab calls [`enter`] early. Outside, that runs the same program again below
//! `unshare`, with its own mount, network and process-id namespaces (and a user namespace when we are not root), and
//! returns its exit status. Inside, it gives `/run` a fresh tmpfs and returns.
//!
//! Nothing can be left behind: the inner program is process 1 of its namespace, so the kernel kills
//! everything below it when it ends, and it is killed when `unshare` or the outer program dies of anything, Ctrl-C
//! included. Interfaces, mounts and the files in `/run` go with the namespaces.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::tool;

/// Set for the inner program: the process id, outside, of the `unshare` that keeps the sandbox.
const MARK: &str = "WEAVE_SANDBOX";

/// Where a lab keeps its files, inside the sandbox only: the same tmpfs in every host.
pub const DIRECTORY: &str = "/run/weave-lab";

/// How the namespaces are made: as root, and without being root.
const WAYS: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];

/// Namespaces besides the user namespace, and the ties that make them end with us.
const NAMESPACES: [&str; 7] =
    ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"];

/// Lines of a reason that are kept.
const MOST_LINES: usize = 40;

/// Where [`enter`] returned.
#[derive(Debug)]
pub enum Place {
    /// In the sandbox: go on.
    Inside,
    /// Outside: the inner run has ended with this status.
    Outside(ExitStatus),
}

/// Whether this process is the inner program.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(MARK).is_some()
}

/// The process outside that keeps this sandbox, by which [`shell`] finds it.
#[must_use]
pub fn keeper() -> Option<u32> {
    env::var_os(MARK)?.to_str()?.parse().ok()
}

/// Enters the sandbox by running this program again with `arguments`.
///
/// # Errors
/// When neither root nor user namespaces are to be had, or a tool is missing.
pub fn enter<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Place> {
    if is_inside() {
        prepare()?;
        return Ok(Place::Inside);
    }
    Ok(Place::Outside(outside(arguments)?.status().context("cannot run sh")?))
}

/// Like [`enter`], and returns also what the inner run said about why it failed, if it did.
///
/// # Errors
/// As those of [`enter`].
pub fn enter_heard<S: AsRef<OsStr>>(arguments: &[S]) -> Result<(Place, String)> {
    if is_inside() {
        return Ok((enter(arguments)?, String::new()));
    }
    let mut inner = outside(arguments)?.stderr(Stdio::piped()).spawn().context("cannot run sh")?;
    let said = inner.stderr.take().map_or_else(|| Ok(String::new()), pass_on)?;
    Ok((Place::Outside(inner.wait()?), said))
}

/// The command that runs this program again in a sandbox.
fn outside<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Command> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{MARK}=$$ exec setpriv --pdeathsig KILL unshare \"$@\""), "sh"])
        .args(permitted_way()?)
        .args(NAMESPACES)
        .arg("--")
        .arg(program)
        .args(arguments);
    Ok(command)
}

/// Writes what is read to stderr as it comes, and returns of it what tells why a run failed: from the last error or panic
/// to the stack that follows it.
fn pass_on(from: impl Read) -> std::io::Result<String> {
    let mut reason = Vec::new();
    let mut is_reason = false;
    for line in BufReader::new(from).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        complain(&line)?;
        if line.starts_with("Error: ") || line.contains("panicked at") {
            reason.clear();
            is_reason = true;
        } else if line.starts_with("Stack backtrace:") || line.starts_with("stack backtrace:") {
            is_reason = false;
        }
        if is_reason && reason.len() < MOST_LINES {
            reason.push(line);
        }
    }
    Ok(reason.join("\n").trim_end().to_owned())
}

/// The flags with which this machine lets us make a network of our own.
fn permitted_way() -> Result<&'static [&'static str]> {
    const PROBE: &str = "mount -n -t tmpfs tmpfs /run && ip link add probe type veth && {
        ip tuntap add dev probe-tap mode tap || { echo 'this user may not open /dev/net/tun' >&2; false; }
    }";
    let mut refusals = Vec::new();
    for way in WAYS {
        let mut unshare = Command::new("unshare");
        let output = tool::output(unshare.args(way).args(NAMESPACES).args(["--", "sh", "-c", PROBE]))
            .context("the lab needs unshare (util-linux) and ip (iproute2)")?;
        if output.status.success() {
            return Ok(way);
        }
        refusals.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    bail!(
        "this needs root or user namespaces, and the system allows neither here\n  as root: {}\n  as a user: {}\n\
         run it as root, or let unprivileged users make user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0)",
        refusals[0],
        refusals[1]
    )
}

fn prepare() -> Result<()> {
    tool::run(Command::new("mount").args(["-n", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]))?;
    tool::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    fs::create_dir_all("/run/netns")?;
    fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot create {DIRECTORY}"))
}

/// A command that enters, from outside, the place whose process id is kept in [`DIRECTORY`]`/NAME.pid`.
///
/// # Errors
/// When no sandbox is kept by `keeper`.
pub fn shell(keeper: u32, name: &str, command: &[OsString]) -> Result<Command> {
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))
        .with_context(|| format!("there is no lab {keeper}; the number is the one the lab printed"))?;
    let Some(first) = children.split_whitespace().next() else { bail!("lab {keeper} is ending") };
    let user = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("ns/user")).ok();
    let mut enter = Command::new("nsenter");
    enter.args(["--target", first, "--mount", "--net", "--pid"]);
    if user(first) != user("self") {
        enter.args(["--user", "--preserve-credentials"]);
    }
    let file = format!("{DIRECTORY}/{}.pid", name.replace('/', "."));
    let script = format!(
        "pid=$(cat {file}) || exit 1; [ $# -gt 0 ] || set -- \"${{SHELL:-sh}}\"; \
         exec nsenter --target \"$pid\" --mount --net -- \"$@\""
    );
    enter.args(["--", "sh", "-c", &script, "sh"]).args(command);
    Ok(enter)
}

/// Writes a line to stderr.
///
/// # Errors
/// When stderr is closed.
pub fn complain(line: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_last_error_without_its_stack() -> std::io::Result<()> {
        let said =
            "a log\nError: first\nStack backtrace:\n  0: here\nthread 'x' panicked at y:1:\nno\n\nnote: z\n";
        assert_eq!(pass_on(said.as_bytes())?, "thread 'x' panicked at y:1:\nno\n\nnote: z");
        assert_eq!(pass_on(&b"nothing\n"[..])?, "");
        Ok(())
    }
}
