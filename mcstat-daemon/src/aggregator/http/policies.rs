//! `antreaclusternetworkpolicystats` and `antreanetworkpolicystats`: reads, as of the other resources.

use std::borrow::Cow;

use axum::{
    Router,
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::get,
};

use super::{Parameters, Request, Server, path};
use crate::api::{
    policy::PolicyStats,
    resource::{self, Object as _},
    status::StatusObject,
};

/// The routes below `/apis/GROUP/VERSION`.
pub(super) fn routes(version: &str) -> Router<Server> {
    let cluster_wide = format!("{version}/{}", resource::CLUSTER_POLICIES.plural);
    let plural = resource::NAMESPACED_POLICIES.plural;
    let namespaced = format!("{version}/namespaces/{{namespace}}/{plural}");
    Router::new()
        .route(&cluster_wide, get(list_everywhere::<true>))
        .route(&format!("{cluster_wide}/{{name}}"), get(get_cluster_wide))
        .route(&format!("{version}/{plural}"), get(list_everywhere::<false>))
        .route(&namespaced, get(list_namespace))
        .route(&format!("{namespaced}/{{name}}"), get(get_namespaced))
}

async fn list_everywhere<const CLUSTER_WIDE: bool>(
    State(server): State<Server>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    list::<CLUSTER_WIDE>(&server, None, query, &headers).unwrap_or_else(IntoResponse::into_response)
}

async fn list_namespace(
    State(server): State<Server>,
    namespace: Result<Path<String>, PathRejection>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    path(namespace)
        .and_then(|namespace| list::<false>(&server, Some(&namespace), query, &headers))
        .unwrap_or_else(IntoResponse::into_response)
}

async fn get_cluster_wide(
    State(server): State<Server>,
    name: Result<Path<String>, PathRejection>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    path(name)
        .and_then(|name| one::<true>(&server, "", &name, query, &headers))
        .unwrap_or_else(IntoResponse::into_response)
}

async fn get_namespaced(
    State(server): State<Server>,
    name: Result<Path<(String, String)>, PathRejection>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    path(name)
        .and_then(|(namespace, name)| one::<false>(&server, &namespace, &name, query, &headers))
        .unwrap_or_else(IntoResponse::into_response)
}

fn list<const CLUSTER_WIDE: bool>(
    server: &Server,
    namespace: Option<&str>,
    query: Parameters,
    headers: &HeaderMap,
) -> Result<Response, StatusObject> {
    let request = Request::read(&PolicyStats::<CLUSTER_WIDE>::RESOURCE, query, headers)?;
    let (index, now) = (server.index.snapshot(), (server.clock)());
    let policies = index.policies::<CLUSTER_WIDE>(namespace, now).into_iter();
    let selected = policies.filter(|policy| request.selects(policy));
    let items = selected.map(Cow::<PolicyStats<CLUSTER_WIDE>>::Owned).collect();
    Ok(request.list(items, index.resource_version(now), now))
}

fn one<const CLUSTER_WIDE: bool>(
    server: &Server,
    namespace: &str,
    name: &str,
    query: Parameters,
    headers: &HeaderMap,
) -> Result<Response, StatusObject> {
    let resource = PolicyStats::<CLUSTER_WIDE>::RESOURCE;
    let request = Request::read(&resource, query, headers)?;
    let (index, now) = (server.index.snapshot(), (server.clock)());
    let policy = index.policy::<CLUSTER_WIDE>(namespace, name, now);
    Ok(request.one(&policy.ok_or_else(|| StatusObject::not_found(&resource, name))?, now))
}
