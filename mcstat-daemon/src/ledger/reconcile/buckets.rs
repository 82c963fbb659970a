//! The buckets of the switch's groups: which of them each port has, and which changed since the reading before.
//!
//! A switch credits packets that it has not yet written down to the buckets of the moment when it does. So whatever changes
//! here blurs the counters of the ports concerned for as long as its lag.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use crate::ledger::{
    snapshot::SwitchAccount,
    switch::{Member, Prefix, Rule, SwitchGroup, Verdict},
};

/// Of each group its buckets, in one order; `None` where the switch does not describe them.
type Groups = BTreeMap<Ipv4Addr, Option<Vec<Member>>>;

/// What a change of buckets means for a port. The later one is the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Other ports' buckets came or went in a group that it keeps.
    Others,
    /// Its own bucket came or went.
    Own,
}

/// The groups as of the last reading that had them.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    /// As the switch described them.
    described: Option<Vec<SwitchGroup>>,
    ports: BTreeMap<u32, Vec<Ipv4Addr>>,
    before: BTreeMap<u32, Vec<Ipv4Addr>>,
    changed: BTreeSet<Ipv4Addr>,
    undescribed: BTreeSet<Ipv4Addr>,
    /// Whether the last reading had them.
    known: bool,
}

impl Buckets {
    /// Takes in one reading of the switch. The first one changes nothing.
    pub(super) fn update(&mut self, account: &SwitchAccount) {
        self.changed.clear();
        self.known = account.groups_known;
        let now = &account.switch.groups;
        if !self.known || self.described.as_ref() == Some(now) {
            return;
        }
        let before = self.described.replace(now.clone());
        self.before = std::mem::replace(&mut self.ports, account.switch.groups_by_port());
        let undescribed = now.iter().filter(|group| group.members.is_none());
        self.undescribed = undescribed.map(|group| group.group).collect();
        match before {
            Some(before) => {
                let (before, now) = (groups(&before), groups(now));
                let all: BTreeSet<_> = before.keys().chain(now.keys()).copied().collect();
                let changed = all.into_iter().filter(|group| before.get(group) != now.get(group));
                self.changed = changed.collect();
            }
            None => self.before = self.ports.clone(),
        }
    }

    /// Whether the last reading of the switch had its groups.
    pub(super) fn known(&self) -> bool {
        self.known
    }

    /// The groups that have a bucket for the port, ascending, as of the last reading that had groups.
    pub(super) fn of_port(&self, ofport: u32) -> &[Ipv4Addr] {
        self.ports.get(&ofport).map(Vec::as_slice).unwrap_or_default()
    }

    /// Groups whose buckets the switch does not describe: any port may be in them.
    pub(super) fn undescribed(&self) -> &BTreeSet<Ipv4Addr> {
        &self.undescribed
    }

    /// What changed that blurs the port's counter: a group came or went for it, or one of its groups changed for others
    /// while packets of it pass here.
    pub(super) fn change(&self, ofport: u32, passes: impl Fn(Ipv4Addr) -> bool) -> Option<Change> {
        if self.changed.is_empty() {
            return None;
        }
        let (before, now) = (self.before.get(&ofport), self.ports.get(&ofport));
        let of = |groups: Option<&Vec<Ipv4Addr>>, group| groups.is_some_and(|groups| groups.contains(group));
        let changes = self.changed.iter();
        let changes = changes.filter_map(|group| match (of(before, group), of(now, group)) {
            (true, true) => passes(*group).then_some(Change::Others),
            (false, false) => None,
            _ => Some(Change::Own),
        });
        changes.max()
    }

    /// One number for the port's groups: FNV-1a, never 0.
    pub(super) fn fingerprint(&self, ofport: u32) -> u64 {
        let bytes = self.of_port(ofport).iter().flat_map(Ipv4Addr::octets);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        hash.max(1)
    }
}

fn groups(described: &[SwitchGroup]) -> Groups {
    let mut groups = Groups::new();
    for group in described {
        let mut members = group.members.clone();
        if let Some(members) = &mut members {
            members.sort_unstable_by_key(|member| (member.ofport, member.tunnel_dst, member.table));
        }
        groups.insert(group.group, members);
    }
    groups
}

/// What becomes of a packet before it reaches its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes to the group.
    Passes,
    /// A rule ends it.
    Drops,
    /// The rules say more than is understood here.
    Unclear,
}

/// By the switch's rules on senders: the highest one that matches decides. One that may not match leaves all open.
pub(super) fn fate(rules: &[Rule], addresses: &[Ipv4Addr], ofport: u32, group: Ipv4Addr) -> Fate {
    let matching = rules.iter();
    let matching = matching.filter(|rule| is_for(rule, addresses, ofport) && covers(rule, group));
    let mut fate = (None, Fate::Passes);
    for rule in matching {
        let this = match rule.verdict {
            _ if rule.unexpressed > 0 => Fate::Unclear,
            Some(Verdict::Drop) => Fate::Drops,
            Some(Verdict::Allow) => Fate::Passes,
            None => continue,
        };
        let priority = Some(rule.priority);
        if priority > fate.0 {
            fate = (priority, this);
        } else if priority == fate.0 && this != fate.1 {
            fate.1 = Fate::Unclear;
        }
    }
    fate.1
}

/// The rules on senders that drop, and whom each is for: a policy may name every Pod of the node.
#[derive(Debug, Default)]
pub(super) struct DropRules<'a> {
    by_address: HashMap<Ipv4Addr, Vec<&'a Rule>>,
    others: Vec<&'a Rule>,
}

impl<'a> DropRules<'a> {
    /// Those among the rules.
    pub(super) fn new(rules: &'a [Rule]) -> Self {
        let mut index = Self::default();
        for rule in rules.iter().filter(|rule| rule.verdict == Some(Verdict::Drop)) {
            if rule.sources.is_empty() || rule.sources.iter().any(|prefix| prefix.bits < 32) {
                index.others.push(rule);
                continue;
            }
            for source in &rule.sources {
                index.by_address.entry(source.address).or_default().push(rule);
            }
        }
        index
    }

    /// Those for one Pod; one with several addresses may get a rule twice.
    pub(super) fn of(&self, addresses: &[Ipv4Addr], ofport: u32) -> impl Iterator<Item = &'a Rule> {
        let named = addresses.iter().filter_map(|address| self.by_address.get(address));
        let named = named.flatten().filter(move |rule| is_for_port(rule, ofport));
        let others = self.others.iter();
        named
            .chain(others.filter(move |rule| is_for(rule, addresses, ofport)))
            .copied()
    }
}

/// Whether a rule on senders is for this Pod.
fn is_for(rule: &Rule, addresses: &[Ipv4Addr], ofport: u32) -> bool {
    let named = |prefix: &Prefix| addresses.iter().any(|address| prefix.contains(*address));
    is_for_port(rule, ofport) && (rule.sources.is_empty() || rule.sources.iter().any(named))
}

fn is_for_port(rule: &Rule, ofport: u32) -> bool {
    rule.ofports.is_empty() || rule.ofports.contains(&ofport)
}

/// Whether a rule is for this group.
pub(super) fn covers(rule: &Rule, group: Ipv4Addr) -> bool {
    rule.groups.is_empty() || rule.groups.iter().any(|prefix| prefix.contains(group))
}
