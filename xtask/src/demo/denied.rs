//! The stream that a policy denies: the policy as its author writes it, the same rules in the switch, and what mcstat must
//! tell of them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::Result;
use serde_json::Value;

use super::{
    check::Line,
    plan::{PODS, STREAMS, Stream},
};
use crate::bed::{Bed, pipeline::Verdict};

/// What is denied, and to whom it would have gone.
pub(super) const DENIED: Stream = Stream {
    group: IpAddr::V4(Ipv4Addr::new(239, 1, 1, 9)),
    sender: "feed-0",
    members: &["rec-1"],
    packets: 60,
    pps: 30,
    size: 100,
};

/// Antrea's document.
const POLICY: &str = "\
apiVersion: crd.antrea.io/v1beta1
kind: NetworkPolicy
metadata: {name: market-data, namespace: mkt}
spec:
  priority: 10
  appliedTo: [{podSelector: {}}]
  egress:
  - {name: no-test-feed, action: Drop, to: [{ipBlock: {cidr: 239.1.1.9/32}}]}
  - {name: market-data, action: Allow, to: [{ipBlock: {cidr: 239.0.0.0/8}}]}
";

/// The directory of policies that agent and aggregator read.
pub(super) fn directory(bed: &Bed) -> PathBuf {
    bed.dir().join("policies")
}

/// Puts the policy into the directory and its rules into the switch, as Antrea would.
pub(super) fn install(bed: &Bed) -> Result<()> {
    fs::create_dir_all(directory(bed))?;
    fs::write(directory(bed).join("market-data.yaml"), POLICY)?;
    let pods = PODS.map(|(_, name)| name);
    bed.pipeline()
        .add_egress_rule(1, &pods, "239.1.1.9/32", Verdict::Drop)?;
    bed.pipeline()
        .add_egress_rule(2, &pods, "239.0.0.0/8", Verdict::Allow)?;
    bed.forward(DENIED.group, DENIED.members)
}

/// What the sender's row must tell of the stream, and that every Pod's two ledgers agree.
pub(super) fn check(list: &Value) -> Vec<Line> {
    let find = |name: &str| {
        let items = list["items"].as_array().into_iter().flatten();
        items.into_iter().find(|pod| pod["metadata"]["name"] == *name)
    };
    let sender = find(DENIED.sender);
    let dropped = sender.map(|pod| &pod["status"]["outbound"]["dropped"]);
    let groups = sender
        .and_then(|pod| pod["status"]["groups"].as_array())
        .into_iter()
        .flatten();
    let mut groups = groups.filter(|group| group["group"] == *DENIED.group.to_string());
    let rule = groups.next().map(|group| &group["outbound"]["rule"]["rule"]);
    let holds = dropped == Some(&DENIED.packets.into()) && rule == Some(&"no-test-feed".into());
    let line = format!(
        "{}  outbound {:<14} {:>5} packets dropped by mkt/market-data no-test-feed",
        DENIED.sender, DENIED.group, DENIED.packets
    );
    let mut lines = vec![told(holds, line, &format!("{dropped:?} by {rule:?}"))];
    for (_, name) in PODS {
        let conditions = find(name)
            .and_then(|pod| pod["status"]["conditions"].as_array())
            .into_iter()
            .flatten();
        let mut agree = conditions.filter(|condition| condition["type"] == "LedgersAgree");
        let status = agree
            .next()
            .and_then(|condition| condition["status"].as_str())
            .unwrap_or("nothing");
        lines.push(told(
            status == "True",
            format!("{name:<7} veth and switch agree"),
            status,
        ));
    }
    lines
}

/// What a list of AntreaNetworkPolicyStats must tell of the two rules.
pub(super) fn check_rules(list: &Value) -> Vec<Line> {
    let allowed = STREAMS
        .iter()
        .filter(|stream| stream.group.to_string().starts_with("239."));
    let allowed = allowed.fold((0, 0), |sum, stream| (sum.0 + stream.packets, sum.1 + stream.bytes()));
    let denied = (DENIED.packets, DENIED.bytes());
    let rules = [("market-data", "allowed", allowed), ("no-test-feed", "dropped", denied)];
    let each = rules.map(|(name, verb, expected)| {
        let found = list["items"][0]["ruleTrafficStats"].as_array().into_iter().flatten();
        let mut found = found.filter(|rule| rule["name"] == name);
        let shown = found.next().and_then(|rule| {
            let stats = &rule["trafficStats"];
            Some((stats["packets"].as_u64()?, stats["bytes"].as_u64()?))
        });
        let line = format!(
            "rule {name:<13} {verb} {:>5} packets {:>7} bytes",
            expected.0, expected.1
        );
        told(shown == Some(expected), line, &format!("{shown:?}"))
    });
    each.into()
}

fn told(holds: bool, mut text: String, shown: &str) -> Line {
    if !holds {
        text += &format!("   mcstat shows {shown}");
    }
    Line { holds, text }
}
