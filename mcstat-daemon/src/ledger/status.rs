//! The STATUS word and the conditions of one Pod, as far as the node itself can say them.
//!
//! `Stale` is not among them: only who waits for this node can tell. Findings come before `Dropping`.

use super::{
    snapshot::{Enforced, PodRef, PolicyReading},
    verdict::PodName,
};
use crate::api::{
    ledgers::Reason,
    stats::{Condition, Finding, Interface},
};

/// How many problems of policies a condition tells.
const PROBLEMS: usize = 3;

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
    policy_known: Condition,
) -> Vec<Condition> {
    vec![
        condition("Fresh", "True", "Reported", ""),
        counted(interfaces),
        condition("LedgersAgree", ledgers.status(), ledgers.word(), message),
        policy_known,
    ]
}

/// `PolicyKnown` of a Pod: whether it is judged, what a denial means, and what is left out on this node.
/// `awaited`: there is a source of policies that has said nothing yet.
pub(super) fn policy_known(policy: Option<&PolicyReading>, awaited: bool, pod: &PodRef) -> Condition {
    if awaited {
        return condition(
            "PolicyKnown",
            "Unknown",
            "NotReadYet",
            "the policy source has not told its policies yet, see the agent's log; what an earlier run judged by goes on",
        );
    }
    let Some(policy) = policy else {
        return condition(
            "PolicyKnown",
            "False",
            "NoPolicySource",
            "no policy source is read: nothing is judged, every packet and message counts as admitted",
        );
    };
    let judged = policy.tables.has_rules(&PodName::new(&pod.namespace, &pod.name));
    let (reason, meaning) = match (judged, policy.enforced) {
        (false, _) => ("NoRules", "no rule for multicast applies to the Pod"),
        (true, Enforced { data: false, .. }) => (
            "NotEnforced",
            "rules are judged and nobody enforces them: what they deny counts as wouldDrop and as admitted",
        ),
        (true, Enforced { reports: false, .. }) => (
            "Enforced",
            "data is enforced and IGMP reports are not: reports that rules deny count as wouldDrop and as allowed",
        ),
        (true, Enforced { .. }) => ("Enforced", ""),
    };
    let problems = policy.problems.iter().take(PROBLEMS).cloned();
    let more = policy.problems.len().saturating_sub(PROBLEMS);
    let more = (more > 0).then(|| format!("and {more} more, see the agent's log"));
    let sentences = std::iter::once(meaning.to_owned()).filter(|meaning| !meaning.is_empty());
    let message = sentences.chain(problems).chain(more).collect::<Vec<_>>().join("; ");
    condition("PolicyKnown", "True", reason, &message)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::verdict::Tables, *};

    #[test]
    fn a_pod_without_rules_knows_its_policy_too() {
        let pod = PodRef {
            namespace: "mkt".to_owned(),
            name: "a".to_owned(),
            sandbox: "s".to_owned(),
        };
        let known = |policy| {
            let condition = policy_known(policy, false, &pod);
            (condition.status, condition.reason, condition.message)
        };
        let (status, reason, _) = known(None);
        assert_eq!((&*status, &*reason), ("False", "NoPolicySource"));
        for left in [None, Some(&PolicyReading::default())] {
            let awaited = policy_known(left, true, &pod);
            assert_eq!((&*awaited.status, &*awaited.reason), ("Unknown", "NotReadYet"));
        }
        let problems: Vec<_> = (1..=5).map(|n| format!("p{n} is left out")).collect();
        let reading = PolicyReading {
            tables: Arc::new(Tables::default()),
            problems: problems.into(),
            ..PolicyReading::default()
        };
        let (status, reason, message) = known(Some(&reading));
        assert_eq!((&*status, &*reason), ("True", "NoRules"));
        assert_eq!(
            message,
            "no rule for multicast applies to the Pod; p1 is left out; p2 is left out; p3 is left out; and 2 more, see \
             the agent's log"
        );
    }
}
