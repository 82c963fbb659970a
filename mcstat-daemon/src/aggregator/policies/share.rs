//! What one node counted of one policy, life by life.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{agent::policy::files, api::policy::RuleTrafficStats};

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
    /// It belongs to the policy's life after this one.
    ahead: bool,
}

impl Share {
    /// Nothing yet of the policy with this UID.
    pub(super) fn new(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            ahead: false,
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

    /// What is reported now is of a policy that was made again, and [`Self::begin_anew`] comes later: nodes look for
    /// themselves, and may see it first.
    pub(super) fn run_ahead(&mut self) {
        self.ahead = true;
        let lives = self.rules.values_mut().flat_map(|rule| rule.lives.values_mut());
        lives.for_each(|life| life.ahead = false);
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
                None => rule.begin(reported, self.ahead),
            }
        }
    }

    /// What was counted until now belongs to a policy that was there before, but for what ran ahead.
    pub(super) fn begin_anew(&mut self, now: Timestamp) {
        self.ahead = false;
        for rule in self.rules.values_mut() {
            rule.past = None;
            for life in rule.lives.values_mut() {
                if std::mem::take(&mut life.ahead) {
                    continue;
                }
                let mut before = life.reported.clone();
                before.start_time = now;
                life.before = Some(before);
            }
        }
    }
}

impl Rule {
    fn begin(&mut self, reported: &RuleTrafficStats, ahead: bool) {
        let life = Life {
            reported: reported.clone(),
            before: None,
            ahead,
        };
        self.lives.insert(reported.start_time, life);
        if self.lives.len() > LIVES
            && let Some((_, oldest)) = self.lives.pop_first()
        {
            match (&mut self.past, oldest.counted()) {
                (Some(past), Some(oldest)) => past.add(&oldest),
                (None, Some(oldest)) => self.past = Some(oldest),
                (_, None) => {}
            }
        }
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

/// The rules by name, each the sum over these shares. What a switch counts for a rule is of one node, so it is told only if
/// there is no other.
pub(super) fn sum<'a>(shares: impl ExactSizeIterator<Item = &'a Share>) -> Vec<RuleTrafficStats> {
    let alone = shares.len() == 1;
    let mut sums: BTreeMap<&str, (RuleTrafficStats, Timestamp)> = BTreeMap::new();
    for (name, rule) in shares.flat_map(|share| &share.rules) {
        for mut life in rule.counted() {
            // One that ended here is none that ended everywhere.
            life.ended = false;
            life.switch = life.switch.filter(|_| alone);
            let began = life.start_time;
            match sums.get_mut(name.as_str()) {
                None => drop(sums.insert(name, (life, began))),
                Some((sum, newest)) => {
                    if began >= *newest {
                        (sum.action, sum.switch, *newest) = (life.action, life.switch, began);
                    }
                    sum.add(&life);
                }
            }
        }
    }
    sums.into_values().map(|(sum, _)| sum).collect()
}
