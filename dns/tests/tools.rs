//! The server as `dig` sees it.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::process::Command;

use support::start_without_upstream;

/// Runs dig against the server, off the runtime's threads.
async fn dig(port: u16, arguments: &'static [&'static str]) -> String {
    let run = move || {
        let output = Command::new("dig")
            .args(["@127.0.0.1", "-p", &port.to_string(), "+tries=1", "+timeout=5"])
            .args(arguments)
            .output()
            .expect("dig runs; install bind9-dnsutils");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // It says this about every name in the default domain.
        text.replace(";; WARNING: .local is reserved for Multicast DNS", "").replace('\t', " ")
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs dig: run with cargo xtask test"]
async fn dig_reads_every_kind_of_answer_without_a_warning() {
    let server = start_without_upstream().await;
    let port = server.local_addrs()[0].port();
    for (arguments, wanted) in [
        (&["one.weave.local", "A"][..], "status: NOERROR"),
        (&["one.weave.local", "A"], "one.weave.local. 1 IN A 10.32.0.1"),
        (&["two.weave.local", "AAAA"], "AAAA fd00::2"),
        (&["-x", "10.32.0.1"], "PTR one.weave.local."),
        (&["-x", "fd00::6"], "PTR six.weave.local."),
        (&["_http._tcp.web.weave.local", "SRV"], "0 0 8080 web.weave.local."),
        (&["one.weave.local", "MX"], "status: NOERROR"),
        (&["one.weave.local", "MX"], "hostmaster.weave.local."),
        (&["nobody.weave.local", "A"], "status: NXDOMAIN"),
        (&["weave.local", "SOA"], "ns.weave.local. hostmaster.weave.local."),
        (&["www.example.com", "A"], "status: SERVFAIL"),
        (&["+tcp", "+noedns", "one.weave.local"], "10.32.0.1"),
    ] {
        let output = dig(port, arguments).await;
        assert!(output.contains(wanted), "{arguments:?} wanted {wanted}:\n{output}");
        assert!(!output.contains("WARNING") && !output.contains("malformed"), "{arguments:?}:\n{output}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs dig: run with cargo xtask test"]
async fn dig_gets_fifty_addresses_whichever_way_it_asks() {
    let server = start_without_upstream().await;
    let port = server.local_addrs()[0].port();
    let cut = dig(port, &["+noedns", "+ignore", "many.weave.local"]).await;
    assert!(cut.contains(" tc "), "{cut}");
    for arguments in [
        &["+short", "+noedns", "many.weave.local"][..],
        &["+short", "+tcp", "many.weave.local"],
        &["+short", "+bufsize=4096", "+ignore", "many.weave.local"],
    ] {
        let output = dig(port, arguments).await;
        let addresses = output.lines().filter(|line| line.starts_with("10.32.1.")).count();
        assert_eq!(addresses, 50, "{arguments:?}:\n{output}");
    }
    server.stop().await;
}
