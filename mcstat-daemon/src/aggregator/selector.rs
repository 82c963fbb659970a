//! Label and field selectors as kubectl writes them, parsed into what `kube::core` can match.
//!
//! Labels: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, joined by commas (Kubernetes manual,
//! "Labels and Selectors"); `<` and `>` are not supported and say so. Fields: those of the resource, with `=`, `==`,
//! `!=`. Pure; never panics, whatever the input.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::{Expression, Selector, SelectorExt as _};
use thiserror::Error;

use crate::api::resource::Resource;

/// Why a selector cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// The text at this place is not part of a selector.
    #[error("unable to parse selector {selector:?}: expected {expected} at {found:?}")]
    Syntax {
        /// The whole selector.
        selector: String,
        /// What would fit.
        expected: &'static str,
        /// What stands there, up to the end.
        found: String,
    },
    /// A field that the resource does not know.
    #[error("field label not supported: {field}; use {}", .known.join(" or "))]
    Field {
        /// As asked for.
        field: String,
        /// Those of the resource.
        known: &'static [&'static str],
    },
}

/// What a list is narrowed to; the default selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    labels: Selector,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTerm {
    field: &'static str,
    equal: bool,
    value: String,
}

impl Selection {
    /// Parses the query parameters `labelSelector` and `fieldSelector`; absent or empty selects everything.
    ///
    /// # Errors
    /// The selector does not parse, or names a field that is not supported.
    pub fn parse(resource: &Resource, labels: Option<&str>, fields: Option<&str>) -> Result<Self, SelectorError> {
        let mut selector = Selector::default();
        selector.extend(parse_labels(labels.unwrap_or_default())?);
        Ok(Self {
            labels: selector,
            fields: parse_fields(resource.fields, fields.unwrap_or_default())?,
        })
    }

    /// Whether a field term speaks of this field, in whatever sense.
    #[must_use]
    pub fn names(&self, field: &str) -> bool {
        self.fields.iter().any(|term| term.field == field)
    }

    /// Whether an object with these labels is selected; `field` gives its value of a field of its resource.
    #[must_use]
    pub fn matches<'a>(&self, labels: &BTreeMap<String, String>, field: impl Fn(&str) -> &'a str) -> bool {
        let fits = |term: &FieldTerm| (field(term.field) == term.value) == term.equal;
        self.fields.iter().all(fits) && self.labels.matches(labels)
    }
}

fn parse_fields(known: &'static [&'static str], text: &str) -> Result<Vec<FieldTerm>, SelectorError> {
    let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
    terms
        .map(|term| {
            // `!=` and `==` before `=`: both end in it.
            let operators = [("!=", false), ("==", true), ("=", true)];
            let split = operators
                .iter()
                .find_map(|(op, equal)| term.split_once(op).map(|(k, v)| (k, v, *equal)));
            let Some((field, value, equal)) = split else {
                return Err(SelectorError::Syntax {
                    selector: text.to_owned(),
                    expected: "field=value",
                    found: term.to_owned(),
                });
            };
            let known_as = known.iter().find(|name| **name == field.trim());
            Ok(FieldTerm {
                field: known_as.ok_or_else(|| SelectorError::Field {
                    field: field.trim().to_owned(),
                    known,
                })?,
                equal,
                value: value.trim().to_owned(),
            })
        })
        .collect()
}

fn parse_labels(text: &str) -> Result<Vec<Expression>, SelectorError> {
    let mut cursor = Cursor {
        selector: text,
        rest: text,
    };
    let mut expressions = Vec::new();
    if cursor.at_end() {
        return Ok(expressions);
    }
    loop {
        expressions.push(cursor.requirement()?);
        if cursor.at_end() {
            return Ok(expressions);
        }
        cursor.expect(",", "a comma or the end")?;
    }
}

struct Cursor<'a> {
    selector: &'a str,
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn requirement(&mut self) -> Result<Expression, SelectorError> {
        if self.take("!") {
            return Ok(Expression::DoesNotExist(self.key()?));
        }
        let key = self.key()?;
        if self.at_end() || self.rest.starts_with(',') {
            return Ok(Expression::Exists(key));
        }
        // `!=` and `==` before `=`: they begin like it.
        if self.take("!=") {
            return Ok(Expression::NotEqual(key, self.word().to_owned()));
        }
        if self.take("==") || self.take("=") {
            return Ok(Expression::Equal(key, self.word().to_owned()));
        }
        match self.word() {
            "in" => Ok(Expression::In(key, self.set()?)),
            "notin" => Ok(Expression::NotIn(key, self.set()?)),
            word => {
                let found = format!("{word}{}", self.rest);
                Err(self.error("one of =, ==, !=, in, notin", found))
            }
        }
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        let found = self.rest;
        match self.word() {
            "" => Err(self.error("a label key", found.to_owned())),
            word => Ok(word.to_owned()),
        }
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        self.expect("(", "( and a list of values")?;
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.word().to_owned());
            if self.take(")") {
                return Ok(values);
            }
            self.expect(",", "a comma or )")?;
        }
    }

    /// The longest run of characters that labels may hold (keys: prefix/name), maybe empty.
    fn word(&mut self) -> &'a str {
        self.skip_blanks();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.skip_blanks();
        word
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.take(token) {
            Ok(())
        } else {
            Err(self.error(expected, self.rest.to_owned()))
        }
    }

    fn at_end(&mut self) -> bool {
        self.skip_blanks();
        self.rest.is_empty()
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn error(&self, expected: &'static str, found: String) -> SelectorError {
        SelectorError::Syntax {
            selector: self.selector.to_owned(),
            expected,
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::resource::{NAME, PODS};

    type Labels = BTreeMap<String, String>;

    fn labels(labels: &[(&str, &str)]) -> Labels {
        labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    /// Whether `mkt/feed-0` with these labels is selected.
    fn matches(selection: &Selection, labels: &Labels) -> bool {
        selection.matches(labels, |field| if field == NAME { "feed-0" } else { "mkt" })
    }

    /// What each selector picks of {app=a, tier=web}, {app=b} and {} is what the Kubernetes manual says it does.
    #[test]
    fn label_selectors_select_what_the_manual_says() {
        let objects = [
            labels(&[("app", "a"), ("tier", "web")]),
            labels(&[("app", "b")]),
            labels(&[]),
        ];
        let cases: &[(&str, [bool; 3])] = &[
            ("", [true, true, true]),
            ("app=a", [true, false, false]),
            ("app==a", [true, false, false]),
            (" app = a ", [true, false, false]),
            ("app!=a", [false, true, true]),
            ("app in (a,b)", [true, true, false]),
            ("app in(a)", [true, false, false]),
            ("app in (a, c)", [true, false, false]),
            ("app notin (a)", [false, true, true]),
            ("tier", [true, false, false]),
            ("!tier", [false, true, true]),
            ("! tier", [false, true, true]),
            ("app in (a,b),!tier", [false, true, false]),
            ("app,tier=web", [true, false, false]),
            ("app=", [false, false, false]),
            ("app.kubernetes.io/name=x", [false, false, false]),
        ];
        for (text, expected) in cases {
            let selection = Selection::parse(&PODS, Some(text), None).unwrap();
            let matched = objects.each_ref().map(|object| matches(&selection, object));
            assert_eq!(matched, *expected, "{text:?}");
        }
    }

    #[test]
    fn a_broken_label_selector_says_where() {
        for (text, expected, found) in [
            ("app in a", "( and a list of values", "a"),
            ("app in (a", "a comma or )", ""),
            ("app>5", "one of =, ==, !=, in, notin", ">5"),
            ("=a", "a label key", "=a"),
            ("app=a,", "a label key", ""),
            ("app=a b", "a comma or the end", "b"),
            ("app!a", "one of =, ==, !=, in, notin", "!a"),
        ] {
            let error = Selection::parse(&PODS, Some(text), None).unwrap_err();
            let wanted = SelectorError::Syntax {
                selector: text.into(),
                expected,
                found: found.into(),
            };
            assert_eq!(error, wanted, "{text:?}");
        }
    }

    #[test]
    fn field_selectors_know_name_and_namespace() {
        for (text, expected) in [
            ("", true),
            ("metadata.name=feed-0", true),
            ("metadata.name==feed-0,metadata.namespace=mkt", true),
            ("metadata.name=feed-1", false),
            ("metadata.namespace!=mkt", false),
            ("metadata.name!=feed-1", true),
        ] {
            let selection = Selection::parse(&PODS, None, Some(text)).unwrap();
            assert_eq!(matches(&selection, &labels(&[])), expected, "{text:?}");
        }
        let unknown = Selection::parse(&PODS, None, Some("spec.node=n7")).unwrap_err();
        let message = "field label not supported: spec.node; use metadata.name or metadata.namespace";
        assert_eq!(unknown.to_string(), message);
        assert!(matches!(
            Selection::parse(&PODS, None, Some("metadata.name")),
            Err(SelectorError::Syntax { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[a-c!=(),. inot><\u{e4}]{0,24}") {
            let _ = Selection::parse(&PODS, Some(&text), Some(&text));
        }
    }
}
