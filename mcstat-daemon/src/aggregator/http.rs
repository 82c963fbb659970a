//! The HTTP interface: discovery, the resources as Table or JSON, probes, and (for an aggregator) the push.
//!
//! One router serves the cluster view and, over a unix socket, one node's view, so that kubectl and `mcstat get` share
//! every line. Every failure is a `metav1.Status` in JSON. It does not authenticate: who may connect is decided where
//! the router is bound. `limit` is honoured by answering with everything and no `continue`, which the API conventions
//! allow ("servers may return fewer or more"): the whole list is in memory, and pages cost kubectl more than they save.

mod policies;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State, rejection::PathRejection, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Serialize;
use tower_http::{
    compression::{CompressionLayer, predicate::SizeAbove},
    decompression::RequestDecompressionLayer,
};

use super::{
    discovery,
    findings::Unheard,
    groups,
    index::{Index, SharedIndex},
    ingest,
    negotiate::{self, DiscoveryForm, ObjectForm},
    selector::Selection,
};
use crate::api::{
    group::MulticastGroup,
    resource::{self, Object, Resource},
    stats,
    status::StatusObject,
    summary,
    table::{IncludeObject, ListMetadata, Table},
};

/// Compressing a small answer costs more than it saves; kube-apiserver draws the line at the same size.
const COMPRESS_ABOVE_BYTES: u64 = 128 * 1024;

/// Whether summaries may be pushed to this router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The cluster view: agents push to it.
    Aggregator,
    /// One node's view, fed by the agent itself: nobody else may say what it shows.
    Node,
}

#[derive(Clone)]
struct Server {
    index: Arc<SharedIndex>,
    role: Role,
    clock: fn() -> Timestamp,
}

impl Server {
    /// What nobody in the cluster has joined. One node cannot tell.
    fn unheard(&self, index: &Index, wanted: Option<&BTreeSet<IpAddr>>, now: Timestamp) -> Unheard {
        match self.role {
            Role::Aggregator => index.unheard(wanted, now),
            Role::Node => Unheard::default(),
        }
    }
}

/// The routes over this index. `clock` gives the time of each request; servers pass `Timestamp::now`.
pub fn router(index: Arc<SharedIndex>, role: Role, clock: fn() -> Timestamp) -> Router {
    let group = format!("/apis/{}", stats::GROUP);
    let version = format!("{group}/{}", stats::VERSION);
    let all = format!("{version}/{}", stats::RESOURCE);
    let namespaced = format!("{version}/namespaces/{{namespace}}/{}", stats::RESOURCE);
    let groups = format!("{version}/{}", resource::GROUPS.plural);
    let mut router = Router::new()
        .route("/apis", get(apis))
        .route(&group, get(async || json(StatusCode::OK, &discovery::group())))
        .route(&version, get(async || json(StatusCode::OK, &discovery::resources())))
        .route(&all, get(list_all))
        .route(&namespaced, get(list_namespace))
        .route(&format!("{namespaced}/{{name}}"), get(get_one))
        .route(&groups, get(list_groups))
        .route(&format!("{groups}/{{name}}"), get(get_group))
        .merge(policies::routes(&version))
        .route("/api/{*path}", get(core_api))
        .route("/openapi/v2", get(no_openapi))
        .route("/openapi/v3", get(no_openapi))
        .route("/version", get(async || json(StatusCode::OK, &discovery::version())))
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready));
    if role == Role::Aggregator {
        router = router.route(summary::PATH, post(push));
    }
    router
        .fallback(async || StatusObject::no_such_path())
        .method_not_allowed_fallback(async || {
            StatusObject::method_not_allowed("the server does not allow this method on the requested resource")
        })
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_ABOVE_BYTES)))
        .layer(RequestDecompressionLayer::new().pass_through_unaccepted(true))
        .with_state(Server { index, role, clock })
}

impl IntoResponse for StatusObject {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, Json(self)).into_response()
    }
}

/// A JSON answer. Nothing that is served can fail to serialize; should it, the client gets a `Status` and not a cut
/// connection.
fn json<T: Serialize>(code: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (code, [(header::CONTENT_TYPE, negotiate::JSON)], body).into_response(),
        Err(error) => StatusObject::internal(&format!("the answer cannot be written as JSON: {error}")).into_response(),
    }
}

fn accept(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::ACCEPT)
        .map(|value| value.to_str().unwrap_or("unreadable"))
}

async fn apis(headers: HeaderMap) -> Response {
    match negotiate::discovery_form(accept(&headers)) {
        Some(DiscoveryForm::Plain) => json(StatusCode::OK, &discovery::groups()),
        Some(DiscoveryForm::AggregatedV2) => {
            let mut response = json(StatusCode::OK, &discovery::aggregated());
            let content_type = header::HeaderValue::from_static(discovery::AGGREGATED_V2);
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
        None => not_acceptable().into_response(),
    }
}

fn not_acceptable() -> StatusObject {
    StatusObject::not_acceptable("only application/json is served, objects also as Table of meta.k8s.io v1 or v1beta1")
}

/// kubectl, after a 404 for a Pod in another namespace than `default`, asks whether the namespace exists and reports a
/// 404 of that instead. This server cannot know; any other answer lets kubectl report the Pod.
async fn core_api() -> StatusObject {
    StatusObject::method_not_allowed("the core API is served by kube-apiserver, not by mcstat")
}

/// kube-aggregator takes 404 as "has none"; `kubectl explain` is what needs one, `get` does not.
async fn no_openapi() -> StatusObject {
    StatusObject::not_served("this version of mcstat serves no OpenAPI document")
}

async fn ready(State(server): State<Server>) -> Response {
    if server.index.snapshot().nodes((server.clock)()) > 0 {
        return "ok".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "no node has reported yet").into_response()
}

async fn push(State(server): State<Server>, headers: HeaderMap, body: Body) -> Response {
    match ingest::accept(&server.index, &headers, body, (server.clock)()).await {
        Ok(created) => json(StatusCode::CREATED, &created),
        Err(status) => {
            tracing::warn!(
                code = status.code(),
                error = status.status().message,
                "a summary was refused"
            );
            status.into_response()
        }
    }
}

type Parameters = Result<Query<HashMap<String, String>>, QueryRejection>;

async fn list_all(State(server): State<Server>, query: Parameters, headers: HeaderMap) -> Response {
    list(&server, None, query, &headers).unwrap_or_else(IntoResponse::into_response)
}

async fn list_namespace(
    State(server): State<Server>,
    namespace: Result<Path<String>, PathRejection>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    path(namespace)
        .and_then(|namespace| list(&server, Some(&namespace), query, &headers))
        .unwrap_or_else(IntoResponse::into_response)
}

async fn get_one(
    State(server): State<Server>,
    name: Result<Path<(String, String)>, PathRejection>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    path(name)
        .and_then(|(namespace, name)| one(&server, &namespace, &name, query, &headers))
        .unwrap_or_else(IntoResponse::into_response)
}

fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, StatusObject> {
    path.map(|Path(parts)| parts)
        .map_err(|error| StatusObject::bad_request(&error.body_text()))
}

fn list(
    server: &Server,
    namespace: Option<&str>,
    query: Parameters,
    headers: &HeaderMap,
) -> Result<Response, StatusObject> {
    let request = Request::read(&resource::PODS, query, headers)?;
    let (index, now) = (server.index.snapshot(), (server.clock)());
    let unheard = server.unheard(&index, None, now);
    let rows = index.rows(namespace, now).into_iter();
    let selected = rows.filter(|row| request.selects(row.reported));
    let items = selected.map(|row| row.served(&unheard)).collect();
    Ok(request.list(items, index.resource_version(now), now))
}

fn one(
    server: &Server,
    namespace: &str,
    name: &str,
    query: Parameters,
    headers: &HeaderMap,
) -> Result<Response, StatusObject> {
    let request = Request::read(&resource::PODS, query, headers)?;
    let (index, now) = (server.index.snapshot(), (server.clock)());
    let row = index.get(namespace, name, now);
    let row = row.ok_or_else(|| StatusObject::not_found(&resource::PODS, name))?;
    let unheard = server.unheard(&index, Some(&row.sends_to().collect()), now);
    Ok(request.one(row.served(&unheard).as_ref(), now))
}

async fn list_groups(State(server): State<Server>, query: Parameters, headers: HeaderMap) -> Response {
    all_groups(&server, query, &headers).unwrap_or_else(IntoResponse::into_response)
}

async fn get_group(
    State(server): State<Server>,
    name: Result<Path<String>, PathRejection>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    path(name)
        .and_then(|name| one_group(&server, &name, query, &headers))
        .unwrap_or_else(IntoResponse::into_response)
}

/// Groups that every stack joins are left out unless the request says which of them it wants, or names a group.
fn all_groups(server: &Server, query: Parameters, headers: &HeaderMap) -> Result<Response, StatusObject> {
    let request = Request::read(&resource::GROUPS, query, headers)?;
    let (index, now) = (server.index.snapshot(), (server.clock)());
    let unheard = server.unheard(&index, None, now);
    let hidden_too = request.selection.names(resource::HIDDEN) || request.selection.names(resource::NAME);
    let groups = groups::groups(&index, None, &unheard, now).into_iter();
    let selected = groups.filter(|group| (hidden_too || !group.status.hidden) && request.selects(group));
    let items = selected.map(Cow::<MulticastGroup>::Owned).collect();
    Ok(request.list(items, index.resource_version(now), now))
}

/// By its address in any way of writing it.
fn one_group(server: &Server, name: &str, query: Parameters, headers: &HeaderMap) -> Result<Response, StatusObject> {
    let request = Request::read(&resource::GROUPS, query, headers)?;
    let (index, now) = (server.index.snapshot(), (server.clock)());
    let not_found = || StatusObject::not_found(&resource::GROUPS, name);
    let address: IpAddr = name.parse().map_err(|_| not_found())?;
    let unheard = server.unheard(&index, Some(&BTreeSet::from([address])), now);
    let group = groups::groups(&index, Some(address), &unheard, now).pop();
    Ok(request.one(&group.ok_or_else(not_found)?, now))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a, T: Clone> {
    kind: String,
    api_version: String,
    metadata: ListMetadata,
    items: Vec<Cow<'a, T>>,
}

/// What a read asks for, checked.
struct Request {
    form: ObjectForm,
    include: IncludeObject,
    selection: Selection,
}

impl Request {
    fn read(resource: &Resource, query: Parameters, headers: &HeaderMap) -> Result<Self, StatusObject> {
        let Query(query) = query.map_err(|error| StatusObject::bad_request(&error.body_text()))?;
        // Go's boolean parameters: `watch=` and `watch=true` both watch.
        if query
            .get("watch")
            .is_some_and(|value| !matches!(value.as_str(), "false" | "0"))
        {
            return Err(StatusObject::method_not_allowed(
                "watch is not supported yet: list again instead",
            ));
        }
        if query.get("continue").is_some_and(|token| !token.is_empty()) {
            return Err(StatusObject::bad_request(
                "continue token not valid: lists are never split, list from the start",
            ));
        }
        let include = match query.get("includeObject").map(String::as_str) {
            None | Some("" | "Metadata") => IncludeObject::Metadata,
            Some("None") => IncludeObject::None,
            Some("Object") => IncludeObject::Object,
            Some(other) => {
                let message = format!("includeObject is {other:?}; expected None, Metadata or Object");
                return Err(StatusObject::bad_request(&message));
            }
        };
        let parameter = |name: &str| query.get(name).map(String::as_str);
        let selection = Selection::parse(resource, parameter("labelSelector"), parameter("fieldSelector"))
            .map_err(|error| StatusObject::bad_request(&error.to_string()))?;
        let form = negotiate::object_form(accept(headers)).ok_or_else(not_acceptable)?;
        Ok(Self {
            form,
            include,
            selection,
        })
    }

    fn selects<T: Object>(&self, object: &T) -> bool {
        self.selection
            .matches(&object.metadata().labels, |field| object.field(field))
    }

    /// A list in the form that was asked for.
    fn list<T: Object>(&self, items: Vec<Cow<'_, T>>, resource_version: String, now: Timestamp) -> Response {
        let resource_version = Some(resource_version);
        match self.form {
            ObjectForm::Json => json(
                StatusCode::OK,
                &List {
                    kind: format!("{}List", T::RESOURCE.kind),
                    api_version: format!("{}/{}", stats::GROUP, stats::VERSION),
                    metadata: ListMetadata { resource_version },
                    items,
                },
            ),
            ObjectForm::Table(version) => {
                let objects = items.iter().map(AsRef::as_ref);
                let table = Table::new(objects, version, self.include, resource_version, now);
                json(StatusCode::OK, &table)
            }
        }
    }

    /// One object in the form that was asked for.
    fn one<T: Object>(&self, object: &T, now: Timestamp) -> Response {
        match self.form {
            ObjectForm::Json => json(StatusCode::OK, object),
            ObjectForm::Table(version) => {
                let resource_version = object.metadata().resource_version.clone();
                let table = Table::new(std::iter::once(object), version, self.include, resource_version, now);
                json(StatusCode::OK, &table)
            }
        }
    }
}
