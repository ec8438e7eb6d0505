//! Hosts on which something is wrong that namespaces cannot make wrong: the clock, the kernel's abilities.
//!
//! The router is started with a library before the C library (`faults.c`) that changes what it is told or asks for. It is
//! the router that users run; only its host seems to be another.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::Result;

use crate::{product::Programs, sandbox, tool};

/// What is wrong with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The clock is ahead by so many seconds.
    Clock(i64),
    /// The kernel knows no VXLAN.
    NoVxlan,
}

impl Fault {
    fn variable(self) -> String {
        match self {
            Self::Clock(seconds) => format!("FAULT_CLOCK_S={seconds}"),
            Self::NoVxlan => "FAULT_NO_VXLAN=1".to_owned(),
        }
    }
}

/// The programs, with a `weaver` that meets `faults`. To be called inside a sandbox, whose files go with it.
///
/// # Errors
/// When the C compiler, which the linker needs anyway, is missing or fails.
pub fn programs_with(programs: &Programs, faults: &[Fault]) -> Result<Programs> {
    let directory = Path::new(sandbox::DIRECTORY).join("faults");
    fs::create_dir_all(&directory)?;
    let library = directory.join("faults.so");
    if !library.exists() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/faults.c");
        tool::run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source))?;
    }
    let variables: Vec<String> = faults.iter().map(|fault| fault.variable()).collect();
    let wrapper = directory.join(variables.join("-"));
    let script = format!(
        "#!/bin/sh\nexec env LD_PRELOAD={} {} {} \"$@\"\n",
        library.display(),
        variables.join(" "),
        programs.weaver().display()
    );
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(programs.with_weaver(wrapper))
}
