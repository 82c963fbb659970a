//! `/proc/net/mcfilter` and `/proc/net/mcfilter6`: how many users of a group name a source, to include or exclude it
//! (`net/ipv4/igmp.c`, `net/ipv6/mcast.c`).
//!
//! The tables cut interface names after six bytes, so the name is not decoded: the index is what to join by.

use std::net::{IpAddr, Ipv4Addr};

use super::{ProcNetError, decimal, hex32, hex128, lines, words};

/// One source of one group on one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The interface's index in its namespace.
    pub ifindex: u32,
    /// The group.
    pub group: IpAddr,
    /// The source.
    pub source: IpAddr,
    /// How often users in INCLUDE mode name it. A socket that names a source twice counts twice.
    pub include: u32,
    /// How often users in EXCLUDE mode name it.
    pub exclude: u32,
}

/// Decodes `/proc/net/mcfilter`.
///
/// # Errors
/// [`ProcNetError::Line`].
pub fn mcfilter(text: &[u8]) -> Result<Vec<Source>, ProcNetError> {
    lines("mcfilter", text, 1, |line| {
        source(line, |word| {
            let bits = hex32(word.strip_prefix(b"0x")?)?;
            Some(Ipv4Addr::from_bits(bits).into())
        })
    })
}

/// Decodes `/proc/net/mcfilter6`.
///
/// # Errors
/// [`ProcNetError::Line`].
pub fn mcfilter6(text: &[u8]) -> Result<Vec<Source>, ProcNetError> {
    lines("mcfilter6", text, 1, |line| {
        source(line, |word| Some(hex128(word)?.into()))
    })
}

fn source(line: &[u8], address: impl Fn(&[u8]) -> Option<IpAddr>) -> Option<Source> {
    let mut words = words(line);
    let ifindex = decimal(words.next()?)?;
    let _name = words.next()?;
    Some(Source {
        ifindex,
        group: address(words.next()?)?,
        source: address(words.next()?)?,
        include: decimal(words.next()?)?,
        exclude: decimal(words.next()?)?,
    })
}
