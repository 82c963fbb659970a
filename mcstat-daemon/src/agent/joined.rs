//! Which groups each counted port has joined, for the thread that folds idle slots: a slot of a joined group stays. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::ledger::snapshot::Snapshot;

/// (port id, group) of every membership.
pub(super) type Joined = BTreeSet<(u32, IpAddr)>;

/// The memberships that the Pods' own kernels tell of: those of a port's interface in its Pod's namespace. A Pod whose
/// namespace is not available has none here.
pub(super) fn by_kernel(snapshot: &Snapshot) -> Joined {
    let ids: BTreeMap<_, _> = snapshot
        .ports
        .iter()
        .map(|port| ((&port.pod, port.interface.as_str()), port.id))
        .collect();
    let interfaces = snapshot.namespaces.iter().flat_map(|namespace| {
        namespace
            .interfaces
            .iter()
            .map(move |interface| (&namespace.pod, interface))
    });
    interfaces
        .filter_map(|(pod, interface)| Some((*ids.get(&(pod, interface.name.as_str()))?, interface)))
        .flat_map(|(id, interface)| interface.groups.iter().map(move |group| (id, group.group)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_joined_on_its_own_interface_of_its_own_pod_only() {
        let snapshot: Snapshot = serde_json::from_value(serde_json::json!({
            "at": "2026-01-01T00:00:00Z",
            "ports": [port(3, "a", "eth0"), port(4, "a", "net1"), port(5, "b", "eth0")],
            "namespaces": [{
                "pod": pod("a"),
                "interfaces": [
                    {"name": "eth0", "groups": [{"group": "239.1.1.1", "users": 1}, {"group": "ff05::1", "users": 2}]},
                    {"name": "net2", "groups": [{"group": "239.1.1.2", "users": 1}]},
                ],
            }],
        }))
        .unwrap();
        let expected = ["239.1.1.1", "ff05::1"].map(|group| (3, group.parse().unwrap()));
        assert_eq!(by_kernel(&snapshot), BTreeSet::from(expected));
    }

    fn pod(name: &str) -> serde_json::Value {
        serde_json::json!({"namespace": "mkt", "name": name, "sandbox": name})
    }

    fn port(id: u32, name: &str, interface: &str) -> serde_json::Value {
        serde_json::json!({
            "id": id, "pod": pod(name), "interface": interface, "hostInterface": format!("v{id}"), "ifindex": id,
            "start": "2026-01-01T00:00:00Z",
        })
    }
}
