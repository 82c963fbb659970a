//! Compares what mcstat shows with what was sent, number by number, and with who joined, group by group.

use std::net::IpAddr;

use serde_json::Value;

use super::denied::DENIED;
use super::plan::{Direction, Expected, PODS, STREAMS, Stream};

/// One comparison.
#[derive(Clone)]
pub(super) struct Line {
    /// It is as expected.
    pub(super) holds: bool,
    /// For people, without the mark.
    pub(super) text: String,
}

/// Compares `expected` with a list of PodMulticastStats.
pub(super) fn check(expected: &[Expected], list: &Value) -> Vec<Line> {
    expected.iter().map(|expected| compare(expected, list)).collect()
}

/// Compares the members of every group with a list of MulticastGroups, and asks that nothing is found wrong with them.
pub(super) fn check_groups(list: &Value) -> Vec<Line> {
    STREAMS.iter().map(|stream| group(stream, list)).collect()
}

fn group(stream: &Stream, list: &Value) -> Line {
    let mut expected: Vec<String> = stream.members.iter().map(|name| format!("mkt/{name}")).collect();
    expected.sort_unstable();
    let name = stream.group.to_string();
    let found = list["items"].as_array().into_iter().flatten();
    let found = found.into_iter().find(|group| group["metadata"]["name"] == *name);
    let pods = found.and_then(|group| group["pods"].as_array());
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let pods = pods.map(|pods| {
        let names = pods
            .iter()
            .map(|pod| format!("{}/{}", text(&pod["namespace"]), text(&pod["name"])));
        names.collect::<Vec<_>>()
    });
    let status = found.map_or_else(|| "none".to_owned(), |group| text(&group["status"]["summary"]));
    let holds = pods.as_ref() == Some(&expected) && status == "OK";
    let mut line = format!("{name:<13} joined by {:<21} OK", expected.join(", "));
    if !holds {
        line += &format!("   mcstat shows {} {status}", pods.unwrap_or_default().join(", "));
    }
    Line { holds, text: line }
}

/// Asks that nothing is found wrong with any Pod; of the one whose stream is denied it may be said for 10 s.
pub(super) fn check_statuses(list: &Value) -> Vec<Line> {
    let pods = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    let each = PODS.iter().map(|(namespace, name)| {
        let found = pods.iter().find(|pod| pod["metadata"]["name"] == *name);
        let status = found
            .and_then(|pod| pod["status"]["summary"].as_str())
            .unwrap_or("none");
        let holds = status == "OK" || (*name == DENIED.sender && status == "Dropping");
        let mut text = format!("{namespace}/{name:<9} {}", if holds { status } else { "OK" });
        if !holds {
            text += &format!("   mcstat shows {status}");
        }
        Line { holds, text }
    });
    each.collect()
}

fn compare(expected: &Expected, list: &Value) -> Line {
    let shown = counters(expected, list);
    let holds = shown == Some((expected.packets, expected.bytes));
    let direction = if expected.direction == Direction::Inbound {
        "inbound"
    } else {
        "outbound"
    };
    let group = expected
        .group
        .map_or("all groups".to_owned(), |group| group.to_string());
    let mut text = format!(
        "{:<7} {direction:<8} {group:<14} {:>5} packets {:>7} bytes",
        expected.pod, expected.packets, expected.bytes
    );
    match shown {
        Some(_) if holds => {}
        Some((packets, bytes)) => text += &format!("   mcstat shows {packets} packets {bytes} bytes"),
        None => text += "   mcstat shows nothing",
    }
    Line { holds, text }
}

/// Packets and bytes as shown, or nothing where there is no such Pod, group or number.
fn counters(expected: &Expected, list: &Value) -> Option<(u64, u64)> {
    let pods = list["items"].as_array()?;
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == expected.pod)?;
    let inbound = expected.direction == Direction::Inbound;
    let direction = if inbound { "inbound" } else { "outbound" };
    let Some(group) = expected.group else {
        let total = &pod["status"][direction];
        let packets = if inbound { &total["packets"] } else { &total["admitted"] };
        return Some((packets.as_u64()?, total["bytes"].as_u64()?));
    };
    // In the SSM ranges there is a line for each source, and a Pod may have more than one interface.
    let lines = pod["status"]["groups"].as_array()?.iter();
    let lines = lines.filter(|line| line["group"].as_str().and_then(|text| text.parse::<IpAddr>().ok()) == Some(group));
    let counters = lines
        .filter_map(|line| line.get(direction))
        .map(|line| Some((line["packets"].as_u64()?, line["bytes"].as_u64()?)));
    counters.reduce(|sum, one| Some((sum?.0 + one?.0, sum?.1 + one?.1)))?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::plan::Expected, Direction, check, check_groups, check_statuses};

    fn one(direction: Direction, group: Option<&str>, packets: u64, bytes: u64) -> Expected {
        Expected {
            pod: "rec-0",
            direction,
            group: group.map(|group| group.parse().unwrap()),
            packets,
            bytes,
        }
    }

    #[test]
    fn tells_right_wrong_and_missing_apart() {
        let list = json!({"items": [{"metadata": {"name": "rec-0"}, "status": {
            "inbound": {"packets": 30, "bytes": 4260},
            "outbound": {"sent": 7, "admitted": 5, "bytes": 710},
            "groups": [
                {"group": "232.1.1.1", "source": "10.0.0.1", "inbound": {"packets": 10, "bytes": 1420}},
                {"group": "232.1.1.1", "source": "10.0.0.2", "inbound": {"packets": 20, "bytes": 2840}},
                {"group": "ff0e::239:1", "outbound": {"packets": 5, "bytes": 710}}]}}]});
        let expected = [
            one(Direction::Inbound, None, 30, 4260),
            one(Direction::Outbound, None, 5, 710),
            one(Direction::Inbound, Some("232.1.1.1"), 30, 4260),
            one(Direction::Outbound, Some("ff0e:0::239:1"), 5, 710),
            one(Direction::Inbound, None, 30, 4261),
            one(Direction::Inbound, Some("ff0e::239:1"), 5, 710),
        ];
        let lines = check(&expected, &list);
        let holds: Vec<bool> = lines.iter().map(|line| line.holds).collect();
        assert_eq!(holds, [true, true, true, true, false, false]);
        assert!(lines[4].text.ends_with("mcstat shows 30 packets 4260 bytes"));
        assert!(lines[5].text.ends_with("mcstat shows nothing"));
    }

    #[test]
    fn members_and_statuses_have_to_be_those_planned() {
        let pod = |name: &str| json!({"namespace": "mkt", "name": name});
        let group = |name: &str, pods: &[&str], status: &str| {
            let pods: Vec<_> = pods.iter().map(|name| pod(name)).collect();
            json!({"metadata": {"name": name}, "pods": pods, "status": {"summary": status}})
        };
        let list = json!({"items": [
            group("239.1.1.1", &["rec-0", "rec-1"], "OK"),
            group("239.1.1.2", &["rec-0", "rec-1"], "OK"),
            group("232.1.1.1", &["rec-0"], "JoinedNoTraffic")]});
        let lines = check_groups(&list);
        let holds: Vec<bool> = lines.iter().map(|line| line.holds).collect();
        assert_eq!(holds, [true, false, false, false]);
        assert!(
            lines[1].text.ends_with("mcstat shows mkt/rec-0, mkt/rec-1 OK"),
            "{}",
            lines[1].text
        );
        assert!(lines[3].text.ends_with("mcstat shows  none"), "{}", lines[3].text);
        let status = |name: &str, status: &str| json!({"metadata": {"name": name}, "status": {"summary": status}});
        let pods = json!({"items": [status("feed-0", "OK"), status("rec-0", "Stale"), status("rec-1", "OK")]});
        let holds: Vec<bool> = check_statuses(&pods).iter().map(|line| line.holds).collect();
        assert_eq!(holds, [true, false, true, false]);
    }
}
