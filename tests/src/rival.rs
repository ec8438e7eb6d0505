//! The rival that every Linux has: kernel VXLAN between bridges, made by hand, in the same shape as ours.

use std::net::IpAddr;

use anyhow::Result;

use crate::lab::{Container, Host};

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
        Ok([Self::end(a, b, vni, mtu)?, Self::end(b, a, vni, mtu)?])
    }

    fn end(here: &Host, there: &Host, vni: u8, mtu: u16) -> Result<Self> {
        let container = here.add_container(&format!("vx{vni}"))?;
        let (local, remote) = (here.address()?, there.address()?);
        here.ip(&format!(
            "link add brvx{vni} type bridge mcast_snooping 0\n\
             link add vxlan{vni} type vxlan id {vni} local {local} remote {remote} dstport 4789\n\
             link set vxlan{vni} master brvx{vni} mtu {mtu} up\n\
             link add pvx{vni} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pid}\n\
             link set pvx{vni} master brvx{vni} up\n\
             link set brvx{vni} mtu {mtu} up\n",
            pid = container.pid(),
        ))?;
        let address = IpAddr::from([10, 9, vni, here.number()]);
        container.ip(&format!("addr add {address}/24 dev eth0\nlink set eth0 up\n"))?;
        Ok(Self { container, address })
    }
}
