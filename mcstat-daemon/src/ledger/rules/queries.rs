//! What rules on IGMP queries decided. A query that is denied never reaches a veth, so the switch's flow is the only
//! count of it, and here its growth is added up.
//!
//! Promises that the sum never falls and that no query is counted twice, whatever becomes of the flow:
//!
//! | the rule's flow | counts |
//! |---|---|
//! | goes on, also when it was added again | its growth |
//! | fell | all of it: it began anew |
//! | is another one or the first, made since the last reading by the same antrea-agent | all of it |
//! | is another one or the first, and older, or of another antrea-agent: that gives numbers out anew, and flows keep their counters | from then on |
//! | cannot be told from others, or is away | nothing until it is back; a rule that never had one is not counted at all |

use jiff::{SignedDuration, Timestamp};

use crate::ledger::{
    snapshot::{RuleFlow, RuleReading, SwitchAccount},
    switch::{FlowCount, Verdict},
    verdict::RuleId,
};

/// The one flow that counts for a rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) conjunction: u32,
    pub(super) verdict: Verdict,
    pub(super) count: FlowCount,
}

/// Messages and their records; for a query they are one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decided {
    /// Messages.
    pub messages: u64,
    /// Their frames, in bytes.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

/// What [`RuleReading`] is to say from the next tick on: it must outlive this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queried {
    /// Where the rule's counters lie.
    pub slot: u16,
    /// The rule.
    pub id: RuleId,
    /// The start of the life that counted it.
    pub start: Timestamp,
    /// To be added to what the last reading said.
    pub more: Decided,
    /// The flow as of which that holds.
    pub flow: RuleFlow,
}

/// A reading of the switch: a flow that came later, by the same antrea-agent, began at zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    at: Timestamp,
    round: u64,
}

/// One life of a rule. Of one that is not about queries it holds what the kernel counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Queries {
    total: Decided,
    /// Of the total, what the last reading did not have yet.
    more: Decided,
    last: Option<RuleFlow>,
    /// The last flow is not written down as it is.
    moved: bool,
    /// The reading that `last` is of, or the one before the life began. `None` as long as that was another process's.
    seen: Option<Seen>,
}

/// A reading that is taken in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    before: Timestamp,
    /// The reading itself, for the next one.
    pub(super) seen: Option<Seen>,
}

impl Moment {
    pub(super) fn of(account: &SwitchAccount) -> Self {
        Self {
            before: account.before,
            seen: Seen::of(account),
        }
    }
}

impl Seen {
    /// `None` while flows of more than one antrea-agent are there: the new one is still about to take them over.
    fn of(account: &SwitchAccount) -> Option<Self> {
        let switch = &account.switch;
        let rules = [&switch.egress, &switch.ingress].into_iter().flatten();
        let flows = rules
            .flat_map(|flows| flows.values())
            .chain(switch.outbound.iter().flat_map(|flows| flows.values()))
            .chain(switch.inbound.iter().flat_map(|flows| flows.values()));
        let mut rounds = flows.map(round);
        let round = rounds.next()?;
        let at = account.after;
        rounds.all(|other| other == round).then_some(Self { at, round })
    }
}

impl Queries {
    /// As it was written down; `seen`: the reading before.
    pub(super) fn begin(rule: &RuleReading, seen: Option<Seen>) -> Self {
        Self {
            last: rule.flow,
            seen,
            ..Self::default()
        }
    }

    /// Takes one tick in: what is written down, and the rule's flow, if there is one that is nobody else's.
    pub(super) fn take(&mut self, rule: &RuleReading, flow: Option<Flow>, moment: Option<Moment>) {
        let read = Decided {
            messages: rule.messages,
            bytes: rule.message_bytes,
            records: rule.records,
        };
        self.total = self.total.max(read);
        if let Some((flow, moment)) = flow.zip(moment) {
            let grown = self.growth(&flow, moment.before);
            self.total = self.total.plus(grown);
            self.last = Some(RuleFlow {
                conjunction: flow.conjunction,
                verdict: flow.verdict,
                packets: flow.count.packets,
                bytes: flow.count.bytes,
            });
            self.seen = moment.seen;
        }
        self.more = self.total.minus(read);
        self.moved = self.last != rule.flow;
    }

    fn growth(&self, flow: &Flow, before: Timestamp) -> Decided {
        let FlowCount { packets, bytes, .. } = flow.count;
        let whole = queries(packets, bytes);
        let same = |last: &RuleFlow| (last.conjunction, last.verdict) == (flow.conjunction, flow.verdict);
        if let Some(last) = self.last.filter(same) {
            let grown = (packets.checked_sub(last.packets), bytes.checked_sub(last.bytes));
            return match grown {
                (Some(packets), Some(bytes)) => queries(packets, bytes),
                _ => whole,
            };
        }
        let made_since = |seen: Seen| {
            let age = SignedDuration::try_from(flow.count.duration).ok()?;
            let made = before.checked_sub(age).ok()?;
            (seen.round == round(&flow.count) && made >= seen.at).then_some(whole)
        };
        self.seen.and_then(made_since).unwrap_or_default()
    }

    /// All that the rule decided of IGMP.
    pub(super) fn total(&self) -> Decided {
        self.total
    }

    /// Whether a switch has ever counted for the rule alone, as far as is known.
    pub(super) fn is_counted(&self) -> bool {
        self.last.is_some() || self.total != Decided::default()
    }

    /// What is to be written down.
    pub(super) fn queried(&self, slot: u16, id: RuleId, start: Timestamp) -> Option<Queried> {
        let (more, flow) = (self.more, self.last?);
        (self.moved || more != Decided::default()).then_some(Queried {
            slot,
            id,
            start,
            more,
            flow,
        })
    }
}

impl Decided {
    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            messages: with(self.messages, other.messages),
            bytes: with(self.bytes, other.bytes),
            records: with(self.records, other.records),
        }
    }

    fn max(self, other: Self) -> Self {
        self.each(other, u64::max)
    }

    fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }
}

fn queries(packets: u64, bytes: u64) -> Decided {
    Decided {
        messages: packets,
        bytes,
        records: packets,
    }
}

/// Which antrea-agent made the flow: the highest bits of its cookie.
fn round(flow: &FlowCount) -> u64 {
    flow.cookie >> 48
}

#[cfg(test)]
#[path = "queries_tests.rs"]
mod tests;
