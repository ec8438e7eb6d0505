//! Is the path broken, or the router at its other end?
//!
//! Heartbeats are answered by the other router, frames are delivered by its kernel. When heartbeats stop, the tunnel can
//! only help if the router is alive; if it is not, its kernel is the only one that still delivers. So before a path is given up,
//! the other router has to show that it lives, over the link's control connection.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use weave_model::LinkId;

use super::Vouch;

/// How often it is asked, and how often it is looked for the answer. Together with the heartbeats' patience
/// ([`weave_datapath::HeartbeatConfig`]) a broken path is left within two seconds.
const ASK: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);

/// Waits until the other router shows a sign of life, and then reports the path as broken. Ends with the connection.
pub(super) async fn confirm(
    link: LinkId,
    reason: String,
    connection: quinn::Connection,
    outbox: mpsc::Sender<Bytes>,
    events: mpsc::UnboundedSender<Vouch>,
) {
    let received = || connection.stats().udp_rx.datagrams;
    loop {
        let before = received();
        // A message without content, which has to be acknowledged. A full outbox has something to be acknowledged anyway.
        let _ = outbox.try_send(Bytes::new());
        for _ in 0..ASK.as_millis() / LOOK.as_millis() {
            tokio::time::sleep(LOOK).await;
            if connection.close_reason().is_some() {
                return;
            }
            if received() > before {
                let _ = events.send(Vouch::Broken { link, reason });
                return;
            }
        }
    }
}
