//! Compares what mcstat shows with what was sent, number by number.

use std::net::IpAddr;

use serde_json::Value;

use super::plan::{Direction, Expected};

/// One comparison.
pub(super) struct Line {
    /// Both numbers are as expected.
    pub(super) holds: bool,
    /// For people, without the mark.
    pub(super) text: String,
}

/// Compares `expected` with a list of PodMulticastStats.
pub(super) fn check(expected: &[Expected], list: &Value) -> Vec<Line> {
    expected.iter().map(|expected| compare(expected, list)).collect()
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

    use super::{super::plan::Expected, Direction, check};

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
}
