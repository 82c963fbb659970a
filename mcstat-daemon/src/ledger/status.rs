//! The STATUS word and the conditions of one Pod, as far as the node itself can say them.
//!
//! `Stale` is not among them: only who waits for this node can tell. Findings come before `Dropping`.

use crate::api::stats::{Condition, Finding, Interface};

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
pub(super) fn conditions(interfaces: &[Interface]) -> Vec<Condition> {
    vec![
        condition("Fresh", "True", "Reported", ""),
        counted(interfaces),
        condition(
            "LedgersAgree",
            "Unknown",
            "NoSwitchLedger",
            "no switch is read: the counters are the kernel's alone",
        ),
        condition(
            "PolicyKnown",
            "False",
            "NoPolicySource",
            "no policy source is read: nothing is judged, every packet and message counts as admitted",
        ),
    ]
}

fn counted(interfaces: &[Interface]) -> Condition {
    let uncounted: Vec<_> = interfaces.iter().filter(|interface| !interface.counted).collect();
    let Some(first) = uncounted.first() else {
        return condition("Counted", "True", "AllInterfaces", "");
    };
    let sentences: Vec<_> = uncounted
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
        "False",
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
