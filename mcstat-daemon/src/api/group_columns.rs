//! The columns of `multicastgroups`. GROUP and PODS are Antrea's, cell for cell.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::json;

use super::{
    group::{MulticastGroup, Source},
    resource::{GROUPS, HIDDEN, NAME, Object, Resource},
    stats::Metadata,
    table::{Column, INTEGER, NOT_MEASURED, STRING, age_cell},
};

/// What a cell says when a list is known to be empty.
const NONE: &str = "<none>";
/// How many entries of a list a cell shows: Antrea's number.
const LISTED: usize = 3;

impl Object for MulticastGroup {
    const RESOURCE: Resource = GROUPS;
    const COLUMNS: &'static [Column<Self>] = &COLUMNS;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn field(&self, field: &str) -> &str {
        match field {
            NAME => &self.metadata.name,
            HIDDEN if self.status.hidden => "true",
            HIDDEN => "false",
            _ => "",
        }
    }
}

const COLUMNS: [Column<MulticastGroup>; 10] = [
    Column::name("Group", "Address of the group.", |group, _| json!(group.metadata.name)),
    Column::shown(
        "Pods",
        STRING,
        "The first three members and how many more there are.",
        |group, _| {
            let pods = group.pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name));
            json!(listed(pods))
        },
    ),
    Column::shown(
        "Status",
        STRING,
        "A finding or OK: the first that holds.",
        |group, _| json!(group.status.summary),
    ),
    Column::wide("Senders", STRING, "Who sent within the last 60 s.", |group, _| {
        json!(senders(group))
    }),
    Column::wide(
        "SSM_Sources",
        STRING,
        "Sources asked for or heard, in the SSM ranges.",
        |group, _| json!(sources(group.status.sources.as_deref())),
    ),
    Column::wide(
        "Sent",
        INTEGER,
        "Packets that Pods sent and no enforced rule denied.",
        |group, _| json!(group.status.sent.packets),
    ),
    Column::wide("Received", INTEGER, "Packets handed to Pods.", |group, _| {
        json!(group.status.received.packets)
    }),
    Column::wide(
        "Last",
        STRING,
        "Age of the last packet in either direction.",
        |group, now| age_cell(group.status.last_seen, now),
    ),
    Column::wide("Nodes", STRING, "Nodes with a member or a sender.", |group, _| {
        json!(listed(group.status.nodes.iter().cloned()))
    }),
    Column::wide(
        "Querier",
        STRING,
        "Address of the elected querier that these nodes hear.",
        |group, _| json!(querier(group)),
    ),
];

/// The first three entries and how many more there are, in Antrea's words.
fn listed(entries: impl ExactSizeIterator<Item = String>) -> String {
    let more = entries.len().saturating_sub(LISTED);
    let shown: Vec<String> = entries.take(LISTED).collect();
    match more {
        0 if shown.is_empty() => NONE.to_owned(),
        0 => shown.join(","),
        _ => format!("{} + {more} more...", shown.join(",")),
    }
}

fn senders(group: &MulticastGroup) -> String {
    let shown = listed(group.status.senders.iter().map(|sender| sender.sender.clone()));
    if group.status.more_senders {
        format!("{shown},+more")
    } else {
        shown
    }
}

fn sources(sources: Option<&[Source]>) -> String {
    let Some(sources) = sources else {
        return NOT_MEASURED.to_owned();
    };
    let wanted = |source: &&Source| source.included > 0 || source.last_seen.is_some();
    let wanted: Vec<_> = sources
        .iter()
        .filter(wanted)
        .map(|source| source.source.to_string())
        .collect();
    listed(wanted.into_iter())
}

fn querier(group: &MulticastGroup) -> String {
    let queriers = group.status.queriers.iter().map(|heard| &heard.querier);
    let elected = queriers.filter(|querier| querier.elected && querier.present);
    let addresses: BTreeSet<IpAddr> = elected.map(|querier| querier.address).collect();
    listed(addresses.iter().map(ToString::to_string))
}

#[cfg(test)]
#[path = "group_columns_tests.rs"]
mod tests;
