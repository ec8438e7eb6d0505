//! Every flag of `weaver`, and so of `weave launch`, with what it changes. A flag that is in clap's list and not here
//! fails the test, and so does one here that changes nothing.

use std::{collections::BTreeSet, fs, path::Path};

use clap::{CommandFactory as _, Parser as _};

use super::Config;
use crate::args::Args;

/// A flag with its value, and what of the configuration is so with it and not so without it.
type Effect = (&'static str, &'static str, fn(&Config) -> bool);

const EFFECTS: [Effect; 31] = [
    ("host", "192.0.2.1", |c| c.listen.ip().to_string() == "192.0.2.1"),
    ("port", "7000", |c| c.listen.port() == 7000),
    ("name", "02:00:00:00:00:01", |c| c.name.is_some_and(|name| name.0[5] == 1)),
    ("nickname", "other", |c| c.nickname == "other"),
    ("password", "correct horse battery", |c| c.passwords.len() == 1),
    ("password-file", "FILE", |c| c.passwords.len() == 1),
    ("trusted-subnets", "192.0.2.0/24,198.51.100.0/24", |c| c.trusted_subnets.len() == 2),
    ("rekey-after", "60", |c| c.rekey_after.as_secs() == 60),
    ("conn-limit", "7", |c| c.conn_limit == 7),
    ("no-discovery", "", |c| !c.discovery),
    ("resume", "", |c| c.resume),
    ("mtu", "1400", |c| c.mtu == Some(1400)),
    ("no-fastdp", "", |c| !c.fastdp),
    ("no-port-guard", "", |c| !c.port_guard),
    ("no-masq-local", "", |c| c.keeps_sources),
    ("weave-bridge", "other", |c| c.bridge == "other"),
    ("workers", "3", |c| c.workers == 3),
    ("ipalloc-range", "10.40.0.0/16", |c| c.ipam.as_ref().is_some_and(|ipam| ipam.is_explicit)),
    ("ipalloc-default-subnet", "10.33.0.0/16", |c| {
        c.ipam.as_ref().is_some_and(|ipam| ipam.default_subnets != ipam.ranges)
    }),
    ("ipalloc-init", "observer", |c| {
        c.ipam.as_ref().is_some_and(|ipam| matches!(ipam.init, weave_ipam::Init::Observer))
    }),
    ("no-dns", "", |c| c.dns.is_none()),
    ("dns-domain", "other.", |c| c.dns.as_ref().is_some_and(|dns| dns.domain.to_string().contains("other"))),
    ("dns-listen-address", "192.0.2.1:5353", |c| c.dns.as_ref().is_some_and(|dns| dns.listen.port() == 5353)),
    ("dns-allow", "192.0.2.0/24", |c| c.dns.as_ref().is_some_and(|dns| dns.allow.len() == 1)),
    ("dns-ttl", "30", |c| c.dns.as_ref().is_some_and(|dns| dns.ttl.as_secs() == 30)),
    ("resolv-conf", "/x", |c| c.dns.as_ref().is_some_and(|dns| dns.resolv_conf == Path::new("/x"))),
    ("run-dir", "/x", |c| c.listen_api.socket == Path::new("/x/weave.sock")),
    ("http-addr", "/x.sock", |c| c.listen_api.socket == Path::new("/x.sock")),
    ("metrics-addr", ":6782", |c| c.metrics.is_some_and(|address| address.port() == 6782)),
    ("db-prefix", "/x", |c| c.db_prefix == Path::new("/x")),
    ("socket-mode", "0600", |c| c.listen_api.mode == 0o600),
];

/// Flags that do not reach the configuration, or not alone, and the test that shows what they do.
const SHOWN_ELSEWHERE: [(&str, &str); 12] = [
    ("socket-group", "a_group_is_found_by_its_name_or_number"),
    ("http-token-file", "the_api_over_tcp_wants_a_token_and_leaves_the_socket_where_it_is"),
    ("config", "a_file_says_what_flags_say"),
    ("check-config", "a_config_file_is_checked_before_it_is_used"),
    ("log-level", "a_service_manager_hears_that_a_router_is_ready_alive_and_stopping"),
    ("log-format", "a_log_for_programs_is_an_object_to_a_line"),
    ("cleanup", "without_a_router_the_host_is_examined_and_cleaned_by_weaver"),
    ("doctor", "without_a_router_the_host_is_examined_and_cleaned_by_weaver"),
    ("print-peer-name", "without_a_given_name_a_router_keeps_the_one_it_made"),
    ("notify-socket", "the_service_manager_hears_of_the_start_and_the_end"),
    ("watchdog-usec", "a_watchdog_that_means_another_process_is_not_ours"),
    ("watchdog-pid", "a_watchdog_that_means_another_process_is_not_ours"),
];

fn config(words: &[String]) -> Config {
    let args = ["weaver".to_owned()].iter().chain(words).cloned().collect::<Vec<_>>();
    Config::from_args(Args::try_parse_from(&args).unwrap(), "node", 2).unwrap()
}

#[test]
fn every_flag_has_an_effect_that_is_shown() {
    let file = std::env::temp_dir().join(format!("weave-password-{}", std::process::id()));
    fs::write(&file, "correct horse battery\n").unwrap();
    for (flag, value, is_so) in EFFECTS {
        assert!(!is_so(&config(&[])), "--{flag}: so it is without it");
        let value = value.replace("FILE", &file.display().to_string());
        let word = if value.is_empty() { format!("--{flag}") } else { format!("--{flag}={value}") };
        assert!(is_so(&config(&[word])), "--{flag} changes nothing");
    }
    fs::remove_file(&file).unwrap();
}

#[test]
fn no_flag_is_without_a_test() {
    let command = Args::command();
    let flags: BTreeSet<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let tested = EFFECTS.iter().map(|effect| effect.0).chain(SHOWN_ELSEWHERE.iter().map(|shown| shown.0));
    let tested: BTreeSet<&str> = tested.filter(|flag| *flag != "help" && *flag != "version").collect();
    assert_eq!(tested, flags);
}

#[test]
fn the_tests_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = String::new();
    for directory in ["router/src", "tests/tests", "launcher/tests"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    for (flag, test) in SHOWN_ELSEWHERE {
        assert!(sources.contains(&format!("fn {test}(")), "--{flag}: there is no test {test}");
    }
}
