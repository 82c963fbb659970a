//! Flows as `ovs-ofctl` prints them: the independent reading that a test compares a decoder with.

use anyhow::{Context, Result};

use crate::traffic::Count;

/// One flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Cookie.
    pub cookie: u64,
    /// Packets, and bytes of whole frames without FCS.
    pub count: Count,
    /// From `priority=` on, without a space: `priority=200,ip,nw_src=10.10.0.11`.
    pub matches: String,
    /// As printed.
    pub actions: String,
}

/// Reads the answer of `ovs-ofctl --no-names dump-flows`.
pub fn flows(text: &str) -> Result<Vec<Flow>> {
    let lines = text.lines().filter(|line| line.contains("cookie="));
    lines
        .map(|line| flow(line).with_context(|| format!("not a flow as ovs-ofctl prints it: {line}")))
        .collect()
}

fn flow(line: &str) -> Option<Flow> {
    let (head, actions) = line.split_once(" actions=")?;
    let (head, matches) = head.split_at(head.find("priority=")?);
    let field = |name: &str| {
        let (_, rest) = head.split_once(name)?;
        rest.split([',', ' ']).next()
    };
    Some(Flow {
        cookie: u64::from_str_radix(field("cookie=0x")?, 16).ok()?,
        count: Count::new(field("n_packets=")?.parse().ok()?, field("n_bytes=")?.parse().ok()?),
        matches: matches.trim_end().to_owned(),
        actions: actions.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Count, flows};

    #[test]
    fn reads_what_ovs_ofctl_prints() {
        let text = "OFPST_FLOW reply (OF1.5) (xid=0x2):\n cookie=0x1050000000000, duration=2.5s, table=10, \
                    n_packets=10, n_bytes=1420, idle_age=1, reset_counts priority=200,ip,reg1=0xb actions=goto_table:11\n";
        let read = flows(text).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].cookie, 0x1_0500_0000_0000);
        assert_eq!(read[0].count, Count::new(10, 1420));
        assert_eq!(read[0].matches, "priority=200,ip,reg1=0xb");
        assert_eq!(read[0].actions, "goto_table:11");
        assert!(flows(" cookie=0x1, table=3\n").is_err());
    }
}
