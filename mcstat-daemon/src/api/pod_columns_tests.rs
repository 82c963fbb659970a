//! What each cell says, and what it does not.

use super::*;
use crate::api::table::{IncludeObject, Table};

fn pod(status: &Value) -> PodMulticastStats {
    let mut base = json!({
        "summary": "OK", "sandbox": "s1", "startTime": "2026-11-24T08:00:00Z", "observedAt": "2026-11-24T08:09:59Z",
        "windowSeconds": 10, "interfaces": [{"name": "eth0", "counted": true}], "groups": [], "conditions": []
    });
    for (key, value) in status.as_object().unwrap() {
        base[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "stats.antrea.io/v1alpha1", "kind": "PodMulticastStats",
        "metadata": {"namespace": "mkt", "name": "feed-0"}, "spec": {"node": "n7"}, "status": base
    }))
    .unwrap()
}

fn direction(values: &Value) -> Value {
    let mut base = json!({
        "packets": 0, "sent": 0, "admitted": 0, "dropped": 0, "wouldDrop": 0, "foreignSource": 0, "bytes": 0,
        "segments": 0, "linkLocal": {"packets": 0}, "ttl1": 0,
        "families": {"ipv4": {"packets": 0, "segments": 0, "bytes": 0},
                     "ipv6": {"packets": 0, "segments": 0, "bytes": 0}},
        "otherGroups": {"packets": 0, "bytes": 0, "dropped": 0, "portLimit": 0, "fairShare": 0, "windowFull": 0,
                        "contended": 0}
    });
    for (key, value) in values.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

fn table(pod: &PodMulticastStats, include: IncludeObject) -> Table {
    let now = "2026-11-24T08:10:00Z".parse().unwrap();
    Table::new(std::iter::once(pod), "v1", include, None, now)
}

fn named(pod: &PodMulticastStats) -> std::collections::BTreeMap<String, Value> {
    let table = table(pod, IncludeObject::None);
    assert_eq!(table.rows[0].cells.len(), table.column_definitions.len());
    let names = table.column_definitions.into_iter().map(|c| c.name.to_uppercase());
    names.zip(table.rows[0].cells.clone()).collect()
}

#[test]
fn headings_are_those_of_the_design() {
    let definitions = table(&pod(&json!({})), IncludeObject::None).column_definitions;
    let names = |priority| {
        let columns = definitions.iter().filter(move |c| c.priority == priority);
        columns.map(|c| c.name.to_uppercase()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        names(0),
        "NAME INBOUND OUTBOUND INBOUND_DROPPED OUTBOUND_DROPPED IGMP_ALLOWED IGMP_DROPPED IN/S OUT/S LAST STATUS"
    );
    assert_eq!(
        names(1),
        "INBOUND_BYTES OUTBOUND_BYTES SOCKET_DROPS GROUPS LEDGERS NODE INTERFACES SINCE OBSERVED"
    );
}

#[test]
fn measured_numbers_are_numbers() {
    let row = named(&pod(&json!({
        "inbound": direction(&json!({"packets": 812, "bytes": 115_304, "dropped": 12, "perSecond": 0.25,
                                     "lastSeen": "2026-11-24T08:08:25Z"})),
        "outbound": direction(&json!({"sent": 9, "admitted": 7, "dropped": 2, "switchDropped": 3, "bytes": 700,
                                      "perSecond": 81.6, "lastSeen": "2026-11-24T08:05:00Z"})),
        "igmp": {"allowed": {"messages": 44, "records": 61}, "dropped": {"messages": 1, "records": 3}},
        "socketDrops": 300
    })));
    for (name, value) in [
        ("INBOUND", json!(812)),
        ("OUTBOUND", json!(7)),
        ("INBOUND_DROPPED", json!(12)),
        ("OUTBOUND_DROPPED", json!(5)),
        ("IGMP_ALLOWED", json!(44)),
        ("IGMP_DROPPED", json!(1)),
        ("IN/S", json!(0.3)),
        ("OUT/S", json!(82)),
        ("LAST", json!("95s")),
        ("INBOUND_BYTES", json!(115_304)),
        ("OUTBOUND_BYTES", json!(700)),
        ("SOCKET_DROPS", json!(300)),
        ("NODE", json!("n7")),
        ("INTERFACES", json!("1/1")),
        ("SINCE", json!("10m")),
        ("OBSERVED", json!("1s")),
    ] {
        assert_eq!(row[name], value, "{name}");
    }
}

#[test]
fn what_was_not_measured_is_a_dash() {
    let row = named(&pod(&json!({"summary": "NotCounted", "startTime": null,
                                 "interfaces": [{"name": "eth0", "counted": false, "reason": "NotVeth"}]})));
    for name in [
        "INBOUND",
        "OUTBOUND",
        "INBOUND_DROPPED",
        "OUTBOUND_DROPPED",
        "IGMP_ALLOWED",
        "IGMP_DROPPED",
        "IN/S",
        "OUT/S",
        "LAST",
        "INBOUND_BYTES",
        "OUTBOUND_BYTES",
        "SOCKET_DROPS",
        "GROUPS",
        "LEDGERS",
        "SINCE",
    ] {
        assert_eq!(row[name], json!("-"), "{name}");
    }
    assert_eq!(row["INTERFACES"], json!("0/1"));
    assert_eq!(row["STATUS"], json!("NotCounted"));
}

#[test]
fn outbound_dropped_is_unknown_until_someone_judges() {
    let with = |outbound: Value, conditions: Value| {
        let outbound = direction(&outbound);
        named(&pod(&json!({"outbound": outbound, "conditions": conditions})))["OUTBOUND_DROPPED"].clone()
    };
    assert_eq!(with(json!({}), json!([])), json!("-"));
    assert_eq!(with(json!({"switchDropped": 0}), json!([])), json!(0));
    assert_eq!(with(json!({"dropped": 4}), json!([])), json!(4));
    let known = |status: &str| json!([{"type": "PolicyKnown", "status": status, "reason": "Antrea"}]);
    assert_eq!(with(json!({}), known("True")), json!(0));
    // Booked before there were policies.
    assert_eq!(with(json!({"dropped": 4, "switchDropped": 3}), known("True")), json!(7));
    assert_eq!(with(json!({}), known("Unknown")), json!("-"));
}

#[test]
fn igmp_dropped_is_unknown_without_a_policy_source() {
    let with = |igmp: Value| named(&pod(&json!({"igmp": igmp})))["IGMP_DROPPED"].clone();
    assert_eq!(with(json!({"allowed": {"messages": 44}})), json!("-"));
    let dropped = json!({"messages": 0, "records": 0});
    assert_eq!(
        with(json!({"allowed": {"messages": 44, "records": 61}, "dropped": dropped})),
        json!(0)
    );
}

#[test]
fn groups_are_distinct_addresses_with_a_series_or_a_membership() {
    let series = |group: &str, source: Value| json!({"group": group, "source": source, "interface": "eth0", "startTime": "2026-11-24T08:00:00Z"});
    let membership = |group: &str, joined: bool| {
        let membership = json!({"joined": joined, "sources": [], "witness": [], "since": "2026-11-24T08:00:00Z",
                                "reports": 0, "flaps": 0});
        json!({"group": group, "interface": "eth0", "membership": membership})
    };
    let of =
        |groups: Value| named(&pod(&json!({"inbound": direction(&json!({})), "groups": groups})))["GROUPS"].clone();
    assert_eq!(
        of(json!([
            series("232.1.1.1", json!("10.0.0.1")),
            series("232.1.1.1", json!("10.0.0.2")),
            series("239.1.1.1", Value::Null)
        ])),
        json!(2)
    );
    assert_eq!(
        of(json!([membership("239.1.1.1", true), series("239.1.1.1", Value::Null)])),
        json!(1)
    );
    assert_eq!(
        of(json!([membership("239.1.1.1", true), membership("239.1.1.2", false)])),
        json!(1)
    );
    // Every stack joins it: that says nothing of the Pod, but its traffic would.
    assert_eq!(of(json!([membership("224.0.0.1", true)])), json!(0));
    assert_eq!(of(json!([series("224.0.0.1", Value::Null)])), json!(1));
}

#[test]
fn ledgers_say_one_word_of_three() {
    let with = |status: &str, differing: u32| {
        let conditions = json!([{"type": "LedgersAgree", "status": status, "reason": "Any"}]);
        named(&pod(
            &json!({"conditions": conditions, "ledgers": {"differing": differing}}),
        ))["LEDGERS"]
            .clone()
    };
    assert_eq!(with("True", 0), json!("agree"));
    assert_eq!(with("False", 2), json!("differ(2)"));
    assert_eq!(with("Unknown", 2), json!("unavailable"));
}

#[test]
fn a_row_carries_what_was_asked_for() {
    let pod = pod(&json!({}));
    let object = |include| table(&pod, include).rows[0].object.clone();
    assert_eq!(object(IncludeObject::None), Value::Null);
    assert_eq!(
        object(IncludeObject::Metadata),
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
               "metadata": {"namespace": "mkt", "name": "feed-0"}})
    );
    assert_eq!(object(IncludeObject::Object), json!(pod));
}
