//! Names of our interfaces: what a name looks like is how we know what is ours.

use weave_model::Mac;

use crate::{Family, HostError};

/// The bridge.
pub const BRIDGE: &str = "weave";
/// The TAP device through which user space takes and gives frames.
pub const TAP: &str = "weave-tap";
/// The kernel's tunnel device over IPv4.
pub const VXLAN: &str = "weave-vx";
/// The kernel's tunnel device over IPv6.
pub const VXLAN6: &str = "weave-vx6";
/// The tunnel device over IPv4 that carries nothing but heartbeats.
pub const HEARTBEAT: &str = "weave-hb";
/// The same over IPv6.
pub const HEARTBEAT6: &str = "weave-hb6";
/// The interface inside a container.
pub const CONTAINER: &str = "ethwe";

/// How the names of all of the above begin that are ports of the bridge, and of no container's.
pub const UPLINKS: &str = "weave-";

/// How the host's ends of containers' interfaces begin.
const HOST_VETH_PREFIX: &str = "vethwe";
/// How the bridges that pass tunnelled frames on begin.
const RELAY_BRIDGE_PREFIX: &str = "weave-rb";
/// How the tunnel devices on them begin.
const RELAY_PORT_PREFIX: &str = "weave-rv";
/// Longest interface name in bytes (Linux: `IFNAMSIZ` without the final zero).
const MAX_LEN: usize = 15;

/// The name of the host's end of the interface of the container `id`: `vethwepl` and 35 bits of a hash of the whole
/// id, so that the same container always has the same name. (Two of 1,000 containers share a name in 1 of 70,000 hosts.)
#[must_use]
pub fn host_ifname(id: &str) -> String {
    format!("{HOST_VETH_PREFIX}pl{}", digits(id))
}

/// The name of the other end of an endpoint's interface while it waits on the host to be taken into a container.
#[must_use]
pub fn waiting_ifname(id: &str) -> String {
    format!("{HOST_VETH_PREFIX}pg{}", digits(id))
}

fn digits(id: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let hash = fnv1a(id.as_bytes());
    let digits = (0..7).map(|place| {
        let digit = (hash >> (5 * place)) & 31;
        char::from(DIGITS[usize::try_from(digit).unwrap_or(0)])
    });
    digits.collect()
}

/// An Ethernet address made from `seed` (a container id, say): the same one each time, locally administered.
#[must_use]
pub fn mac_from_seed(seed: &[u8]) -> Mac {
    let [a, b, c, d, e, f, _, _] = fnv1a(seed).to_le_bytes();
    Mac::local_unicast([a, b, c, d, e, f])
}

/// The tunnel device that carries containers' frames.
#[must_use]
pub const fn vxlan(family: Family) -> &'static str {
    match family {
        Family::V4 => VXLAN,
        Family::V6 => VXLAN6,
    }
}

/// The tunnel device that carries heartbeats.
#[must_use]
pub const fn heartbeat(family: Family) -> &'static str {
    match family {
        Family::V4 => HEARTBEAT,
        Family::V6 => HEARTBEAT6,
    }
}

/// The bridge for tunnelled frames that have `hops` hops to go, counting the one that it sends them on.
#[must_use]
pub fn relay_bridge(hops: u8) -> String {
    format!("{RELAY_BRIDGE_PREFIX}{hops}")
}

/// The tunnel device on that bridge.
#[must_use]
pub fn relay_port(hops: u8, family: Family) -> String {
    match family {
        Family::V4 => format!("{RELAY_PORT_PREFIX}{hops}"),
        Family::V6 => format!("{RELAY_PORT_PREFIX}{hops}-6"),
    }
}

/// Whether this is an interface of the kernel's tunnels: what [`Host::remove_datapath`](crate::Host::remove_datapath)
/// takes away.
#[must_use]
pub fn is_datapath(name: &str) -> bool {
    [VXLAN, VXLAN6, HEARTBEAT, HEARTBEAT6].contains(&name)
        || [RELAY_BRIDGE_PREFIX, RELAY_PORT_PREFIX].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether an interface of this name on the host is ours to change and remove.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    name == BRIDGE || name.starts_with("weave-") || name.starts_with(HOST_VETH_PREFIX)
}

/// Whether this is the name of the host's end of a container's interface.
#[must_use]
pub fn is_host_veth(name: &str) -> bool {
    name.starts_with(HOST_VETH_PREFIX)
}

/// Checks a name as the kernel will (`dev_valid_name`).
///
/// # Errors
/// [`HostError::InterfaceName`].
pub fn check(name: &str) -> Result<(), HostError> {
    let length_fits = (1..=MAX_LEN).contains(&name.len());
    let reserved = name == "." || name == "..";
    let bad_byte =
        |b: u8| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace() || b == 0x0b || b == b'%';
    if !length_fits || reserved || name.bytes().any(bad_byte) {
        return Err(HostError::InterfaceName(name.to_owned()));
    }
    Ok(())
}

/// FNV-1a, 64 bits (draft-eastlake-fnv), with a final mix so that low bits depend on all input bytes.
fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn host_names_fit_the_kernel_and_differ_by_container() {
        let names: BTreeSet<String> = (0..20_000).map(|n| host_ifname(&format!("container-{n}"))).collect();
        assert_eq!(names.len(), 20_000);
        for name in &names {
            check(name).unwrap();
            assert!(is_ours(name) && is_host_veth(name));
        }
        assert_eq!(host_ifname("a"), host_ifname("a"));
    }

    #[test]
    fn addresses_from_a_seed_are_local_unicast_and_stable() {
        let mac = mac_from_seed(b"4f1c09aa21be");
        assert_eq!(mac, mac_from_seed(b"4f1c09aa21be"));
        assert_ne!(mac, mac_from_seed(b"4f1c09aa21bf"));
        assert_eq!(mac.0[0] & 3, 2);
    }

    #[test]
    fn names_that_the_kernel_would_refuse_are_refused_in_words() {
        for bad in ["", ".", "..", "a b", "a/b", "a:b", "sixteen-bytes-xx", "a%d", "tab\tbed"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in ["weave", "vethwepl1234567", "eth0.7"] {
            check(good).unwrap();
        }
    }

    #[test]
    fn the_tunnels_interfaces_are_ours_and_have_names_of_their_own() {
        let families = [Family::V4, Family::V6];
        let relays = (1..=3).flat_map(|hops| families.map(|family| relay_port(hops, family)));
        let mut names: Vec<String> = (1..=3).map(relay_bridge).chain(relays).collect();
        names.extend(families.map(|family| vxlan(family).to_owned()));
        names.extend(families.map(|family| heartbeat(family).to_owned()));
        for name in &names {
            check(name).unwrap();
            assert!(is_ours(name) && is_datapath(name), "{name}");
        }
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 13);
        assert!(!is_datapath(BRIDGE) && !is_datapath(TAP) && !is_datapath("vethwepl1234567"));
    }

    #[test]
    fn other_peoples_interfaces_are_not_ours() {
        for other in ["eth0", "docker0", "lo", "weaver0", "veth1234", "ethwe"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
