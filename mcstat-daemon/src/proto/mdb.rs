//! The text of `ovs-appctl mdb/show`: what a bridge learned by IGMP and MLD snooping.
//!
//! Takes the layout up to Open vSwitch 3.2 and the one since 3.3, which has a protocol column. A line of any other shape
//! is an error: half a table would read as groups that are gone.

use std::{net::IpAddr, str::SplitWhitespace};

use thiserror::Error;

/// A bridge's snooping table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mdb {
    /// Who joined what, as the switch understood it, in its order.
    pub members: Vec<MdbMember>,
    /// Ports that a querier was heard on.
    pub queriers: Vec<MdbQuerier>,
}

/// A port that joined a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MdbMember {
    /// OpenFlow number of the port, or `LOCAL`.
    pub port: MdbPort,
    /// VLAN, 0 without.
    pub vlan: u16,
    /// `IGMPv3` and the like, as the switch says it; only since 3.3.
    pub protocol: Option<String>,
    /// The group.
    pub group: IpAddr,
    /// Seconds since the last report.
    pub age_seconds: u32,
}

/// A port that leads to a querier: it gets every group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MdbQuerier {
    /// The port.
    pub port: MdbPort,
    /// VLAN, 0 without.
    pub vlan: u16,
    /// Seconds since the last query.
    pub age_seconds: u32,
}

/// A port in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MdbPort {
    /// By its OpenFlow number.
    Number(u32),
    /// The bridge itself.
    Local,
}

/// A line that is in neither layout.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} of mdb/show is in no known layout: {text:?}")]
pub struct MdbError {
    /// Its number, from 1.
    pub line: usize,
    /// Its first 80 characters.
    pub text: String,
}

/// Reads a whole table, heading included.
///
/// # Errors
/// [`MdbError`], for the first line that is not understood.
pub fn parse(text: &str) -> Result<Mdb, MdbError> {
    let mut lines = text.lines().zip(1..);
    let wrong = |text: &str, line| MdbError {
        line,
        text: text.chars().take(80).collect(),
    };
    let (heading, number) = lines.next().unwrap_or(("", 1));
    let columns: Vec<&str> = heading.split_whitespace().collect();
    let protocol = match *columns {
        ["port", "VLAN", "GROUP", "Age"] => false,
        ["port", "VLAN", "protocol", "GROUP", "Age"] => true,
        _ => return Err(wrong(heading, number)),
    };
    let mut mdb = Mdb::default();
    for (text, number) in lines {
        match row(text.split_whitespace(), protocol) {
            Some(Row::Member(member)) => mdb.members.push(member),
            Some(Row::Querier(querier)) => mdb.queriers.push(querier),
            None => return Err(wrong(text, number)),
        }
    }
    Ok(mdb)
}

enum Row {
    Member(MdbMember),
    Querier(MdbQuerier),
}

fn row(mut words: SplitWhitespace<'_>, protocol: bool) -> Option<Row> {
    let port = match words.next()? {
        "LOCAL" => MdbPort::Local,
        number => MdbPort::Number(number.parse().ok()?),
    };
    let vlan = words.next()?.parse().ok()?;
    let mut group = words.next()?;
    let mut name = None;
    // A querier's row has no protocol, whatever the heading says.
    if protocol && group != "querier" {
        name = Some(group.to_owned());
        group = words.next()?;
    }
    let age_seconds = words.next()?.parse().ok()?;
    if words.next().is_some() {
        return None;
    }
    Some(match group {
        "querier" => Row::Querier(MdbQuerier {
            port,
            vlan,
            age_seconds,
        }),
        group => Row::Member(MdbMember {
            port,
            vlan,
            protocol: name,
            group: group.parse().ok()?,
            age_seconds,
        }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Open vSwitch 3.1.0 printed after two joins, a general query and the MLD report of a kernel.
    const BEFORE_3_3: &str = " port  VLAN  GROUP                Age
    1     0  ff02::1:ffe0:4181          12
    2     7  239.1.1.1          10
    1     0  querier              12
";
    /// The same with the column that 3.3 added.
    const SINCE_3_3: &str = " port  VLAN  protocol  GROUP                Age
    1     0  MLDv2     ff02::1:ffe0:4181          12
    2     7  IGMPv2    239.1.1.1          10
    1     0  querier              12
";

    fn expected(protocols: [Option<&str>; 2]) -> Mdb {
        let member = |port, vlan, protocol: Option<&str>, group: &str, age_seconds| MdbMember {
            port: MdbPort::Number(port),
            vlan,
            protocol: protocol.map(str::to_owned),
            group: group.parse().unwrap(),
            age_seconds,
        };
        Mdb {
            members: vec![
                member(1, 0, protocols[0], "ff02::1:ffe0:4181", 12),
                member(2, 7, protocols[1], "239.1.1.1", 10),
            ],
            queriers: vec![MdbQuerier {
                port: MdbPort::Number(1),
                vlan: 0,
                age_seconds: 12,
            }],
        }
    }

    #[test]
    fn both_layouts_say_the_same() {
        assert_eq!(parse(BEFORE_3_3), Ok(expected([None, None])));
        assert_eq!(parse(SINCE_3_3), Ok(expected([Some("MLDv2"), Some("IGMPv2")])));
    }

    #[test]
    fn an_empty_table_and_the_local_port() {
        let heading = " port  VLAN  GROUP                Age\n";
        assert_eq!(parse(heading), Ok(Mdb::default()));
        let mdb = parse(&format!("{heading}LOCAL  1725  239.255.0.1         299\n")).unwrap();
        assert_eq!((mdb.members[0].port, mdb.members[0].vlan), (MdbPort::Local, 1725));
    }

    #[test]
    fn what_is_in_no_layout_is_named() {
        for (text, line) in [
            ("", 1),
            ("no such bridge\n", 1),
            (" port  VLAN  GROUP  Age\n 1 0 239.1.1.1\n", 2),
            (" port  VLAN  GROUP  Age\n 1 0 239.1.1.1 3 4\n", 2),
            (
                " port  VLAN  GROUP  Age\n 1 0 239.1.1.1 3\n 1 0 IGMPv3 239.1.1.1 3\n",
                3,
            ),
            (" port  VLAN  protocol  GROUP  Age\n 1 0 239.1.1.1 3\n", 2),
            (" port  VLAN  GROUP  Age\n 1 0 239.1.1 3\n", 2),
        ] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "( port  VLAN  (protocol  )?GROUP  Age\n)?([ 0-9a-zA-Z.:\n]|querier|LOCAL){0,200}") {
            let _ = parse(&text);
        }
    }
}
