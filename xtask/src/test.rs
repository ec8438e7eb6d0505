//! `cargo xtask test`: every check and test there is, in the order in which they fail fastest.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{guest, kubernetes, screen::say, upgrade};

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Leave out the routers end to end, the name server against dig, and the demo
    #[arg(long)]
    quick: bool,
    /// Only the whole table of network policies: every case, as the evaluator, the elements and the kernel see it
    #[arg(long, conflicts_with_all = ["quick", "real"])]
    policy: bool,
    /// Only the tests against programs of others: Docker's engine, podman, containerd. What is missing is installed, on Debian and as root
    #[arg(long, conflicts_with = "quick")]
    real: bool,
    /// Only the tests in a real cluster: an API server, and kubelets with containerd on hosts of the lab. Kubernetes is built first, once. On Debian and as root
    #[arg(long, conflicts_with_all = ["quick", "policy", "real"])]
    kubernetes: bool,
    /// Only the tests beside a former version, which is built from this clone's history first
    #[arg(long, conflicts_with_all = ["quick", "policy", "real", "kubernetes", "guest"])]
    upgrade: bool,
    /// Which version that is, as git names commits
    #[arg(long, requires = "upgrade", default_value = upgrade::FORMER, value_name = "REVISION")]
    from: String,
    /// Only the tests that need ESP, in an emulated machine with a kernel that has it. On Debian; as root, where programs are missing
    #[arg(long, conflicts_with_all = ["quick", "policy", "real", "kubernetes"])]
    guest: bool,
    /// Series of the guest's kernel
    #[arg(long, requires = "guest", default_value = "6.1", value_name = "VERSION")]
    kernel: String,
    /// Of the guest's tests, only those whose names contain this
    #[arg(long, requires = "guest", value_name = "NAME")]
    only: Option<String>,
}

/// One command of the run.
struct Check {
    title: &'static str,
    /// What cargo is asked, in words without blanks in them.
    command: &'static str,
    is_quick: bool,
}

impl Check {
    fn run(&self, environment: &[(&str, &Path)]) -> Result<()> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(self.command.split(' '));
        command.envs(environment.iter().copied());
        let status = command.status().context("cannot run cargo")?;
        if !status.success() {
            bail!("{} failed: cargo {}", self.title, self.command);
        }
        Ok(())
    }
}

/// Everything that is run. Namespace tests fail where namespaces cannot be made: a test that cannot run has not passed.
const CHECKS: [Check; 7] = [
    Check { title: "formatting", command: "fmt --all --check", is_quick: true },
    Check {
        title: "lints",
        command: "clippy --quiet --workspace --all-targets -- --deny warnings",
        is_quick: true,
    },
    Check {
        title: "walls between crates",
        command: "test --quiet --package weave-tests --test arrows",
        is_quick: true,
    },
    Check {
        title: "unit, property and simulation tests, and those of the data plane in network namespaces",
        command: "test --quiet --workspace --exclude weave-tests",
        is_quick: true,
    },
    Check {
        title: "name server against dig",
        command: "test --quiet --package weave-dns --test tools -- --include-ignored",
        is_quick: false,
    },
    Check {
        title: "routers end to end in network namespaces",
        command: "test --package weave-tests -- --include-ignored --test-threads=2",
        is_quick: false,
    },
    Check { title: "demo", command: "xtask demo", is_quick: false },
];

/// The whole table of network policies, of which the others have a sample.
const POLICY_CHECKS: [Check; 2] = [
    Check {
        title: "network policies: the specification, requirement by requirement and case by case",
        command: "test --package weave-policy",
        is_quick: true,
    },
    Check {
        title: "network policies: every cell of every case, with real packets",
        command: "test --package weave-npc --test netns -- --include-ignored --exact table::the_whole_table_is_as_the_specification_says",
        is_quick: true,
    },
];

/// What `--real` runs: its tests are built for it alone, so that nobody without these programs sees them fail.
const REAL: [Check; 5] = [
    Check {
        title: "lints of the tests against programs of others",
        command: "clippy --quiet --package weave-tests --features real --tests -- --deny warnings",
        is_quick: false,
    },
    Check {
        title: "Docker's engine on hosts of a mesh",
        command: "test --package weave-tests --features real --test real_docker -- --include-ignored --test-threads=1",
        is_quick: false,
    },
    Check {
        title: "the examples, and the router as a container image",
        command: "test --package weave-tests --features real --test real_examples -- --include-ignored --test-threads=1",
        is_quick: false,
    },
    Check {
        title: "policies in files for containers of Docker",
        command: "test --package weave-tests --features real --test real_policy -- --include-ignored --test-threads=1",
        is_quick: false,
    },
    Check {
        title: "podman and containerd with our CNI plugins",
        command: "test --package weave-tests --features real --test real_cni -- --include-ignored --test-threads=1",
        is_quick: false,
    },
];

/// What `--kubernetes` runs.
const KUBERNETES: [Check; 2] = [
    Check {
        title: "lints of the tests in a cluster",
        command: "clippy --quiet --package weave-tests --features kubernetes --tests -- --deny warnings",
        is_quick: false,
    },
    Check {
        title: "our manifest in a cluster of Kubernetes",
        command: "test --package weave-tests --features kubernetes --test real_kubernetes -- --include-ignored --test-threads=1",
        is_quick: false,
    },
];

/// What `--upgrade` runs.
const UPGRADE: [Check; 2] = [
    Check {
        title: "lints of the tests beside a former version",
        command: "clippy --quiet --package weave-tests --features upgrade --tests -- --deny warnings",
        is_quick: false,
    },
    Check {
        title: "routers beside those of a former version, and in their place",
        command: "test --package weave-tests --features upgrade --test upgrade -- --include-ignored --test-threads=1",
        is_quick: false,
    },
];

/// What `--guest` begins with: its tests are built for it alone.
const GUEST_LINTS: Check = Check {
    title: "lints of the tests in the guest",
    command: "clippy --quiet --package weave-tests --features guest --tests -- --deny warnings",
    is_quick: false,
};

/// What `--guest` runs.
const GUEST: [guest::Tests; 9] = [
    guest::Tests { package: "weave-hostnet", features: "", target: "netns", filter: "esp::", modules: "" },
    guest::Tests { filter: "--skip by_hand", ..end_to_end("e2e_esp") },
    end_to_end("e2e_fastdp"),
    end_to_end("e2e_secrecy"),
    end_to_end("e2e_flooding"),
    end_to_end("e2e_sizes"),
    end_to_end("e2e_relay"),
    end_to_end("e2e_ipv6"),
    // Last, as frames through bridges pass the hooks of IP from here on.
    guest::Tests {
        package: "weave-npc",
        features: "",
        target: "netns",
        filter: "traffic:: the_nft_tool",
        modules: "br_netfilter",
    },
];

const fn end_to_end(target: &'static str) -> guest::Tests {
    guest::Tests { package: "weave-tests", features: "guest", target, filter: "", modules: "" }
}

/// A program that nodes of `--kubernetes` need, and the Debian package that has it.
const NEEDED_BY_NODES: [(&str, &str); 7] = [
    ("busybox", "busybox-static"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("openssl", "openssl"),
    ("dnsmasq", "dnsmasq-base"),
    ("/usr/lib/cni/portmap", "containernetworking-plugins"),
];

/// A program that `--real` needs, and the Debian package that has it.
const NEEDED: [(&str, &str); 13] = [
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("systemd-analyze", "systemd"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("busybox", "busybox-static"),
    ("openssl", "openssl"),
    ("podman", "podman"),
    ("crun", "crun"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/portmap", "containernetworking-plugins"),
];

impl Test {
    pub(crate) fn run(&self) -> Result<std::process::ExitCode> {
        let start = weave_tests::clock::now();
        if self.guest {
            GUEST_LINTS.run(&[])?;
            guest::run(&self.kernel, &GUEST, self.only.as_deref(), say)?;
            say(&format!("all tests passed in the guest in {:.0} s", start.elapsed().as_secs_f64()));
            return Ok(std::process::ExitCode::SUCCESS);
        }
        let mut former = None;
        let chosen: Vec<&Check> = if self.upgrade {
            former = Some(upgrade::programs(&self.from)?);
            UPGRADE.iter().collect()
        } else if self.kubernetes {
            install(&[NEEDED_BY_NODES.as_slice(), &kubernetes::NEEDED].concat())?;
            kubernetes::programs()?;
            KUBERNETES.iter().collect()
        } else if self.real {
            install(&NEEDED)?;
            REAL.iter().collect()
        } else if self.policy {
            POLICY_CHECKS.iter().collect()
        } else {
            CHECKS.iter().filter(|c| c.is_quick || !self.quick).collect()
        };
        let environment: Vec<_> = former.iter().map(|path| (upgrade::DIRECTORY, path.as_path())).collect();
        for (number, check) in chosen.iter().enumerate() {
            say(&format!("[{}/{}] {}", number + 1, chosen.len(), check.title));
            check.run(&environment)?;
        }
        say(&format!("all {} checks passed in {:.0} s", chosen.len(), start.elapsed().as_secs_f64()));
        Ok(std::process::ExitCode::SUCCESS)
    }
}

/// Installs what is missing. The engines are the tests' own, so the one of the package is not started.
fn install(needed: &[(&str, &str)]) -> Result<()> {
    let is_missing = |(program, _): &&(&str, &str)| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program} >/dev/null")]).status();
        !found.is_ok_and(|status| status.success())
    };
    let packages: Vec<&str> = needed.iter().filter(is_missing).map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    say(&format!("installing {}", packages.join(", ")));
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--no-install-recommends"]).args(&packages);
    // Debian's way to install a service without starting it.
    command.env("RUNLEVEL", "1").env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().context("cannot run apt-get; install the packages by hand")?;
    if !status.success() {
        bail!("apt-get could not install {}; install them by hand", packages.join(", "));
    }
    Ok(())
}
