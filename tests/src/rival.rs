//! The rival that every Linux has: kernel VXLAN between bridges, made by hand, in the same shape as ours.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use crate::lab::{Container, Host};

/// The port of VXLAN (RFC 7348).
const PORT: u16 = 4789;

/// One end of a hand-made VXLAN: `container veth - bridge - vxlan - underlay`.
#[derive(Debug)]
pub struct Vxlan {
    /// The container at this end.
    pub container: Container,
    /// Its overlay address.
    pub address: IpAddr,
}

impl Vxlan {
    /// Builds both ends between the first addresses of `a` and `b`; the containers get `mtu`.
    ///
    /// `vni` (1 to 250) keeps several such networks on the same two hosts apart; the overlay is 10.9.VNI.0/24. Learning is on and
    /// there is one remote, which is the simplest configuration and the fastest.
    ///
    /// # Errors
    /// When the kernel refuses a device.
    pub fn between(a: &Host, b: &Host, vni: u8, mtu: u16) -> Result<[Self; 2]> {
        let (to_a, to_b) = (a.address()?.into(), b.address()?.into());
        Ok([Self::end(a, to_b, vni, mtu)?, Self::end(b, to_a, vni, mtu)?])
    }

    /// As [`Self::between`], encrypted by the kernel: ESP in transport mode for the port of VXLAN, AES-256-GCM, a key for each
    /// direction that nobody changes.
    ///
    /// # Errors
    /// When the kernel refuses a device, a key or a policy.
    pub fn encrypted_between(a: &Host, b: &Host, vni: u8, mtu: u16) -> Result<[Self; 2]> {
        let (a_address, b_address) = (a.address()?, b.address()?);
        for (host, here, there) in [(a, a_address, b_address), (b, b_address, a_address)] {
            for (number, (from, to)) in [(1, (a_address, b_address)), (2, (b_address, a_address))] {
                let key = format!("0x{}", format!("{number:02x}").repeat(36));
                host.run(&format!(
                    "ip xfrm state add src {from} dst {to} proto esp spi {number:#x} reqid 1 mode transport \
                     replay-window 128 flag esn aead rfc4106(gcm(aes)) {key} 128"
                ))?;
            }
            for (direction, from, to) in [("out", here, there), ("in", there, here)] {
                host.run(&format!(
                    "ip xfrm policy add src {from}/32 dst {to}/32 proto udp dport {PORT} dir {direction} \
                     tmpl proto esp reqid 1 mode transport"
                ))?;
            }
        }
        Self::between(a, b, vni, mtu)
    }

    /// Builds both ends between `a` and `b`, which reach each other over `relay` only: it has a tunnel to each (with
    /// `vni` and the next number) and a bridge between them.
    ///
    /// # Errors
    /// When the hosts are not in a line, and when the kernel refuses a device.
    pub fn through(a: &Host, relay: &Host, b: &Host, vni: u8, mtu: u16) -> Result<[Self; 2]> {
        let shared = |end: &Host| {
            let segment = end.segments().iter().find(|segment| relay.segments().contains(segment));
            segment.copied().with_context(|| format!("{} and {} share no segment", end.name(), relay.name()))
        };
        let (near, far) = (shared(a)?, shared(b)?);
        bridge(relay, vni, mtu)?;
        tunnel(relay, a.addresses_in(near)[0], vni, vni, mtu)?;
        tunnel(relay, b.addresses_in(far)[0], vni, vni + 1, mtu)?;
        Ok([
            Self::end(a, relay.addresses_in(near)[0], vni, mtu)?,
            Self::end_of(b, relay.addresses_in(far)[0], (vni, vni + 1), mtu)?,
        ])
    }

    fn end(here: &Host, there: IpAddr, vni: u8, mtu: u16) -> Result<Self> {
        Self::end_of(here, there, (vni, vni), mtu)
    }

    /// The end on `here` of network `net`, whose tunnel has `vni` there.
    fn end_of(here: &Host, there: IpAddr, (net, vni): (u8, u8), mtu: u16) -> Result<Self> {
        let container = here.add_container(&format!("vx{net}"))?;
        bridge(here, net, mtu)?;
        tunnel(here, there, net, vni, mtu)?;
        here.ip(&format!(
            "link add pvx{net} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pid}\n\
             link set pvx{net} master brvx{net} up\n",
            pid = container.pid(),
        ))?;
        let address = IpAddr::from([10, 9, net, here.number()]);
        container.ip(&format!("addr add {address}/24 dev eth0\nlink set eth0 up\n"))?;
        Ok(Self { container, address })
    }
}

fn bridge(host: &Host, net: u8, mtu: u16) -> Result<()> {
    host.ip(&format!("link add brvx{net} type bridge mcast_snooping 0\nlink set brvx{net} mtu {mtu} up\n"))
}

/// A tunnel to `there`, on the bridge of network `net`.
fn tunnel(host: &Host, there: IpAddr, net: u8, vni: u8, mtu: u16) -> Result<()> {
    host.ip(&format!(
        "link add vxlan{vni} type vxlan id {vni} remote {there} dstport {PORT}\n\
         link set vxlan{vni} master brvx{net} mtu {mtu} up\n"
    ))
}
