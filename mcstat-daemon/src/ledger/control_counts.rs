//! [`ControlCounts`] by name: the keys of the served `control` map, sums, and the JSON form in a snapshot.
//!
//! One list names every field; a field that is missing in it does not compile.

use std::collections::BTreeMap;

use mcstat_common::control::ControlCounts;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

macro_rules! fields {
    ($($field:ident => $name:literal,)*) => {
        /// Every counter with its served name, in the order of the ABI.
        fn named(counts: &ControlCounts) -> impl Iterator<Item = (&'static str, u64)> + use<> {
            let ControlCounts { $($field),* } = *counts;
            [$(($name, $field)),*].into_iter()
        }

        /// Adds counter by counter.
        pub(super) fn add(sum: &mut ControlCounts, counts: &ControlCounts) {
            let ControlCounts { $($field),* } = *counts;
            $(sum.$field = sum.$field.saturating_add($field);)*
        }

        fn by_name<'a>(counts: &'a mut ControlCounts, name: &str) -> Option<&'a mut u64> {
            match name {
                $($name => Some(&mut counts.$field),)*
                _ => None,
            }
        }
    };
}

fields! {
    igmpv1_query => "igmpv1Query",
    igmpv2_query => "igmpv2Query",
    igmpv3_query => "igmpv3Query",
    igmpv1_report => "igmpv1Report",
    igmpv2_report => "igmpv2Report",
    igmpv2_leave => "igmpv2Leave",
    igmpv3_report => "igmpv3Report",
    igmp_other => "igmpOther",
    mldv1_query => "mldv1Query",
    mldv2_query => "mldv2Query",
    mldv1_report => "mldv1Report",
    mldv1_done => "mldv1Done",
    mldv2_report => "mldv2Report",
    neighbour_discovery => "neighbourDiscovery",
    truncated => "truncated",
    bad_version => "badVersion",
    bad_length => "badLength",
    too_many_headers => "tooManyHeaders",
}

/// The counters that are not zero, by their served names.
pub(super) fn non_zero(counts: &ControlCounts) -> BTreeMap<String, u64> {
    named(counts)
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// Reports and leaves of all versions: what IGMP_ALLOWED counts of a Pod's outbound messages. Queries and other types are
/// not among them.
pub(super) fn reports_and_leaves(counts: &ControlCounts) -> u64 {
    [
        counts.igmpv1_report,
        counts.igmpv2_report,
        counts.igmpv2_leave,
        counts.igmpv3_report,
        counts.mldv1_report,
        counts.mldv1_done,
        counts.mldv2_report,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

/// Writes the counters that are not zero as an object.
///
/// # Errors
/// Those of the serializer.
pub(super) fn serialize<S: Serializer>(counts: &ControlCounts, serializer: S) -> Result<S::Ok, S::Error> {
    non_zero(counts).serialize(serializer)
}

/// Reads what [`serialize`] writes.
///
/// # Errors
/// An unknown name, and those of the deserializer.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ControlCounts, D::Error> {
    let mut counts = ControlCounts::default();
    for (name, count) in BTreeMap::<String, u64>::deserialize(deserializer)? {
        let field = by_name(&mut counts, &name)
            .ok_or_else(|| D::Error::custom(format_args!("no control counter is named {name}")))?;
        *field = count;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back_to_their_field() {
        let mut counts = ControlCounts::default();
        let names: Vec<_> = named(&counts).map(|(name, _)| name).collect();
        for (value, name) in (1..).zip(&names) {
            *by_name(&mut counts, name).unwrap() = value;
        }
        let values: Vec<_> = named(&counts).map(|(_, value)| value).collect();
        assert_eq!(values, (1..=names.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn counts_reports_and_leaves_only() {
        let mut counts = ControlCounts::default();
        for (index, name) in named(&ControlCounts::default()).map(|(name, _)| name).enumerate() {
            *by_name(&mut counts, name).unwrap() = 1 << index;
        }
        // Bits 3 to 6 are the IGMP reports and the leave, 10 to 12 the MLD ones.
        assert_eq!(reports_and_leaves(&counts), 0b1_1100_0111_1000);
    }

    #[test]
    fn refuses_an_unknown_name() {
        let mut text = serde_json::Deserializer::from_str(r#"{"igmpv4Report": 1}"#);
        assert!(
            deserialize(&mut text)
                .unwrap_err()
                .to_string()
                .starts_with("no control counter is named igmpv4Report")
        );
    }
}
