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
    path::Path,
    process::{Command, ExitStatus},
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
    let program = env::current_exe().context("cannot find this program's own file")?;
    let status = Command::new("sh")
        .args(["-c", &format!("{MARK}=$$ exec setpriv --pdeathsig KILL unshare \"$@\""), "sh"])
        .args(permitted_way()?)
        .args(NAMESPACES)
        .arg("--")
        .arg(program)
        .args(arguments)
        .status()
        .context("cannot run sh")?;
    Ok(Place::Outside(status))
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
