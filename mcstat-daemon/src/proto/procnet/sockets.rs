//! `/proc/net/udp` and `/proc/net/udp6`: the UDP sockets and what each has lost (`net/ipv4/udp.c`, `net/ipv6/udp.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ProcNetError, decimal, hex32, lines, words};

/// One UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Local address; a socket of both families has `::`.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// Tells it from every other socket that lives now.
    pub inode: u64,
    /// Datagrams that it has lost since it was made: receive buffer full, wrong checksum, refused by its filter.
    pub drops: u32,
}

/// Decodes `/proc/net/udp`.
///
/// # Errors
/// [`ProcNetError::Line`].
pub fn udp(text: &[u8]) -> Result<Vec<Socket>, ProcNetError> {
    lines("udp", text, 1, |line| {
        socket(line, |word| Some(Ipv4Addr::from(hex32(word)?.to_ne_bytes()).into()))
    })
}

/// Decodes `/proc/net/udp6`.
///
/// # Errors
/// [`ProcNetError::Line`].
pub fn udp6(text: &[u8]) -> Result<Vec<Socket>, ProcNetError> {
    lines("udp6", text, 1, |line| {
        socket(line, |word| {
            // Four numbers of 32 bits, each as the machine stores it.
            let mut bytes = [0; 16];
            let (digits, rest) = word.as_chunks::<8>();
            if digits.len() != 4 || !rest.is_empty() {
                return None;
            }
            for (part, digits) in bytes.chunks_exact_mut(4).zip(digits) {
                part.copy_from_slice(&hex32(digits)?.to_ne_bytes());
            }
            Some(Ipv6Addr::from(bytes).into())
        })
    })
}

/// Words: number, local address and port, remote ones, state, queues, timer, retransmits, uid, timeout, inode,
/// references, pointer, drops.
fn socket(line: &[u8], address: impl Fn(&[u8]) -> Option<IpAddr>) -> Option<Socket> {
    let mut words = words(line);
    let local = words.nth(1)?;
    let colon = local.iter().position(|byte| *byte == b':')?;
    let (host, port) = local.split_at_checked(colon)?;
    Some(Socket {
        address: address(host)?,
        port: u16::try_from(hex32(port.strip_prefix(b":")?)?).ok()?,
        inode: decimal(words.nth(7)?)?,
        drops: decimal(words.nth(2)?)?,
    })
}
