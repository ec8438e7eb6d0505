//! `cargo xtask test --guest`: tests that need what the kernel of this machine may lack (ESP), in a kernel that has it.
//!
//! A kernel of Debian's boots under QEMU, without hardware support and without a disk: its initramfs holds the built tests and
//! what they call. What is downloaded and unpacked is kept in `target/guest`. The guest says its verdict in its last line,
//! and powers off.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use weave_tests::{lab::target_directory, tool};

use crate::screen::say;

/// What the guest's last line begins with; the exit code follows.
const VERDICT: &str = "guest-verdict:";
/// How long all tests together may take. An emulated processor is some twenty times slower than this one.
const LIMIT_S: u32 = 2400;

/// Programs of the tests and of the lab; whatever else a script calls is busybox's.
const TOOLS: [&str; 14] = [
    "readlink", "sleep", "sh", "ip", "bridge", "nft", "tc", "unshare", "nsenter", "setpriv", "mount",
    "umount", "sysctl", "dirname",
];
/// A program of this machine that makes or runs the guest, and the Debian package that has it.
const NEEDED: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("tc", "iproute2"),
    ("xz", "xz-utils"),
];
/// Modules that nothing asks the kernel for by name, or that are wanted before anybody does; the others come by themselves.
const MODULES: &str = "tun veth bridge vxlan nf_tables nft_counter xfrm_user esp4 esp6 gcm seqiv echainiv chacha20poly1305 sch_netem";
/// What lies below `kernel/` in the modules' directory and is of use.
const MODULE_TREES: [&str; 5] = ["net", "crypto", "arch/x86/crypto", "lib", "drivers/net"];

/// The first process of the guest.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=1 WEAVE_BIN_DIR=/target/debug
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /var/tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t tmpfs -o size=512m tmpfs /tmp
/bin/busybox mkdir -p /dev/net /dev/pts
/bin/busybox --install -s /bin
for module in @MODULES@; do modprobe "$module" 2>/dev/null; done
ip link set lo up
echo "kernel $(uname -r), ready after $(cut -d. -f1 /proc/uptime) s"
code=0
@COMMANDS@
echo "@VERDICT@ $code"
sync
poweroff -f
"#;

/// A test program and its arguments.
pub(crate) struct Tests {
    /// The package, as cargo names it, and the features with which it is built.
    pub(crate) package: &'static str,
    pub(crate) features: &'static str,
    /// The target of the package that holds the tests.
    pub(crate) target: &'static str,
    /// Which of its tests, by a part of their names; none means all.
    pub(crate) filter: &'static str,
    /// Modules that it needs and others do without; they stay loaded.
    pub(crate) modules: &'static str,
}

/// Runs `tests` in a guest with the newest kernel of this series; `told` gets what it says, line by line.
pub(crate) fn run(series: &str, tests: &[Tests], only: Option<&str>, told: impl FnMut(&str)) -> Result<()> {
    build_programs()?;
    let guest = target_directory()?.join("guest");
    fs::create_dir_all(&guest)?;
    need_programs()?;
    let kernel = Kernel::fetch(&guest, series)?;
    let mut commands = String::new();
    let mut programs = BTreeSet::new();
    for one in tests {
        let program = built_test(one)?;
        let name = program.file_name().context("a test program has a name")?.to_string_lossy().into_owned();
        let filter = only.unwrap_or(one.filter);
        for module in one.modules.split_whitespace() {
            commands += &format!("modprobe {module} || code=1\n");
        }
        commands += &format!(
            "/target/debug/deps/{name} {filter} --include-ignored --nocapture --test-threads=1 || code=1\n"
        );
        programs.insert(program);
    }
    let image = assemble(&guest, &kernel, &programs, &commands)?;
    boot(&kernel, &image, told)
}

/// What the guest's tests start besides themselves.
fn build_programs() -> Result<()> {
    let _weaver_and_weave = weave_tests::product::Programs::build(weave_tests::product::Profile::Dev)?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let status = cargo.args(["build", "--quiet", "--package", "weave-tests", "--bins"]).status()?;
    ensure!(status.success(), "the traffic generator does not build");
    Ok(())
}

/// A kernel of Debian's, unpacked.
struct Kernel {
    image: PathBuf,
    version: String,
    modules: PathBuf,
}

impl Kernel {
    /// Downloads and unpacks the newest cloud kernel whose version begins with `series`, unless it is there already.
    fn fetch(guest: &Path, series: &str) -> Result<Self> {
        let place = guest.join(format!("kernel-{series}"));
        if !place.join("done").exists() {
            let packages =
                tool::run(Command::new("apt-cache").args(["pkgnames", &format!("linux-image-{series}.")]))?;
            let newest = packages.lines().filter(|name| name.ends_with("-cloud-amd64-unsigned"));
            let newest = newest.max_by_key(|name| natural(name)).with_context(|| {
                format!("no package of a kernel {series}: this works on Debian, after apt-get update")
            })?;
            say(&format!("downloading {newest}"));
            let _nothing_there = fs::remove_dir_all(&place);
            fs::create_dir_all(&place)?;
            tool::run(Command::new("apt-get").current_dir(&place).args(["download", newest]))?;
            let package = only_entry(&place)?;
            tool::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&place))?;
            fs::remove_file(package)?;
            fs::write(place.join("done"), "")?;
        }
        let modules = only_entry(&place.join("lib/modules"))?;
        let version = modules.file_name().context("modules have a version")?.to_string_lossy().into_owned();
        Ok(Self { image: place.join(format!("boot/vmlinuz-{version}")), version, modules })
    }
}

/// By which `6.1.0-9` comes before `6.1.0-56`.
fn natural(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn only_entry(directory: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(directory).with_context(|| format!("no {}", directory.display()))?;
    Ok(entries.next().with_context(|| format!("nothing in {}", directory.display()))??.path())
}

/// Installs what is missing.
fn need_programs() -> Result<()> {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| which(program).is_err()).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        say(&format!("installing {}", missing.join(", ")));
        let mut install = Command::new("apt-get");
        install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
        install.env("DEBIAN_FRONTEND", "noninteractive");
        tool::run(&mut install).with_context(|| format!("install {} by hand", missing.join(", ")))?;
    }
    Ok(())
}

fn which(program: &str) -> Result<PathBuf> {
    let path = tool::run(Command::new("sh").args(["-c", &format!("command -v {program}")]))?;
    Ok(fs::canonicalize(path.trim())?)
}

/// Builds a test program and says where it is.
fn built_test(tests: &Tests) -> Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stderr(Stdio::inherit());
    cargo.args(["test", "--quiet", "--no-run", "--message-format=json", "--package", tests.package]);
    cargo.args(["--features", tests.features, "--test", tests.target]);
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "{} does not build", tests.target);
    let messages = String::from_utf8(output.stdout)?;
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut ours = artifacts.filter(|a| a["target"]["name"] == tests.target && a["executable"].is_string());
    let found = ours.next().and_then(|artifact| artifact["executable"].as_str().map(PathBuf::from));
    found.with_context(|| format!("cargo does not say where {} is", tests.target))
}

/// Lays out the guest's file system and packs it.
fn assemble(guest: &Path, kernel: &Kernel, tests: &BTreeSet<PathBuf>, commands: &str) -> Result<PathBuf> {
    let root = guest.join("root");
    let _nothing_there = fs::remove_dir_all(&root);
    for directory in ["bin", "sbin", "lib/modules", "etc", "target/debug/deps"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(which("busybox")?, root.join("bin/busybox"))?;
    symlink("/bin/busybox", root.join("sbin/modprobe"))?;
    for tool in TOOLS {
        let from = which(tool)?;
        put(&root, &from, &Path::new("/usr/sbin").join(tool))?;
    }
    let debug = target_directory()?.join("debug");
    for name in ["weaver", "weave", "weave-lab"] {
        put(&root, &debug.join(name), &Path::new("/target/debug").join(name))?;
    }
    for test in tests {
        let name = test.file_name().context("a test program has a name")?;
        put(&root, test, &Path::new("/target/debug/deps").join(name))?;
    }
    // Its tests know it by the place where it was built.
    let npc = debug.join("weave-npc");
    put(&root, &npc, &npc)?;
    modules(kernel, &root)?;
    for (name, text) in [
        ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("group", "root:x:0:\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("resolv.conf", ""),
        (
            "protocols",
            "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nesp 50 IPSEC-ESP\nipv6-icmp 58 IPv6-ICMP\n",
        ),
    ] {
        fs::write(root.join("etc").join(name), text)?;
    }
    let init =
        INIT.replace("@MODULES@", MODULES).replace("@COMMANDS@", commands).replace("@VERDICT@", VERDICT);
    fs::write(root.join("init"), init)?;
    let image = guest.join("initramfs");
    let script = "chmod 755 init && find . | busybox cpio -o -H newc >\"$1\"";
    tool::run(Command::new("sh").current_dir(&root).args(["-ec", script, "sh"]).arg(&image))?;
    Ok(image)
}

/// Copies a program without what only debuggers read, and the libraries that it needs.
fn put(root: &Path, from: &Path, to: &Path) -> Result<()> {
    let place = root.join(to.strip_prefix("/")?);
    fs::create_dir_all(place.parent().context("a file lies in a directory")?)?;
    tool::run(Command::new("strip").arg("-o").arg(&place).arg(from))?;
    let libraries = tool::output(Command::new("ldd").arg(from))?;
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        if !place.exists() {
            fs::create_dir_all(place.parent().context("a library lies in a directory")?)?;
            fs::copy(library, place)?;
        }
    }
    Ok(())
}

fn modules(kernel: &Kernel, root: &Path) -> Result<()> {
    let to = root.join("lib/modules").join(&kernel.version);
    for tree in MODULE_TREES {
        let parent = to.join("kernel").join(tree);
        fs::create_dir_all(&parent)?;
        let from = kernel.modules.join("kernel").join(tree);
        tool::run(Command::new("cp").arg("-r").arg(from.join(".")).arg(&parent))?;
    }
    // Newer kernels come with compressed ones, which the guest's modprobe does not read.
    tool::run(Command::new("find").arg(&to).args(["-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"]))?;
    for list in ["modules.builtin", "modules.order"] {
        fs::copy(kernel.modules.join(list), to.join(list))?;
    }
    let base = root.to_str().context("the build directory has a name in UTF-8")?;
    let depmod = format!("busybox depmod -b {base} {}", kernel.version);
    tool::run(Command::new("sh").args(["-c", &depmod])).map(drop)
}

/// Boots, shows what the guest says, and takes its verdict.
fn boot(kernel: &Kernel, image: &Path, mut told: impl FnMut(&str)) -> Result<()> {
    let mut qemu = Command::new("timeout");
    qemu.arg(LIMIT_S.to_string()).arg("qemu-system-x86_64");
    // `rep movsb` is slow where it is emulated; without it the guest copies several times faster.
    qemu.args(["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm", "-smp", "1", "-m", "3G"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check"]);
    let mut running = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run qemu")?;
    let said = BufReader::new(running.stdout.take().context("qemu has no output")?);
    let mut verdict = None;
    for line in said.lines() {
        let line = line.context("the guest said something that is no text")?;
        match line.trim().strip_prefix(VERDICT) {
            Some(code) => verdict = Some(code.trim().to_owned()),
            None => told(line.trim_end()),
        }
    }
    let status = running.wait()?;
    match verdict.as_deref() {
        Some("0") => Ok(()),
        Some(_) => bail!("tests failed in the guest with kernel {}", kernel.version),
        None => bail!("the guest with kernel {} ended without a verdict ({status})", kernel.version),
    }
}
