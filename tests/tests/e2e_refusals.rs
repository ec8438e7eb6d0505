//! Starts that cannot be, and requests that make no sense: one sentence, a documented code, and nothing changed.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Output,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weave_api::Exit;
use weave_tests::{
    lab::Host,
    product::{Programs, Router},
    scene::{attach, await_all_pings, finish, hosts, lab, play, settings},
    tool,
};

/// What weaver said when it refused: clap's first line, or its own only line behind the log.
fn sentence(output: &Output, exit: Exit) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    ensure!(code == Some(exit.code().into()), "it ended with {}, not {}: {said}", output.status, exit.code());
    ensure!(output.stdout.is_empty(), "it printed on stdout: {}", String::from_utf8_lossy(&output.stdout));
    let first = said.lines().next().unwrap_or_default();
    if exit == Exit::Usage && first.starts_with("error: ") {
        return Ok(first.to_owned());
    }
    ensure!(!said.contains(" ERROR ") && !said.contains("panicked"), "it logged an error: {said}");
    let own: Vec<&str> =
        said.lines().filter(|line| !line.contains(" INFO ") && !line.contains(" WARN ")).collect();
    match own[..] {
        [line] if line.starts_with("weaver: ") => Ok(line.to_owned()),
        _ => bail!("not one sentence: {said}"),
    }
}

/// Everything that a start may change on the host.
fn state(host: &Host) -> Result<String> {
    let mut all = Vec::new();
    let links: Vec<Value> = serde_json::from_str(&host.run("ip -j addr show")?)?;
    for link in &links {
        // What the kernel changes by itself, such as flags and addresses of the link, is left out.
        all.push(format!("{} {} {} {}", link["ifname"], link["address"], link["mtu"], link["master"]));
        for address in link["addr_info"].as_array().into_iter().flatten().filter(|a| a["scope"] != "link") {
            all.push(format!("{} {}/{}", link["ifname"], address["local"], address["prefixlen"]));
        }
    }
    all.extend(host.run("ip -4 route show table all")?.lines().map(str::to_owned));
    // A run directory may be made, if nothing stays in it. A store that is opened to look whose it is may be tidied by
    // its library. Logs are the lab's own.
    let mut files = host.command("find");
    files.args(["/run", "/var/lib", "-not", "-type", "d", "-printf", "%p %y %s\n"]);
    let is_kept = |line: &&str| !line.contains("/weave-h1/db-data") && !line.contains("/logs/");
    all.extend(tool::run(&mut files)?.lines().filter(is_kept).map(str::to_owned));
    all.sort();
    Ok(all.join("\n"))
}

/// Runs weaver with these flags on `host`: it must refuse with `exit` and a sentence with `word` in it, and change nothing.
fn refuses(host: &Host, wrapper: &[&str], weaver: &Path, flags: &str, exit: Exit, word: &str) -> Result<()> {
    let before = state(host)?;
    let mut command = host.command("timeout");
    command.arg("30").args(wrapper).arg(weaver).args(flags.split_whitespace());
    let output = tool::output(&mut command)?;
    let said = sentence(&output, exit).with_context(|| format!("weaver {flags}"))?;
    ensure!(said.contains(word), "weaver {flags}: no `{word}` in: {said}");
    let after = state(host)?;
    if before != after {
        let changed = |a: &str, b: &str| -> Vec<String> {
            a.lines().filter(|line| !b.contains(line)).map(str::to_owned).collect()
        };
        bail!(
            "weaver {flags} changed: gone {:?}, new {:?}",
            changed(&before, &after),
            changed(&after, &before)
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_command_line_that_makes_no_sense_is_refused_before_anything_is_done() -> Result<()> {
    play("a_command_line_that_makes_no_sense_is_refused_before_anything_is_done", |programs| {
        let mut lab = lab()?;
        let [host]: [Host; 1] = hosts(&mut lab)?;
        for (flags, word) in [
            ("--frobnicate", "--frobnicate"),
            ("--port seven", "seven"),
            ("--port 70000", "70000"),
            ("--ipalloc-range 10.32.0.0", "prefix length"),
            ("--ipalloc-range 10.32.0.1/12", "10.32.0.0/12"),
            ("--ipalloc-range 10.32.0.0/33", "10.32.0.0/33"),
            ("--ipalloc-range 10.32.0.0/31", "/30"),
            ("--ipalloc-range 10.32.0.0/12,10.40.0.0/16", "overlap"),
            ("--ipalloc-range 10.32.0.0/12 --ipalloc-default-subnet 10.99.0.0/24", "10.99.0.0/24"),
            ("--ipalloc-init consensus=0", "consensus=0"),
            ("--ipalloc-init seed=me", "seed=me"),
            ("--name not-a-name", "--name"),
            ("--mtu 100", "1280"),
            ("--trusted-subnets 10.0.0.1/8", "--trusted-subnets"),
            ("--password-file /none/such", "/none/such"),
            ("--dns-domain a..b", "--dns-domain"),
            ("--log-level loud", "loud"),
            ("peer:port", "peer:port"),
            ("--resume peer", "--resume"),
            ("--host 192.0.2.1", "192.0.2.1"),
        ] {
            let flags = format!("{flags} --run-dir=/run/r --db-prefix=/run/r/db");
            refuses(&host, &[], programs.weaver(), &flags, Exit::Usage, word)?;
        }
        Ok(())
    })
}

/// A router that is in the way of others.
fn first<'h>(programs: &Programs, host: &'h Host) -> Result<Router<'h>> {
    let mut router = Router::start(programs, host, &settings(1, &[], &[]))?;
    router.await_ready()?;
    Ok(router)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn what_another_program_holds_is_named_and_left_alone() -> Result<()> {
    play("what_another_program_holds_is_named_and_left_alone", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let host = &hosts[0];
        let router = first(programs, host)?;
        let other = "--run-dir=/run/r --db-prefix=/run/r/db --ipalloc-range=10.99.0.0/16";
        let (run_dir, db) = (router.run_dir().display(), router.run_dir().join("db"));
        for (flags, word) in [
            (format!("{other} --no-dns"), "6783"),
            (format!("{other} --port 6799"), "53"),
            (format!("--run-dir={run_dir} --db-prefix=/run/r/db --port 6799 --no-dns"), "running already"),
            (
                format!("--run-dir=/run/r --db-prefix={} --port 6799 --no-dns", db.display()),
                "in use by another weaver",
            ),
            (format!("{other} --port 6799 --no-dns"), "weave-tap"),
        ] {
            refuses(host, &[], programs.weaver(), &flags, Exit::Conflict, word)?;
        }
        router.tell("status")?;
        finish(vec![router])
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_default_range_that_the_host_routes_elsewhere_is_refused() -> Result<()> {
    play("a_default_range_that_the_host_routes_elsewhere_is_refused", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let host = &hosts[0];
        host.run("ip route add 10.40.0.0/16 via 172.31.1.250")?;
        let flags = "--run-dir=/run/r --db-prefix=/run/r/db --no-dns";
        refuses(host, &[], programs.weaver(), flags, Exit::Conflict, "10.40.0.0/16")?;
        // A range that somebody chose is taken, with a warning.
        let mut router = Router::start(programs, host, &settings(1, &[], &["--ipalloc-range=10.40.0.0/13"]))?;
        router.await_ready()?;
        let shown = router.tell("status")?;
        ensure!(shown.contains("10.40.0.0/16"), "the status does not warn: {shown}");
        finish(vec![router])
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn without_permission_a_start_says_which_is_missing() -> Result<()> {
    play("without_permission_a_start_says_which_is_missing", |programs| {
        let mut lab = lab()?;
        let [host]: [Host; 1] = hosts(&mut lab)?;
        let bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
        let flags = "--run-dir=/run/r --db-prefix=/run/r/db --no-dns";
        refuses(&host, &bare, programs.weaver(), flags, Exit::Permission, "root")?;
        let flags = "--run-dir=/run/r --db-prefix=/run/r/db --port 53";
        refuses(&host, &bare, programs.weaver(), flags, Exit::Permission, "53")
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_store_that_is_not_this_routers_is_refused_and_left_as_it_is() -> Result<()> {
    play("a_store_that_is_not_this_routers_is_refused_and_left_as_it_is", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let (host, directory) = (&hosts[0], lab.directory());
        let mut router = first(programs, host)?;
        router.tell("prime")?;
        let store = router.run_dir().join("db-data");
        ensure!(router.stop()?.success());
        let flags =
            |prefix: &str| format!("--run-dir=/run/r --db-prefix={}/{prefix} --no-dns", directory.display());
        let refuses =
            |flags: String, word: &str| refuses(host, &[], programs.weaver(), &flags, Exit::Store, word);

        // Another router's.
        let own = router.run_dir().join("db");
        refuses(
            format!("--run-dir=/run/r --db-prefix={} --no-dns --name 02:00:00:00:00:77", own.display()),
            "02:00:00:00:00:01",
        )?;
        // Its own, for other ranges.
        let ranges = "--name 02:00:00:00:00:01 --ipalloc-range=10.99.0.0/16";
        refuses(format!("--run-dir=/run/r --db-prefix={} --no-dns {ranges}", own.display()), "10.32.0.0/12")?;
        // Somebody else's.
        fs::create_dir_all(directory.join("photos-data"))?;
        fs::write(directory.join("photos-data/holiday.jpg"), "smile")?;
        refuses(flags("photos"), "photos-data")?;
        fs::write(directory.join("file-data"), "not a directory")?;
        refuses(flags("file"), "file-data")?;
        // A damaged one: its beginning, and its configuration.
        for (name, file) in [("bad1", "db"), ("bad2", "conf")] {
            let copy = directory.join(format!("{name}-data"));
            tool::run(std::process::Command::new("cp").arg("-a").arg(&store).arg(&copy))?;
            let mut bytes = fs::read(copy.join(file))?;
            let end = bytes.len().min(4096);
            bytes[..end].fill(0xa5);
            fs::write(copy.join(file), bytes)?;
            refuses(flags(name), &format!("{name}-data"))?;
        }
        // The real one is as it was.
        router.restart()?;
        router.await_ready()?;
        finish(vec![router])
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_full_disk_ends_the_router_with_words_and_nothing_is_given_twice_or_lost() -> Result<()> {
    play("a_full_disk_ends_the_router_with_words_and_nothing_is_given_twice_or_lost", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let host = &hosts[0];
        let disk = lab.directory().join("weave-h1/db-data");
        fs::create_dir_all(&disk)?;
        host.run(&format!("mount -n -t tmpfs -o size=1m tmpfs {}", disk.display()))?;
        let mut router = first(programs, host)?;
        let mut given = vec![attach(&router, "c0", "")?];
        // As much as there is; that it is too much is no news.
        let fill = disk.join("fill").display().to_string();
        tool::output(host.command("dd").args(["if=/dev/zero", "bs=1k", &format!("of={fill}")]))?;
        // What was begun to be written has room left; sooner or later it is used up.
        let refusal = (1..1_000).find_map(|n| match attach(&router, &format!("c{n}"), "") {
            Ok(attached) => {
                given.push(attached);
                None
            }
            Err(error) => Some(format!("{error:#}")),
        });
        let refusal = refusal.context("the disk is full, and everything goes on")?;
        ensure!(refusal.contains("full") || refusal.contains("stopping"), "{refusal}");
        let status = router.await_end()?;
        ensure!(status.code() == Some(i32::from(Exit::Store.code())), "{status}");
        let log = router.log();
        ensure!(log.contains("the disk is full") && log.contains("make room"), "{log}");
        // Nor does it start, and says why.
        let own = router.run_dir().join("db");
        let flags = format!("--db-prefix={} --no-dns --run-dir=/run/r", own.display());
        refuses(host, &[], programs.weaver(), &flags, Exit::Store, "the disk is full")?;
        host.run(&format!("rm {fill}"))?;
        router.restart()?;
        router.await_ready()?;
        let known = router.tell("ps")?;
        for attached in &given {
            ensure!(known.contains(&format!("{}/", attached.address())), "{} is lost: {known}", attached.id);
        }
        ensure!(known.lines().count() == given.len(), "more than was given: {known}");
        let next = attach(&router, "next", "")?;
        ensure!(given.iter().all(|one| one.address() != next.address()), "{} is given twice", next.address());
        given.push(next);
        await_all_pings(&lab, &given)?;
        finish(vec![router])
    })
}

/// Sends bytes to the control socket and returns the beginning of the answer.
fn send(router: &Router<'_>, bytes: &[u8]) -> Result<String> {
    let mut socket = UnixStream::connect(router.run_dir().join("weave.sock"))?;
    socket.set_read_timeout(Some(weave_tests::scene::LIMIT))?;
    // It may hang up before it has read everything.
    drop(socket.write_all(bytes));
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = socket.read(&mut chunk) {
        answer.extend(&chunk[..n]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn nonsense_on_the_control_socket_is_answered_and_changes_nothing() -> Result<()> {
    play("nonsense_on_the_control_socket_is_answered_and_changes_nothing", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let router = first(programs, &hosts[0])?;
        let _one = attach(&router, "c1", "")?;
        let before = router.tell("ps")?;
        let post = |path: &str, length: usize, body: &[u8]| {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: weave\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            [head.as_bytes(), body].concat()
        };
        let large = vec![b' '; 3 << 20];
        for (what, bytes, wanted) in [
            ("an oversized body", post("/v1/ip/allocate", large.len(), &large), "413"),
            ("a body that is not JSON", post("/v1/ip/allocate", 5, b"hello"), "400"),
            ("an unknown field", post("/v1/ip/allocate", 20, br#"{"frobnicate":"yes"}"#), "400"),
            ("a bad container", post("/v1/ip/allocate", 19, br#"{"container":"a/b"}"#), "400"),
            ("an unknown path", post("/v1/none", 2, b"{}"), "404"),
            ("no HTTP", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, b'\r', b'\n', b'\r', b'\n'], "400"),
        ] {
            let answer = send(&router, &bytes)?;
            let status = answer.lines().next().unwrap_or_default();
            ensure!(status.contains(wanted), "{what}: {answer}");
        }
        // Heads without end, and many that say nothing at all.
        let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 4 << 20]].concat();
        send(&router, &endless)?;
        let silent: Result<Vec<_>, _> =
            (0..200).map(|_| UnixStream::connect(router.run_dir().join("weave.sock"))).collect();
        let silent = silent?;
        ensure!(router.tell("ps")? == before, "something was changed");
        drop(silent);
        finish(vec![router])
    })
}
