//! Text renderings of a report, in the shapes that Weave Net's users and their scripts know.
//!
//! Pure functions. Every line ends with a line feed; an empty list is an empty string. Columns have least widths, so
//! that long values push the rest of their line to the right and nothing is ever cut.

mod lists;
mod overlay;
mod repair;
mod status;
mod trace;
pub mod wide;

use weave_model::PeerName;

use self::overlay::bytes;

pub use lists::{connections, containers, dns, ipam, ipam_state, peers, targets};
pub use overlay::overlay;
pub use repair::repair;
pub use status::status;
pub use trace::{doctor, trace};

/// `aa:00:00:00:00:02(node-b)`.
fn label(name: PeerName, nickname: &str) -> String {
    if nickname.is_empty() { name.to_string() } else { format!("{name}({nickname})") }
}

#[cfg(test)]
pub(crate) mod sample;
