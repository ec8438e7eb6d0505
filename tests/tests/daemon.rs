//! The daemon among other things on one host: what it refuses to start beside, it says, and leaves alone.

use anyhow::{Result, ensure};
use weave_tests::{
    lab::Lab,
    product::{Router, Settings, in_sandbox},
    tool,
};

#[test]
fn a_second_router_on_the_same_port_says_what_is_wrong_and_changes_nothing() -> Result<()> {
    in_sandbox("a_second_router_on_the_same_port_says_what_is_wrong_and_changes_nothing", |programs| {
        let mut lab = Lab::new(vec![env!("CARGO_BIN_EXE_weave-lab").into()])?;
        let host = lab.add_host("h1")?;
        let mut first = Router::start(programs, &host, &Settings::default())?;
        first.await_ready()?;
        let before = host.run("ip -o link show")?.lines().count();
        let mut second = host.command(programs.weaver());
        second.args(["--run-dir=/run/second", "--db-prefix=/run/second/db", "--no-dns"]);
        let output = tool::output(&mut second)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains("6783"), "{}: {said}", output.status);
        ensure!(host.run("ip -o link show")?.lines().count() == before, "an interface was added");
        ensure!(first.report()?.ready, "the first router is as it was");
        Ok(())
    })
}
