//! What must outlive the agent's process: booked drops and the baselines they rest on.
//!
//! A value of fixed-size integers only, without padding, so that it can be the value of a BPF map keyed by port id. The
//! agent writes it after each tick and hands it to [`Ledger::restore`](crate::ledger::Ledger::restore) at its start. All
//! zeros is a port of which nothing is known.

/// One port's, both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortBook {
    /// What the Pod sent.
    pub outbound: SideBook,
    /// What was for the Pod.
    pub inbound: SideBook,
    /// IPv4 data packets that the Pod had sent, as far as the switch counts them. While this has not moved, no copy of its own packets
    /// can have been for the Pod itself.
    pub sent: u64,
    /// Fingerprint of the groups that the switch had for the port. Another one tells of a change meanwhile. 0: not known.
    pub buckets: u64,
}

/// One direction's. A baseline says: when the switch had counted this, the veth had counted that, at least and at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SideBook {
    /// [`KNOWN`](Self::KNOWN): `dropped` means something. [`BASELINE`](Self::BASELINE): what follows it does, too;
    /// [`JUDGED`](Self::JUDGED) says of what.
    pub flags: u64,
    /// Packets booked as dropped since the port began. Never falls.
    pub dropped: u64,
    /// What the switch had counted at the last reading.
    pub switch_packets: u64,
    /// The same in bytes.
    pub switch_bytes: u64,
    /// What the veth had counted by then, at least.
    pub wire_packets_low: u64,
    /// At most.
    pub wire_packets_high: u64,
    /// The same in bytes, at least.
    pub wire_bytes_low: u64,
    /// At most.
    pub wire_bytes_high: u64,
    /// The flow's cookie.
    pub cookie: u64,
    /// How long the flow had existed, in milliseconds.
    pub duration_milliseconds: u64,
}

impl SideBook {
    /// The direction has been compared at least once.
    pub const KNOWN: u64 = 1;
    /// There is a baseline.
    pub const BASELINE: u64 = 2;
    /// It is one of admitted packets: policies were judged.
    pub const JUDGED: u64 = 4;
}
