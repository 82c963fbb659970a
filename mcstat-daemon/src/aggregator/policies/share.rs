//! What one node counted of one policy, life by life.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    agent::policy::files,
    api::policy::{RuleTrafficStats, SwitchCount},
};

/// Lives of one rule that are kept apart. Twice as many as a node tells of: an older one is never told of again, and can be
/// added to those before it.
const LIVES: usize = 16;

/// One node's part of a sum.
#[derive(Debug, Clone)]
pub(super) struct Share {
    /// The policy's UID, as the node said it last.
    uid: String,
    rules: BTreeMap<String, Rule>,
}

#[derive(Debug, Clone, Default)]
struct Rule {
    lives: BTreeMap<Timestamp, Life>,
    /// The sum of lives that are too many.
    past: Option<RuleTrafficStats>,
}

#[derive(Debug, Clone)]
struct Life {
    reported: RuleTrafficStats,
    /// What belongs to the policy's life before this one.
    before: Option<RuleTrafficStats>,
}

impl Share {
    /// Nothing yet of the policy with this UID.
    pub(super) fn new(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            rules: BTreeMap::new(),
        }
    }

    /// Whether it is of the policy with this UID.
    pub(super) fn is_of(&self, uid: &str) -> bool {
        self.uid == uid
    }

    /// Whether this UID tells that the policy was made again since the node's last report.
    pub(super) fn is_made_again_as(&self, uid: &str) -> bool {
        files::is_made_again(&self.uid, uid)
    }

    /// Takes a newer report.
    pub(super) fn take(&mut self, uid: &str, reported: &[RuleTrafficStats]) {
        if self.uid != uid {
            uid.clone_into(&mut self.uid);
        }
        for reported in reported {
            // Almost always known: the name need not be copied again.
            let rule = match self.rules.get_mut(&reported.name) {
                Some(rule) => rule,
                None => self.rules.entry(reported.name.clone()).or_default(),
            };
            match rule.lives.get_mut(&reported.start_time) {
                Some(life) => life.reported.advance(reported.clone()),
                None => rule.begin(reported),
            }
        }
    }

    /// What was counted until now belongs to a policy that was there before.
    pub(super) fn begin_anew(&mut self, now: Timestamp) {
        for rule in self.rules.values_mut() {
            rule.past = None;
            for life in rule.lives.values_mut() {
                let mut before = life.reported.clone();
                before.start_time = now;
                life.before = Some(before);
            }
        }
    }
}

impl Rule {
    fn begin(&mut self, reported: &RuleTrafficStats) {
        let life = Life {
            reported: reported.clone(),
            before: None,
        };
        self.lives.insert(reported.start_time, life);
        if self.lives.len() > LIVES
            && let Some(oldest) = self.pop_oldest()
        {
            match (&mut self.past, oldest.counted()) {
                (Some(past), Some(oldest)) => past.add(&oldest),
                (None, Some(oldest)) => self.past = Some(oldest),
                (_, None) => {}
            }
        }
    }

    /// The first of those that have ended. Where the node's clock was set back, the one that goes on may have the earliest
    /// start, and is told of again.
    fn pop_oldest(&mut self) -> Option<Life> {
        let ended = self.lives.iter().find(|(_, life)| life.reported.ended);
        match ended.map(|(start, _)| *start) {
            Some(start) => self.lives.remove(&start),
            None => self.lives.pop_first().map(|(_, life)| life),
        }
    }

    /// What the node's switch counts for it; outermost `None` where it is for no Pod of the node any more.
    fn switch(&self) -> Option<Option<SwitchCount>> {
        let mut lives = self.lives.values().rev();
        let alive = lives.find(|life| !life.reported.ended && life.counted().is_some())?;
        Some(alive.reported.switch)
    }

    /// The lives, what the newest does last.
    fn counted(&self) -> impl Iterator<Item = RuleTrafficStats> {
        let lives = self.lives.values().filter_map(Life::counted);
        self.past.iter().cloned().chain(lives)
    }
}

impl Life {
    /// `None`: it counted nothing since the policy was made again, and may be of no rule that there is.
    fn counted(&self) -> Option<RuleTrafficStats> {
        match &self.before {
            None => Some(self.reported.clone()),
            Some(before) => Some(self.reported.since(before)).filter(|since| !since.is_nothing()),
        }
    }
}

/// The rules by name, each the sum over these shares. What the switches count is told where those of all nodes that the rule
/// is for tell it.
pub(super) fn sum<'a>(shares: impl Iterator<Item = &'a Share>) -> Vec<RuleTrafficStats> {
    let mut sums: BTreeMap<&str, (RuleTrafficStats, Timestamp)> = BTreeMap::new();
    let mut switches: BTreeMap<&str, Option<SwitchCount>> = BTreeMap::new();
    for (name, rule) in shares.flat_map(|share| &share.rules) {
        if let Some(counted) = rule.switch() {
            switches
                .entry(name)
                .and_modify(|sum| *sum = both(*sum, counted))
                .or_insert(counted);
        }
        for mut life in rule.counted() {
            // One that ended here is none that ended everywhere.
            life.ended = false;
            let began = life.start_time;
            match sums.get_mut(name.as_str()) {
                None => drop(sums.insert(name, (life, began))),
                Some((sum, newest)) => {
                    if began >= *newest {
                        (sum.action, *newest) = (life.action, began);
                    }
                    sum.add(&life);
                }
            }
        }
    }
    let with_switch = |(name, (sum, _)): (&str, (RuleTrafficStats, Timestamp))| RuleTrafficStats {
        switch: switches.get(name).copied().flatten(),
        ..sum
    };
    sums.into_iter().map(with_switch).collect()
}

fn both(one: Option<SwitchCount>, other: Option<SwitchCount>) -> Option<SwitchCount> {
    let (mut sum, other) = one.zip(other)?;
    sum.add(other);
    Some(sum)
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
