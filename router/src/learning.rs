//! Tells the mesh of stations on our bridge that nobody attached through us.

use std::{collections::BTreeSet, time::Duration};

use weave_hostnet::{FdbEvent, FdbWatch, Host, LinkIndex};
use weave_model::Mac;

use crate::engine::{Handle, Stopped};

/// After a failure, when it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until the engine has stopped.
pub(crate) async fn run(host: Host, bridge: LinkIndex, engine: Handle) {
    loop {
        match follow(&host, bridge, &engine).await {
            Ok(Ok(())) => {}
            Ok(Err(Stopped)) => return,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "cannot see what the bridge learns; trying again"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Tells what there is, and then what changes, until something was missed.
async fn follow(host: &Host, bridge: LinkIndex, engine: &Handle) -> anyhow::Result<Result<(), Stopped>> {
    let mut news = host.watch_fdb(bridge).await?;
    let all: BTreeSet<Mac> = host.learned_stations(bridge).await?.into_keys().collect();
    if let Err(stopped) = engine.run(move |engine, now| engine.node.relearn(&all, now)).await {
        return Ok(Err(stopped));
    }
    Ok(tell(&mut news, engine).await)
}

async fn tell(news: &mut FdbWatch, engine: &Handle) -> Result<(), Stopped> {
    while let Some(event) = news.next().await {
        match event {
            FdbEvent::Learned { mac, .. } => {
                engine.run(move |engine, now| engine.node.learn(mac, now)).await?
            }
            FdbEvent::Gone { mac, .. } => {
                engine.run(move |engine, now| engine.node.unlearn(mac, now)).await?
            }
            FdbEvent::Resync => break,
        }
    }
    Ok(())
}
