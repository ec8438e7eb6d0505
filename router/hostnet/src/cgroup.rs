//! Finding a container's process by the container's id.
//!
//! Container engines put the 64-digit id into the path of the container's control group, each in its own way
//! (`/docker/ID`, `docker-ID.scope`, `libpod-ID.scope`, `cri-containerd-ID.scope`). The id is all we look for.

use std::{fs, path::Path};

/// Digits of a whole container id.
const ID_LEN: usize = 64;
/// Fewest digits of an abbreviated one, as tables show it.
const MIN_LEN: usize = 12;

/// The first process (lowest number) of the container whose id is `id` or, if `id` has at least 12 digits, begins
/// with it. `None` when there is none, when `id` is no such id, or when it fits more than one container.
#[must_use]
pub fn pid_of_container(id: &str) -> Option<u32> {
    find(Path::new("/proc"), id)
}

fn find(proc: &Path, id: &str) -> Option<u32> {
    let is_hex = id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    if !is_hex || !(MIN_LEN..=ID_LEN).contains(&id.len()) {
        return None;
    }
    let mut best: Option<(u32, String)> = None;
    for entry in fs::read_dir(proc).ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(cgroup) = fs::read_to_string(entry.path().join("cgroup")) else { continue };
        let Some(full) = container_ids(&cgroup).find(|full| full.starts_with(id)) else { continue };
        match &mut best {
            None => best = Some((pid, full.to_owned())),
            Some((_, other)) if other.as_str() != full => return None,
            Some((lowest, _)) => *lowest = pid.min(*lowest),
        }
    }
    best.map(|(pid, _)| pid)
}

/// Every run of exactly 64 hexadecimal digits.
fn container_ids(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| word.len() == ID_LEN && word.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1c09aa21be4f1c09aa21be4f1c09aa21be4f1c09aa21be4f1c09aa21be4f1c";

    fn with_proc(cgroups: &[(u32, String)], check: impl FnOnce(&Path)) {
        let name = format!("weave-cgroup-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let proc = std::env::temp_dir().join(name);
        for (pid, cgroup) in cgroups {
            fs::create_dir_all(proc.join(pid.to_string())).unwrap();
            fs::write(proc.join(pid.to_string()).join("cgroup"), cgroup).unwrap();
        }
        fs::create_dir_all(proc.join("self")).unwrap();
        check(&proc);
        fs::remove_dir_all(&proc).unwrap();
    }

    #[test]
    fn the_first_process_is_found_in_every_engines_notation() {
        for path in
            ["/docker/{}", "/system.slice/docker-{}.scope", "/machine.slice/libpod-{}.scope/container"]
        {
            let cgroup = format!("0::{}\n", path.replace("{}", ID));
            let others = [(20, cgroup.clone()), (9, cgroup), (3, "0::/init.scope\n".to_owned())];
            with_proc(&others, |proc| {
                assert_eq!(find(proc, ID), Some(9), "{path}");
                assert_eq!(find(proc, &ID[..12]), Some(9), "{path}");
            });
        }
    }

    #[test]
    fn a_prefix_that_fits_two_containers_finds_neither() {
        let other = format!("{}{}", &ID[..12], "0".repeat(52));
        with_proc(&[(1, format!("0::/docker/{ID}\n")), (2, format!("0::/docker/{other}\n"))], |proc| {
            assert_eq!(find(proc, &ID[..12]), None);
            assert_eq!(find(proc, &other), Some(2));
        });
    }

    #[test]
    fn short_or_strange_ids_find_nothing() {
        with_proc(&[(1, format!("0::/docker/{ID}\n"))], |proc| {
            for id in ["", "4f1c", "../../../etc", "web-server-01"] {
                assert_eq!(find(proc, id), None, "{id}");
            }
        });
    }
}
