//! A router as a service manager runs it: settings from a file, readiness, a watchdog, a log that can be turned up.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::MetadataExt as _,
        net::{UnixDatagram, UnixStream},
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weave_api::{Exit, LogLevelRequest};
use weave_tests::{
    clock::{Look, wait_until},
    lab::{self, Host},
    product::{Api, peer_name},
    sandbox,
    scene::{LIMIT, attach_each, await_all_pings, await_mesh, finish, hosts, lab, play, refusal, routers},
    tool,
    traffic::{PingReport, measure},
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

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_log_for_programs_is_an_object_to_a_line() -> Result<()> {
    play("a_log_for_programs_is_an_object_to_a_line", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let token = Path::new(sandbox::DIRECTORY).join("token");
        fs::write(&token, "0123456789abcdef0123456789abcdef\n")?;
        let token_file = format!("--http-token-file={}", token.display());
        let flags =
            ["--log-format=json", "--socket-mode=0600", "--socket-group=4711", "--http-addr=127.0.0.1:6784"];
        let routers = routers(programs, &hosts, &[&flags[..], &[&token_file]].concat())?;
        let socket = fs::metadata(routers[0].run_dir().join("weave.sock"))?;
        ensure!((socket.mode() & 0o777, socket.gid()) == (0o600, 4711), "{socket:?}");

        // The same API over TCP, for who shows the token.
        let mut command = hosts[0].command(programs.weave());
        command.args(["--http-addr=127.0.0.1:6784", &token_file, "report", "-f", "{{.router.name}}"]);
        ensure!(tool::run(&mut command)?.trim() == peer_name(&hosts[0]));
        fs::write(&token, "fedcba9876543210fedcba9876543210\n")?;
        refusal(&tool::output(&mut command)?, "weave", Exit::Permission)?;

        let log = routers[0].log();
        finish(routers)?;
        let mut messages = Vec::new();
        for line in log.lines() {
            let event: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            ensure!(event["timestamp"].is_string() && event["target"].is_string(), "{line}");
            ensure!(event["level"] != "ERROR", "{line}");
            messages.extend(event["message"].as_str().map(str::to_owned));
        }
        ensure!(messages.iter().any(|message| message == "router is ready"), "{messages:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_thousand_slow_clients_do_not_hold_the_network_up() -> Result<()> {
    play("a_thousand_slow_clients_do_not_hold_the_network_up", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &["--no-fastdp"])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        // Each begins a request and never ends it; those beyond what the router serves at once are turned away.
        let socket = routers[0].run_dir().join("weave.sock");
        let slow: Result<Vec<UnixStream>, std::io::Error> = (0..1_000)
            .map(|_| {
                let mut stream = UnixStream::connect(&socket)?;
                // Who has been turned away already cannot write.
                let _ = stream.write_all(b"POST /v1/connect HTTP/1.1\r\ncontent-len");
                Ok(stream)
            })
            .collect();
        let slow = slow.context("a client is not even turned away")?;
        for _ in 0..20 {
            let line = format!("ping {} --count 1 --timeout 1", attached[1].address());
            let ping: PingReport = measure(lab.generator(), &attached[0].container, &line)?;
            ensure!(ping.received == 1, "a thousand slow clients cost a frame: {ping:?}");
        }
        ensure!(routers[1].report()?.router.connections.iter().all(|link| link.overlay.is_some()));
        // They are thrown out, and then there is room for those who mean it.
        wait_until("room for another client", LIMIT, || {
            let asked = routers[0].report();
            Ok(Look::when(asked.is_ok(), || format!("{:?}", asked.as_ref().err())))
        })?;
        drop(slow);
        finish(routers)
    })
}
