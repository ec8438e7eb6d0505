//! The real `weave` against the real server of the control API, with a simple engine behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../router/control/tests/fake/mod.rs"]
mod fake;
mod host;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use fake::Engine;
use host::Host;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use weave_control::{ListenConfig, Listener, serve};

impl Host {
    fn weave(&self, line: &str) -> Answer {
        Answer::of(self.command(line).output().unwrap())
    }

    /// Writes a program that stands for `weaver`.
    fn weaver(&self, script: &str) -> PathBuf {
        let path = self.dir.join("weaver");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn launch(&self, weaver: &Path, line: &str) -> Answer {
        Answer::of(
            self.command("launch").args(line.split_whitespace()).env("WEAVER", weaver).output().unwrap(),
        )
    }

    /// A `weaver` that notes how it was started and then serves: this test binary, in its other role.
    fn serving_weaver(&self) -> PathBuf {
        let here = self.dir.path().display();
        let us = std::env::current_exe().unwrap();
        let script = format!(
            "cd {here}\nprintf '%s\\n' \"$@\" >arguments\nprintf '%s' \"$WEAVE_PASSWORD\" >password\n\
             exec {} --ignored --exact the_weaver_of_these_tests",
            us.display()
        );
        self.weaver(&script)
    }
}

/// Not a test: what `serving_weaver` runs. Without its directory it ends at once.
#[test]
#[ignore = "a process that other tests start"]
fn the_weaver_of_these_tests() {
    let run_dir = std::env::current_dir().unwrap().join("run");
    if !run_dir.is_dir() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).unwrap();
        let listener = Listener::bind(&ListenConfig::new(run_dir.join("weave.sock"))).await.unwrap();
        let (commands, receiver) = mpsc::channel(4);
        tokio::spawn(Engine::default().run(receiver));
        let asked = async {
            // Nothing of a test may outlive it by long.
            let _ = tokio::time::timeout(Duration::from_secs(30), terminated.recv()).await;
        };
        serve(listener, commands, asked).await;
    });
}

struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn ok(self, out: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (0, out, ""));
    }

    #[track_caller]
    fn fails(self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert_eq!(self.out, "");
        assert!(self.err.contains(part), "{}", self.err);
    }
}

#[test]
fn peers_are_connected_replaced_and_forgotten_in_silence() {
    let host = Host::with_router();
    host.weave("connect b a:1").ok("");
    host.weave("status targets").ok("a:1\nb\n");
    host.weave("connect --replace c").ok("");
    host.weave("status targets").ok("c\n");
    host.weave("forget c").ok("");
    host.weave("status targets -o json").ok("[]\n");
}

#[test]
fn containers_get_addresses_and_names_and_give_them_back() {
    let host = Host::with_router();
    host.weave("attach --netns c1 10.9.1.7/24 net:default --name web").ok("10.9.1.7 10.32.0.1\n");
    host.weave("attach abc").ok("10.32.0.2\n");
    host.weave("expose -h node.weave.local").ok("10.32.0.3\n");
    host.weave("ps c1").ok("c1 02:00:00:00:00:09 10.9.1.7/24 10.32.0.1/12\n");
    host.weave("detach abc").ok("10.32.0.2\n");
    host.weave("detach abc").ok("");
    host.weave("hide").ok("10.32.0.3\n");
    host.weave("dns-add 192.0.2.80 -h printer.weave.local").ok("");
    host.weave("dns-lookup printer.weave.local").ok("192.0.2.80\n");
    host.weave("dns-lookup nothing").ok("");
    host.weave("dns-remove 192.0.2.80 -h printer.weave.local").ok("");
    host.weave("status dns").ok("");
}

#[test]
fn answers_come_as_json_for_programs() {
    let host = Host::with_router();
    let answer = host.weave("-o json attach --pid 77");
    let attached: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(attached["container"], "pid:77");
    assert_eq!(attached["addresses"], serde_json::json!(["10.32.0.1/12"]));
    let report: serde_json::Value = serde_json::from_str(&host.weave("report").out).unwrap();
    assert_eq!(report["router"]["name"], "aa:00:00:00:00:01");
    assert_eq!(report["containers"][0]["mac"], "02:00:00:00:00:09");
    let ipam: serde_json::Value = serde_json::from_str(&host.weave("status ipam -o json").out).unwrap();
    assert_eq!(ipam["owners"][0]["addresses"], "1048576");
    let failed = host.weave("connect host\\ two --output json");
    assert_eq!(failed.code, 0, "{}", failed.err);
    let refused = Answer::of(host.command("-o json connect").arg("host two").output().unwrap());
    let error: serde_json::Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!((refused.code, &error["code"], &error["exit"]), (1, &"bad_request".into(), &1.into()));
}

#[test]
fn the_status_has_the_shape_that_is_known_and_says_when_it_is_not_ready() {
    let host = Host::with_router();
    let status = host.weave("status");
    assert_eq!(status.code, 0);
    assert!(
        status.out.starts_with("\n        Version: 9.9.9\n\n        Service: router\n"),
        "{}",
        status.out
    );
    host.weave("status ipam")
        .ok("aa:00:00:00:00:01(node-a)              1048576 IPs (100.0% of total) (0 active)\n");
    host.engine.0.lock().unwrap().starting = true;
    let status = host.weave("status");
    assert_eq!((status.code, status.out.contains("starting")), (3, true));
    host.engine.0.lock().unwrap().without_services = true;
    host.weave("status dns")
        .fails(4, "DNS is switched off on this router; start the router without `--no-dns`");
}

#[test]
fn what_waits_ends_by_its_deadline_with_the_reason() {
    let host = Host::with_router();
    host.weave("prime").ok("");
    host.engine.0.lock().unwrap().no_ring = Some("awaiting consensus (quorum: 2, known: 1)".to_owned());
    host.weave("prime --timeout 1").fails(5, "awaiting consensus (quorum: 2, known: 1)");
    host.weave("attach c1").fails(5, "awaiting consensus");
}

#[test]
fn a_command_that_waits_says_for_what_and_withdraws_when_it_is_killed() {
    let host = Host::with_router();
    host.engine.0.lock().unwrap().no_ring = Some("awaiting consensus (quorum: 2, known: 1)".to_owned());
    let mut command = host.command("attach waits");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "weave: waiting: awaiting consensus (quorum: 2, known: 1)\n");
    assert!(host.engine.0.lock().unwrap().withdrawn.is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let withdrawn = || !host.engine.0.lock().unwrap().withdrawn.is_empty();
    host.runtime.block_on(fake::wait_until("the engine to notice", withdrawn));
}

#[test]
fn space_of_dead_peers_is_taken_over_and_counted() {
    let host = Host::with_router();
    host.weave("rmpeer node-b").ok("4096 IPs taken over from node-b\n");
    let unknown = host.weave("rmpeer node-z");
    assert_eq!((unknown.code, unknown.out.as_str()), (4, "0 IPs taken over from node-z\n"));
    assert!(unknown.err.contains("weave status ipam"), "{}", unknown.err);
}

#[test]
fn a_container_that_is_not_attached_is_told_and_those_that_are_are_shown() {
    let host = Host::with_router();
    host.weave("attach c1").ok("10.32.0.1\n");
    let nobody = host.weave("ps nosuch");
    assert_eq!((nobody.code, nobody.out.as_str()), (4, ""));
    assert!(nobody.err.contains("no container nosuch is attached here"), "{}", nobody.err);
    let some = host.weave("ps c1 nosuch");
    assert_eq!((some.code, some.out.as_str()), (4, "c1 02:00:00:00:00:09 10.32.0.1/12\n"));
    assert_eq!(host.weave("ps nosuch -o json").out, "[]\n");
}

#[test]
fn a_report_is_json_or_yaml_or_what_a_template_makes_of_it() {
    let host = Host::with_router();
    host.weave("attach c1").ok("10.32.0.1\n");
    let template = |text: &str| Answer::of(host.command("report -f").arg(text).output().unwrap());
    template("{{.router.NickName}} {{range .containers}}{{.id}}{{end}}").ok("node-a c1\n");
    template("{{json .ipam.ranges}}").ok("[\"10.32.0.0/12\"]\n");
    template("{{.nope}} {{range .nope}}x{{end}}").ok("<no value> \n");
    let wrong = template("{{range .containers}}");
    assert_eq!((wrong.code, wrong.out.as_str()), (1, ""));
    assert!(wrong.err.contains("no {{end}}"), "{}", wrong.err);
    let yaml = host.weave("report -o yaml");
    assert!(yaml.out.contains("\nversion: \"9.9.9\"\n"), "{}", yaml.out);
    assert_eq!(host.weave("ps -o table").out, host.weave("ps").out);
    let yaml = host.weave("ps -o yaml");
    assert_eq!(yaml.out, "- addresses:\n  - \"10.32.0.1/12\"\n  id: c1\n  mac: \"02:00:00:00:00:09\"\n");
    let wide = host.weave("ps -o wide");
    assert_eq!(
        wide.out,
        "CONTAINER  MAC                ADDRESSES\nc1         02:00:00:00:00:09  10.32.0.1/12\n"
    );
    let wide = host.weave("status -o wide");
    assert!(wide.out.contains("Service: router") && wide.out.contains("PEER"), "{}", wide.out);
    host.weave("status overlay").ok("mtu 0\n");
    let refused = host.weave("attach -o yaml 10.9.1.0 c1");
    assert!(refused.code == 1 && refused.err.starts_with('{'), "{}", refused.err);
}

#[test]
fn what_is_watched_is_shown_again_until_the_user_has_had_enough() {
    let host = Host::with_router();
    let mut child = host.command("ps --watch=1 -o wide").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        assert_eq!(lines.next().unwrap().unwrap(), "CONTAINER  MAC  ADDRESSES");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_repair_says_what_it_would_do_and_does_it_only_when_told() {
    let host = Host::with_router();
    host.weave("ipam repair").ok("nothing to repair\n");
    host.weave("attach c1").ok("10.32.0.1\n");
    let plan = host.weave("ipam repair");
    assert_eq!(plan.code, 9, "{}", plan.err);
    assert!(plan.out.ends_with("`weave ipam repair --yes` does it\n"), "{}", plan.out);
    let done = host.weave("ipam repair --yes");
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("has gone over"), "{}", done.out);
}

#[test]
fn without_a_router_every_command_says_so_and_what_to_do() {
    let host = Host::new();
    let sentence = format!(
        "weave: no weaver is running here: {} does not exist; start one with `weave launch`\n",
        host.run_dir().join("weave.sock").display()
    );
    for line in
        ["status", "report", "connect b", "attach c1", "ps", "prime", "stop", "expose", "dns-lookup web"]
    {
        let answer = host.weave(line);
        assert_eq!((answer.code, answer.err.as_str()), (3, sentence.as_str()), "{line}");
    }
    let version = host.weave("version");
    assert_eq!((version.code, version.out), (0, format!("weave {}\n", env!("CARGO_PKG_VERSION"))));
    fs::create_dir_all(host.run_dir()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(host.run_dir().join("weave.sock")).unwrap());
    host.weave("status").fails(3, "a leftover of one that was killed");
    fs::remove_file(host.run_dir().join("weave.sock")).unwrap();
    fs::write(host.run_dir().join("weave.sock"), "").unwrap();
    host.weave("status").fails(3, "no weaver is running here");
}

#[test]
fn the_controller_of_policies_gets_everything_that_follows_its_name() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("npc-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let weave = directory.join("weave");
    fs::hard_link(env!("CARGO_BIN_EXE_weave"), &weave).unwrap();
    let run = || {
        let words = ["npc", "explain", "--socket", "/x y", "--help"];
        Answer::of(Command::new(&weave).args(words).env("PATH", "").output().unwrap())
    };
    run().fails(4, "cannot run weave-npc: No such file or directory (os error 2); install it beside `weave`");
    let npc = directory.join("weave-npc");
    fs::write(&npc, "#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 7\n").unwrap();
    fs::set_permissions(&npc, fs::Permissions::from_mode(0o755)).unwrap();
    let answer = run();
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (7, "<explain><--socket></x y><--help>"),
        "{}",
        answer.err
    );
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_trace_shows_the_station_or_says_that_nobody_is_there() {
    let host = Host::with_router();
    assert_eq!(host.weave("attach 10.9.1.7/24 c1").code, 0);
    host.weave("trace 10.9.1.7")
        .ok("c1 02:00:00:00:00:09 10.9.1.7 at aa:00:00:00:00:01(node-a) (this host) mtu=1376\n");
    let nobody = host.weave("trace 10.9.1.8");
    assert_eq!((nobody.code, nobody.out.as_str()), (4, "nobody has 10.9.1.8\n"), "{}", nobody.err);
    let json = host.weave("trace 10.9.1.7 -o json");
    assert!(json.out.contains("\"local\": true"), "{}", json.out);
}

#[test]
fn the_doctor_ends_with_the_code_of_the_worst_finding() {
    let host = Host::with_router();
    host.weave("doctor").ok("0 things looked at, all is well\n");
    let find = |severity| {
        host.engine.0.lock().unwrap().diagnosis.find("x.y", severity, "something is amiss", "mend it");
        let answer = host.weave("doctor");
        assert!(answer.out.contains("something is amiss [x.y]\n   mend it\n"), "{}", answer.out);
        assert_eq!(answer.err, "");
        answer.code
    };
    assert_eq!(find(weave_api::Severity::Warning), 9);
    assert_eq!(find(weave_api::Severity::Error), 2);
}

#[test]
fn without_a_router_the_host_is_examined_and_cleaned_by_weaver() {
    let host = Host::new();
    let weaver = host.weaver(
        r#"case "$1" in
            --doctor) echo '{"checks":["kernel.tun"],"findings":[]}' ;;
            --cleanup) echo '{"interfaces":["weave","weave-tap"],"files":["/x"]}' ;;
        esac"#,
    );
    let ask = |line: &str| Answer::of(host.command(line).env("WEAVER", &weaver).output().unwrap());
    let doctor = ask("doctor");
    assert_eq!((doctor.code, doctor.out.as_str()), (0, "1 things looked at, all is well\n"));
    assert!(doctor.err.contains("only the host is examined"), "{}", doctor.err);
    ask("reset").ok("removed 2 interfaces and 1 files\n");
    let weaver = host.weaver("echo 'weaver: no permission' >&2; exit 7");
    let refused = Answer::of(host.command("reset").env("WEAVER", &weaver).output().unwrap());
    assert_eq!((refused.code, refused.err.as_str()), (7, "weave: no permission\n"));
}

#[test]
fn a_reset_that_is_refused_says_what_force_would_do() {
    let host = Host::with_router();
    host.weave("reset").fails(6, "use --force");
}

#[test]
fn the_environment_may_name_the_socket() {
    let host = Host::with_router();
    let socket = host.run_dir().join("weave.sock");
    let ask = |address: &str| {
        Answer::of(
            host.command("--run-dir /nonexistent status targets")
                .env("WEAVE_HTTP_ADDR", address)
                .output()
                .unwrap(),
        )
    };
    ask(socket.to_str().unwrap()).ok("");
    ask(&format!("unix://{}", socket.display())).ok("");
    ask("run/weave.sock").fails(1, "is not the absolute path of a unix socket");
    ask("127.0.0.1:6784").fails(1, "the control API at 127.0.0.1:6784 wants a token");
}

#[test]
fn a_router_is_asked_over_tcp_by_who_has_its_token() {
    let host = Host::with_router();
    let file = host.dir.join("token");
    fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
    let listener = host.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (commands, receiver) = mpsc::channel(4);
    host.runtime.spawn(host.engine.clone().run(receiver));
    let token = weave_api::Token::read(&file).unwrap();
    host.runtime.spawn(weave_control::serve_with_token(listener, token, commands));
    let ask = |line: &str, file: &Path| {
        let mut command = host.command(line);
        command.arg("--http-addr").arg(&address).env("WEAVE_HTTP_TOKEN_FILE", file);
        Answer::of(command.env("WEAVE_RUN_DIR", "/nonexistent").output().unwrap())
    };
    ask("connect b", &file).ok("");
    ask("status targets", &file).ok("b\n");
    let wrong = host.dir.join("wrong");
    fs::write(&wrong, "0123456789abcdef0123456789abcdeF\n").unwrap();
    ask("forget b", &wrong).fails(7, "for those who show its token");
    ask("status targets", &file).ok("b\n");
    ask("reset --force", &file).fails(1, "is about the host it runs on");
    ask("stop", &file).fails(1, "is about the host it runs on");
    ask("status", &host.dir.join("none")).fails(1, "the token file");
}

#[test]
fn help_completions_and_man_pages_need_no_router() {
    let host = Host::new();
    let help = host.weave("help");
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    assert!(help.out.contains("Exit codes:"), "{}", help.out);
    let completion = host.weave("completion bash");
    assert_eq!(completion.code, 0);
    assert!(completion.out.contains("dns-lookup"), "{}", completion.out);
    let man = host.dir.join("man");
    Answer::of(host.command("man").arg(&man).output().unwrap()).ok("");
    assert!(fs::read_to_string(man.join("weave-attach.1")).unwrap().contains("Examples"));
    host.weave("launch-router").fails(1, "was removed: use `weave launch`");
    host.weave("conect b").fails(1, "connect");
}

#[test]
fn a_router_is_launched_handed_its_flags_found_again_and_stopped() {
    let host = Host::new();
    let weaver = host.serving_weaver();
    let launched = host.launch(&weaver, "--port 7000 --password hunter2 --no-dns host2");
    assert_eq!((launched.code, launched.out.as_str()), (0, ""), "{}", launched.err);
    assert!(launched.err.contains("a password on the command line can be read"), "{}", launched.err);
    assert!(launched.err.contains("weaver is ready: aa:00:00:00:00:01(node-a)"), "{}", launched.err);
    let arguments = fs::read_to_string(host.dir.join("arguments")).unwrap();
    let run_dir = host.run_dir().display().to_string();
    assert_eq!(arguments, format!("--run-dir\n{run_dir}\n--port\n7000\n--no-dns\nhost2\n"));
    assert_eq!(fs::read_to_string(host.dir.join("password")).unwrap(), "hunter2");
    let pid = fs::read_to_string(host.run_dir().join("weaver.pid")).unwrap();
    assert!(launched.err.contains(&format!("process {pid}")), "{pid} {}", launched.err);

    host.launch(&weaver, "").fails(2, "weaver is already running: process");
    host.weave("status targets").ok("");
    host.weave("stop").ok("");
    assert!(!Path::new(&format!("/proc/{}/root", pid.trim())).exists());
    let left: Vec<_> = fs::read_dir(host.run_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["weaver.log"]);
    host.weave("stop").fails(3, "no weaver is running here");
}

#[test]
fn a_router_that_dies_early_is_quoted_and_its_code_passed_on() {
    let host = Host::new();
    let weaver = host.weaver("echo first line; echo 'the store /var/lib/weave is damaged' >&2; exit 8");
    let answer = host.launch(&weaver, "host2");
    assert!(
        answer.err.contains("weave: | first line\nweave: | the store /var/lib/weave is damaged\n"),
        "{}",
        answer.err
    );
    answer.fails(
        8,
        "with code 8: the store is damaged, cannot be written, or belongs to another router; its log is",
    );
    assert!(!host.run_dir().join("weaver.pid").exists());
    host.launch(&host.weaver("exit 0"), "").fails(2, "ended before it was ready, without an error");
    host.launch(&host.weaver("kill -9 $$"), "").fails(2, "by signal 9");
    host.launch(Path::new("/nonexistent/weaver"), "").fails(4, "cannot run /nonexistent/weaver");
}

#[test]
fn the_router_is_told_where_to_listen_as_a_plain_path() {
    let host = Host::new();
    let weaver = host.weaver("echo \"at ${WEAVE_HTTP_ADDR-nowhere}\"; exit 1");
    let socket = host.dir.join("elsewhere.sock").display().to_string();
    for (given, told) in [(format!("unix://{socket}"), socket.as_str()), (String::new(), "nowhere")] {
        let mut command = host.command("launch");
        let answer =
            Answer::of(command.env("WEAVER", &weaver).env("WEAVE_HTTP_ADDR", given).output().unwrap());
        assert!(answer.err.contains(&format!("| at {told}\n")), "{}", answer.err);
    }
}

#[test]
fn a_router_that_does_not_become_ready_is_left_running_and_can_be_stopped_by_force() {
    let host = Host::new();
    let weaver = host.weaver("trap '' TERM; for i in $(seq 300); do sleep 0.1; done");
    let answer = host.launch(&weaver, "--timeout 1");
    assert!(answer.err.contains("is not ready after 1 s: it does not listen"), "{}", answer.err);
    assert_eq!(answer.code, 5);
    host.launch(&weaver, "").fails(2, "which does not listen at");
    host.weave("stop --timeout 0").fails(5, "`weave stop --force` kills it");
    let stopped = host.weave("stop --timeout 0 --force");
    assert_eq!((stopped.code, stopped.err.contains("killing it")), (0, true), "{}", stopped.err);
    assert!(!host.run_dir().join("weaver.pid").exists());
}
