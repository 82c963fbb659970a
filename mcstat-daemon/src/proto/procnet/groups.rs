//! `/proc/net/igmp` and `/proc/net/igmp6`: which groups each interface has joined (`net/ipv4/igmp.c`, `net/ipv6/mcast.c`).

use std::net::{IpAddr, Ipv4Addr};

use super::{ProcNetError, decimal, hex32, hex128, lines, words};

/// An interface with at least one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index in its namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// IGMP version that the host speaks there now (column `Querier`, or what `force_igmp_version` says); never for IPv6.
    pub version: Option<u8>,
    /// In the kernel's order: the youngest first.
    pub groups: Vec<Group>,
}

/// A group that is joined. The timers of the table are left out: they say when a report is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The group.
    pub group: IpAddr,
    /// Sockets and kernel users that hold it.
    pub users: u32,
}

/// A line of `igmp`: an interface, or one of the groups of the interface above.
enum Line {
    Interface(Interface),
    Group(Group),
}

/// Decodes `/proc/net/igmp`.
///
/// # Errors
/// [`ProcNetError::Line`].
pub fn igmp(text: &[u8]) -> Result<Vec<Interface>, ProcNetError> {
    let mut interfaces: Vec<Interface> = Vec::new();
    lines("igmp", text, 1, |line| {
        match igmp_line(line)? {
            Line::Interface(interface) => interfaces.push(interface),
            Line::Group(group) => interfaces.last_mut()?.groups.push(group),
        }
        Some(())
    })?;
    Ok(interfaces)
}

fn igmp_line(line: &[u8]) -> Option<Line> {
    let mut words = words(line);
    let first = words.next()?;
    if line.starts_with(b"\t") {
        let address = Ipv4Addr::from(hex32(first)?.to_ne_bytes());
        return Some(Line::Group(Group {
            group: address.into(),
            users: decimal(words.next()?)?,
        }));
    }
    // `eth0      :     2      V3`; a name of fifteen bytes leaves no room before the colon.
    let name = words.next()?;
    let name = match name.strip_suffix(b":") {
        Some(name) => name,
        None => words.next().filter(|word| *word == b":").map(|_| name)?,
    };
    let _count: u32 = decimal(words.next()?)?;
    Some(Line::Interface(Interface {
        ifindex: decimal(first)?,
        name: String::from_utf8_lossy(name).into_owned(),
        version: match words.next()? {
            b"V1" => Some(1),
            b"V2" => Some(2),
            b"V3" => Some(3),
            // A kernel that does not speak IGMP.
            b"NONE" => None,
            _ => return None,
        },
        groups: Vec::new(),
    }))
}

/// Decodes `/proc/net/igmp6`.
///
/// # Errors
/// [`ProcNetError::Line`].
pub fn igmp6(text: &[u8]) -> Result<Vec<Interface>, ProcNetError> {
    let mut interfaces: Vec<Interface> = Vec::new();
    lines("igmp6", text, 0, |line| {
        let mut words = words(line);
        let ifindex = decimal(words.next()?)?;
        let name = words.next()?;
        let group = Group {
            group: hex128(words.next()?)?.into(),
            users: decimal(words.next()?)?,
        };
        match interfaces.last_mut().filter(|last| last.ifindex == ifindex) {
            Some(last) => last.groups.push(group),
            None => interfaces.push(Interface {
                ifindex,
                name: String::from_utf8_lossy(name).into_owned(),
                version: None,
                groups: vec![group],
            }),
        }
        Some(())
    })?;
    Ok(interfaces)
}
