//! Groups: where MulticastRouting sends each group's packets, and the buckets of the OpenFlow group that it sends them to.
//!
//! Antrea makes one bucket for the gateway or uplink, one for each local member (`reg1` is its port, and on to the
//! ingress tables), and in encap mode one for each remote node (`reg1` is the tunnel, with its destination).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use super::{IPV4, MULTICAST, NORMAL, TARGET_PORT, category};
use crate::proto::{
    mdb::{Mdb, MdbPort},
    openflow::{Action, Bucket, Field, FlowDesc, GroupDesc, GroupKind},
};

/// The reserved port that means the controller.
const CONTROLLER: u32 = 0xffff_fffd;
/// Experimenter of Open vSwitch's own actions (`ovs-actions(7)`), and those that send to a controller.
const NICIRA: u32 = 0x0000_2320;
const NX_CONTROLLER: u16 = 20;
const NX_CONTROLLER2: u16 = 37;
/// IP protocol.
const IGMP: u8 = 2;

/// Where the packets of one multicast group go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchGroup {
    /// The multicast group.
    pub group: Ipv4Addr,
    /// The OpenFlow group that its packets are sent to; 0 when the bridge learned the group by its own snooping.
    pub id: u32,
    /// One for each bucket, in the switch's order; `None` when the switch did not describe this group.
    pub members: Option<Vec<Member>>,
    /// Buckets that do something else.
    pub unknown_buckets: u32,
}

/// One copy of a group's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// The port that it is for: a Pod's, the gateway's, an uplink's or the tunnel's.
    pub ofport: u32,
    /// The remote node, for a copy that goes through the tunnel.
    pub tunnel_dst: Option<Ipv4Addr>,
    /// The table where it goes on; `None` when it goes straight out.
    pub table: Option<u8>,
}

/// The IPv4 groups that a bridge learned by its own snooping, in ascending address. VLANs are not told apart; the bridge's
/// own port is left out.
pub fn snooped_groups(mdb: &Mdb) -> Vec<SwitchGroup> {
    let mut groups: BTreeMap<Ipv4Addr, BTreeSet<u32>> = BTreeMap::new();
    for member in &mdb.members {
        if let (IpAddr::V4(group), MdbPort::Number(port)) = (member.group, member.port) {
            groups.entry(group).or_default().insert(port);
        }
    }
    let straight_out = |ofport| Member {
        ofport,
        tunnel_dst: None,
        table: None,
    };
    let groups = groups.into_iter();
    groups
        .map(|(group, ports)| SwitchGroup {
            group,
            id: 0,
            members: Some(ports.into_iter().map(straight_out).collect()),
            unknown_buckets: 0,
        })
        .collect()
}

/// The groups in MulticastRouting, in ascending address. Missed: flows of a route's priority that are none.
pub(super) fn groups(flows: &[FlowDesc], groups: &[GroupDesc], missed: &mut u32) -> Vec<SwitchGroup> {
    let described: HashMap<u32, &GroupDesc> = groups.iter().map(|group| (group.id, group)).collect();
    let mut routed = Vec::new();
    for flow in flows.iter().filter(|flow| flow.priority == NORMAL) {
        let Some((group, id)) = route(flow) else {
            *missed += 1;
            continue;
        };
        let mut unknown_buckets = 0;
        let members = described
            .get(&id)
            .filter(|group| group.kind == GroupKind::All)
            .map(|group| members(&group.buckets, &mut unknown_buckets));
        routed.push(SwitchGroup {
            group,
            id,
            members,
            unknown_buckets,
        });
    }
    routed.sort_unstable_by_key(|group| group.group);
    routed
}

/// `ip,nw_dst=<group> actions=group:<id>`.
fn route(flow: &FlowDesc) -> Option<(Ipv4Addr, u32)> {
    if category(flow) != MULTICAST {
        return None;
    }
    match (&*flow.fields, &*flow.actions) {
        (
            &[
                Field::EthType(IPV4),
                Field::Ipv4Dst {
                    address,
                    mask: Ipv4Addr::BROADCAST,
                },
            ],
            &[Action::Group { id }],
        ) => Some((address, id)),
        _ => None,
    }
}

/// `igmp actions=controller`: the agent gets it, and with it the say on whether a report counts. Antrea's action has
/// `userdata`, which only one of Open vSwitch's own can carry.
pub(super) fn punts_igmp(flow: &FlowDesc) -> bool {
    let to_controller = |action: &Action| match *action {
        Action::Output { port } => port == CONTROLLER,
        Action::UnknownExperimenter {
            experimenter: NICIRA,
            subtype,
            ..
        } => matches!(subtype, NX_CONTROLLER | NX_CONTROLLER2),
        _ => false,
    };
    flow.priority > NORMAL && flow.fields.contains(&Field::IpProto(IGMP)) && flow.actions.iter().any(to_controller)
}

fn members(buckets: &[Bucket], unknown: &mut u32) -> Vec<Member> {
    let mut members = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        match member(bucket) {
            Some(member) => members.push(member),
            None => *unknown += 1,
        }
    }
    members
}

fn member(bucket: &Bucket) -> Option<Member> {
    let (mut port, mut tunnel_dst) = (None, None);
    for action in &bucket.actions {
        match *action {
            Action::SetField(Field::Register {
                number: TARGET_PORT,
                value,
                mask: u32::MAX,
            }) => port = Some(value),
            Action::SetField(Field::TunnelDst { address, .. }) => tunnel_dst = Some(address),
            Action::SetField(_) => {}
            Action::Resubmit { table, .. } => {
                return port.map(|ofport| Member {
                    ofport,
                    tunnel_dst,
                    table: Some(table),
                });
            }
            Action::Output { port: ofport } => {
                return Some(Member {
                    ofport,
                    tunnel_dst,
                    table: None,
                });
            }
            _ => return None,
        }
    }
    None
}
