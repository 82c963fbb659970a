//! Random worlds of a few policies, groups and Pods, with addresses so few that rules meet often.

use std::net::Ipv4Addr;

use mcstat_common::policy::{SPACE_DATA, SPACE_QUERY, SPACE_REPORT_V3};

use super::{
    PodName, Random, Transport,
    members::{Block, Members, address, block, cluster_wide, of_namespace},
};

pub(super) const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
pub(super) const ACCOUNTS: [&str; 2] = ["sa-a", "sa-b"];
const APPS: [&str; 3] = ["a", "b", "c"];
pub(super) const TIERS: [(Option<&str>, i32); 5] = [
    (None, 250),
    (Some("emergency"), 50),
    (Some("baseline"), 253),
    (Some("mine"), 120),
    (Some("other"), 120),
];
const PORTS: [u16; 6] = [0, 4999, 5000, 5001, 5010, 65535];

#[derive(Debug, Clone)]
pub(super) struct World {
    /// By position in [`pods`]: the labels `app` and `tier`.
    pub(super) labels: Vec<(Option<&'static str>, bool)>,
    /// By position in [`pods`]: the service account.
    pub(super) accounts: Vec<Option<&'static str>>,
    /// By position in [`NAMESPACES`]: the label `env=prod`.
    pub(super) prod: [bool; 3],
    /// ClusterGroups `g0` and so on.
    pub(super) groups: Vec<Members>,
    /// By position in [`NAMESPACES`]: Groups of the same names.
    pub(super) own: [Vec<Members>; 3],
    pub(super) policies: Vec<Policy>,
    /// Port ranges that may still be made: never so many that 17 meet.
    ranges: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) namespace: Option<&'static str>,
    pub(super) name: String,
    pub(super) tier: usize,
    pub(super) priority: f64,
    pub(super) list: Vec<Target>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub(super) enum Target {
    Pods(Select),
    Group(usize),
    /// Namespace and name.
    Account(&'static str, &'static str),
}

/// Pods by `app`, `tier` and the namespace's `env`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Select {
    All,
    App(&'static str),
    AppNot(&'static str),
    AppOneOf(&'static str, &'static str),
    Tier(bool),
    Prod(bool),
    Namespace(&'static str),
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) egress: bool,
    pub(super) index: usize,
    pub(super) drop: bool,
    /// Where the policy has no list.
    pub(super) list: Vec<Target>,
    pub(super) about: About,
}

#[derive(Debug, Clone)]
pub(super) enum About {
    Unicast,
    Data {
        blocks: Vec<Block>,
        groups: Vec<usize>,
        ports: Vec<Port>,
    },
    Igmp(Vec<(Option<u8>, Option<Ipv4Addr>)>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Port {
    Tcp(u16),
    Udp,
    Range(u16, u16),
}

#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) space: u8,
    pub(super) address: Ipv4Addr,
    pub(super) transport: Transport,
}

/// Two Pods of each app or so, over three namespaces.
pub(super) fn pods() -> Vec<PodName> {
    (0..8)
        .map(|n| PodName::new(NAMESPACES[n % 3], &format!("pod-{n}")))
        .collect()
}

pub(super) fn select(random: &mut Random) -> Select {
    match random.below(8) {
        0 | 1 => Select::All,
        2 => Select::App(random.of(&APPS)),
        3 => Select::AppNot(random.of(&APPS)),
        4 => Select::AppOneOf(random.of(&APPS), random.of(&APPS)),
        5 => Select::Tier(random.one_in(2)),
        6 => Select::Prod(random.one_in(2)),
        _ => Select::Namespace(random.of(&NAMESPACES)),
    }
}

impl Select {
    pub(super) fn is_about_namespaces(self) -> bool {
        matches!(self, Self::Prod(_) | Self::Namespace(_))
    }
}

impl World {
    pub(super) fn random(random: &mut Random) -> Self {
        let mut world = Self {
            labels: (0..8).map(|_| labels(random)).collect(),
            accounts: (0..8).map(|_| account(random)).collect(),
            prod: [random.one_in(2), random.one_in(2), random.one_in(2)],
            groups: cluster_wide(random),
            own: [(); 3].map(|()| of_namespace(random)),
            policies: Vec::new(),
            ranges: 16,
        };
        for _ in 0..1 + random.below(9) {
            world.add_policy(random);
        }
        world
    }

    /// The same world, one or two things of it different.
    pub(super) fn changed(&self, random: &mut Random) -> Self {
        let mut world = self.clone();
        for _ in 0..1 + random.below(2) {
            match random.below(9) {
                0 => world.labels[random.below(8)] = labels(random),
                1 => world.prod[random.below(3)] ^= true,
                2 => world.groups[1] = Members::Blocks(vec![block(random)]),
                3 => world.groups[0] = Members::Pods(select(random)),
                4 => world.accounts[random.below(8)] = account(random),
                5 => world.own[random.below(3)] = of_namespace(random),
                6 if world.policies.len() > 1 => {
                    let gone = world.policies.remove(random.below(world.policies.len()));
                    world.ranges += gone.rules.iter().map(Rule::ranges).sum::<usize>();
                }
                _ => world.add_policy(random),
            }
        }
        world
    }

    fn add_policy(&mut self, random: &mut Random) {
        let namespace = random.one_in(2).then(|| random.of(&NAMESPACES));
        let mut policy = Policy {
            namespace,
            name: format!("p-{}", random.next() % 100_000),
            tier: random.below(TIERS.len()),
            priority: random.of(&[1.0, 5.0, 5.5, 10.0]),
            list: Vec::new(),
            rules: Vec::new(),
        };
        let per_rule = random.one_in(3);
        if !per_rule {
            policy.list = targets(random, namespace.is_some());
        }
        let (mut ingress, mut egress) = (0, 0);
        for number in 0..1 + random.below(4) {
            let outbound = !random.one_in(5);
            let next = if outbound { &mut egress } else { &mut ingress };
            let mut rule = Rule {
                name: format!("r-{number}"),
                egress: outbound,
                index: *next,
                drop: random.one_in(2),
                list: if per_rule {
                    targets(random, namespace.is_some())
                } else {
                    Vec::new()
                },
                about: about(random, outbound),
            };
            *next += 1;
            if rule.ranges() > self.ranges {
                rule.about = About::Unicast;
            }
            self.ranges -= rule.ranges();
            policy.rules.push(rule);
        }
        if !self.policies.iter().any(|other| other.name == policy.name) {
            self.policies.push(policy);
        }
    }

    pub(super) fn is_prod(&self, namespace: &str) -> bool {
        NAMESPACES
            .iter()
            .zip(self.prod)
            .any(|(name, prod)| *name == namespace && prod)
    }

    /// What the policies of a namespace, or the cluster-wide ones, mean by the names of groups.
    pub(super) fn groups_of(&self, namespace: Option<&str>) -> &[Members] {
        let position = NAMESPACES.iter().position(|name| Some(*name) == namespace);
        position.map_or(&self.groups, |position| &self.own[position])
    }

    pub(super) fn asks_for_ports(&self, policy: &str, rule: &str) -> bool {
        let named = self.policies.iter().find(|known| known.display() == policy);
        let rule = named.and_then(|policy| policy.rules.iter().find(|known| known.name == rule));
        rule.is_some_and(|rule| rule.ranges() > 0)
    }
}

fn labels(random: &mut Random) -> (Option<&'static str>, bool) {
    ((!random.one_in(4)).then(|| random.of(&APPS)), random.one_in(2))
}

fn account(random: &mut Random) -> Option<&'static str> {
    (!random.one_in(3)).then(|| random.of(&ACCOUNTS))
}

fn targets(random: &mut Random, of_namespace: bool) -> Vec<Target> {
    let target = |random: &mut Random| match random.below(5) {
        0 => Target::Group(random.of(&[0, 3])),
        1 if !of_namespace => Target::Account(random.of(&NAMESPACES), random.of(&ACCOUNTS)),
        _ => loop {
            let select = select(random);
            if !of_namespace || !select.is_about_namespaces() {
                break Target::Pods(select);
            }
        },
    };
    (0..1 + random.below(2)).map(|_| target(random)).collect()
}

fn about(random: &mut Random, egress: bool) -> About {
    let group = |random: &mut Random| (!random.one_in(3)).then(|| address(random));
    if !egress {
        return About::Igmp(vec![(Some(0x11), if random.one_in(2) { None } else { group(random) })]);
    }
    match random.below(10) {
        0 => About::Unicast,
        1..=3 => {
            let types = [None, Some(0x12), Some(0x16), Some(0x22)];
            About::Igmp(
                (0..1 + random.below(2))
                    .map(|_| (random.of(&types), group(random)))
                    .collect(),
            )
        }
        _ => {
            let groups = if random.one_in(3) {
                vec![1 + random.below(4)]
            } else {
                Vec::new()
            };
            let least = usize::from(groups.is_empty());
            let ports = if random.one_in(2) { 1 + random.below(2) } else { 0 };
            About::Data {
                blocks: (0..least + random.below(2)).map(|_| block(random)).collect(),
                groups,
                ports: (0..ports).map(|_| port(random)).collect(),
            }
        }
    }
}

fn port(random: &mut Random) -> Port {
    let (a, b) = (random.of(&PORTS), random.of(&PORTS));
    match random.below(6) {
        0 => Port::Tcp(a),
        1 => Port::Udp,
        2 | 3 => Port::Range(a, a),
        _ => Port::Range(a.min(b), a.max(b)),
    }
}

impl Policy {
    /// As the project writes an object's name.
    pub(super) fn display(&self) -> String {
        match self.namespace {
            None => format!("ClusterNetworkPolicy {}", self.name),
            Some(namespace) => format!("NetworkPolicy {namespace}/{}", self.name),
        }
    }

    pub(super) fn tier_priority(&self) -> i32 {
        TIERS[self.tier].1
    }
}

impl Rule {
    /// How many ranges it may bring to one address at most.
    fn ranges(&self) -> usize {
        match &self.about {
            About::Data { ports, .. } => ports.iter().filter(|port| !matches!(port, Port::Tcp(_))).count(),
            _ => 0,
        }
    }
}

impl Packet {
    pub(super) fn random(random: &mut Random) -> Self {
        let space = if random.one_in(2) {
            SPACE_DATA
        } else {
            random.below(usize::from(SPACE_QUERY) + 1) as u8
        };
        let transport = match random.below(6) {
            0 => Transport::UdpFragment,
            1 => Transport::Other,
            _ => Transport::Udp(random.of(&PORTS)),
        };
        Self {
            space,
            address: match space {
                // A record can name any address; a query goes to all hosts as a rule.
                1..=SPACE_REPORT_V3 if random.one_in(20) => Ipv4Addr::from(random.next() as u32),
                SPACE_QUERY if random.one_in(2) => Ipv4Addr::new(224, 0, 0, 1),
                _ => address(random),
            },
            transport: if space == SPACE_DATA {
                transport
            } else {
                Transport::Other
            },
        }
    }
}
