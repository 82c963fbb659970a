//! The definitions: every rule of every policy, the one that counts first.

use std::net::Ipv4Addr;

use super::{
    Action, PodName, Transport,
    members::{Block, Members},
    world::{About, Packet, Policy, Port, Rule, Select, Target, World, pods},
};

/// Policy, rule and action that decide; `None`: no rule matches.
pub(super) fn judge(world: &World, pod: &PodName, packet: &Packet) -> Option<(String, String, Action)> {
    let mut first: Option<(&Policy, &Rule)> = None;
    for policy in &world.policies {
        for rule in &policy.rules {
            if applies(world, policy, rule, pod) && matches(world, policy, rule, packet) {
                first = Some(match first {
                    Some(first) if !before((policy, rule), first) => first,
                    _ => (policy, rule),
                });
            }
        }
    }
    let (policy, rule) = first?;
    let action = if rule.drop { Action::Drop } else { Action::Allow };
    Some((policy.display(), rule.name.clone(), action))
}

/// Tier, then priority, then index; what is equal then goes by kind, namespace and name.
fn before(a: (&Policy, &Rule), b: (&Policy, &Rule)) -> bool {
    let rest = |(policy, rule): (&Policy, &Rule)| (rule.index, policy.namespace, policy.name.clone());
    if a.0.tier_priority() != b.0.tier_priority() {
        return a.0.tier_priority() < b.0.tier_priority();
    }
    if a.0.priority != b.0.priority {
        return a.0.priority < b.0.priority;
    }
    rest(a) < rest(b)
}

fn applies(world: &World, policy: &Policy, rule: &Rule, pod: &PodName) -> bool {
    if policy.namespace.is_some_and(|namespace| *pod.namespace != *namespace) {
        return false;
    }
    let list = if policy.list.is_empty() {
        &rule.list
    } else {
        &policy.list
    };
    list.iter().any(|target| match target {
        Target::Pods(select) => selects(world, *select, pod),
        Target::Group(group) => in_group(world, policy, *group, pod),
        Target::Account(namespace, name) => {
            *pod.namespace == **namespace && world.accounts[position(pod)] == Some(name)
        }
    })
}

fn in_group(world: &World, policy: &Policy, group: usize, pod: &PodName) -> bool {
    match &world.groups_of(policy.namespace)[group] {
        Members::Pods(select) => selects(world, *select, pod),
        Members::Blocks(_) => false,
        Members::Children(children) => children.iter().any(|child| in_group(world, policy, *child, pod)),
    }
}

fn position(pod: &PodName) -> usize {
    pods().iter().position(|known| known == pod).unwrap()
}

fn selects(world: &World, select: Select, pod: &PodName) -> bool {
    let (app, tier) = world.labels[position(pod)];
    match select {
        Select::All => true,
        Select::App(wanted) => app == Some(wanted),
        Select::AppNot(unwanted) => app != Some(unwanted),
        Select::AppOneOf(a, b) => app == Some(a) || app == Some(b),
        Select::Tier(wanted) => tier == wanted,
        Select::Prod(wanted) => world.is_prod(&pod.namespace) == wanted,
        Select::Namespace(name) => *pod.namespace == *name,
    }
}

fn matches(world: &World, policy: &Policy, rule: &Rule, packet: &Packet) -> bool {
    match &rule.about {
        About::Unicast => false,
        About::Igmp(messages) => messages.iter().any(|(kind, group)| match packet.space {
            0 => false,
            // A query rule without a group is for 224.0.0.1 alone.
            4 => !rule.egress && *kind == Some(0x11) && packet.address == group.unwrap_or(Ipv4Addr::new(224, 0, 0, 1)),
            space => {
                let of_type = [0x12, 0x16, 0x22][usize::from(space) - 1];
                rule.egress
                    && kind.is_none_or(|kind| kind == of_type)
                    && group.is_none_or(|group| packet.address == group)
            }
        }),
        About::Data { blocks, groups, ports } => {
            packet.space == 0
                && fits(ports, packet.transport)
                && (blocks.iter().any(|block| contains(block, packet.address))
                    || groups
                        .iter()
                        .any(|group| group_contains(world, policy, *group, packet.address)))
        }
    }
}

fn group_contains(world: &World, policy: &Policy, group: usize, address: Ipv4Addr) -> bool {
    match &world.groups_of(policy.namespace)[group] {
        Members::Pods(_) => false,
        Members::Blocks(blocks) => blocks.iter().any(|block| contains(block, address)),
        Members::Children(children) => children
            .iter()
            .any(|child| group_contains(world, policy, *child, address)),
    }
}

fn contains(block: &Block, address: Ipv4Addr) -> bool {
    let inside = |(network, length): &(Ipv4Addr, u32)| {
        (0..*length).all(|bit| (u32::from(*network) ^ u32::from(address)) & (1 << (31 - bit)) == 0)
    };
    inside(&block.cidr) && !block.except.iter().any(inside)
}

/// A fragment is judged without ports: it fits an entry that names UDP and no port, and no other, whatever these hold together.
fn fits(ports: &[Port], transport: Transport) -> bool {
    ports.is_empty()
        || ports.iter().any(|port| match (port, transport) {
            (Port::Tcp(_), _) | (_, Transport::Other) | (Port::Range(..), Transport::UdpFragment) => false,
            (Port::Udp, _) => true,
            (Port::Range(first, last), Transport::Udp(port)) => (*first..=*last).contains(&port),
        })
}
