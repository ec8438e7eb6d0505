//! Namespaces of our own around the whole program, so that nothing it makes can outlive it.

use std::{
    env,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode},
};

/// First argument of the inner program.
const INSIDE: &str = "--inside";

/// Runs `body` with the command line's arguments in network, mount and process namespaces of its own; user
/// namespaces too, if we are not root. Fails where they cannot be made.
pub(crate) fn run(body: impl FnOnce(Vec<String>) -> ExitCode) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == INSIDE) {
        return body(arguments[1..].to_vec());
    }
    let program = env::current_exe().expect("a program knows its file");
    let flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let is_root = Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|s| s.success());
    let user: &[&str] = if is_root { &[] } else { &["--user", "--map-root-user"] };
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/netns && exec \"$@\"";
    // The namespaces die with this program, whatever kills it.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(user)
        .args(flags)
        .args(["sh", "-c", script, "sh"])
        .arg(program)
        .arg(INSIDE)
        .args(arguments)
        .status()
        .expect("setpriv and unshare (util-linux) run");
    match status.code() {
        Some(0) => ExitCode::SUCCESS,
        code => {
            eprintln!("ended with {code:?}, signal {:?}", status.signal());
            ExitCode::FAILURE
        }
    }
}
