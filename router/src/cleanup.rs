//! Taking everything of ours from a host: `weaver --cleanup`, and the last breath of a router after `weave reset`.
//!
//! To be called while no router runs here; one that does is recognised by its socket and its store. Doing it twice is
//! fine. What is not ours is not touched: interfaces by name *and* kind, a store only if it is one.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use weave_api::Removed;
use weave_hostnet::{Host, PortGuard, nft};

use crate::{
    config::Config,
    exit::{Fatal, exit_for},
    fastdp, store,
};

/// What a router and its launcher keep beside the control socket.
const RUN_FILES: [&str; 3] = ["ring-mark", "weaver.pid", "weaver.log"];

/// Removes everything; the run directory's files last, as one of them is the log.
pub(crate) async fn run(config: &Config) -> anyhow::Result<Removed> {
    let control = weave_control::Listener::bind(&config.listen_api)
        .await
        .map_err(|error| Fatal::error(error.exit(), error.to_string()))?;
    // First what may be refused: then nothing is half done.
    let mut files = Vec::new();
    remove_store(&config.db_prefix, &mut files)?;
    let host = Host::open().await?;
    let mut interfaces = host.remove_everything().await?;
    if host.remove_link(&config.bridge).await? {
        interfaces.push(config.bridge.clone());
    }
    nft::remove()?;
    fastdp::remove_protection()?;
    PortGuard::remove()?;
    let run_dir = config.listen_api.socket.parent().unwrap_or_else(|| Path::new("/")).to_owned();
    drop(control);
    for name in RUN_FILES {
        remove_file(&run_dir.join(name), &mut files)?;
    }
    // Only if nobody else keeps anything there.
    let _in_use = std::fs::remove_dir(&run_dir);
    interfaces.sort();
    Ok(Removed { interfaces, files })
}

fn remove_store(prefix: &Path, removed: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let path = store::path_for(prefix);
    if !path.exists() {
        return Ok(());
    }
    store::refuse_foreign(&path)?;
    match store::Store::open(prefix) {
        Ok(store) => drop(store),
        // Damaged: all the more reason to remove it. But not under somebody's feet.
        Err(error) if exit_for(&error) == weave_api::Exit::Store => {}
        Err(error) => return Err(error),
    }
    std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove the store {}", path.display()))?;
    removed.push(path);
    // The directory that is ours by default goes when it is empty.
    if let Some(parent) = prefix.parent().filter(|parent| parent.ends_with("weave")) {
        let _in_use = std::fs::remove_dir(parent);
    }
    Ok(())
}

fn remove_file(path: &Path, removed: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => {
            removed.push(path.to_owned());
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}
