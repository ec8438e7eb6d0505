//! The host: its kernel, its settings, its routes, its disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use weave_api::{Diagnosis, Severity};
use weave_hostnet::{Host, nft};

use super::Subject;
use crate::{fastdp, store};

/// A store beyond this many bytes has not been compacted for long; that of a large host is below a megabyte.
const LARGE_STORE: u64 = 256 << 20;
/// Least files that a process must be allowed to have open: one for each link's worth of sockets, and a reserve.
const FEW_FILES: u64 = 1024;
/// A table is nearly full from here on, in percent.
const NEARLY_FULL: u64 = 80;

pub(super) async fn examine(
    host: &Host,
    subject: &Subject,
    is_exposed: bool,
    diagnosis: &mut Diagnosis,
) -> anyhow::Result<()> {
    kernel(host, subject, diagnosis).await?;
    settings(host, is_exposed, diagnosis).await?;
    routes(host, subject, diagnosis).await?;
    disk(&subject.db_prefix, diagnosis);
    neighbours(diagnosis);
    open_files(diagnosis);
    Ok(())
}

async fn kernel(host: &Host, subject: &Subject, diagnosis: &mut Diagnosis) -> anyhow::Result<()> {
    let can = host.capabilities().await?;
    let needs = [
        (
            "kernel.tun",
            can.tun,
            "/dev/net/tun cannot be opened: the tunnel cannot work",
            "load the module: modprobe tun; in a container, pass the device in",
        ),
        (
            "kernel.bridge",
            can.bridge,
            "no bridge can be made here",
            "load the module: modprobe bridge; run as root, with CAP_NET_ADMIN",
        ),
        (
            "kernel.veth",
            can.veth,
            "no veth pair can be made here: containers cannot be attached",
            "load the module: modprobe veth",
        ),
        (
            "kernel.namespaces",
            can.namespaces,
            "other network namespaces cannot be entered: containers cannot be attached",
            "run as root, with CAP_SYS_ADMIN",
        ),
    ];
    for (id, works, what, remedy) in needs {
        diagnosis.check(id);
        if !works {
            diagnosis.find(id, Severity::Error, what, remedy);
        }
    }
    diagnosis.check("kernel.nat");
    if !can.nat {
        let what = "nf_tables cannot do NAT here: `weave expose` works only with --without-masquerade";
        diagnosis.find(
            "kernel.nat",
            Severity::Warning,
            what,
            "load the modules: modprobe nf_tables nft_masq",
        );
    }
    diagnosis.check("kernel.vxlan");
    if subject.fastdp
        && let Err(error) = host.check_vxlan().await
    {
        let what = format!("the kernel cannot carry frames, the slower tunnel does: {error}");
        diagnosis.find(
            "kernel.vxlan",
            Severity::Warning,
            what,
            "load the module: modprobe vxlan; or say --no-fastdp",
        );
    }
    diagnosis.check("kernel.esp");
    if subject.fastdp
        && subject.is_private
        && let Err(error) = fastdp::can_encrypt()
    {
        let what = format!("the kernel cannot encrypt frames, the slower tunnel does: {error}");
        diagnosis.find(
            "kernel.esp",
            Severity::Warning,
            what,
            "load the modules: modprobe -a xfrm_user esp4 esp6; or say --no-fastdp",
        );
    }
    Ok(())
}

async fn settings(host: &Host, is_exposed: bool, diagnosis: &mut Diagnosis) -> anyhow::Result<()> {
    let id = "sysctl.bridge-nf-call-iptables";
    diagnosis.check(id);
    // In the namespace of the host that we look at, which is our own.
    let obstacles = nft::forward_obstacles()?;
    if sysctl("net/bridge/bridge-nf-call-iptables") == Some(1) && !obstacles.is_empty() {
        let what = format!(
            "frames between containers pass the host's packet filter, and {} drops what no rule lets through",
            obstacles.join(", ")
        );
        let remedy =
            "sysctl -w net.bridge.bridge-nf-call-iptables=0, or let packets between containers pass there";
        diagnosis.find(id, Severity::Warning, what, remedy);
    }
    diagnosis.check("sysctl.ip_forward");
    if is_exposed && sysctl("net/ipv4/ip_forward") == Some(0) {
        let what = "the host is exposed and does not forward: containers reach nothing outside through it";
        diagnosis.find("sysctl.ip_forward", Severity::Warning, what, "sysctl -w net.ipv4.ip_forward=1");
    }
    diagnosis.check("sysctl.rp_filter");
    if sysctl("net/ipv4/conf/all/rp_filter") == Some(1) && host.underlay_addresses().await?.len() > 1 {
        let what =
            "the host has several addresses and drops packets that come another way than answers would go";
        diagnosis.find(
            "sysctl.rp_filter",
            Severity::Warning,
            what,
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        );
    }
    Ok(())
}

async fn routes(host: &Host, subject: &Subject, diagnosis: &mut Diagnosis) -> anyhow::Result<()> {
    diagnosis.check("route.overlap");
    for range in &subject.ranges {
        let Some(route) = host.overlapping_route(*range).await? else { continue };
        if route.device.as_deref() == Some(&subject.bridge) {
            continue;
        }
        let what = format!(
            "the address range {range} overlaps the host's route {route}: traffic of one of them goes astray"
        );
        let remedy =
            "launch all routers with an --ipalloc-range that is free on all hosts, or remove the route";
        diagnosis.find("route.overlap", Severity::Warning, what, remedy);
    }
    Ok(())
}

fn disk(prefix: &Path, diagnosis: &mut Diagnosis) {
    let path = store::path_for(prefix);
    diagnosis.check("store.writable");
    if let Some(existing) = path.ancestors().find(|path| path.is_dir())
        && let Err(error) = try_to_write(existing)
    {
        let what =
            format!("{} cannot be written to ({error}): nothing would survive a restart", existing.display());
        let remedy = "make room or permit it, or keep the store elsewhere with --db-prefix";
        diagnosis.find("store.writable", Severity::Error, what, remedy);
    }
    diagnosis.check("store.size");
    let size = size_of(&path);
    if size > LARGE_STORE {
        let what = format!("the store {} has grown to {} MB", path.display(), size >> 20);
        let remedy = "stop and launch the router: it compacts its store; if that does not help, report it";
        diagnosis.find("store.size", Severity::Warning, what, remedy);
    }
}

/// Makes a file and removes it: what permissions and mounts really allow.
fn try_to_write(directory: &Path) -> std::io::Result<()> {
    let probe: PathBuf = directory.join(format!(".weave-doctor-{}", std::process::id()));
    fs::write(&probe, b"?")?;
    fs::remove_file(&probe)
}

fn size_of(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() })
        })
        .sum()
}

fn neighbours(diagnosis: &mut Diagnosis) {
    diagnosis.check("neighbours.full");
    let Some(limit) = sysctl("net/ipv4/neigh/default/gc_thresh3") else { return };
    let table = fs::read_to_string("/proc/net/arp").unwrap_or_default();
    let held = count_collected(&table);
    if held * 100 >= limit * NEARLY_FULL {
        let what = format!(
            "the neighbour table holds {held} entries and may hold {limit}: new ones will be refused"
        );
        let remedy = format!("sysctl -w net.ipv4.neigh.default.gc_thresh3={}", limit * 4);
        diagnosis.find("neighbours.full", Severity::Warning, what, remedy);
    }
}

/// Lines of `/proc/net/arp` that count towards the limit: permanent entries (`ATF_PERM`) do not.
fn count_collected(table: &str) -> u64 {
    const PERMANENT: u32 = 4;
    let flags = |line: &str| {
        let flags = line.split_whitespace().nth(2)?.strip_prefix("0x")?.to_owned();
        u32::from_str_radix(&flags, 16).ok()
    };
    table.lines().skip(1).filter_map(flags).filter(|flags| flags & PERMANENT == 0).map(|_| 1).sum()
}

fn open_files(diagnosis: &mut Diagnosis) {
    diagnosis.check("files.limit");
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(limit) = soft_limit(&limits, "Max open files") else { return };
    let open = fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64);
    let remedy =
        "raise it where the router is started: LimitNOFILE=65536 in a unit of systemd, or ulimit -n 65536";
    if open * 100 >= limit * NEARLY_FULL {
        let what = format!("the router has {open} files open and may have {limit}");
        diagnosis.find("files.limit", Severity::Error, what, remedy);
    } else if limit < FEW_FILES {
        let what = format!("the router may open only {limit} files");
        diagnosis.find("files.limit", Severity::Warning, what, remedy);
    }
}

fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permanent_neighbours_do_not_count_towards_the_limit() {
        let table = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.1         0x1         0x2         02:00:00:00:00:01     *        eth0
10.0.0.2         0x1         0x6         02:00:00:00:00:02     *        weave-vx
";
        assert_eq!(count_collected(table), 1);
        assert_eq!(count_collected(""), 0);
    }

    #[test]
    fn a_limit_is_found_by_its_name() {
        let limits = "Limit  Soft  Hard  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024));
        assert_eq!(soft_limit("Max open files unlimited unlimited", "Max open files"), None);
    }
}
