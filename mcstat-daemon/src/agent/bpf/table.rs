//! The ports table as the agent writes it: enter, leave, look up.
//!
//! An entry is taken while its id is not 0, and counted while its ifindex is not 0 as well. Both lie in the first word,
//! so that the programs never see half an entry. Its start time is set when counting begins.

use std::{mem::offset_of, net::IpAddr, sync::atomic::Ordering};

use mcstat_common::abi::{PORT_ADDRESSES, PORT_ENTRIES, PORT_WINDOW, Port, PortStats, Settings};
use zerocopy::FromZeros;

use super::maps::{Maps, update_settings};
use crate::agent::pods::PodPort;

/// A taken entry.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Position in the table.
    pub position: u32,
    /// The entry.
    pub port: Port,
}

/// All taken entries.
pub fn entries(maps: &Maps) -> Vec<Entry> {
    (0..PORT_ENTRIES)
        .filter(|position| maps.ports.first_word(*position) >> 32 != 0)
        .map(|position| Entry {
            position,
            port: maps.ports.read(position),
        })
        .collect()
}

/// Takes an entry for a port under a new id; nothing counts in it before [`begin`]. `None` when its window is full.
pub fn reserve(maps: &Maps, wanted: &PodPort) -> Option<Entry> {
    let home = wanted.ifindex & (PORT_ENTRIES - 1);
    let position = (0..PORT_WINDOW)
        .map(|step| (home + step) & (PORT_ENTRIES - 1))
        .find(|position| maps.ports.first_word(*position) == 0)?;
    let mut id = 0;
    update_settings(maps, |settings: &mut Settings| {
        id = settings.next_port_id.max(1);
        settings.next_port_id = id.wrapping_add(1).max(1);
    });
    // Until the entry can be seen: a change of policies either finds it, or is in what it is given here.
    let policies = maps.policies();
    let mut port = describe(wanted);
    port.policy_set = policies.set_of(&wanted.pod.namespace, &wanted.pod.name);
    port.flags = policies.flags();
    for direction in 0..2 {
        maps.port_stats.write(2 * position + direction, PortStats::new_zeroed());
        maps.port_carried
            .write(2 * position + direction, PortStats::new_zeroed());
    }
    maps.ports.write(position, port);
    (port.ifindex, port.id) = (wanted.ifindex, id);
    first_word(maps, position).store(u64::from(id) << 32, Ordering::Release);
    Some(Entry { position, port })
}

/// Begins the counting of a reserved port, in both directions at once: the programs are attached already.
pub fn begin(maps: &Maps, entry: &mut Entry, start_ms: u64) {
    entry.port.start_ms = start_ms;
    maps.ports
        .word(entry.position, offset_of!(Port, start_ms))
        .store(start_ms, Ordering::Release);
    let word = u64::from(entry.port.ifindex) | u64::from(entry.port.id) << 32;
    first_word(maps, entry.position).store(word, Ordering::Release);
}

/// Whether an entry is to be read: its counting has begun, and it has not been ended.
pub fn has_begun(entry: &Entry) -> bool {
    entry.port.start_ms != 0
}

/// Enters a port of another table at its position, with its id and start time. Statistics begin at zero.
pub fn copy(maps: &Maps, entry: &Entry) {
    let mut port = entry.port;
    (port.ifindex, port.id) = (0, 0);
    maps.ports.write(entry.position, port);
    first_word(maps, entry.position).store(
        u64::from(entry.port.ifindex) | u64::from(entry.port.id) << 32,
        Ordering::Release,
    );
}

/// Stops the counting of a port; its entry stays taken.
pub fn stop(maps: &Maps, entry: &Entry) {
    first_word(maps, entry.position).store(u64::from(entry.port.id) << 32, Ordering::Release);
}

/// Ends a stopped port: it is not read any more, now or after a kill, while what it held is given back piece by piece.
pub fn end(maps: &Maps, entry: &Entry) {
    let _lock = maps.fold_lock();
    maps.ports
        .word(entry.position, offset_of!(Port, start_ms))
        .store(0, Ordering::Release);
}

/// Gives the entry back. Its slots must be free and nothing may count in it any more.
pub fn leave(maps: &Maps, entry: &Entry) {
    for direction in 0..2 {
        maps.port_stats
            .write(2 * entry.position + direction, PortStats::new_zeroed());
        maps.port_carried
            .write(2 * entry.position + direction, PortStats::new_zeroed());
    }
    let mut blank = Port::new_zeroed();
    blank.id = entry.port.id;
    maps.ports.write(entry.position, blank);
    first_word(maps, entry.position).store(0, Ordering::Release);
}

/// Replaces what may change while a port lives: its addresses.
pub fn set_addresses(maps: &Maps, entry: &Entry, addresses: &[IpAddr]) {
    let port = maps.ports.read(entry.position);
    let new = ipv4_addresses(addresses);
    if (port.addresses, port.address_count) == new {
        return;
    }
    let (wanted, count) = new;
    // While they change no source is foreign.
    let word = maps.ports.word(entry.position, offset_of!(Port, address_count));
    word.store(0, Ordering::Release);
    let [a, b, c, d] = wanted.map(u32::from_ne_bytes).map(u64::from);
    for (at, value) in [(0, a | b << 32), (8, c | d << 32)] {
        maps.ports
            .word(entry.position, offset_of!(Port, addresses) + at)
            .store(value, Ordering::Release);
    }
    word.store(u64::from(count), Ordering::Release);
}

/// Whether a taken entry is the wanted interface: same sandbox, same veth.
pub fn is(entry: &Port, wanted: &PodPort) -> bool {
    entry.ifindex == wanted.ifindex
        && text(&entry.sandbox) == wanted.pod.sandbox
        && text(&entry.interface) == wanted.interface
        && text(&entry.host_interface) == wanted.host_interface
        && text(&entry.namespace) == wanted.pod.namespace
        && text(&entry.pod) == wanted.pod.name
}

fn first_word(maps: &Maps, position: u32) -> &std::sync::atomic::AtomicU64 {
    maps.ports.word(position, offset_of!(Port, ifindex))
}

/// The entry of a wanted port, not yet counted: ifindex and id are 0.
fn describe(wanted: &PodPort) -> Port {
    let mut port = Port::new_zeroed();
    port.generation = 1;
    (port.addresses, port.address_count) = ipv4_addresses(&wanted.addresses);
    put(&mut port.namespace, &wanted.pod.namespace);
    put(&mut port.pod, &wanted.pod.name);
    put(&mut port.interface, &wanted.interface);
    put(&mut port.host_interface, &wanted.host_interface);
    put(&mut port.sandbox, &wanted.pod.sandbox);
    port
}

/// The IPv4 addresses that fit. With more than fit none is kept: a foreign source must never be a wrong guess.
fn ipv4_addresses(addresses: &[IpAddr]) -> ([[u8; 4]; PORT_ADDRESSES], u32) {
    let own: Vec<_> = addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(address.octets()),
            IpAddr::V6(_) => None,
        })
        .collect();
    let mut kept = [[0; 4]; PORT_ADDRESSES];
    if own.len() > PORT_ADDRESSES {
        return (kept, 0);
    }
    for (to, from) in kept.iter_mut().zip(&own) {
        *to = *from;
    }
    (kept, own.len() as u32)
}

/// Writes a NUL-terminated text field; what does not fit is cut off.
pub(super) fn put(field: &mut [u8], value: &str) {
    let room = field.len().saturating_sub(1);
    for (to, from) in field.iter_mut().take(room).zip(value.bytes()) {
        *to = from;
    }
}

/// A NUL-terminated text field.
pub fn text(field: &[u8]) -> &str {
    let bytes = field.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or("?")
}
