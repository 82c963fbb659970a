//! Errors as Kubernetes clients expect them: `metav1.Status` with code, reason and details.
//!
//! Every failure that leaves the server has this form, because kubectl prints `Error from server (REASON): MESSAGE` of
//! it and chooses what to do by reason and code. No I/O; the HTTP response is made in `aggregator::http`.

use kube::core::{
    Status,
    response::{StatusCause, StatusDetails, reason},
};
use serde::Serialize;

use super::{resource::Resource, stats};

/// A `Status` with its kind and version, ready to be served.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusObject {
    api_version: &'static str,
    kind: &'static str,
    /// Boxed, because a `Status` is the error of every function on the way out.
    #[serde(flatten)]
    status: Box<Status>,
}

impl StatusObject {
    /// The HTTP status code to answer with.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.status.code
    }

    /// The `Status` without its kind and version.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    fn new(code: u16, reason: &str, message: &str) -> Self {
        let mut status = Status::failure(message, reason).with_code(code);
        // kubectl copes without, but every Go server sends `metadata: {}`.
        status.metadata = Some(Default::default());
        Self {
            api_version: "v1",
            kind: "Status",
            status: status.boxed(),
        }
    }

    fn with_details(mut self, details: StatusDetails) -> Self {
        self.status.details = Some(details);
        self
    }

    /// 404 for an object that does not exist: `multicastgroup.stats.antrea.io "x" not found`. The resource is named in the
    /// singular, as Antrea's own 404 does.
    #[must_use]
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{}.{} \"{name}\" not found", resource.singular, stats::GROUP);
        Self::new(404, reason::NOT_FOUND, &message).with_details(StatusDetails {
            name: name.to_owned(),
            group: stats::GROUP.to_owned(),
            kind: resource.singular.to_owned(),
            ..details()
        })
    }

    /// 404 for a path that nothing serves, in the words of kube-apiserver.
    #[must_use]
    pub fn no_such_path() -> Self {
        Self::new(
            404,
            reason::NOT_FOUND,
            "the server could not find the requested resource",
        )
    }

    /// 404 for a document that this server does not have, with the reason.
    #[must_use]
    pub fn not_served(message: &str) -> Self {
        Self::new(404, reason::NOT_FOUND, message)
    }

    /// 400: the request cannot be understood.
    #[must_use]
    pub fn bad_request(message: &str) -> Self {
        Self::new(400, reason::BAD_REQUEST, message)
    }

    /// 405: the resource exists, the verb does not.
    #[must_use]
    pub fn method_not_allowed(message: &str) -> Self {
        Self::new(405, reason::METHOD_NOT_ALLOWED, message)
    }

    /// 406: none of the media types that the client accepts can be served.
    #[must_use]
    pub fn not_acceptable(message: &str) -> Self {
        Self::new(406, reason::NOT_ACCEPTABLE, message)
    }

    /// 413: the body is larger than the server takes.
    #[must_use]
    pub fn too_large(message: &str) -> Self {
        Self::new(413, reason::REQUEST_ENTITY_TOO_LARGE, message)
    }

    /// 415: the body is of a media type or encoding that the server does not read.
    #[must_use]
    pub fn unsupported_media_type(message: &str) -> Self {
        Self::new(415, reason::UNSUPPORTED_MEDIA_TYPE, message)
    }

    /// 422: the body is well-formed and says something that cannot be true; `field` is its JSON path.
    #[must_use]
    pub fn invalid(kind: &str, group: &str, name: &str, field: &str, why: &str) -> Self {
        let message = format!("{kind}.{group} \"{name}\" is invalid: {field}: {why}");
        let cause = StatusCause {
            reason: "FieldValueInvalid".into(),
            message: why.to_owned(),
            field: field.to_owned(),
        };
        Self::new(422, reason::INVALID, &message).with_details(StatusDetails {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes: vec![cause],
            ..details()
        })
    }

    /// 500: the server failed at something that it should be able to do.
    #[must_use]
    pub fn internal(message: &str) -> Self {
        Self::new(500, reason::INTERNAL_ERROR, message)
    }
}

fn details() -> StatusDetails {
    StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::PODS;

    /// The body that kube-apiserver 1.32 sends for a missing object, its names replaced by ours.
    #[test]
    fn not_found_has_the_form_of_kube_apiserver() {
        let json = serde_json::to_value(StatusObject::not_found(&PODS, "x")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "podmulticaststats.stats.antrea.io \"x\" not found", "reason": "NotFound",
                "details": {"name": "x", "group": "stats.antrea.io", "kind": "podmulticaststats"}, "code": 404
            })
        );
    }

    #[test]
    fn invalid_names_the_field() {
        let status = StatusObject::invalid(
            "NodeStatsSummary",
            "controlplane.mcstat.io",
            "",
            "metadata.name",
            "empty",
        );
        assert_eq!(status.code(), 422);
        assert_eq!(
            status.status().message,
            "NodeStatsSummary.controlplane.mcstat.io \"\" is invalid: metadata.name: empty"
        );
        assert_eq!(
            status.status().details.as_ref().unwrap().causes[0].field,
            "metadata.name"
        );
    }
}
