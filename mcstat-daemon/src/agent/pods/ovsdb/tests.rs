//! The join and the decision, on the recorded first reading (`tests/golden/ovsdb/README.md`) and on changes of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    super::{
        PodPort,
        link::{Link, LinkKind},
    },
    join::{Decision, Joined, decide, join},
    *,
};
use crate::proto::ovsdb::{Message, Store};

/// The rows of the recorded first reading: Pods mc-a, mc-b, mc-c with ifindexes 5, 6, 7, the gateway and the bridge.
fn recorded() -> Store {
    let line = include_str!("../../../../tests/golden/ovsdb/monitor.s2c.json")
        .lines()
        .nth(1)
        .unwrap();
    let Message::Response { result: Ok(rows), .. } = Message::decode(line.as_bytes()).unwrap() else {
        panic!("no response: {line}")
    };
    let mut store = Store::default();
    store.apply(&rows).unwrap();
    store
}

fn changed(updates: Value) -> Joined {
    let mut store = recorded();
    store.apply(&updates).unwrap();
    join(&store, "br-int").unwrap()
}

/// A change of one column of mc-a's Interface row.
fn interface_changed(columns: Value) -> Joined {
    changed(json!({"Interface": {"4362d98d-85f7-4533-b4b4-c89b802e1104": {"modify": columns}}}))
}

/// A change of mc-a's external_ids, as pairs.
fn external_ids_changed(pairs: Value) -> Joined {
    changed(json!({"Port": {"34868020-c1d8-425e-b344-5f5052eec493": {"modify": {"external_ids": ["map", pairs]}}}}))
}

/// The node's links as the recording's node had them.
fn links() -> BTreeMap<u32, Link> {
    let link = |(ifindex, name): (u32, &str)| {
        let (kind, name) = (LinkKind::Veth, name.to_owned());
        (
            ifindex,
            Link {
                ifindex,
                name,
                kind,
                loopback: false,
                up: true,
                carrier: true,
                peer: Some(2),
                peer_nsid: Some(0),
            },
        )
    };
    [(5, "mc-a-5d468b"), (6, "mc-b-e8c2dd"), (7, "mc-c-62c3a0")]
        .map(link)
        .into()
}

/// Decides on `joined` as the first reading, and returns mc-a's reason and message.
fn uncounted(joined: &Joined, links: &BTreeMap<u32, Link>) -> (String, String) {
    let decision = decide(joined, links, &PodPorts::default());
    assert_eq!(decision.ports.ports.len(), 2, "the other two Pods are counted");
    let [port] = &decision.ports.uncounted[..] else {
        panic!("{:?}", decision.ports.uncounted)
    };
    assert_eq!((port.pod.name.as_str(), port.interface.as_str()), ("mc-a", "eth0"));
    (port.reason.clone(), port.message.clone())
}

fn first<'a>(decision: &'a Decision, name: &str) -> Option<&'a PodPort> {
    decision.ports.ports.iter().find(|port| port.pod.name == name)
}

#[test]
fn the_recorded_pods_are_counted_with_what_their_rows_say() {
    let decision = decide(&join(&recorded(), "br-int").unwrap(), &links(), &PodPorts::default());
    assert!(decision.ports.connected && decision.ports.uncounted.is_empty() && !decision.recheck);
    let ports: Vec<(&str, u32, Option<u32>)> = decision
        .ports
        .ports
        .iter()
        .map(|port| (port.pod.name.as_str(), port.ifindex, port.ofport))
        .collect();
    assert_eq!(
        ports,
        [("mc-a", 5, Some(10)), ("mc-b", 6, Some(11)), ("mc-c", 7, Some(12))]
    );
    assert_eq!(
        decision.ports.ports[0],
        PodPort {
            pod: crate::ledger::snapshot::PodRef {
                namespace: "default".to_owned(),
                name: "mc-a".to_owned(),
                sandbox: "5d468b07dac2b99968f306c25e6f44d779001947c8f4164ff9d376b408aae89c".to_owned(),
            },
            interface: "eth0".to_owned(),
            host_interface: "mc-a-5d468b".to_owned(),
            ifindex: 5,
            addresses: vec!["10.10.0.11".parse().unwrap()],
            ofport: Some(10),
            netns: None,
        }
    );
}

#[test]
fn another_bridge_is_not_this_one() {
    assert_eq!(join(&recorded(), "br-ext"), None);
}

/// Antrea since 2.0 writes `if-dev` for secondary interfaces, since 2.4 `net-ns` as its own container sees the path.
#[test]
fn optional_keys_are_read() {
    let joined = external_ids_changed(json!([
        ["if-dev", "net1"],
        ["ip-address", "10.10.0.11,fd00::b,nonsense"],
        ["net-ns", "/host/var/run/netns/cni-1"]
    ]));
    let decision = decide(&joined, &links(), &PodPorts::default());
    let port = first(&decision, "mc-a").unwrap();
    assert_eq!(port.interface, "net1");
    assert_eq!(
        port.addresses,
        ["10.10.0.11", "fd00::b"].map(|text| text.parse::<std::net::IpAddr>().unwrap())
    );
    assert_eq!(port.netns.as_deref(), Some("/var/run/netns/cni-1"));
    for (written, read) in [("", None), ("/proc/7/ns/net", Some("/proc/7/ns/net"))] {
        let decision = decide(
            &external_ids_changed(json!([["net-ns", written]])),
            &links(),
            &PodPorts::default(),
        );
        assert_eq!(first(&decision, "mc-a").unwrap().netns.as_deref(), read);
    }
}

#[test]
fn only_container_ports_that_name_their_pod_are_pods() {
    let gone = json!([["antrea-type", "container"]]);
    assert_eq!(
        external_ids_changed(gone).candidates.len(),
        2,
        "the pair was there: the difference takes it away"
    );
    let id = "5d468b07dac2b99968f306c25e6f44d779001947c8f4164ff9d376b408aae89c";
    let joined = external_ids_changed(json!([["container-id", id]]));
    assert_eq!(
        (joined.candidates.len(), joined.nameless),
        (2, vec!["mc-a-5d468b".to_owned()])
    );
}

#[test]
fn what_cannot_be_counted_says_why() {
    let afxdp = uncounted(&interface_changed(json!({"type": "afxdp"})), &links());
    assert_eq!(afxdp.0, "Afxdp");
    let no_index = uncounted(&interface_changed(json!({"ifindex": ["set", []]})), &links());
    assert_eq!(
        no_index,
        (
            "NoIfindex".to_owned(),
            "interface mc-a-5d468b has no ifindex in OVSDB".to_owned()
        )
    );
    assert_eq!(uncounted(&interface_changed(json!({"ifindex": 0})), &links()), no_index);
    let failed = uncounted(
        &interface_changed(json!({"ofport": -1, "error": "No such device"})),
        &links(),
    );
    assert_eq!(failed.0, "NoIfindex");
    assert!(
        failed
            .1
            .ends_with("could not be opened by the switch (ofport -1): No such device"),
        "{}",
        failed.1
    );
}

#[test]
fn the_nodes_own_links_decide_what_is_a_veth() {
    let joined = join(&recorded(), "br-int").unwrap();
    let with = |change: fn(&mut Link)| {
        let mut links = links();
        links.entry(5).and_modify(change);
        assert!(
            decide(&joined, &links, &PodPorts::default()).recheck,
            "links change without the database"
        );
        uncounted(&joined, &links)
    };
    let internal = with(|link| link.kind = LinkKind::Other("openvswitch".to_owned()));
    assert_eq!(internal.0, "NotVeth");
    assert!(internal.1.contains("no veth but openvswitch"), "{}", internal.1);
    assert_eq!(with(|link| link.kind = LinkKind::Plain).0, "NotVeth");
    let reused = with(|link| link.name = "eth7".to_owned());
    assert_eq!(reused.0, "NoIfindex");
    assert_eq!(
        reused.1,
        "interface mc-a-5d468b with ifindex 5 is not in the agent's network namespace"
    );
}

#[test]
fn an_index_holds_while_the_database_has_none_and_the_link_is_the_same() {
    let full = decide(&join(&recorded(), "br-int").unwrap(), &links(), &PodPorts::default());
    let emptied = interface_changed(json!({"ifindex": ["set", []]}));
    let held = decide(&emptied, &links(), &full.ports);
    assert_eq!(held.ports, full.ports);
    assert!(
        held.recheck,
        "until the database has it again, only the links can end it"
    );
    let mut without = links();
    without.remove(&5);
    let ended = decide(&emptied, &without, &full.ports);
    assert_eq!((first(&ended, "mc-a"), ended.ports.uncounted.len()), (None, 1));
}

/// A Pod of the same name in a new sandbox, while the old port is still there.
#[test]
fn two_sandboxes_of_one_name_are_two_pods() {
    let joined = changed(json!({
        "Bridge": {"63c51bad-59b6-4b6a-a3e6-bcca10b35892": {"modify": {"ports": ["uuid", "new"]}}},
        "Port": {"new": {"insert": {"name": "mc-a-000000", "interfaces": ["uuid", "new-i"], "external_ids": ["map", [
            ["antrea-type", "container"], ["container-id", "0000"], ["pod-name", "mc-a"], ["pod-namespace", "default"]]]}}},
        "Interface": {"new-i": {"insert": {"name": "mc-a-000000", "ifindex": 9, "ofport": 13}}},
    }));
    let mut links = links();
    let mut new = links[&5].clone();
    (new.ifindex, new.name) = (9, "mc-a-000000".to_owned());
    links.insert(9, new);
    let decision = decide(&joined, &links, &PodPorts::default());
    let indexes: Vec<u32> = decision
        .ports
        .ports
        .iter()
        .filter(|port| port.pod.name == "mc-a")
        .map(|port| port.ifindex)
        .collect();
    assert_eq!(indexes, [9, 5], "sorted by sandbox");
}

/// One sandbox and interface on two ports: the one that can be counted stands, whatever the order of the rows.
#[test]
fn a_dead_port_does_not_hide_the_living_one() {
    let id = "5d468b07dac2b99968f306c25e6f44d779001947c8f4164ff9d376b408aae89c";
    for port in [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-0000-0000-0000-000000000000",
    ] {
        let joined = changed(json!({
            "Bridge": {"63c51bad-59b6-4b6a-a3e6-bcca10b35892": {"modify": {"ports": ["uuid", port]}}},
            "Port": {port: {"insert": {"name": "dead", "interfaces": ["uuid", "dead-i"], "external_ids": ["map", [
                ["antrea-type", "container"], ["container-id", id], ["pod-name", "mc-a"], ["pod-namespace", "default"]]]}}},
            "Interface": {"dead-i": {"insert": {"name": "dead", "ofport": -1}}},
        }));
        let decision = decide(&joined, &links(), &PodPorts::default());
        assert_eq!((decision.ports.ports.len(), decision.ports.uncounted.len()), (3, 0));
        assert_eq!(first(&decision, "mc-a").unwrap().host_interface, "mc-a-5d468b");
    }
}
