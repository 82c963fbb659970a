//! The `netns` source against real namespaces and veths. Needs root and iproute2.

mod pods_lab;

use std::{future::pending, time::Instant};

use mcstat::agent::{
    config::NetnsConfig,
    pods::{PodPorts, netns::run},
};
use pods_lab::{Lab, attempt, reasons, sh, shown, wait};
use tokio::sync::{oneshot, watch};

fn config(lab: &Lab) -> NetnsConfig {
    NetnsConfig {
        directory: "/run/netns".into(),
        prefix: lab.prefix.clone(),
    }
}

fn start(lab: &Lab) -> (watch::Receiver<PodPorts>, tokio::task::JoinHandle<()>) {
    let (out, list) = watch::channel(PodPorts::default());
    let config = config(lab);
    let task = tokio::spawn(async move { run(config, out, pending()).await.expect("the source must work") });
    (list, task)
}

#[test]
fn pods_come_change_and_go() {
    let lab = Lab::new("a");
    lab.run(async || {
        lab.add_netns("mkt_feed-0");
        lab.add_veth("mkt_feed-0", "eth0", "va0", "10.0.0.1/24");
        let (mut list, _source) = start(&lab);
        let first = wait(&mut list, "the first Pod", |list| !list.ports.is_empty()).await;
        assert!(first.connected);
        assert_eq!(shown(&first), [format!("mkt/feed-0 eth0 va0 {}", lab.ifindex("va0"))]);
        let feed = first.ports[0].clone();
        assert!(
            feed.addresses.contains(&"10.0.0.1".parse().expect("an address")),
            "{:?}",
            feed.addresses
        );
        assert_eq!(
            feed.netns.as_deref(),
            Some(format!("/run/netns/{}mkt_feed-0", lab.prefix).as_str())
        );
        assert!(feed.pod.sandbox.starts_with("netns:"), "{}", feed.pod.sandbox);

        // A second Pod, whose inner and outer indexes repeat those of others; and a second interface of the first.
        lab.add_netns("rec-0");
        lab.add_veth("rec-0", "eth0", "vb0", "10.0.0.2/24");
        lab.add_veth("mkt_feed-0", "net1", "va1", "fd00::1/64");
        let more = wait(&mut list, "three interfaces", |list| list.ports.len() == 3).await;
        let index = |host| lab.ifindex(host);
        let expected = [
            format!("default/rec-0 eth0 vb0 {}", index("vb0")),
            format!("mkt/feed-0 eth0 va0 {}", index("va0")),
            format!("mkt/feed-0 net1 va1 {}", index("va1")),
        ];
        assert_eq!(shown(&more), expected);

        // An address that comes later, without any change that the node could see.
        sh(&format!("ip -n {}rec-0 addr add 10.9.9.9/32 dev eth0", lab.prefix));
        let late = "10.9.9.9".parse().expect("an address");
        wait(&mut list, "the late address", |list| {
            list.ports[0].addresses.contains(&late)
        })
        .await;

        // The same name again is another Pod, even when all of it happens between two looks.
        let begun = Instant::now();
        sh(&format!(
            "ip -n {} link del va0 && ip netns del {}mkt_feed-0",
            lab.node, lab.prefix
        ));
        lab.add_netns("mkt_feed-0");
        lab.add_veth("mkt_feed-0", "eth0", "va0", "10.0.0.1/24");
        let again = wait(&mut list, "the new sandbox", |list| {
            list.ports
                .iter()
                .any(|port| port.pod.name == "feed-0" && port.pod.sandbox != feed.pod.sandbox)
        })
        .await;
        println!("new sandbox seen after {:?}", begun.elapsed());
        assert_eq!(again.ports.iter().filter(|port| port.pod.name == "feed-0").count(), 1);

        sh(&format!("ip netns del {}mkt_feed-0", lab.prefix));
        let gone = wait(&mut list, "the Pod has gone", |list| list.ports.len() == 1).await;
        assert_eq!(shown(&gone), [expected[0].clone()]);
    });
}

#[test]
fn what_is_no_pod_is_left_out_and_what_cannot_be_counted_is_listed() {
    let lab = Lab::new("b");
    lab.run(async || {
        let Lab { prefix, node } = &lab;
        lab.add_netns("a_pod");
        lab.add_veth("a_pod", "eth0", "va0", "10.0.0.1/24");
        // No Pods: a name that Kubernetes would refuse, and the node itself under a Pod's name.
        lab.add_netns("a_b_c");
        lab.add_veth("a_b_c", "eth0", "vx0", "10.0.0.9/24");
        sh(&format!("ip netns exec {node} ip netns attach {prefix}node $$"));
        // A device that is no veth, one of those that is down, and a veth whose other end is another Pod's.
        lab.add_netns("tap");
        lab.add_netns("far");
        sh(&format!(
            "ip -n {prefix}tap tuntap add dev net1 mode tap && ip -n {prefix}tap link set net1 up && \
             ip -n {prefix}tap tuntap add dev idle mode tap && \
             ip -n {prefix}far link add eth0 type veth peer name eth1 netns {prefix}tap"
        ));
        let (mut list, _source) = start(&lab);
        let found = wait(&mut list, "the first reading", |list| list.connected).await;
        assert_eq!(shown(&found), [format!("a/pod eth0 va0 {}", lab.ifindex("va0"))]);
        assert_eq!(
            reasons(&found),
            ["far eth0 NoIfindex", "tap eth1 NoIfindex", "tap net1 NotVeth"]
        );
    });
}

/// Two Pods that another namespace connects, with the very indexes that the agent's own veth has.
#[test]
fn a_strangers_veth_with_equal_indexes_is_not_taken_for_ours() {
    let lab = Lab::new("c");
    lab.run(async || {
        lab.add_netns("ours");
        lab.add_netns("theirs");
        let Lab { prefix, node } = &lab;
        sh(&format!("ip netns add {prefix}OTHER"));
        for (pod, namespace) in [("ours", node.clone()), ("theirs", format!("{prefix}OTHER"))] {
            sh(&format!(
                "ip -n {namespace} link add va0 index 77 type veth peer name eth0 index 78 netns {prefix}{pod}"
            ));
        }
        let (mut list, _source) = start(&lab);
        let found = wait(&mut list, "the first reading", |list| list.connected).await;
        assert_eq!(shown(&found), ["default/ours eth0 va0 77"]);
        assert_eq!(reasons(&found), ["theirs eth0 NoIfindex"]);
    });
}

/// A namespace lives as long as somebody holds it; its veth would stay on the node with it.
#[test]
fn a_deleted_namespace_is_not_kept_alive() {
    let lab = Lab::new("d");
    lab.run(async || {
        lab.add_netns("pod");
        lab.add_veth("pod", "eth0", "va0", "10.0.0.1/24");
        let (mut list, _source) = start(&lab);
        wait(&mut list, "the Pod", |list| list.ports.len() == 1).await;
        sh(&format!("ip netns del {}pod", lab.prefix));
        wait(&mut list, "no Pod", |list| list.ports.is_empty()).await;
        // The kernel takes a namespace apart in the background.
        for _ in 0..300 {
            if !attempt(&format!("ip -n {} link show dev va0", lab.node))
                .status
                .success()
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("the veth of a deleted namespace is still there: somebody holds the namespace");
    });
}

#[test]
fn a_directory_that_comes_later_is_found_and_one_that_is_none_ends_nothing() {
    let lab = Lab::new("e");
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("netns");
    lab.run(async || {
        let (out, mut list) = watch::channel(PodPorts::default());
        let config = NetnsConfig {
            directory: directory.clone(),
            prefix: String::new(),
        };
        let source = tokio::spawn(async move { run(config, out, pending()).await });
        let empty = wait(&mut list, "the reading of no directory", |list| list.connected).await;
        assert!(empty.ports.is_empty() && empty.uncounted.is_empty());
        lab.add_netns("pod");
        lab.add_veth("pod", "eth0", "va0", "10.0.0.1/24");
        std::fs::create_dir(&directory).expect("a directory");
        // A file without a namespace is what `ip netns add` leaves for a moment.
        std::fs::write(directory.join("empty"), "").expect("a file");
        std::os::unix::fs::symlink(format!("/run/netns/{}pod", lab.prefix), directory.join("pod")).expect("a link");
        let found = wait(&mut list, "the Pod", |list| !list.ports.is_empty()).await;
        assert_eq!(shown(&found), [format!("default/pod eth0 va0 {}", lab.ifindex("va0"))]);
        std::fs::rename(&directory, parent.path().join("away")).expect("renamed");
        std::fs::write(&directory, "no directory").expect("a file");
        let held = wait(&mut list, "the source is away", |list| !list.connected).await;
        assert_eq!(held.ports, found.ports, "the last list holds");
        assert!(!source.is_finished());
    });
}

#[test]
fn a_shutdown_ends_the_source_and_its_thread() {
    let lab = Lab::new("f");
    lab.run(async || {
        let (out, mut list) = watch::channel(PodPorts::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let config = config(&lab);
        let source = tokio::spawn(async move { run(config, out, async { drop(stopped.await) }).await });
        wait(&mut list, "the first reading", |list| list.connected).await;
        stop.send(()).expect("the source must listen");
        source.await.expect("no panic").expect("no error");
        // The thread owns the sender: when it has ended, the channel is closed.
        while list.changed().await.is_ok() {}
    });
}
