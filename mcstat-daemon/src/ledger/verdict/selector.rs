//! Label selectors of objects (`matchLabels`, `matchExpressions`), as Kubernetes defines them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::document::nullable;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// All of its terms must hold; without terms it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Each label with exactly this value.
    #[serde(deserialize_with = "nullable")]
    pub match_labels: Labels,
    /// Further terms.
    #[serde(deserialize_with = "nullable")]
    pub match_expressions: Vec<Requirement>,
}

/// One term of [`LabelSelector::match_expressions`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
    /// For [`Operator::In`] and [`Operator::NotIn`].
    #[serde(default, deserialize_with = "nullable")]
    pub values: Vec<String>,
}

/// What a [`Requirement`] asks of its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Operator {
    /// It is there, and has one of the values.
    In,
    /// It is not there, or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let mut equal = self.match_labels.iter();
        equal.all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|term| term.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each selects of {app=a, tier=web}, {app=b} and {} is what the Kubernetes manual says it does.
    #[test]
    fn selectors_select_what_the_manual_says() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect()
        };
        let objects = [
            labels(&[("app", "a"), ("tier", "web")]),
            labels(&[("app", "b")]),
            labels(&[]),
        ];
        for (selector, expected) in [
            ("{}", [true, true, true]),
            ("{matchLabels: null}", [true, true, true]),
            ("{matchLabels: {app: a}}", [true, false, false]),
            ("{matchLabels: {app: a, tier: db}}", [false, false, false]),
            (
                "{matchExpressions: [{key: app, operator: In, values: [a, b]}]}",
                [true, true, false],
            ),
            (
                "{matchExpressions: [{key: app, operator: NotIn, values: [a]}]}",
                [false, true, true],
            ),
            (
                "{matchExpressions: [{key: tier, operator: Exists}]}",
                [true, false, false],
            ),
            (
                "{matchExpressions: [{key: tier, operator: DoesNotExist}]}",
                [false, true, true],
            ),
            (
                "{matchLabels: {app: a}, matchExpressions: [{key: tier, operator: DoesNotExist}]}",
                [false, false, false],
            ),
        ] {
            let parsed: LabelSelector = serde_yaml::from_str(selector).unwrap();
            assert_eq!(
                objects.each_ref().map(|labels| parsed.matches(labels)),
                expected,
                "{selector}"
            );
        }
        assert!(serde_yaml::from_str::<LabelSelector>("{matchExpressions: [{key: a, operator: Gt}]}").is_err());
    }
}
