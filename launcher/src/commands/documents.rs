//! What is made from the definition of the command line: completions and man pages.

use std::path::Path;

use clap_complete::Shell;
use weave_api::Exit;

use crate::{
    args::command,
    context::{Failure, print},
};

pub(super) fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "weave", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command(), dir))
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot write man pages to {}: {e}", dir.display())))
}
