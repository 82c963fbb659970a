//! Discovery documents: which groups, versions and resources this server has.
//!
//! kubectl and kube-aggregator read these before anything else; all of them come from the descriptions in `api::resource`. Pure.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{APIGroup, APIGroupList, APIResource, APIResourceList, GroupVersionForDiscovery, ObjectMeta},
    version::Info,
};
use kube::core::discovery::v2::{
    APIGroupDiscovery, APIGroupDiscoveryList, APIResourceDiscovery, APIVersionDiscovery, GroupVersionKind,
};
use serde::Serialize;

use crate::api::{
    resource::{self, Resource},
    stats,
};

/// Content-Type of [`aggregated`]. kube-aggregator compares it with what it asked for.
pub const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What can be done. No `watch` yet: a client that sees the verb would rely on it.
const VERBS: [&str; 2] = ["get", "list"];

fn verbs() -> Vec<String> {
    VERBS.map(str::to_owned).to_vec()
}

fn group_version() -> String {
    format!("{}/{}", stats::GROUP, stats::VERSION)
}

/// `GET /apis/stats.antrea.io`.
#[must_use]
pub fn group() -> APIGroup {
    let version = GroupVersionForDiscovery {
        group_version: group_version(),
        version: stats::VERSION.to_owned(),
    };
    APIGroup {
        name: stats::GROUP.to_owned(),
        preferred_version: Some(version.clone()),
        server_address_by_client_cidrs: None,
        versions: vec![version],
    }
}

/// `GET /apis` for clients that ask for nothing special.
#[must_use]
pub fn groups() -> APIGroupList {
    APIGroupList { groups: vec![group()] }
}

/// `GET /apis/stats.antrea.io/v1alpha1`.
#[must_use]
pub fn resources() -> APIResourceList {
    APIResourceList {
        group_version: group_version(),
        resources: resource::ALL.map(plain).into(),
    }
}

fn plain(resource: &Resource) -> APIResource {
    APIResource {
        kind: resource.kind.to_owned(),
        name: resource.plural.to_owned(),
        namespaced: resource.namespaced,
        short_names: resource.short_name.map(|name| vec![name.to_owned()]),
        singular_name: resource.singular.to_owned(),
        verbs: verbs(),
        ..APIResource::default()
    }
}

/// [`APIGroupDiscoveryList`] with its kind and version.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AggregatedDiscovery {
    kind: &'static str,
    api_version: &'static str,
    #[serde(flatten)]
    list: APIGroupDiscoveryList,
}

/// `GET /apis` for clients that ask for aggregated discovery v2: kubectl ≥ 1.27, kube-aggregator ≥ 1.30.
#[must_use]
pub fn aggregated() -> AggregatedDiscovery {
    let version = APIVersionDiscovery {
        version: Some(stats::VERSION.to_owned()),
        resources: resource::ALL.map(for_aggregation).into(),
        freshness: Some("Current".to_owned()),
    };
    let group = APIGroupDiscovery {
        metadata: Some(ObjectMeta {
            name: Some(stats::GROUP.to_owned()),
            ..ObjectMeta::default()
        }),
        versions: vec![version],
    };
    AggregatedDiscovery {
        kind: "APIGroupDiscoveryList",
        api_version: "apidiscovery.k8s.io/v2",
        list: APIGroupDiscoveryList {
            metadata: Some(Default::default()),
            items: vec![group],
        },
    }
}

fn for_aggregation(resource: &Resource) -> APIResourceDiscovery {
    APIResourceDiscovery {
        resource: Some(resource.plural.to_owned()),
        response_kind: Some(GroupVersionKind {
            group: Some(stats::GROUP.to_owned()),
            version: Some(stats::VERSION.to_owned()),
            kind: Some(resource.kind.to_owned()),
        }),
        scope: Some(if resource.namespaced { "Namespaced" } else { "Cluster" }.to_owned()),
        singular_resource: Some(resource.singular.to_owned()),
        verbs: verbs(),
        short_names: resource.short_name.map(str::to_owned).into_iter().collect(),
        ..APIResourceDiscovery::default()
    }
}

/// `GET /version`: mcstat's own version, in the form that kubectl parses.
#[must_use]
pub fn version() -> Info {
    Info {
        major: env!("CARGO_PKG_VERSION_MAJOR").to_owned(),
        minor: env!("CARGO_PKG_VERSION_MINOR").to_owned(),
        git_version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        compiler: "rustc".to_owned(),
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        ..Info::default()
    }
}
