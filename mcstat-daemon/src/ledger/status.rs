//! The STATUS word and the conditions of one Pod, as far as the node itself can say them.
//!
//! `Stale` is not among them: only who waits for this node can tell. Findings come before `Dropping`.

use super::snapshot::{Enforced, PolicyReading};
use crate::api::{
    ledgers::Reason,
    stats::{Condition, Finding, Interface},
};

/// No interface of the Pod is counted.
const NOT_COUNTED: &str = "NotCounted";
/// A dropped counter grew within the window.
const DROPPING: &str = "Dropping";
/// None of the others.
const OK: &str = "OK";

/// The STATUS word: the first that holds.
pub(super) fn word(interfaces: &[Interface], finding: Option<&Finding>, dropping: bool) -> &'static str {
    if !interfaces.iter().any(|interface| interface.counted) {
        return NOT_COUNTED;
    }
    match finding {
        Some(finding) => finding.kind.word(),
        None if dropping => DROPPING,
        None => OK,
    }
}

/// `Fresh`, `Counted`, `LedgersAgree`, `PolicyKnown`, in this order.
pub(super) fn conditions(
    interfaces: &[Interface],
    ledgers: Reason,
    message: &str,
    policy: Option<&PolicyReading>,
) -> Vec<Condition> {
    vec![
        condition("Fresh", "True", "Reported", ""),
        counted(interfaces),
        condition("LedgersAgree", ledgers.status(), ledgers.word(), message),
        policy_known(policy.map(|policy| policy.enforced)),
    ]
}

fn policy_known(enforced: Option<Enforced>) -> Condition {
    let (status, reason, message) = match enforced {
        None => (
            "False",
            "NoPolicySource",
            "no policy source is read: nothing is judged, every packet and message counts as admitted",
        ),
        Some(Enforced { data: false, .. }) => (
            "True",
            "NotEnforced",
            "rules are judged and nobody enforces them: what they deny counts as wouldDrop and as admitted",
        ),
        Some(Enforced { reports: false, .. }) => (
            "True",
            "Enforced",
            "data is enforced and IGMP reports are not: reports that rules deny count as wouldDrop and as allowed",
        ),
        Some(_) => ("True", "Enforced", ""),
    };
    condition("PolicyKnown", status, reason, message)
}

/// Of an interface that is counted a sentence is said too, if something is amiss.
fn counted(interfaces: &[Interface]) -> Condition {
    let told = interfaces
        .iter()
        .filter(|interface| !interface.counted || interface.reason.is_some());
    let told: Vec<_> = told.collect();
    let uncounted = told.iter().find(|interface| !interface.counted);
    let Some(first) = uncounted.or(told.first()) else {
        return condition("Counted", "True", "AllInterfaces", "");
    };
    let sentences: Vec<_> = told
        .iter()
        .map(|interface| {
            format!(
                "{}: {}",
                interface.name,
                interface.message.as_deref().unwrap_or("not counted")
            )
        })
        .collect();
    condition(
        "Counted",
        if first.counted { "True" } else { "False" },
        first.reason.as_deref().unwrap_or("Unknown"),
        &sentences.join("; "),
    )
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}
