//! Two nodes and a tunnel, as in Antrea's encap mode. Needs root and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr};

use mcstat_bed::{pair::Pair, traffic::Count};

const GROUP: Ipv4Addr = Ipv4Addr::new(225, 1, 2, 3);

/// A group with members on both nodes: counted once where it is sent, and at each member where that is.
#[test]
fn a_member_behind_the_tunnel_gets_what_was_sent_once() {
    let pair = Pair::up(
        &[("mkt", "feed"), ("mkt", "near")],
        &[("mkt", "far-0"), ("mkt", "far-1")],
    )
    .unwrap();
    let (left, right) = (pair.left.pipeline(), pair.right.pipeline());
    left.set_group_with(GROUP, &["near"], &[pair.right.vtep().unwrap()])
        .unwrap();
    // The other node knows the sender's node as a member, too: what came through the tunnel must not go back.
    right
        .set_group_with(GROUP, &["far-0", "far-1"], &[pair.left.vtep().unwrap()])
        .unwrap();
    let group = IpAddr::V4(GROUP);
    let receive = |bed: &mcstat_bed::Bed, pod: &str| bed.pod(pod).unwrap().receive(&[group]).unwrap();
    let receivers = [
        receive(&pair.left, "near"),
        receive(&pair.right, "far-0"),
        receive(&pair.right, "far-1"),
    ];
    let feed = pair.left.pod("feed").unwrap();
    assert_eq!(feed.send(group, 300, 300, 100).wait().unwrap(), 300);
    assert_eq!(feed.send(group, 100, 300, 1400).wait().unwrap(), 100);

    // 300 × 142 and 100 × 1,442 bytes: the inner frame, whatever the tunnel wrapped around it.
    let frames = Some(Count::new(400, 186_800));
    let read = || {
        let inbound = [left.inbound("near"), right.inbound("far-0"), right.inbound("far-1")].map(Result::unwrap);
        (left.outbound("feed").unwrap(), inbound)
    };
    let complete = || {
        pair.right.ovs.revalidate()?;
        Ok(read() == (frames, [frames; 3]))
    };
    pair.left
        .eventually("400 packets at each of three members", complete)
        .unwrap();
    let payload = Count::new(400, 170_000);
    assert_eq!(
        receivers.map(|receiver| receiver.finish().unwrap()[&group]),
        [payload; 3]
    );
    // Nobody on the other node sent anything, and nothing came back.
    for pod in ["far-0", "far-1"] {
        assert_eq!(right.outbound(pod).unwrap(), Some(Count::default()));
    }
    assert_eq!(left.inbound("feed").unwrap(), Some(Count::default()));
    assert_eq!(
        [
            pair.left.ovs.queue_drops().unwrap(),
            pair.right.ovs.queue_drops().unwrap()
        ],
        [0, 0]
    );
}

/// The tunnel is there again after the switch has been restarted.
#[test]
fn the_tunnel_outlives_the_switch() {
    let pair = Pair::up(&[("mkt", "feed")], &[("mkt", "far")]).unwrap();
    let (left, right) = (pair.left.pipeline(), pair.right.pipeline());
    left.set_group_with(GROUP, &[], &[pair.right.vtep().unwrap()]).unwrap();
    right.set_group(GROUP, &["far"]).unwrap();
    pair.left.ovs.restart_vswitchd().unwrap();
    left.install(2).unwrap();
    let group = IpAddr::V4(GROUP);
    let receiver = pair.right.pod("far").unwrap().receive(&[group]).unwrap();
    assert_eq!(
        pair.left.pod("feed").unwrap().send(group, 50, 200, 100).wait().unwrap(),
        50
    );
    let frames = Some(Count::new(50, 7100));
    pair.right
        .eventually("50 packets", || Ok(right.inbound("far")? == frames))
        .unwrap();
    assert_eq!(receiver.finish().unwrap()[&group].packets, 50);
}
