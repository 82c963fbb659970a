//! From the links inside a namespace and the node's own to Pod ports. Pure.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use crate::{
    agent::pods::{
        PodPort, PodPorts,
        link::{Link, LinkKind},
    },
    ledger::snapshot::{PodRef, UncountedPort},
};

/// What was read inside one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inside {
    /// The namespace's cookie: never used again.
    pub(super) cookie: u64,
    /// Its links.
    pub(super) links: BTreeMap<u32, Link>,
    /// Their addresses, by ifindex.
    pub(super) addresses: BTreeMap<u32, Vec<IpAddr>>,
    /// The id that the agent's namespace knows it by; none where no link leads from one to the other.
    pub(super) id: Option<i32>,
}

/// Adds the Pod's interfaces to `ports`. Loopback is none, nor is a device that is no veth and switched off: the kernel
/// puts such tunnel devices into every namespace.
pub(super) fn assign(pod: &PodRef, path: &Path, inside: &Inside, own: &BTreeMap<u32, Link>, ports: &mut PodPorts) {
    for link in inside.links.values().filter(|link| !link.loopback) {
        let reason = match (&link.kind, host_side(link, inside, own)) {
            (LinkKind::Veth, Some(host)) => {
                ports.ports.push(PodPort {
                    pod: pod.clone(),
                    interface: link.name.clone(),
                    host_interface: host.name.clone(),
                    ifindex: host.ifindex,
                    addresses: inside.addresses.get(&link.ifindex).cloned().unwrap_or_default(),
                    ofport: None,
                    netns: path.to_str().map(str::to_owned),
                });
                continue;
            }
            (LinkKind::Veth, None) => (
                "NoIfindex",
                format!("the other end of {} is not in the agent's network namespace", link.name),
            ),
            (kind, _) if link.up => (
                "NotVeth",
                format!(
                    "interface {} is no veth but {kind}: only veths have a host side to count at",
                    link.name
                ),
            ),
            _ => continue,
        };
        ports.uncounted.push(UncountedPort {
            pod: pod.clone(),
            interface: link.name.clone(),
            reason: reason.0.to_owned(),
            message: reason.1,
        });
    }
}

/// The other end of a veth, where it lies in the agent's own namespace. Both ends have to name each other, and the other
/// end has to name this namespace: indexes alone repeat in every namespace.
fn host_side<'a>(link: &Link, inside: &Inside, own: &'a BTreeMap<u32, Link>) -> Option<&'a Link> {
    let host = own.get(&link.peer?)?;
    let mutual = host.kind == LinkKind::Veth && host.peer == Some(link.ifindex);
    (mutual && host.peer_nsid.is_some() && host.peer_nsid == inside.id).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veth(ifindex: u32, name: &str, peer: u32, peer_nsid: Option<i32>) -> Link {
        let (name, kind, peer) = (name.to_owned(), LinkKind::Veth, Some(peer));
        Link {
            ifindex,
            name,
            kind,
            loopback: false,
            up: true,
            carrier: true,
            peer,
            peer_nsid,
        }
    }

    fn by_index(links: impl IntoIterator<Item = Link>) -> BTreeMap<u32, Link> {
        links.into_iter().map(|link| (link.ifindex, link)).collect()
    }

    /// Host sides with their indexes, and interfaces with their reasons.
    type Assigned = (Vec<(String, u32)>, Vec<(String, String)>);

    /// Assigns `inside` to the Pod default/p.
    fn assigned(inside: &Inside, own: &[Link]) -> Assigned {
        let (namespace, name) = ("default".to_owned(), "p".to_owned());
        let pod = PodRef {
            namespace,
            name,
            sandbox: "netns:7".to_owned(),
        };
        let mut ports = PodPorts::default();
        assign(
            &pod,
            Path::new("/run/netns/p"),
            inside,
            &by_index(own.to_vec()),
            &mut ports,
        );
        (
            ports
                .ports
                .into_iter()
                .map(|port| (port.host_interface, port.ifindex))
                .collect(),
            ports
                .uncounted
                .into_iter()
                .map(|port| (port.interface, port.reason))
                .collect(),
        )
    }

    fn inside(links: impl IntoIterator<Item = Link>, id: Option<i32>) -> Inside {
        Inside {
            cookie: 7,
            links: by_index(links),
            addresses: BTreeMap::new(),
            id,
        }
    }

    #[test]
    fn a_veth_whose_two_ends_name_each_other_is_counted() {
        let pod = inside([veth(2, "eth0", 9, Some(0))], Some(4));
        assert_eq!(
            assigned(&pod, &[veth(9, "vethA", 2, Some(4))]),
            (vec![("vethA".to_owned(), 9)], vec![])
        );
    }

    /// Namespaces number their links alike: eth0 is 2 everywhere, and 9 exists everywhere.
    #[test]
    fn an_equal_index_in_another_namespace_is_no_peer() {
        let none = (vec![], vec![("eth0".to_owned(), "NoIfindex".to_owned())]);
        let pod = inside([veth(2, "eth0", 9, Some(0))], Some(4));
        assert_eq!(
            assigned(&pod, &[veth(9, "vethB", 2, Some(5))]),
            none,
            "leads to another namespace"
        );
        assert_eq!(
            assigned(&pod, &[veth(9, "vethB", 2, None)]),
            none,
            "both ends are in the agent's namespace"
        );
        assert_eq!(
            assigned(&pod, &[veth(9, "vethB", 3, Some(4))]),
            none,
            "belongs to another link of the Pod"
        );
        assert_eq!(assigned(&pod, &[]), none);
        let unknown = inside([veth(2, "eth0", 9, Some(0))], None);
        assert_eq!(
            assigned(&unknown, &[veth(9, "vethB", 2, None)]),
            none,
            "no id on either side"
        );
    }

    #[test]
    fn other_devices_are_listed_when_they_are_up() {
        let device = |ifindex, name: &str, kind: &str, up| {
            let (kind, name) = (LinkKind::Other(kind.to_owned()), name.to_owned());
            Link {
                ifindex,
                name,
                kind,
                loopback: false,
                up,
                carrier: up,
                peer: None,
                peer_nsid: None,
            }
        };
        let mut lo = device(1, "lo", "", true);
        (lo.loopback, lo.kind) = (true, LinkKind::Plain);
        let pod = inside(
            [lo, device(2, "net1", "macvlan", true), device(3, "sit0", "sit", false)],
            None,
        );
        assert_eq!(
            assigned(&pod, &[]),
            (vec![], vec![("net1".to_owned(), "NotVeth".to_owned())])
        );
    }
}
