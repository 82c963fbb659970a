//! What the kernel's tables prove about an interface's source filter (RFC 9776 §3.2). Pure.
//!
//! The kernel merges the filters of a group's users: EXCLUDE as soon as one user is in EXCLUDE mode, of the sources that
//! *all* of these exclude and that no INCLUDE user wants; else INCLUDE, of all sources wanted. How many users exclude is
//! not printed. Known are the users U of the group and, for each source, how often it is included and excluded. With E
//! users in EXCLUDE and I in INCLUDE mode, E + I = U, and since no user includes nothing (it would have left):
//!
//! - I is at least the largest count of inclusions of one source, and at most the sum of all of them;
//! - E is at least the largest count of exclusions of one source.
//!
//! Each E between these bounds is possible. The filter is told when it is the same for all of them; so a group with no
//! source line is EXCLUDE {}. One thing the tables hide: a socket that names a source twice in one call
//! (`MCAST_MSFILTER`) counts twice. Where that shows as a contradiction, nothing is told; where it does not, the filter
//! may be wrong.

use std::net::IpAddr;

use crate::{api::stats::FilterMode, ledger::snapshot::SourceFilter, proto::procnet::Source};

/// The filter of a group with so many users and these source lines, or `None` where the tables do not tell it apart.
pub(super) fn filter<'a>(users: u32, sources: impl Iterator<Item = &'a Source> + Clone) -> Option<SourceFilter> {
    let users = u64::from(users);
    let included = sources.clone().map(|source| u64::from(source.include));
    let excluded = sources.clone().map(|source| u64::from(source.exclude)).max();
    let least = users.saturating_sub(included.clone().sum()).max(excluded.unwrap_or(0));
    let most = users.checked_sub(included.max().unwrap_or(0))?;
    if least > most {
        return None;
    }
    if most == 0 {
        return Some(told(FilterMode::Include, sources));
    }
    // Excluded by all: only by as many as there can be at most, if there can be no more and no fewer.
    let by_all = sources.filter(|source| source.include == 0 && least > 0 && u64::from(source.exclude) == least);
    match (least, least == most, by_all.clone().next()) {
        (0, _, _) | (_, false, Some(_)) => None,
        _ => Some(told(FilterMode::Exclude, by_all)),
    }
}

fn told<'a>(mode: FilterMode, sources: impl Iterator<Item = &'a Source>) -> SourceFilter {
    let mut sources: Vec<IpAddr> = sources.map(|source| source.source).collect();
    sources.sort_unstable();
    sources.dedup();
    SourceFilter { mode, sources }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// A socket: whether it excludes, and the sources it names, one bit each.
    type Socket = (bool, u8);
    /// The group's users, and per source how often it is included and excluded.
    type Table = (u32, Vec<(u32, u32)>);

    const SOURCES: u8 = 3;

    /// RFC 9776 §3.2, from the sockets.
    fn merged(sockets: &[Socket]) -> (bool, u8) {
        let of = |mode| sockets.iter().filter(move |(exclude, _)| *exclude == mode);
        let wanted = of(false).fold(0, |all, (_, sources)| all | sources);
        match of(true)
            .map(|(_, sources)| *sources)
            .reduce(|all, sources| all & sources)
        {
            Some(unwanted) => (true, unwanted & !wanted),
            None => (false, wanted),
        }
    }

    fn table(sockets: &[Socket]) -> Table {
        let count = |mode, bit: u8| sockets.iter().filter(|(m, s)| *m == mode && s >> bit & 1 == 1).count() as u32;
        let counts = (0..SOURCES).map(|bit| (count(false, bit), count(true, bit)));
        (sockets.len() as u32, counts.collect())
    }

    fn concluded((users, counts): &Table) -> Option<(bool, u8)> {
        let lines: Vec<Source> = (0..SOURCES)
            .zip(counts)
            .filter(|(_, counts)| **counts != (0, 0))
            .map(|(bit, (include, exclude))| Source {
                ifindex: 2,
                group: IpAddr::from([239, 1, 1, 1]),
                source: IpAddr::from([192, 0, 2, bit]),
                include: *include,
                exclude: *exclude,
            })
            .collect();
        let filter = filter(*users, lines.iter())?;
        let bits = filter.sources.iter().map(|source| match source {
            IpAddr::V4(address) => 1 << address.octets()[3],
            IpAddr::V6(_) => 0,
        });
        Some((filter.mode == FilterMode::Exclude, bits.sum()))
    }

    /// Every multiset of up to four sockets over three sources: where all that print the same table have one filter, it
    /// is told; where they differ, none is.
    #[test]
    fn exactly_what_the_table_proves_is_told() {
        let kinds: Vec<Socket> = (0..1 << SOURCES)
            .flat_map(|sources| [(true, sources), (false, sources)])
            .filter(|kind| *kind != (false, 0))
            .collect();
        let mut possible: BTreeMap<Table, BTreeSet<(bool, u8)>> = BTreeMap::new();
        let mut layer: Vec<Vec<Socket>> = vec![Vec::new()];
        for _ in 0..4 {
            layer = layer
                .iter()
                .flat_map(|sockets| {
                    let sorted = kinds
                        .iter()
                        .filter(|kind| sockets.last().is_none_or(|last| last <= *kind));
                    sorted.map(|kind| [sockets.as_slice(), &[*kind]].concat())
                })
                .collect();
            for sockets in &layer {
                possible.entry(table(sockets)).or_default().insert(merged(sockets));
            }
        }
        let told = possible.values().filter(|filters| filters.len() == 1).count();
        assert!(told > 100 && told < possible.len(), "{told} of {}", possible.len());
        for (table, filters) in &possible {
            let proven = filters.first().filter(|_| filters.len() == 1).copied();
            assert_eq!(concluded(table), proven, "{table:?} can be {filters:?}");
        }
    }

    #[test]
    fn a_contradiction_tells_nothing() {
        // One user that names a source twice.
        assert_eq!(concluded(&(1, vec![(2, 0), (0, 0), (0, 0)])), None);
        assert_eq!(concluded(&(1, vec![(1, 0), (0, 1), (0, 0)])), None);
    }
}
