//! `/proc/net/snmp` and `/proc/net/snmp6`: datagrams that found a full receive buffer (`net/ipv4/proc.c`,
//! `net/ipv6/proc.c`). Both counters begin with the namespace and include unicast.

use super::{ProcNetError, decimal, words};

/// `RcvbufErrors` of the `Udp:` lines of `/proc/net/snmp`: one line of names, one of values.
///
/// # Errors
/// [`ProcNetError::NoCounter`].
pub fn receive_errors(text: &[u8]) -> Result<u64, ProcNetError> {
    let mut udp = text
        .split(|byte| *byte == b'\n')
        .filter(|line| line.starts_with(b"Udp: "));
    let value = udp.next().zip(udp.next()).and_then(|(names, values)| {
        let position = words(names).position(|name| name == b"RcvbufErrors")?;
        decimal(words(values).nth(position)?)
    });
    value.ok_or(ProcNetError::NoCounter {
        table: "snmp",
        counter: "Udp: RcvbufErrors",
    })
}

/// `Udp6RcvbufErrors` of `/proc/net/snmp6`: a name and a value a line.
///
/// # Errors
/// [`ProcNetError::NoCounter`].
pub fn receive_errors6(text: &[u8]) -> Result<u64, ProcNetError> {
    let value = text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut words = words(line);
        words.next().filter(|name| *name == b"Udp6RcvbufErrors")?;
        decimal(words.next()?)
    });
    value.ok_or(ProcNetError::NoCounter {
        table: "snmp6",
        counter: "Udp6RcvbufErrors",
    })
}
