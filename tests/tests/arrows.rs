//! The walls between crates: who may depend on whom, what a core may pull in, and that no core reads a clock.
//!
//! A new crate, or a new arrow, is a change to the table here, made on purpose and seen in review.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// What each crate may depend on among ours. `weave-model` is allowed to all and not repeated.
const ARROWS: &[(&str, &[&str])] = &[
    ("weave-model", &[]),
    ("weave-link", &[]),
    ("weave-mesh", &[]),
    ("weave-sleeve", &[]),
    ("weave-datapath", &[]),
    ("weave-ipam", &[]),
    ("weave-names", &[]),
    ("weave-node", &["weave-mesh", "weave-ipam", "weave-names", "weave-datapath"]),
    ("weave-hostnet", &[]),
    ("weave-api", &[]),
    ("weave-control", &["weave-api"]),
    ("weave-dns", &["weave-names"]),
    ("weave-worker", &["weave-sleeve", "weave-datapath", "weave-hostnet"]),
    (
        "weave-router",
        &[
            "weave-link",
            "weave-mesh",
            "weave-sleeve",
            "weave-datapath",
            "weave-node",
            "weave-hostnet",
            "weave-worker",
            "weave-api",
            "weave-control",
            "weave-ipam",
            "weave-dns",
            "weave-names",
        ],
    ),
    ("weave-launcher", &["weave-api", "weave-hostnet", "weave-docker"]),
    ("weave-docker", &["weave-api", "weave-engine"]),
    ("weave-engine", &[]),
    // A client like any other.
    ("weave-cni", &["weave-api"]),
    ("weave-kube", &["weave-api"]),
    ("weave-policy", &[]),
    // Never the mesh: it works beside any network. Of a router, where one runs, it asks who has which address.
    ("weave-npc", &["weave-policy", "weave-hostnet", "weave-engine", "weave-api"]),
];

/// Developer crates: they may use anything of ours, and none of ours may use them.
const DEVELOPER: &[&str] = &["weave-tests", "weave-sim", "xtask"];

/// Synchronous, deterministic state machines, and the leaf they share.
const CORES: &[&str] = &[
    "weave-model",
    "weave-link",
    "weave-mesh",
    "weave-sleeve",
    "weave-datapath",
    "weave-ipam",
    "weave-names",
    "weave-node",
    "weave-policy",
];

/// The only crate that may contain `unsafe`.
const UNSAFE_ALLOWED: &str = "weave-hostnet";

/// Prefixes of crates that do input and output: no core may reach them, however indirectly.
const RUNTIMES: &[&str] = &[
    "tokio",
    "async-",
    "futures",
    "mio",
    "quinn",
    "hyper",
    "axum",
    "rtnetlink",
    "netlink-",
    "hickory",
    "socket2",
    "sled",
    "clap",
    "rustls",
];

/// Crates that no core may name itself: the system, and randomness that is not an argument.
const NOT_DIRECTLY: &[&str] = &["libc", "nix", "rustix", "rand", "getrandom", "tracing-subscriber"];

/// Text that means a clock, global randomness or the outside world.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "UNIX_EPOCH",
    "thread_rng",
    "OsRng",
    "from_entropy",
    "from_os_rng",
    "SystemRandom",
    "getrandom",
    "RandomState",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    ".await",
    "async fn",
    "static mut",
];

/// Whose dependencies are looked at: those of browsers and Windows never run here.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .other_options(["--locked", "--filter-platform", PLATFORM].map(str::to_owned))
        .exec()
        .expect("cargo metadata runs on the workspace that this test was built from")
}

fn is_ours(name: &str) -> bool {
    ARROWS.iter().any(|(crate_name, _)| *crate_name == name) || DEVELOPER.contains(&name)
}

/// Names of the direct dependencies, without those for tests only.
fn direct(package: &Package) -> impl Iterator<Item = &str> {
    package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development).map(|d| d.name.as_str())
}

fn package<'m>(metadata: &'m Metadata, name: &str) -> &'m Package {
    let found = metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == name);
    found.unwrap_or_else(|| panic!("{name} is in the table and not in the workspace"))
}

#[test]
fn every_crate_of_the_workspace_is_in_the_table() {
    let listed: BTreeSet<&str> =
        ARROWS.iter().map(|(name, _)| *name).chain(DEVELOPER.iter().copied()).collect();
    let metadata = metadata();
    let present: BTreeSet<&str> = metadata.workspace_packages().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(listed, present, "the table of arrows and the workspace differ");
}

#[test]
fn no_crate_depends_on_another_outside_the_table() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for (name, allowed) in ARROWS {
        for dependency in direct(package(&metadata, name)).filter(|d| is_ours(d)) {
            if dependency != "weave-model" && !allowed.contains(&dependency) {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that must not exist: {wrong:?}");
}

#[test]
fn cores_do_not_use_each_other_even_in_their_tests() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for name in CORES.iter().filter(|n| **n != "weave-node") {
        for dependency in package(&metadata, name).dependencies.iter().map(|d| d.name.as_str()) {
            if is_ours(dependency) && dependency != "weave-model" {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "cores that know each other: {wrong:?}");
}

#[test]
fn no_core_reaches_a_runtime_or_a_socket() {
    let metadata = metadata();
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
    let mut wrong = Vec::new();
    for core in CORES {
        let package = package(&metadata, core);
        for path in reachable(&metadata, &package.id, &names) {
            let last = path.last().copied().unwrap_or_default();
            if RUNTIMES.iter().any(|prefix| last.starts_with(prefix)) {
                wrong.push(path.join(" -> "));
            }
        }
        let forbidden = direct(package).filter(|d| NOT_DIRECTLY.contains(d));
        wrong.extend(forbidden.map(|d| format!("{core} -> {d} (named directly)")));
    }
    assert!(wrong.is_empty(), "cores that reach the outside world:\n{}", wrong.join("\n"));
}

/// For each package that `root` needs to be built, one shortest chain of names that leads there.
fn reachable<'m>(
    metadata: &'m Metadata,
    root: &'m PackageId,
    names: &BTreeMap<&'m PackageId, &'m str>,
) -> Vec<Vec<&'m str>> {
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves unless told not to");
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let mut seen = BTreeSet::from([root]);
    let mut queue = std::collections::VecDeque::from([(root, vec![names[root]])]);
    let mut paths = Vec::new();
    while let Some((id, path)) = queue.pop_front() {
        for dependency in &nodes[id].deps {
            let is_normal = dependency.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
            if is_normal && seen.insert(&dependency.pkg) {
                let mut longer = path.clone();
                longer.push(names[&dependency.pkg]);
                queue.push_back((&dependency.pkg, longer));
            }
        }
        paths.push(path);
    }
    paths
}

#[test]
fn unsafe_is_forbidden_in_every_crate_root_but_one() {
    let metadata = metadata();
    for package in metadata.workspace_packages().iter().filter(|p| p.name.as_str() != UNSAFE_ALLOWED) {
        let roots = package.targets.iter().filter(|t| t.is_lib() || t.is_bin());
        for target in roots {
            let source = fs::read_to_string(&target.src_path).expect("a target's root file can be read");
            assert!(
                source.contains("#![forbid(unsafe_code)]"),
                "{} lacks #![forbid(unsafe_code)]",
                target.src_path
            );
        }
    }
}

#[test]
fn no_core_reads_a_clock_randomness_or_the_outside_world() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for core in CORES {
        let root = package(&metadata, core).manifest_path.with_file_name("src");
        for file in product_sources(root.as_std_path()) {
            let source = fs::read_to_string(&file).expect("a source file can be read");
            for (number, line) in product_lines(&source) {
                if let Some(word) = IMPURE.iter().find(|w| line.contains(**w)) {
                    wrong.push(format!("{}:{number}: {word}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "cores take time, seeds and data as arguments:\n{}", wrong.join("\n"));
}

/// Every `.rs` file below `directory`, except modules that exist only under test.
fn product_sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut test_only = BTreeSet::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a source directory can be listed") {
            let path = entry.expect("a directory entry can be read").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let source = fs::read_to_string(&path).expect("a source file can be read");
                test_only.extend(test_modules(&path, &source));
                files.push(path);
            }
        }
    }
    files.retain(|f| !test_only.iter().any(|t| f.with_extension("") == *t || f.starts_with(t)));
    files
}

/// Paths, without extension, of the modules that `source` declares as `#[cfg(test)] mod name;`.
fn test_modules(file: &Path, source: &str) -> Vec<PathBuf> {
    let is_root = file.file_stem().is_some_and(|s| ["lib", "main", "mod"].iter().any(|r| s == *r));
    let base = if is_root { file.with_file_name("") } else { file.with_extension("") };
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    declared.filter_map(|pair| Some(base.join(pair[1].strip_prefix("mod ")?.strip_suffix(';')?))).collect()
}

/// The lines, with their numbers, that are neither comment nor part of a test module at the end of the file.
fn product_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = source.lines().collect();
    let inline_tests = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ") && pair[1].ends_with('{')
    });
    let end = inline_tests.unwrap_or(lines.len());
    let numbered = lines.into_iter().take(end).enumerate().map(|(i, line)| (i + 1, line));
    numbered.map(|(n, line)| (n, line.split("//").next().unwrap_or_default()))
}

#[test]
fn the_clock_check_sees_code_and_skips_comments_and_tests() {
    let source =
        "//! Instant::now\nlet a = Instant::now();\n#[cfg(test)]\nmod tests {\n Instant::now();\n}\n";
    let seen: Vec<usize> =
        product_lines(source).filter(|(_, l)| l.contains("Instant::now")).map(|(n, _)| n).collect();
    assert_eq!(seen, [2]);
    let declared = test_modules(Path::new("src/lib.rs"), "#[cfg(test)]\nmod props;\nmod ring;\n");
    assert_eq!(declared, [PathBuf::from("src/props")]);
}
