//! The map `denied`: which rules denied the last reports of groups, for as long as that makes them no memberships.
//!
//! Only the ledger knows when a denial ends; here lies what it said last, and only what is new is written.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use aya::maps::{HashMap, Map, MapData, MapError};
use mcstat_common::abi::{Denied, DeniedKey, RULE_ALLOW, RULE_CLUSTER, RULE_DROP, RULE_NAMESPACED};
use zerocopy::FromZeros;

use super::{
    kept::{from_bytes, to_bytes},
    table::{put, text},
};
use crate::{
    api::rule::{PolicyReference, RuleReference},
    ledger::{Denials, verdict::Kind},
};

const KEY: usize = size_of::<DeniedKey>();
const VALUE: usize = size_of::<Denied>();

/// The map and what lies in it.
#[derive(Debug)]
pub(super) struct DeniedMap {
    map: HashMap<MapData, [u8; KEY], [u8; VALUE]>,
    written: Denials,
}

impl DeniedMap {
    pub(super) fn new(data: MapData) -> Result<Self, MapError> {
        let map: HashMap<MapData, [u8; KEY], [u8; VALUE]> = HashMap::try_from(Map::HashMap(data))?;
        let elements = map.iter().filter_map(Result::ok);
        let written = elements.filter_map(|(key, value)| {
            let (key, value): (DeniedKey, Denied) = (from_bytes(&key)?, from_bytes(&value)?);
            let group = Ipv6Addr::from(key.group).to_canonical();
            Some(((key.port, group), reference(&value)))
        });
        let written = written.collect();
        Ok(Self { map, written })
    }

    /// What lies in the map.
    pub(super) fn all(&self) -> &Denials {
        &self.written
    }

    /// Makes the map hold these and no others, as far as it can: one that has no room keeps none of the others back.
    pub(super) fn write<'a>(
        &mut self,
        denials: impl Iterator<Item = ((u32, IpAddr), &'a RuleReference)>,
    ) -> Result<(), MapError> {
        let denials: BTreeMap<_, _> = denials.collect();
        let gone: Vec<_> = self
            .written
            .keys()
            .filter(|key| !denials.contains_key(key))
            .copied()
            .collect();
        let mut done = Ok(());
        for key in gone {
            match self.map.remove(&bytes_of(key)) {
                Ok(()) | Err(MapError::KeyNotFound) => drop(self.written.remove(&key)),
                Err(error) => done = done.and(Err(error)),
            }
        }
        for (key, rule) in denials {
            if self.written.get(&key) != Some(rule) {
                match self.map.insert(bytes_of(key), to_bytes::<_, VALUE>(&value(rule)), 0) {
                    Ok(()) => drop(self.written.insert(key, rule.clone())),
                    Err(error) => done = done.and(Err(error)),
                }
            }
        }
        done
    }
}

fn bytes_of((port, group): (u32, IpAddr)) -> [u8; KEY] {
    let group = match group {
        IpAddr::V4(group) => group.to_ipv6_mapped(),
        IpAddr::V6(group) => group,
    };
    to_bytes(&DeniedKey {
        port,
        group: group.octets(),
    })
}

fn value(rule: &RuleReference) -> Denied {
    let mut value = Denied::new_zeroed();
    let namespaced = rule.policy.kind == Kind::NetworkPolicy.to_string();
    value.kind = if namespaced { RULE_NAMESPACED } else { RULE_CLUSTER };
    value.action = if rule.action == ALLOW { RULE_ALLOW } else { RULE_DROP };
    put(&mut value.namespace, &rule.policy.namespace);
    put(&mut value.policy, &rule.policy.name);
    put(&mut value.rule, &rule.rule);
    value
}

const ALLOW: &str = "Allow";
const DROP: &str = "Drop";

fn reference(value: &Denied) -> RuleReference {
    let kind = match value.kind {
        RULE_NAMESPACED => Kind::NetworkPolicy,
        _ => Kind::ClusterNetworkPolicy,
    };
    RuleReference {
        policy: PolicyReference {
            kind: kind.to_string(),
            namespace: text(&value.namespace).to_owned(),
            name: text(&value.policy).to_owned(),
        },
        rule: text(&value.rule).to_owned(),
        action: if value.action == RULE_ALLOW { ALLOW } else { DROP }.to_owned(),
    }
}
