//! The kernel's own counters, read as an operator without mcstat would: by bpftool from the pinned maps.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    bed::Bed,
    command::{command, output},
};

/// State of a slot that holds a series, in the lowest three bits of `state`.
const READY: u64 = 2;
const STATE_MASK: u64 = 7;

/// Prints the commands and what they say of the Pod `pod`: its entry in `ports`, then its slots with their counters.
pub(super) fn show(bed: &Bed, pod: &str) -> Result<()> {
    let dir = pins(&bed.bpffs())?;
    let ports = dump(&dir, "ports")?;
    let port = ports
        .values()
        .find(|port| text(&port["pod"]) == pod)
        .with_context(|| format!("the map `ports` has no {pod}"))?;
    println!("$ bpftool map dump pinned {}/ports", dir.display());
    println!(
        "  id {}: namespace \"{}\", pod \"{}\", interface \"{}\", host_interface \"{}\", ifindex {}",
        port["id"],
        text(&port["namespace"]),
        text(&port["pod"]),
        text(&port["interface"]),
        text(&port["host_interface"]),
        port["ifindex"]
    );
    let slots = dump(&dir, "slots")?;
    let of_port = slots
        .iter()
        .filter(|(_, slot)| slot["port"] == port["id"] && ready(slot));
    println!(
        "$ bpftool map dump pinned {}/slots; bpftool map lookup pinned {}/counters key …",
        dir.display(),
        dir.display()
    );
    for (index, slot) in of_port {
        let (packets, bytes) = counters(&dir, *index)?;
        let direction = if slot["direction"] == 1 { "inbound" } else { "outbound" };
        println!(
            "  slot {index}: {direction} group {} packets {packets} bytes {bytes}",
            address(&slot["group"])
        );
    }
    Ok(())
}

fn ready(slot: &Value) -> bool {
    slot["state"].as_u64().is_some_and(|state| state & STATE_MASK == READY)
}

/// `<bpffs>/mcstat/v<ABI>`; there is one.
fn pins(bpffs: &Path) -> Result<PathBuf> {
    let mcstat = bpffs.join("mcstat");
    let versions =
        fs::read_dir(&mcstat).with_context(|| format!("the agent pinned nothing at {}", mcstat.display()))?;
    let mut versions = versions
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("ports").exists());
    versions
        .next()
        .with_context(|| format!("{} holds no maps", mcstat.display()))
}

/// All entries of an array map by index, as BTF describes them.
fn dump(dir: &Path, map: &str) -> Result<BTreeMap<u64, Value>> {
    let said = output(
        command("bpftool")
            .args(["--json", "map", "dump", "pinned"])
            .arg(dir.join(map)),
    )?;
    let entries: Vec<Value> =
        serde_json::from_str(&said).with_context(|| format!("bpftool's dump of {map} is no JSON list"))?;
    let formatted = entries
        .into_iter()
        .map(|mut entry| Some((entry["formatted"]["key"].as_u64()?, entry["formatted"]["value"].take())));
    formatted
        .collect::<Option<_>>()
        .with_context(|| format!("bpftool knows no types for the map {map}"))
}

/// Packets and bytes of one slot, summed over the CPUs.
fn counters(dir: &Path, index: u64) -> Result<(u64, u64)> {
    let mut lookup = command("bpftool");
    lookup
        .args(["--json", "map", "lookup", "pinned"])
        .arg(dir.join("counters"))
        .arg("key");
    lookup.args(u32::try_from(index)?.to_ne_bytes().map(|byte| byte.to_string()));
    let said: Value = serde_json::from_str(&output(&mut lookup)?).context("bpftool's answer is no JSON")?;
    let cpus = said["formatted"]["values"]
        .as_array()
        .context("bpftool knows no types for the map counters")?;
    let sum = |field: &str| cpus.iter().filter_map(|cpu| cpu["value"][field].as_u64()).sum();
    Ok((sum("packets"), sum("bytes")))
}

fn bytes(value: &Value) -> Vec<u8> {
    let bytes = value.as_array().into_iter().flatten();
    bytes
        .filter_map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
        .collect()
}

/// A NUL-terminated text.
fn text(value: &Value) -> String {
    let bytes = bytes(value);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// An address; IPv4 stands as IPv4-mapped IPv6.
fn address(value: &Value) -> String {
    let address = <[u8; 16]>::try_from(bytes(value)).map(Ipv6Addr::from);
    address.map_or_else(
        |_| value.to_string(),
        |address| IpAddr::V6(address).to_canonical().to_string(),
    )
}
