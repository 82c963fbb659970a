//! The multicast and UDP tables of `/proc/net`, as the kernel prints them. Pure: bytes in, values out.
//!
//! Promises that no text makes a decoder panic, and that a line which is not understood is an error and never left out:
//! a table that reads as shorter than it is would be a Pod that left its groups. Addresses are printed as numbers in the
//! byte order of the machine, so the tables have to come from this machine. Does not say what a source filter amounts to.

mod counters;
mod groups;
mod sockets;
mod sources;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use counters::{receive_errors, receive_errors6};
pub use groups::{Group, Interface, igmp, igmp6};
pub use sockets::{Socket, udp, udp6};
pub use sources::{Source, mcfilter, mcfilter6};

/// Why a table could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProcNetError {
    /// A line is not as the kernels that we know print it.
    #[error("line {line} of /proc/net/{table} is not understood; report this with the kernel's version")]
    Line {
        /// The file.
        table: &'static str,
        /// Counted from 1.
        line: usize,
    },
    /// A counter is not there.
    #[error("/proc/net/{table} has no {counter}; report this with the kernel's version")]
    NoCounter {
        /// The file.
        table: &'static str,
        /// The counter.
        counter: &'static str,
    },
}

/// Decodes each line that is not empty, the first `header` lines left out.
fn lines<'a, T>(
    table: &'static str,
    text: &'a [u8],
    header: usize,
    mut decode: impl FnMut(&'a [u8]) -> Option<T>,
) -> Result<Vec<T>, ProcNetError> {
    let numbered = text.split(|byte| *byte == b'\n').zip(1..).skip(header);
    numbered
        .filter(|(line, _)| !line.is_empty())
        .map(|(bytes, line)| decode(bytes).ok_or(ProcNetError::Line { table, line }))
        .collect()
}

/// The words of a line. Names of interfaces hold no white space.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn text(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

fn decimal<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    text(word)?.parse().ok()
}

/// Up to eight hexadecimal digits.
fn hex32(word: &[u8]) -> Option<u32> {
    let digits = word.iter().all(u8::is_ascii_hexdigit);
    u32::from_str_radix(text(word).filter(|_| digits)?, 16).ok()
}

/// An IPv6 address as 32 hexadecimal digits in the order of the wire.
fn hex128(word: &[u8]) -> Option<std::net::Ipv6Addr> {
    let whole = word.len() == 32 && word.iter().all(u8::is_ascii_hexdigit);
    let bits = u128::from_str_radix(text(word).filter(|_| whole)?, 16).ok()?;
    Some(bits.into())
}
