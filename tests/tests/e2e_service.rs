//! A router as a service manager runs it: settings from a file, readiness, a watchdog, a log that can be turned up.

use std::{fs, os::unix::net::UnixDatagram, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weave_api::{Exit, LogLevelRequest};
use weave_tests::{
    clock::{Look, wait_until},
    lab::{self, Host},
    product::Api,
    sandbox,
    scene::{LIMIT, hosts, lab, play, refusal},
    tool,
};

/// The next thing that the service manager hears.
fn heard(manager: &UnixDatagram) -> Result<String> {
    let mut buffer = [0; 256];
    let length = manager.recv(&mut buffer).context("nothing is said to the service manager")?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_service_manager_hears_that_a_router_is_ready_alive_and_stopping() -> Result<()> {
    play("a_service_manager_hears_that_a_router_is_ready_alive_and_stopping", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let dir = Path::new(sandbox::DIRECTORY).join("service");
        fs::create_dir_all(&dir)?;
        let config = dir.join("weave.toml");
        let settings = format!(
            "run-dir = '{0}'\ndb-prefix = '{0}/db'\nnickname = 'from-file'\nno-dns = true\n\
             ipalloc-range = '10.40.0.0/16'\npeers = ['192.0.2.99']\nlog-level = 'warn'\n",
            dir.display()
        );
        fs::write(&config, &settings)?;
        let socket = dir.join("notify");
        let manager = UnixDatagram::bind(&socket)?;
        manager.set_read_timeout(Some(LIMIT))?;
        let mut command = hosts[0].command(programs.weaver());
        command.arg("--config").arg(&config).arg("--log-level=info");
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
        let mut router = hosts[0].spawn(command, "weaver-service")?;
        let said = heard(&manager)?;
        ensure!(said.starts_with("READY=1\nSTATUS=router "), "{said}");
        for _ in 0..3 {
            ensure!(heard(&manager)? == "WATCHDOG=1\n");
        }
        let api = Api::of(&dir)?;
        let report = api.report()?;
        ensure!(report.router.nickname == "from-file" && report.dns.is_none(), "{report:?}");
        ensure!(
            report.router.targets == ["192.0.2.99:6783"] || report.router.targets == ["192.0.2.99"],
            "{report:?}"
        );

        // The log is turned up and down again, without a restart.
        let log = || fs::read_to_string(lab::logs().join("weaver-service.log"));
        let level = |level: Option<&str>| api.call(&LogLevelRequest { level: level.map(str::to_owned) });
        ensure!(level(None)?.level == "info" && !log()?.contains(" DEBUG "));
        ensure!(level(Some("debug"))?.level == "debug");
        wait_until("debug messages", LIMIT, || {
            Ok(Look::when(log()?.contains(" DEBUG "), || "none".to_owned()))
        })?;
        ensure!(level(Some("loud")).is_err() && level(None)?.level == "debug");

        // A process that stands still is not heard of.
        hosts[0].run(&format!("kill -STOP {}", router.pid()))?;
        manager.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut last_words = 0;
        while heard(&manager).is_ok() {
            last_words += 1;
            ensure!(last_words < 1_000, "a process that is stopped goes on speaking");
        }
        hosts[0].run(&format!("kill -CONT {}", router.pid()))?;
        manager.set_read_timeout(Some(LIMIT))?;
        ensure!(heard(&manager)? == "WATCHDOG=1\n");
        ensure!(router.stop("TERM", Duration::from_secs(10))?.success());
        let mut last = String::new();
        while !last.starts_with("STOPPING=1") {
            last = heard(&manager)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_config_file_is_checked_before_it_is_used() -> Result<()> {
    play("a_config_file_is_checked_before_it_is_used", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let file = Path::new(sandbox::DIRECTORY).join("weave.toml");
        let check = |text: &str| -> Result<std::process::Output> {
            fs::write(&file, text)?;
            let mut command = hosts[0].command(programs.weave());
            tool::output(command.args(["config", "check"]).arg(&file))
        };
        ensure!(check("peers = ['host2']\nipalloc-range = '10.40.0.0/16,fd00::/64'\n")?.status.success());
        for (text, part) in [
            ("prot = 7000", "is `port` meant?"),
            ("ipalloc-range = '10.40.0.1/16'", "the subnet is 10.40.0.0/16"),
            ("port = 70000", "70000"),
            ("peers = ['a b']", "a b"),
            ("peers = [", "line 1"),
        ] {
            let said = refusal(&check(text)?, "weave", Exit::Usage).with_context(|| text.to_owned())?;
            ensure!(said.contains(part), "{text}: {said}");
        }
        Ok(())
    })
}
