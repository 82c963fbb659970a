//! Counters of control messages, per port and direction.
//!
//! [`ControlCounts`] hold what can be told without walking the message: type and version (RFC 9776 §7.1, RFC 9777 §8.1).
//! [`ReportCounts`] hold what was found walking the records of reports that a Pod sent.
//! Whether a message is *valid* (checksum, records) is for user space, which gets the whole message by the ring buffer.

/// IGMP, MLD and neighbour discovery messages and malformed frames of one port and direction.
///
/// Part of the kernel-user ABI: all fields `u64`, host byte order, cumulative.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct ControlCounts {
    /// IGMP 0x11, 8 bytes, code 0.
    pub igmpv1_query: u64,
    /// IGMP 0x11, 8 bytes, code not 0.
    pub igmpv2_query: u64,
    /// IGMP 0x11, 12 bytes or more.
    pub igmpv3_query: u64,
    /// IGMP 0x12.
    pub igmpv1_report: u64,
    /// IGMP 0x16.
    pub igmpv2_report: u64,
    /// IGMP 0x17.
    pub igmpv2_leave: u64,
    /// IGMP 0x22.
    pub igmpv3_report: u64,
    /// IP protocol 2 of any other type (DVMRP, PIMv1, mtrace, RGMP, ...) and queries of a length no version has.
    pub igmp_other: u64,
    /// ICMPv6 130, 24 bytes.
    pub mldv1_query: u64,
    /// ICMPv6 130, 28 bytes or more.
    pub mldv2_query: u64,
    /// ICMPv6 131.
    pub mldv1_report: u64,
    /// ICMPv6 132.
    pub mldv1_done: u64,
    /// ICMPv6 143.
    pub mldv2_report: u64,
    /// ICMPv6 133 to 137 to a multicast address (RFC 4861).
    pub neighbour_discovery: u64,
    /// Malformed: the IPv4 or IPv6 header, an extension header, or the IGMP or ICMPv6 header is cut off.
    pub truncated: u64,
    /// Malformed: the version field does not fit the Ethernet type.
    pub bad_version: u64,
    /// Malformed: header length below its minimum, or a total length below the header or beyond the frame.
    pub bad_length: u64,
    /// Malformed: more IPv6 extension headers than are followed.
    pub too_many_headers: u64,
}

/// What rules said of the reports that a Pod sent; whether a report's checksum is right does not matter, as in
/// [`ControlCounts`].
///
/// Part of the kernel-user ABI: all fields `u64`, host byte order, cumulative.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct ReportCounts {
    /// Records that lie wholly in their message, denied ones among them; a message of IGMPv1, v2 or MLDv1 is one.
    pub records: u64,
    /// Messages with at least one record that an enforced rule denied.
    pub dropped_messages: u64,
    /// Those records.
    pub dropped_records: u64,
    /// Messages with at least one record that a rule denied and nobody enforces.
    pub would_drop_messages: u64,
    /// Those records.
    pub would_drop_records: u64,
}
