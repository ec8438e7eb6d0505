//! Containers, this host as one of them, and their addresses.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;
use weave_api::HostEntry;

use super::{mesh::Wait, views::Watch};

/// A container by its network namespace; its id is among the positional arguments.
#[derive(Debug, Args)]
pub(crate) struct Namespace {
    /// The container's network namespace: a path, or a name that `ip netns` knows.
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    pub(crate) netns: Option<PathBuf>,
    /// A process in the container.
    #[arg(long, value_name = "N")]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Addresses, and the container. An address is `10.9.1.7/24`, `ip:10.9.1.7/24`, `net:10.32.8.0/22` or
    /// `net:default`; without any, `net:default`.
    #[arg(value_name = "ADDRESS|CONTAINER")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// Name to register in DNS, with or without the domain.
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Register no names.
    #[arg(long)]
    pub(crate) without_dns: bool,
    /// Write the container's /etc/hosts.
    #[arg(long)]
    pub(crate) rewrite_hosts: bool,
    /// Further line for the container's /etc/hosts.
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", value_parser = host_entry)]
    pub(crate) add_hosts: Vec<HostEntry>,
    /// Do not route multicast to the network.
    #[arg(long)]
    pub(crate) no_multicast_route: bool,
    /// Let the container send from Ethernet and IP addresses that are not its own, as one that forwards for others does.
    #[arg(long)]
    pub(crate) any_source: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct Detach {
    /// Addresses, and the container.
    #[arg(value_name = "ADDRESS|CONTAINER")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, Args)]
pub(crate) struct Addresses {
    /// `10.9.1.7/24`, `ip:10.9.1.7/24`, `net:10.32.8.0/22` or `net:default`.
    #[arg(value_name = "ADDRESS", value_parser = address)]
    pub(crate) addresses: Vec<weave_model::AddressSpec>,
}

#[derive(Debug, Args)]
pub(crate) struct Expose {
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    /// Name to register for the addresses.
    #[arg(short = 'h', value_name = "FQDN")]
    pub(crate) fqdn: Option<String>,
    /// Do not masquerade between containers and the world outside.
    #[arg(long)]
    pub(crate) without_masquerade: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Only these, by id or its beginning; the host is `weave:expose`.
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<weave_model::ContainerId>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

fn address(text: &str) -> Result<weave_model::AddressSpec, String> {
    text.parse().map_err(|error: weave_model::AddressError| error.to_string())
}

fn host_entry(text: &str) -> Result<HostEntry, String> {
    let (name, address) = text.split_once(':').ok_or("write NAME:ADDRESS")?;
    let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
    if name.is_empty() {
        return Err("the name is missing; write NAME:ADDRESS".to_owned());
    }
    Ok(HostEntry { name: name.to_owned(), address })
}
