//! Names.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct DnsAdd {
    /// Addresses, and the container that holds them; without addresses, the container's own.
    #[arg(value_name = "ADDRESS|CONTAINER", required = true)]
    pub(crate) words: Vec<String>,
    /// The name; without it, the container's own.
    #[arg(short = 'h', value_name = "FQDN")]
    pub(crate) fqdn: Option<String>,
    /// What is served there, so that SRV queries for `_NAME._TRANSPORT.FQDN` find it.
    #[arg(long, value_name = "NAME/TRANSPORT:PORT")]
    pub(crate) service: Option<String>,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct DnsRemove {
    /// Addresses, and the container that holds them; without them, whatever has the name on this host.
    #[arg(value_name = "ADDRESS|CONTAINER", required_unless_present = "fqdn")]
    pub(crate) words: Vec<String>,
    /// The name; without it, all names of the addresses or the container.
    #[arg(short = 'h', value_name = "FQDN")]
    pub(crate) fqdn: Option<String>,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct DnsLookup {
    /// With or without the domain.
    pub(crate) name: String,
}
