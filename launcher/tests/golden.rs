//! What each command and each view prints, text and JSON, held against files under `golden/`. A change of a shape that
//! users or scripts read shows up as a change of these files: to accept it, run the test with `WEAVE_ACCEPT_GOLDEN=1`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../router/control/tests/fake/mod.rs"]
mod fake;
mod host;

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    process::{Command, Output},
};

use host::Host;

/// Name of the files, and the command line, in the order in which they are run against one router.
const LINES: [(&str, &str); 31] = [
    ("connect", "connect b a:1"),
    ("attach", "attach --netns c1 10.9.1.7/24 net:default --name web"),
    ("expose", "expose -h node.weave.local"),
    ("dns-add", "dns-add 192.0.2.80 -h printer.weave.local"),
    ("dns-lookup", "dns-lookup printer.weave.local"),
    ("dns-args", "dns-args"),
    ("status", "status"),
    ("status-connections", "status connections"),
    ("status-peers", "status peers"),
    ("status-targets", "status targets"),
    ("status-ipam", "status ipam"),
    ("status-dns", "status dns"),
    ("status-overlay", "status overlay"),
    ("report", "report"),
    ("report-template", "report -f {{range.containers}}{{.id}}={{json.addresses}};{{end}}"),
    ("ps", "ps"),
    ("trace", "trace 10.9.1.7"),
    ("trace-nobody", "trace 10.9.1.99"),
    ("doctor", "doctor"),
    ("prime", "prime"),
    ("version", "version"),
    ("log-level", "log-level"),
    ("ipam-repair", "ipam repair"),
    ("rmpeer", "rmpeer node-b"),
    ("dns-remove", "dns-remove 192.0.2.80 -h printer.weave.local"),
    ("hide", "hide"),
    ("detach", "detach --netns c1"),
    ("forget", "forget b"),
    ("refused", "connect"),
    ("unknown-view", "status nothing"),
    ("reset", "reset"),
];

/// Commands whose answer is a process, a file, or the business of Docker; `cli.rs` and others test these.
const NOT_ANSWERS: [&str; 10] =
    ["launch", "stop", "env", "config", "docker-plugin", "npc", "completion", "man", "help", "ipam"];

/// A host whose router has something to find.
fn host() -> Host {
    let host = Host::with_router();
    let mut state = host.engine.0.lock().unwrap();
    state.diagnosis.find("x.y", weave_api::Severity::Warning, "x is y", "mend it");
    drop(state);
    host
}

/// What was said, on both voices, and the code, without what differs by run.
fn stable(host: &Host, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut all = format!("exit {}\n", output.status.code().unwrap_or(-1));
    for (voice, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            all += &format!("--- {voice}\n{}", text(bytes));
        }
    }
    all.replace(&host.dir.path().display().to_string(), "DIR")
}

/// Compares with the file, or writes it when told to.
fn hold(name: &str, form: &str, said: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.{form}"));
    if env::var_os("WEAVE_ACCEPT_GOLDEN").is_some() {
        fs::write(&path, said).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    (kept != said).then(|| format!("{}:\n{said}\ninstead of:\n{kept}", path.display()))
}

#[test]
fn every_command_and_view_prints_what_it_always_has() {
    let mut differing = Vec::new();
    for (form, suffix) in [("text", "txt"), ("wide", "wide"), ("json", "json"), ("yaml", "yaml")] {
        let host = host();
        for (name, line) in LINES {
            let output = host.command(line).args(["-o", form]).output().unwrap();
            let said = stable(&host, &output);
            // What a table or YAML adds is shown where there is something to show.
            let is_view = name.starts_with("status") || name == "ps";
            if ["text", "json"].contains(&form) || is_view {
                differing.extend(hold(name, suffix, &said));
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn no_command_is_without_a_golden_file() {
    let help = Command::new(env!("CARGO_BIN_EXE_weave")).arg("help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let list = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let is_head = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let commands = list.lines().filter(is_head).filter_map(|line| line.split_whitespace().next());
    let commands: BTreeSet<&str> = commands.filter(|name| !NOT_ANSWERS.contains(name)).collect();
    assert!(commands.len() > 15, "{help}");
    let held: BTreeSet<&str> = LINES.iter().filter_map(|(_, line)| line.split(' ').next()).collect();
    let missing: Vec<_> = commands.difference(&held).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
