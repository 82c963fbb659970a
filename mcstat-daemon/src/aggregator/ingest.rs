//! Takes a pushed `NodeStatsSummary`: reads the body within a bound, checks it, puts it into the index.
//!
//! Whatever is wrong with a body is answered with a `Status` that says what and where, and changes nothing. A summary
//! that is older than the one held is answered like any other: the agent has nothing to repair.

use axum::body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{HeaderMap, header};
use jiff::Timestamp;
use serde::Serialize;

use super::index::SharedIndex;
use crate::api::{
    status::StatusObject,
    summary::{self, NodeStatsSummary},
};

/// Largest body after decompression, in bytes. 110 Pods with 256 groups in each direction are about 20 MiB of JSON.
pub const BODY_LIMIT_BYTES: usize = 32 * 1024 * 1024;

const KIND: &str = "NodeStatsSummary";

/// The answer to a summary: an empty one, as Antrea's controller gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    kind: &'static str,
    api_version: String,
    metadata: Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Empty {}

/// Reads, checks and indexes one summary that arrived at `now`.
///
/// # Errors
/// 400 (not a summary), 413 (too large), 415 (neither JSON nor gzip of it), 422 (says something that cannot be true).
pub async fn accept(
    index: &SharedIndex,
    headers: &HeaderMap,
    body: Body,
    now: Timestamp,
) -> Result<Created, StatusObject> {
    check_media_type(headers)?;
    let bytes = read(body).await?;
    let summary = parse(&bytes)?;
    tracing::debug!(
        node = summary.metadata.name,
        pods = summary.pods.len(),
        bytes = bytes.len(),
        "summary arrived"
    );
    index.accept(summary, now);
    Ok(Created {
        kind: KIND,
        api_version: api_version(),
        metadata: Empty {},
    })
}

fn api_version() -> String {
    format!("{}/{}", summary::GROUP, summary::VERSION)
}

fn check_media_type(headers: &HeaderMap) -> Result<(), StatusObject> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    if let Some(media_type) = text(header::CONTENT_TYPE)
        && media_type.split(';').next().map(str::trim) != Some("application/json")
    {
        let message = format!("a {KIND} is sent as application/json, not as {media_type}");
        return Err(StatusObject::unsupported_media_type(&message));
    }
    // gzip has been taken off, and its header with it, before the request comes here.
    match text(header::CONTENT_ENCODING) {
        None | Some("identity") => Ok(()),
        Some(other) => {
            let message = format!("a {KIND} is sent plain or with Content-Encoding gzip, not {other}");
            Err(StatusObject::unsupported_media_type(&message))
        }
    }
}

async fn read(body: Body) -> Result<bytes::Bytes, StatusObject> {
    match Limited::new(body, BODY_LIMIT_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the {KIND} is larger than {BODY_LIMIT_BYTES} bytes after decompression");
            Err(StatusObject::too_large(&message))
        }
        Err(error) => Err(StatusObject::bad_request(&format!(
            "the body of the {KIND} cannot be read: {error}"
        ))),
    }
}

fn parse(bytes: &[u8]) -> Result<NodeStatsSummary, StatusObject> {
    let summary: NodeStatsSummary = serde_json::from_slice(bytes)
        .map_err(|error| StatusObject::bad_request(&format!("the body is no {KIND}: {error}")))?;
    let (version, kind) = (&summary.api_version, &summary.kind);
    let expected = api_version();
    if *version != expected || kind != KIND {
        let message = format!("the body is {kind} of {version}; expected {KIND} of {expected}");
        return Err(StatusObject::bad_request(&message));
    }
    let name = &summary.metadata.name;
    let invalid = |field: &str, why: &str| Err(StatusObject::invalid(KIND, summary::GROUP, name, field, why));
    if name.is_empty() {
        return invalid("metadata.name", "must be the name of the node, is empty");
    }
    for (place, pod) in summary.pods.iter().enumerate() {
        let field = |path: &str| format!("pods[{place}].{path}");
        if pod.metadata.namespace.is_empty() || pod.metadata.name.is_empty() {
            return invalid(&field("metadata"), "namespace and name must not be empty");
        }
        if pod.spec.node != *name {
            let why = format!(
                "must be {name:?}, is {:?}: a node reports for itself only",
                pod.spec.node
            );
            return invalid(&field("spec.node"), &why);
        }
    }
    let lists = [
        (
            "antreaClusterNetworkPolicies",
            false,
            &summary.antrea_cluster_network_policies,
        ),
        ("antreaNetworkPolicies", true, &summary.antrea_network_policies),
    ];
    for (list, namespaced, policies) in lists {
        for (place, policy) in policies.iter().flatten().enumerate() {
            let policy = &policy.network_policy;
            if policy.name.is_empty() || policy.uid.is_empty() || policy.namespace.is_empty() == namespaced {
                let why = "name and uid must not be empty; a namespace is for antreaNetworkPolicies, and only for them";
                return invalid(&format!("{list}[{place}].networkPolicy"), why);
            }
        }
    }
    Ok(summary)
}
