//! The same answers on a terminal and in a pipe.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../router/control/tests/fake/mod.rs"]
mod fake;
mod host;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::Path,
    process::Command,
};

use host::Host;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

fn in_a_pipe(host: &Host, line: &str) -> String {
    String::from_utf8(host.command(line).output().unwrap().stdout).unwrap()
}

/// What a command prints on a terminal of so many columns.
fn on_a_terminal(mut command: Command, columns: u16) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
    let noctty = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
    let terminal = OpenOptions::new().read(true).write(true).custom_flags(noctty).open(path).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let mut child = command.stdout(terminal).spawn().unwrap();
    // Else the terminal stays open at our end, and reading never ends.
    drop(command);
    let text = read_all(File::from(master));
    assert!(child.wait().unwrap().success());
    text.replace("\r\n", "\n")
}

/// Until the other end is closed, which a terminal tells as an error (pty(7): EIO).
fn read_all(mut master: File) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match master.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn headings_have_colours_on_a_terminal_that_wants_them() {
    let host = Host::with_router();
    let plain = in_a_pipe(&host, "status");
    assert!(!plain.contains('\x1b'), "{plain}");
    let dressed = on_a_terminal(host.command("status"), 80);
    assert!(dressed.contains("\x1b[1m        Service: router\x1b[0m\n"), "{dressed}");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let mut command = host.command("status");
        command.env(name, value);
        assert_eq!(on_a_terminal(command, 80), plain, "{name}");
    }
    let json = on_a_terminal(host.command("status -o json"), 20);
    assert_eq!(json, in_a_pipe(&host, "status -o json"));
}

#[test]
fn a_table_fits_the_terminal_and_is_whole_elsewhere() {
    let host = Host::with_router();
    in_a_pipe(&host, "attach --netns c1 10.9.1.7/24 --name web");
    let whole = "c1 02:00:00:00:00:09 10.9.1.7/24\n";
    assert_eq!(in_a_pipe(&host, "ps"), whole);
    assert_eq!(on_a_terminal(host.command("ps"), 80), whole);
    assert_eq!(on_a_terminal(host.command("ps"), 30), "c1 … 10.9.1.7/24\n");
    let wide = on_a_terminal(host.command("ps -o wide"), 30);
    assert!(wide.contains("c1         02:00:00:00:00:09  10.9.1.7/24\n"), "{wide}");
}
