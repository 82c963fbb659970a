//! Which form of an answer a client wants, read from its `Accept` header. Pure.
//!
//! Clauses are tried in the order in which the client wrote them, as kube-apiserver does; `q` values are ignored, since
//! no Kubernetes client sends them.

/// Media type of every plain answer.
pub const JSON: &str = "application/json";

/// One clause of an `Accept` header.
struct Clause<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn is_json(&self) -> bool {
        matches!(self.media_type, JSON | "application/*" | "*/*")
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }
}

fn clauses(accept: &str) -> impl Iterator<Item = Clause<'_>> {
    accept.split(',').map(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        Clause {
            media_type,
            parameters: parts.filter_map(|part| part.split_once('=')).collect(),
        }
    })
}

/// How objects are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectForm {
    /// The objects themselves.
    Json,
    /// A Table of `meta.k8s.io`, of this version.
    Table(&'static str),
}

/// The form of an object or list; `None` when the client accepts nothing that is served. No header accepts anything.
#[must_use]
pub fn object_form(accept: Option<&str>) -> Option<ObjectForm> {
    let Some(accept) = accept else {
        return Some(ObjectForm::Json);
    };
    clauses(accept).filter(Clause::is_json).find_map(|clause| {
        match (clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
            (None, ..) => Some(ObjectForm::Json),
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Some(ObjectForm::Table("v1")),
            (Some("Table"), Some("meta.k8s.io"), Some("v1beta1")) => Some(ObjectForm::Table("v1beta1")),
            // PartialObjectMetadata and the like: the next clause may fit.
            _ => None,
        }
    })
}

/// How `/apis` is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryForm {
    /// `APIGroupList`.
    Plain,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`.
    AggregatedV2,
}

/// The form of `/apis`. A client that asks for a form that is not served gets the plain one, which kube-aggregator
/// takes as "ask group by group"; `None` only when it accepts no JSON at all.
#[must_use]
pub fn discovery_form(accept: Option<&str>) -> Option<DiscoveryForm> {
    let Some(accept) = accept else {
        return Some(DiscoveryForm::Plain);
    };
    let mut any_json = false;
    for clause in clauses(accept).filter(Clause::is_json) {
        match (clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Some(DiscoveryForm::AggregatedV2);
            }
            (None, ..) => return Some(DiscoveryForm::Plain),
            _ => any_json = true,
        }
    }
    any_json.then_some(DiscoveryForm::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first is what kubectl 1.32 to 1.37 send for `get`.
    #[test]
    fn the_first_clause_that_can_be_served_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, form) in [
            (Some(kubectl), Some(ObjectForm::Table("v1"))),
            (
                Some("application/json;as=Table;v=v1beta1;g=meta.k8s.io"),
                Some(ObjectForm::Table("v1beta1")),
            ),
            (
                Some("application/json, application/json;as=Table;v=v1;g=meta.k8s.io"),
                Some(ObjectForm::Json),
            ),
            (
                Some("application/json; as=Table; v=v2; g=meta.k8s.io, application/json"),
                Some(ObjectForm::Json),
            ),
            (
                Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
                None,
            ),
            (
                Some("application/vnd.kubernetes.protobuf,application/json"),
                Some(ObjectForm::Json),
            ),
            (Some("application/vnd.kubernetes.protobuf"), None),
            (Some("application/json, */*"), Some(ObjectForm::Json)),
            (Some("*/*"), Some(ObjectForm::Json)),
            (Some("text/html"), None),
            (None, Some(ObjectForm::Json)),
        ] {
            assert_eq!(object_form(accept), form, "{accept:?}");
        }
    }

    /// The first two are what kube-apiserver 1.36 and kubectl 1.32 send.
    #[test]
    fn discovery_is_aggregated_when_asked_and_plain_else() {
        let aggregator = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        for (accept, form) in [
            (Some(aggregator), Some(DiscoveryForm::AggregatedV2)),
            (
                Some(kube::core::discovery::v2::ACCEPT_AGGREGATED_DISCOVERY_V2),
                Some(DiscoveryForm::AggregatedV2),
            ),
            (
                Some("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
                Some(DiscoveryForm::Plain),
            ),
            (Some("application/json"), Some(DiscoveryForm::Plain)),
            (Some("application/vnd.kubernetes.protobuf"), None),
            (None, Some(DiscoveryForm::Plain)),
        ] {
            assert_eq!(discovery_form(accept), form, "{accept:?}");
        }
    }
}
