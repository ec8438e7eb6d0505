//! What a node is told at its start.

use weave_names::Domain;

/// Configuration of a whole node.
pub struct Config {
    /// Who we are and whom we know.
    pub mesh: weave_mesh::Config,
    /// The address ring; `None` turns address allocation off.
    pub ipam: Option<weave_ipam::Config>,
    /// Pairs that [`crate::Output::Persist`] wrote in earlier runs.
    pub restored: Vec<(Vec<u8>, Vec<u8>)>,
    /// The domain of container names; `None` turns names off.
    pub domain: Option<Domain>,
    /// The overlay's MTU, if the operator fixed it; else [`crate::Output::Mtu`] says what the paths carry.
    pub mtu: Option<u16>,
}
