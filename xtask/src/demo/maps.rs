//! The kernel's own counters, read as an operator without mcstat would: by bpftool from the pinned maps.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::plan::{Direction, Expected};
use crate::{
    bed::Bed,
    command::{command, output},
};

/// State of a slot that holds a series, in the lowest three bits of `state`.
const READY: u64 = 2;
const STATE_MASK: u64 = 7;

/// Prints what bpftool says of the Pod `pod`: one slot and its counters as they are, then every slot of it with the counters
/// added up over the CPUs. Returns how many groups are not as `expected` (of this Pod).
pub(super) fn show(bed: &Bed, pod: &str, expected: &[Expected]) -> Result<usize> {
    let dir = pins(&bed.bpffs())?;
    let ports = dump(&dir, "ports")?;
    let (position, port) = ports
        .iter()
        .find(|(_, port)| text(&port["pod"]) == pod)
        .with_context(|| format!("the map `ports` has no {pod}"))?;
    let mut slots = dump(&dir, "slots")?;
    slots.retain(|_, slot| slot["port"] == port["id"] && ready(slot));
    println!("$ M={}", dir.display());
    println!("$ bpftool map dump pinned $M/ports   # names are bytes: docs/bpftool.md makes text of them");
    println!(
        "  key {position}: id {}, namespace {}, pod {}, interface {}, host_interface {}, ifindex {}",
        port["id"],
        text(&port["namespace"]),
        text(&port["pod"]),
        text(&port["interface"]),
        text(&port["host_interface"]),
        port["ifindex"]
    );
    let first = slots.keys().next().with_context(|| format!("{pod} has no slot"))?;
    let key = u32::try_from(*first)?
        .to_ne_bytes()
        .map(|byte| byte.to_string())
        .join(" ");
    raw(&dir, &format!("bpftool map lookup pinned $M/slots key {key}"))?;
    let counted = r#"grep -B2 -A1 '"packets": [1-9]'"#;
    raw(
        &dir,
        &format!("bpftool map lookup pinned $M/counters key {key} | {counted}"),
    )?;
    println!("all slots of {pod}, the CPUs added up:");
    let mut sums: BTreeMap<(bool, IpAddr), (u64, u64)> = BTreeMap::new();
    for (index, slot) in &slots {
        let (packets, bytes) = counters(&dir, *index)?;
        let (inbound, group) = (slot["direction"] == 1, address(&slot["group"])?);
        println!(
            "  slot {index:>5} {:<8} {:<14} {packets:>5} packets {bytes:>7} bytes",
            if inbound { "inbound" } else { "outbound" },
            group.to_string()
        );
        // A group can have a slot for each source, and two for one key.
        let sum = sums.entry((inbound, group)).or_default();
        *sum = (sum.0 + packets, sum.1 + bytes);
    }
    let of_group = |expected: &Expected| {
        let key = (expected.direction == Direction::Inbound, expected.group?);
        Some((key, (expected.packets, expected.bytes)))
    };
    let wanted: BTreeMap<_, _> = expected.iter().filter_map(of_group).collect();
    let wrong = sums.iter().filter(|(key, sum)| wanted.get(key) != Some(sum));
    Ok(wrong.count() + wanted.keys().filter(|key| !sums.contains_key(key)).count())
}

/// Prints a shell line and what it says, untouched. `$M` is the directory of the maps.
fn raw(dir: &Path, line: &str) -> Result<()> {
    println!("$ {line}");
    print!("{}", output(command("sh").args(["-c", line]).env("M", dir))?);
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
fn address(value: &Value) -> Result<IpAddr> {
    let bytes = <[u8; 16]>::try_from(bytes(value)).map_err(|_| anyhow!("{value} is no address"))?;
    Ok(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
}
