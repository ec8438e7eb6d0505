//! A Kubernetes to test with: no package of Debian's has an API server, but the source package of its client is the whole
//! tree. Built once, kept in `target/kubernetes`.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use weave_tests::{lab::target_directory, tool};

use crate::screen::say;

/// The release of Debian that has the source package, and a Go that builds it.
const SOURCES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
";

/// Packages that are unpacked, not installed: a server must not start here, and another Go may be the system's.
const UNPACKED: [&str; 5] = [
    "golang-1.19-go",
    "golang-1.19-src",
    "golang-github-modern-go-reflect2-dev",
    "etcd-server",
    "kubernetes-client",
];

/// What is built.
const PROGRAMS: [&str; 5] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];

/// A program of this machine that the build calls, and the Debian package that has it.
pub(crate) const NEEDED: [(&str, &str); 2] = [("make", "make"), ("gcc", "gcc")];

/// The directory of the programs, which are built unless they are there.
pub(crate) fn programs() -> Result<PathBuf> {
    let place = target_directory()?.join("kubernetes");
    let programs = place.join("bin");
    if !programs.exists() {
        fs::create_dir_all(&place)?;
        let place = fs::canonicalize(place)?;
        say("downloading Kubernetes");
        let source = download(&place)?;
        say(&format!("building Kubernetes, which takes minutes: {}/build.log", place.display()));
        build(&place, &source)?;
        gather(&place, &source)?;
    }
    Ok(programs)
}

/// Downloads and unpacks what is needed; returns the directory of the source.
fn download(place: &Path) -> Result<PathBuf> {
    let [apt, packages, archives] = ["apt", "packages", "archives"].map(|name| place.join(name));
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(&packages)?;
    fs::create_dir_all(&archives)?;
    fs::write(apt.join("sources.list"), SOURCES)?;
    tool::run(apt_get(&apt).arg("update")).context("this works on Debian")?;
    tool::run(apt_get(&apt).current_dir(&packages).arg("download").args(UNPACKED))?;
    for package in entries(&packages)? {
        tool::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(place.join("root")))?;
    }
    tool::run(apt_get(&apt).current_dir(&archives).args(["source", "--download-only", "kubernetes"]))?;
    let all = entries(&archives)?;
    let archive = all.iter().find(|path| path.to_string_lossy().contains(".orig.tar"));
    tool::run(
        Command::new("tar").arg("-C").arg(place).arg("-xf").arg(archive.context("there is no source")?),
    )?;
    let is_source = |path: &&PathBuf| path.join("cmd/kube-apiserver").is_dir();
    let source = entries(place)?.iter().find(is_source).cloned().context("the archive is no Kubernetes")?;
    suit(place, &source)?;
    Ok(source)
}

/// apt with lists of its own: the system's may have no sources.
fn apt_get(directory: &Path) -> Command {
    let mut command = Command::new("apt-get");
    for (option, value) in [
        ("Dir::Etc::sourcelist", directory.join("sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".into()),
        ("Dir::State::lists", directory.join("lists")),
        ("Dir::Cache::pkgcache", PathBuf::new()),
        ("Dir::Cache::srcpkgcache", PathBuf::new()),
        ("APT::Sandbox::User", "root".into()),
    ] {
        command.arg("-o").arg(format!("{option}={}", value.display()));
    }
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Makes the source build with this Go, and without rsync.
fn suit(place: &Path, source: &Path) -> Result<()> {
    // The one that comes with it takes maps apart as Go 1.18 no longer makes them: every program would crash.
    let old = source.join("vendor/github.com/modern-go/reflect2");
    fs::remove_dir_all(&old)?;
    let new = place.join("root/usr/share/gocode/src/github.com/modern-go/reflect2");
    tool::run(Command::new("cp").arg("-r").arg(new).arg(&old))?;
    let script = source.join("hack/lib/golang.sh");
    let text = fs::read_to_string(&script)?;
    fs::write(script, text.replace("rsync -pc {}", "cp -u {}"))?;
    let parent = place.join("gopath/src/k8s.io");
    fs::create_dir_all(&parent)?;
    let link = parent.join("kubernetes");
    let _absent = fs::remove_file(&link);
    symlink(source, link).map_err(Into::into)
}

/// Its own Makefile also generates what the archive lacks.
fn build(place: &Path, source: &Path) -> Result<()> {
    let go = place.join("root/usr/lib/go-1.19");
    let mut path = go.join("bin").into_os_string();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let log = File::create(place.join("build.log"))?;
    let mut make = Command::new("make");
    make.current_dir(place.join("gopath/src/k8s.io/kubernetes"));
    make.arg(format!("WHAT={}", PROGRAMS.map(|program| format!("cmd/{program}")).join(" ")));
    make.env("GOROOT", &go).env("PATH", path);
    make.env("GOPATH", place.join("gopath")).env("HOME", place);
    make.env("GO111MODULE", "off").env("CGO_ENABLED", "0");
    // Without what only the clouds of some vendors need, which is half of the work.
    make.env("GOFLAGS", "-tags=providerless");
    make.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let status = make.status().context("cannot run make")?;
    ensure!(status.success(), "{} does not build: see {}/build.log", source.display(), place.display());
    Ok(())
}

/// Puts all programs into one directory, which appears only when it is complete.
fn gather(place: &Path, source: &Path) -> Result<()> {
    let fresh = place.join("bin.new");
    let _absent = fs::remove_dir_all(&fresh);
    fs::create_dir(&fresh)?;
    let built = source.join("_output/bin");
    let unpacked = place.join("root/usr/bin");
    let all = PROGRAMS.map(|program| (&built, program)).into_iter();
    for (from, program) in all.chain([(&unpacked, "etcd"), (&unpacked, "kubectl")]) {
        fs::copy(from.join(program), fresh.join(program))
            .with_context(|| format!("there is no {program}"))?;
    }
    fs::rename(fresh, place.join("bin")).map_err(Into::into)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}
