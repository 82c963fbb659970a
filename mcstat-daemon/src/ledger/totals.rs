//! Sums of one direction: of a port, of what a port was, of a Pod.
//!
//! Promises that the families add up to the total, and that the total is the series plus what has none. Sums saturate:
//! they stop growing where u64 ends, which no counter reaches in the life of a node.

use mcstat_common::control::ControlCounts;

use super::{
    control_counts,
    snapshot::{DirectionReading, GroupReading, OtherGroups, OverflowCounts, ReportVerdicts, Traffic},
};
pub(super) use crate::api::scope::is_link_local;

/// The sums of one direction.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    /// Everything, IPv4 then IPv6.
    pub(super) families: [OtherGroups; 2],
    /// Of that what has no series of its own.
    pub(super) other: [OtherGroups; 2],
    /// Of that admitted packets of link-local groups, as far as they had a series.
    pub(super) link_local: u64,
    /// Control messages.
    pub(super) control: ControlCounts,
    /// What rules said of the reports among them.
    pub(super) reports: ReportVerdicts,
    /// Frames with a source that is not the Pod's.
    pub(super) foreign_source: u64,
    /// Why packets have no series.
    pub(super) overflow: OverflowCounts,
}

impl Totals {
    /// The sums of one reading.
    pub(super) fn of(reading: &DirectionReading) -> Self {
        let mut families = reading.other;
        for group in &reading.groups {
            let [ipv4, ipv6] = &mut families;
            add_group(if group.group.is_ipv4() { ipv4 } else { ipv6 }, group);
        }
        let link_local = reading.groups.iter().filter(|group| is_link_local(group.group));
        Self {
            families,
            other: reading.other,
            link_local: link_local
                .map(|group| group.admitted.packets)
                .fold(0, u64::saturating_add),
            control: reading.control,
            reports: reading.reports,
            foreign_source: reading.foreign_source,
            overflow: reading.overflow,
        }
    }

    /// Adds another port's sums.
    pub(super) fn add(&mut self, more: &Self) {
        let pairs = self
            .families
            .iter_mut()
            .zip(&more.families)
            .chain(self.other.iter_mut().zip(&more.other));
        pairs.for_each(|(sum, part)| add_other(sum, part));
        grow(&mut self.link_local, more.link_local);
        control_counts::add(&mut self.control, &more.control);
        add_reports(&mut self.reports, &more.reports);
        grow(&mut self.foreign_source, more.foreign_source);
        let OverflowCounts {
            port_limit,
            fair_share,
            window_full,
            contended,
        } = more.overflow;
        grow(&mut self.overflow.port_limit, port_limit);
        grow(&mut self.overflow.fair_share, fair_share);
        grow(&mut self.overflow.window_full, window_full);
        grow(&mut self.overflow.contended, contended);
    }

    /// The same sums when no series is left: all of it is in *other groups*.
    pub(super) fn without_series(&self) -> Self {
        Self {
            other: self.families,
            ..self.clone()
        }
    }

    /// Both families.
    pub(super) fn sum(&self) -> OtherGroups {
        both(&self.families)
    }

    /// Both families of what has no series.
    pub(super) fn sum_other(&self) -> OtherGroups {
        both(&self.other)
    }
}

fn both(families: &[OtherGroups; 2]) -> OtherGroups {
    let [mut sum, ipv6] = *families;
    add_other(&mut sum, &ipv6);
    sum
}

fn add_group(sum: &mut OtherGroups, group: &GroupReading) {
    let GroupReading {
        admitted,
        dropped,
        would_drop,
        ttl1,
        last_seen,
        ..
    } = *group;
    add_other(
        sum,
        &OtherGroups {
            admitted,
            dropped,
            would_drop,
            ttl1,
            last_seen,
        },
    );
}

fn add_other(sum: &mut OtherGroups, part: &OtherGroups) {
    let Traffic {
        packets,
        segments,
        bytes,
    } = part.admitted;
    grow(&mut sum.admitted.packets, packets);
    grow(&mut sum.admitted.segments, segments);
    grow(&mut sum.admitted.bytes, bytes);
    grow(&mut sum.dropped, part.dropped);
    grow(&mut sum.would_drop, part.would_drop);
    grow(&mut sum.ttl1, part.ttl1);
    sum.last_seen = sum.last_seen.max(part.last_seen);
}

fn add_reports(sum: &mut ReportVerdicts, part: &ReportVerdicts) {
    let ReportVerdicts {
        records,
        dropped_messages,
        dropped_records,
        would_drop_messages,
        would_drop_records,
    } = *part;
    grow(&mut sum.records, records);
    grow(&mut sum.dropped_messages, dropped_messages);
    grow(&mut sum.dropped_records, dropped_records);
    grow(&mut sum.would_drop_messages, would_drop_messages);
    grow(&mut sum.would_drop_records, would_drop_records);
}

fn grow(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}
