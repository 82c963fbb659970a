//! Two nodes joined by a Geneve tunnel, as Antrea's encap mode joins them.
//!
//! The userspace datapath does the tunnel by itself: it needs a second bridge, `br-phy`, that holds the tunnel's outer
//! address, and the other end's MAC. The two `br-phy` are joined by a veth.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::{
    Bed, Options,
    command::{command, sh},
    ovs::{Again, BRIDGE, TUNNEL, TUNNEL_PORT},
};

/// The bridge below the tunnel.
const UNDERLAY: &str = "br-phy";
/// Room for the tunnel's headers around a frame of 1,500 bytes: the datapath does not fragment what it wraps.
const MTU: u32 = 1700;

/// Two nodes; a group's members on the other are behind the tunnel
/// ([`set_group_with`](crate::pipeline::Pipeline::set_group_with) and [`vtep`](Bed::vtep)).
pub struct Pair {
    /// The node of number 0.
    pub left: Bed,
    /// The node of number 1.
    pub right: Bed,
}

impl Pair {
    /// Builds both nodes with these Pods, as (namespace, name).
    pub fn up(left: &[(&str, &str)], right: &[(&str, &str)]) -> Result<Self> {
        let node = |node| {
            Bed::bare(Options {
                node,
                ..Options::default()
            })
        };
        let mut pair = Self {
            left: node(0)?,
            right: node(1)?,
        };
        let (ours, theirs) = (pair.left.node.name(), pair.right.node.name());
        sh(&format!(
            "ip -n {ours} link add phy0 type veth peer name phy0 netns {theirs}"
        ))?;
        for (bed, pods) in [(&mut pair.left, left), (&mut pair.right, right)] {
            bed.vtep = Some(vtep(bed.number));
            underlay(bed)?;
            bed.add_ports(pods)?;
            bed.pipeline().install(1)?;
        }
        Ok(pair)
    }
}

fn vtep(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 18, 0, 10 + node)
}

fn mac(node: u8) -> String {
    format!("02:00:00:01:00:{node:02x}")
}

/// The bridge below the tunnel, and the tunnel's port.
fn underlay(bed: &Bed) -> Result<()> {
    let (number, address) = (bed.number, vtep(bed.number));
    bed.node.ip(&format!("link set phy0 mtu {MTU} up"))?;
    bed.node.output(command("ethtool").args(["-K", "phy0", "tx", "off"]))?;
    bed.ovs.vsctl(&format!(
        "add-br {UNDERLAY} -- set bridge {UNDERLAY} datapath_type=netdev fail_mode=standalone \
         other_config:hwaddr=\"{}\" -- set interface {UNDERLAY} mtu_request={MTU} -- add-port {UNDERLAY} phy0 \
         -- add-port {BRIDGE} {TUNNEL} -- set interface {TUNNEL} type=geneve ofport_request={TUNNEL_PORT} \
         options:remote_ip=flow options:key=flow -- set port {TUNNEL} external_ids:antrea-type=tunnel",
        mac(number)
    ))?;
    bed.ovs.keep(Again::Ip(format!("link set {UNDERLAY} up")))?;
    bed.ovs
        .keep(Again::Ip(format!("addr replace {address}/24 dev {UNDERLAY}")))?;
    // ARP and unknown unicast stay on the node.
    bed.ovs
        .keep(Again::Ofctl(format!("mod-port {BRIDGE} {TUNNEL} no-flood")))?;
    // Where the other end is. Otherwise the first packets are lost while the switch asks by ARP.
    let (there, at) = (vtep(1 - number), mac(1 - number));
    bed.ovs
        .keep(Again::Appctl(format!("tnl/neigh/set {UNDERLAY} {there} {at}")))
}
