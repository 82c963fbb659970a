//! The `ovsdb` source against a real Open vSwitch: ovsdb-server and ovs-vswitchd with the userspace datapath, in their
//! own network namespace and run directory. Needs root, iproute2 and openvswitch-switch.

mod pods_lab;
mod switch_lab;

use std::{
    future::pending,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use mcstat::agent::pods::{PodPorts, ovsdb::run};
use pods_lab::{attempt, reasons, sh, shown, wait};
use switch_lab::{Switch, kill};
use tokio::sync::{oneshot, watch};

/// Follows the list and keeps the smallest number of ports that was ever published since the last reset.
fn watch_minimum(mut list: watch::Receiver<PodPorts>) -> Arc<Mutex<usize>> {
    let minimum = Arc::new(Mutex::new(usize::MAX));
    let kept = Arc::clone(&minimum);
    tokio::spawn(async move {
        while list.changed().await.is_ok() {
            let count = list.borrow_and_update().ports.len();
            let mut kept = kept.lock().expect("no panic while it was held");
            *kept = count.min(*kept);
        }
    });
    minimum
}

fn start(switch: &Switch) -> watch::Receiver<PodPorts> {
    let (out, list) = watch::channel(PodPorts::default());
    let config = switch.config();
    tokio::spawn(async move { run(config, out, pending()).await.expect("the source must work") });
    list
}

#[test]
fn pod_ports_come_change_and_go() {
    let switch = Switch::new("p");
    let lab = &switch.lab;
    lab.run(async || {
        switch.add_pod("feed-0", "feed-0-aaaaaa", "c1", "10.0.0.1");
        let mut list = start(&switch);
        let first = wait(&mut list, "the first Pod", |list| list.ports.len() == 1).await;
        assert_eq!(shown(&first), [switch.port("feed-0", "eth0", "feed-0-aaaaaa")]);
        assert_eq!(first.ports[0].pod.sandbox, "c1");
        let ofport: u32 = switch
            .vsctl("get interface feed-0-aaaaaa ofport")
            .parse()
            .expect("a number");
        let with_ofport = wait(&mut list, "its ofport", |list| list.ports[0].ofport.is_some()).await;
        assert_eq!(with_ofport.ports[0].ofport, Some(ofport));
        assert!(with_ofport.connected);

        // A second Pod, and a second interface of the first.
        switch.add_pod("rec-0", "rec-0-bbbbbb", "c2", "10.0.0.2");
        lab.add_veth("feed-0", "net1", "feed-0-cccccc", "10.1.0.1/24");
        switch.add_port("feed-0", "feed-0-cccccc", "c1", "external_ids:if-dev=net1");
        let three = wait(&mut list, "three ports", |list| list.ports.len() == 3).await;
        let expected = [
            switch.port("feed-0", "eth0", "feed-0-aaaaaa"),
            switch.port("feed-0", "net1", "feed-0-cccccc"),
            switch.port("rec-0", "eth0", "rec-0-bbbbbb"),
        ];
        assert_eq!(shown(&three), expected);

        switch.vsctl("set port rec-0-bbbbbb 'external_ids:ip-address=\"10.0.0.7,fd00::7\"'");
        let addresses = ["10.0.0.7", "fd00::7"].map(|text| text.parse::<IpAddr>().expect("an address"));
        wait(&mut list, "the new addresses", |list| {
            list.ports[2].addresses == addresses
        })
        .await;

        // What cannot be counted: an internal port, and a device that is not there.
        switch.add_port(
            "vf-0",
            "vf-0-dddddd",
            "c4",
            "-- set interface vf-0-dddddd type=internal",
        );
        attempt(&format!(
            "ovs-vsctl --db=unix:{0} --no-wait add-port br-int gone-0-eeeeee -- set port gone-0-eeeeee \
             external_ids:antrea-type=container external_ids:container-id=c5 external_ids:pod-name=gone-0 \
             external_ids:pod-namespace=mkt",
            switch.path("db.sock").display()
        ));
        let listed = wait(&mut list, "both listed", |list| {
            reasons(list) == ["gone-0 eth0 NoIfindex", "vf-0 eth0 NotVeth"]
                && list.uncounted[0].message.contains("ofport -1")
        })
        .await;
        assert_eq!(shown(&listed), expected);
        assert!(
            listed.uncounted[0].message.contains("No such device"),
            "{}",
            listed.uncounted[0].message
        );

        // A veth that vanishes under its port, and a port that goes.
        sh(&format!("ip -n {} link del rec-0-bbbbbb", lab.node));
        wait(&mut list, "a port without its veth", |list| {
            reasons(list).contains(&"rec-0 eth0 NoIfindex".to_owned())
        })
        .await;
        switch.vsctl("--no-wait del-port rec-0-bbbbbb -- del-port gone-0-eeeeee -- del-port vf-0-dddddd");
        let left = wait(&mut list, "the first Pod alone", |list| list.uncounted.is_empty()).await;
        assert_eq!(shown(&left), expected[..2]);
    });
}

#[test]
fn no_pod_is_lost_while_database_or_switch_restart() {
    let mut switch = Switch::new("r");
    switch.add_pod("feed-0", "feed-0-aaaaaa", "c1", "10.0.0.1");
    switch.add_pod("rec-0", "rec-0-bbbbbb", "c2", "10.0.0.2");
    let node = switch.lab.node.clone();
    let file = std::fs::File::open(format!("/run/netns/{node}")).expect("the node's namespace");
    let config = switch.config();
    let (out, mut list) = watch::channel(PodPorts::default());
    let (stop, stopped) = oneshot::channel::<()>();
    // The source gets a thread of its own, so that this one may wait for ovs-vsctl.
    let source = std::thread::spawn(move || {
        nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering a namespace needs root");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime
            .block_on(run(config, out, async { drop(stopped.await) }))
            .expect("the source must work");
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let whole =
            |list: &PodPorts| list.connected && list.ports.iter().filter(|port| port.ofport.is_some()).count() == 2;
        wait(&mut list, "both Pods", whole).await;
        let minimum = watch_minimum(list.clone());

        // The switch alone restarts: ovs-vsctl returns when it has configured everything again.
        kill(&mut switch.switch);
        switch.start_switch();
        switch.vsctl("set bridge br-int external_ids:restarted=1");
        switch.vsctl("set port rec-0-bbbbbb external_ids:ip-address=10.0.0.7");
        let seen = |list: &PodPorts| {
            list.ports
                .iter()
                .any(|port| port.addresses == [IpAddr::from([10, 0, 0, 7])])
        };
        let before = wait(&mut list, "a change after the restart", seen).await;

        // The database restarts while the switch is away: ifindex is lost.
        kill(&mut switch.switch);
        kill(&mut switch.server);
        let held = wait(&mut list, "the database is away", |list| !list.connected).await;
        assert_eq!(held.ports, before.ports);
        switch.start_server();
        assert_eq!(
            switch.vsctl("--no-wait get interface feed-0-aaaaaa ifindex"),
            "[]",
            "the case that is to be tested"
        );
        let back = wait(&mut list, "the database is back", |list| list.connected).await;
        assert_eq!(back.ports, before.ports);

        // The switch comes back too, and everything moves again.
        switch.start_switch();
        switch.vsctl("wait-until interface feed-0-aaaaaa 'ifindex>0'");
        switch.add_pod("new-0", "new-0-cccccc", "c3", "10.0.0.3");
        wait(&mut list, "a third Pod", |list| list.ports.len() == 3).await;
        assert_eq!(
            *minimum.lock().expect("no panic while it was held"),
            2,
            "a Pod vanished in between"
        );

        // The bridge goes: that is no reading of its ports.
        switch.vsctl("--no-wait del-br br-int");
        let held = wait(&mut list, "no bridge", |list| !list.connected).await;
        assert_eq!(held.ports.len(), 3);
        assert!(reasons(&held).is_empty());
    });
    stop.send(()).expect("the source must listen");
    source.join().expect("the source must end without a panic");
    assert!(
        list.has_changed().is_err(),
        "the source has ended and closed its channel"
    );
}

/// A stopped server closes nothing: only the missing answer to an echo tells.
#[test]
fn a_server_that_hangs_is_noticed_and_followed_again() {
    let switch = Switch::new("h");
    switch.lab.run(async || {
        switch.add_pod("feed-0", "feed-0-aaaaaa", "c1", "10.0.0.1");
        let mut list = start(&switch);
        let before = wait(&mut list, "the Pod", |list| list.ports.len() == 1).await;
        let server = switch.server.as_ref().expect("it was started").id();
        sh(&format!("kill -STOP {server}"));
        let held = wait(&mut list, "the server hangs", |list| !list.connected).await;
        assert_eq!(shown(&held), shown(&before));
        sh(&format!("kill -CONT {server}"));
        wait(&mut list, "the server goes on", |list| list.connected).await;
    });
}
