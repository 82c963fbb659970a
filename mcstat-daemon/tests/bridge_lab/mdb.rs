//! What the bridge holds: `bridge -d -s -j mdb show` as filters by port and group.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mcstat::{api::stats::FilterMode, ledger::snapshot::SourceFilter};
use serde::Deserialize;

use crate::support::run;

/// Filters by port and group.
pub type State = BTreeMap<(String, IpAddr), SourceFilter>;

#[derive(Deserialize)]
struct Table {
    mdb: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    port: String,
    grp: String,
    src: Option<String>,
    filter_mode: Option<String>,
    #[serde(default)]
    source_list: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    address: IpAddr,
    timer: String,
}

/// The state of all ports of the bridge in this thread's namespace.
pub fn read() -> State {
    let text = run("bridge", "-d -s -j mdb show");
    let tables: Vec<Table> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let entries = tables.into_iter().flat_map(|table| table.mdb);
    // (S,G) entries are what the bridge forwards by; they follow from the (*,G) entry. Entries of the bridge itself have no
    // filter mode.
    let groups = entries.filter(|entry| entry.src.is_none() && entry.port != "br0");
    let state = groups.map(|entry| {
        let group = entry
            .grp
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", entry.grp));
        let filter = filter(&entry);
        ((entry.port, group), filter)
    });
    state.collect()
}

/// A source whose timer runs is forwarded: wanted in INCLUDE, not unwanted in EXCLUDE (RFC 9776 §6.2.1).
fn filter(entry: &Entry) -> SourceFilter {
    let mode = match entry.filter_mode.as_deref() {
        Some("include") => FilterMode::Include,
        Some("exclude") => FilterMode::Exclude,
        other => panic!("filter mode {other:?} of {}", entry.grp),
    };
    let runs = |source: &&Source| source.timer.trim().parse::<f64>().expect("seconds") > 0.0;
    let listed = |source: &&Source| runs(source) == (mode == FilterMode::Include);
    let sources: BTreeSet<IpAddr> = entry
        .source_list
        .iter()
        .filter(listed)
        .map(|source| source.address)
        .collect();
    SourceFilter {
        mode,
        sources: sources.into_iter().collect(),
    }
}
