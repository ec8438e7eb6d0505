//! What stands in the way of a start, in words.

use std::io::ErrorKind;

use weave_hostnet::names;

use crate::{
    config::Config,
    exit::{Exit, Fatal},
};

/// Why the UDP port cannot be had.
pub(super) fn port(config: &Config, error: &std::io::Error) -> anyhow::Error {
    let (listen, port) = (config.listen, config.listen.port());
    let kind = error.kind();
    if kind == ErrorKind::AddrInUse {
        let message =
            format!("UDP port {port} is in use by another program; stop it, or give another --port");
        Fatal::error(Exit::Conflict, message)
    } else if kind == ErrorKind::AddrNotAvailable {
        let message = format!("this host has no address {}; give --host an address of its own", listen.ip());
        Fatal::error(Exit::Usage, message)
    } else if kind == ErrorKind::PermissionDenied {
        let message = format!(
            "not permitted to listen on UDP port {port}; run weaver as root, or give a --port above 1023"
        );
        Fatal::error(Exit::Permission, message)
    } else {
        Fatal::error(Exit::Failed, format!("cannot listen on UDP {listen}: {error}"))
    }
}

/// Why the TAP interface cannot be had.
pub(super) fn tap(error: &std::io::Error) -> anyhow::Error {
    let name = names::TAP;
    let kind = error.kind();
    if kind == ErrorKind::PermissionDenied {
        let message = format!(
            "not permitted to make the interface {name}; run weaver as root (it needs CAP_NET_ADMIN)"
        );
        Fatal::error(Exit::Permission, message)
    } else if kind == ErrorKind::NotFound {
        let message = format!(
            "cannot make the interface {name}: this host has no /dev/net/tun; load the kernel module tun"
        );
        Fatal::error(Exit::Failed, message)
    } else if kind == ErrorKind::ResourceBusy {
        let message = format!(
            "the interface {name} is in use by another weaver in this network namespace; stop that one"
        );
        Fatal::error(Exit::Conflict, message)
    } else {
        Fatal::error(Exit::Failed, format!("cannot make the interface {name}: {error}"))
    }
}
