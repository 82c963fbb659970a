//! What one node counted of one policy, life by life.
//!
//! There is one for each node and policy, so everything lies in vectors as long as what is in them: a tree has room for
//! eleven entries where there is almost always one.

use std::{borrow::Cow, collections::BTreeMap};

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
    /// The node has told of the policy that was made again, which this server's own source has not seen yet.
    ahead: bool,
    /// Sorted by name.
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    name: Box<str>,
    /// Sorted by start.
    lives: Vec<Life>,
    /// The sum of lives that are too many.
    past: Option<Box<RuleTrafficStats>>,
}

#[derive(Debug, Clone)]
struct Life {
    reported: RuleTrafficStats,
    /// What belongs to the policy's life before this one.
    before: Option<Box<RuleTrafficStats>>,
    /// It belongs to the policy's life after this one.
    ahead: bool,
}

impl Share {
    /// Nothing yet of the policy with this UID.
    pub(super) fn new(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            ahead: false,
            rules: Vec::new(),
        }
    }

    /// Whether the node never told of a rule.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether it is of the policy with this UID.
    pub(super) fn is_of(&self, uid: &str) -> bool {
        self.uid == uid
    }

    /// Whether this UID tells that the policy was made again since the node's last report.
    pub(super) fn is_made_again_as(&self, uid: &str) -> bool {
        files::is_made_again(&self.uid, uid)
    }

    /// What is reported now is of a policy that was made again, and [`Self::begin_anew`] comes later: nodes look for
    /// themselves, and may see it first.
    pub(super) fn run_ahead(&mut self) {
        self.ahead = true;
        let lives = self.rules.iter_mut().flat_map(|rule| &mut rule.lives);
        lives.for_each(|life| life.ahead = false);
    }

    /// Takes a newer report.
    pub(super) fn take(&mut self, uid: &str, reported: &[RuleTrafficStats]) {
        if self.uid != uid {
            uid.clone_into(&mut self.uid);
        }
        for reported in reported {
            let found = self.rules.binary_search_by(|rule| (*rule.name).cmp(&reported.name));
            let place = found.unwrap_or_else(|place| {
                self.rules.reserve_exact(1);
                self.rules.insert(place, Rule::new(&reported.name));
                place
            });
            let rule = self.rules.get_mut(place);
            rule.into_iter().for_each(|rule| rule.take(reported, self.ahead));
        }
    }

    /// What was counted until now belongs to a policy that was there before, but for what ran ahead.
    pub(super) fn begin_anew(&mut self, now: Timestamp) {
        self.ahead = false;
        for rule in &mut self.rules {
            rule.past = None;
            for life in &mut rule.lives {
                if std::mem::take(&mut life.ahead) {
                    continue;
                }
                let mut before = life.reported.clone();
                before.start_time = now;
                life.before = Some(Box::new(before));
            }
        }
    }
}

impl Rule {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            lives: Vec::new(),
            past: None,
        }
    }

    fn take(&mut self, reported: &RuleTrafficStats, ahead: bool) {
        let start = reported.start_time;
        let place = self.lives.partition_point(|life| life.reported.start_time < start);
        match self
            .lives
            .get_mut(place)
            .filter(|life| life.reported.start_time == start)
        {
            Some(life) => life.reported.advance(reported.clone()),
            None => self.begin(place, reported, ahead),
        }
    }

    fn begin(&mut self, place: usize, reported: &RuleTrafficStats, ahead: bool) {
        let life = Life {
            reported: reported.clone(),
            before: None,
            ahead,
        };
        self.lives.reserve_exact(1);
        self.lives.insert(place, life);
        if self.lives.len() > LIVES {
            let oldest = self.take_oldest();
            match (&mut self.past, oldest.counted()) {
                (Some(past), Some(oldest)) => past.add(&oldest),
                (None, Some(oldest)) => self.past = Some(Box::new(oldest.into_owned())),
                (_, None) => {}
            }
        }
    }

    /// The first of those that have ended. Where the node's clock was set back, the one that goes on may have the earliest
    /// start, and is told of again.
    fn take_oldest(&mut self) -> Life {
        let ended = self.lives.iter().position(|life| life.reported.ended);
        self.lives.remove(ended.unwrap_or(0))
    }

    /// What the node's switch counts for it; outermost `None` where it is for no Pod of the node any more.
    fn switch(&self) -> Option<Option<SwitchCount>> {
        let mut lives = self.lives.iter().rev();
        let alive = lives.find(|life| !life.reported.ended && life.counted().is_some())?;
        Some(alive.reported.switch)
    }

    /// The lives, what the newest does last.
    fn counted(&self) -> impl Iterator<Item = Cow<'_, RuleTrafficStats>> {
        let lives = self.lives.iter().filter_map(Life::counted);
        self.past.iter().map(|past| Cow::Borrowed(&**past)).chain(lives)
    }
}

impl Life {
    /// `None`: it counted nothing since the policy was made again, and may be of no rule that there is.
    fn counted(&self) -> Option<Cow<'_, RuleTrafficStats>> {
        match &self.before {
            None => Some(Cow::Borrowed(&self.reported)),
            Some(before) => {
                let since = self.reported.since(before);
                (!since.is_nothing()).then_some(Cow::Owned(since))
            }
        }
    }
}

/// The rules by name, each the sum over these shares. What the switches count is told where those of all nodes that the rule
/// is for tell it.
pub(super) fn sum<'a>(shares: impl Iterator<Item = &'a Share>) -> Vec<RuleTrafficStats> {
    let mut sums: BTreeMap<&str, (RuleTrafficStats, Timestamp)> = BTreeMap::new();
    let mut switches: BTreeMap<&str, Option<SwitchCount>> = BTreeMap::new();
    for rule in shares.flat_map(|share| &share.rules) {
        if let Some(counted) = rule.switch() {
            switches
                .entry(&rule.name)
                .and_modify(|sum| *sum = both(*sum, counted))
                .or_insert(counted);
        }
        for life in rule.counted() {
            let began = life.start_time;
            match sums.get_mut(&*rule.name) {
                None => {
                    let mut first = life.into_owned();
                    // One that ended here is none that ended everywhere.
                    first.ended = false;
                    sums.insert(&rule.name, (first, began));
                }
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
