//! Policies from the Kubernetes API: for an agent Antrea's tiers, policies and groups, the Namespaces, and its node's Pods;
//! for an aggregator the policies alone.
//!
//! Each kind is listed and then watched. Kinds that the API does not have are looked for again; without any kind of policy
//! there is no policy source, which is said once. While the API is away the last state holds, and it is tried again after
//! 1, 2, 4, 8, 8, … seconds.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream, stream::BoxStream};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher::{self, Event, watcher},
};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{complain, publish, store::Store};
use crate::{
    agent::{
        backoff::{self, Backoff},
        policy::Failure,
    },
    ledger::verdict::Kind,
};

/// How long changes are gathered before they are told: a rollout changes many objects at once.
const GATHER: Duration = Duration::from_millis(10);

/// The kinds, as resources of the API.
const RESOURCES: [(Kind, &str, &str, &str); 7] = [
    (Kind::Tier, "crd.antrea.io", "v1beta1", "tiers"),
    (
        Kind::ClusterNetworkPolicy,
        "crd.antrea.io",
        "v1beta1",
        "clusternetworkpolicies",
    ),
    (Kind::NetworkPolicy, "crd.antrea.io", "v1beta1", "networkpolicies"),
    (Kind::ClusterGroup, "crd.antrea.io", "v1beta1", "clustergroups"),
    (Kind::Group, "crd.antrea.io", "v1beta1", "groups"),
    (Kind::Namespace, "", "v1", "namespaces"),
    (Kind::Pod, "", "v1", "pods"),
];

/// Why the API cannot even be asked.
#[derive(Debug, Error)]
pub enum KubernetesError {
    /// The kubeconfig.
    #[error("the kubeconfig {} cannot be used: {reason}", .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No service account.
    #[error(
        "policies are to come from the Kubernetes API and this is no Pod with a service account: {0}; name a kubeconfig: \
         policy.kubernetes.kubeconfig, or --policy-kubeconfig"
    )]
    NotInCluster(String),
    /// TLS or the address.
    #[error("the Kubernetes API cannot be asked: {0}")]
    Client(kube::Error),
}

/// How to reach the API, and what is wanted of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Path of a kubeconfig; empty: as a Pod does.
    pub kubeconfig: PathBuf,
    /// What to watch.
    pub scope: Scope,
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything that verdicts on the Pods of the Node object of this name rest on.
    Node(String),
    /// The policies, and nothing that they refer to: which there are.
    Policies,
}

impl Scope {
    fn has(&self, kind: Kind) -> bool {
        match self {
            Self::Node(_) => true,
            Self::Policies => matches!(kind, Kind::ClusterNetworkPolicy | Kind::NetworkPolicy),
        }
    }
}

/// What a watcher of one kind tells.
enum News {
    Event(Box<Event<DynamicObject>>),
    /// No such resource.
    Absent,
    /// It cannot be watched now.
    Away(String),
}

/// Publishes the objects of the cluster until this future is dropped. It does not end by itself.
///
/// # Errors
/// [`KubernetesError`], at once. An API that does not answer is none.
pub async fn run(options: Options, out: watch::Sender<super::PolicyObjects>) -> Result<(), KubernetesError> {
    let client = client(&options).await?;
    let resources = RESOURCES.iter().filter(|(kind, ..)| options.scope.has(*kind));
    let watchers = resources.clone().map(|&(kind, group, version, plural)| {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind.to_string()), plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        follow(api, &options.scope, kind)
    });
    let mut news = stream::select_all(watchers);
    let mut known = Known::new(resources.map(|(kind, ..)| *kind));
    while let Some(first) = news.next().await {
        known.take(first);
        // What comes at once is told at once.
        let until = Instant::now() + GATHER;
        while let Ok(Some(more)) = timeout(until.saturating_duration_since(Instant::now()), news.next()).await {
            known.take(more);
        }
        known.tell(&out);
    }
    Ok(())
}

async fn client(options: &Options) -> Result<Client, KubernetesError> {
    let path = &options.kubeconfig;
    let config = if path.as_os_str().is_empty() {
        kube::Config::incluster().map_err(|error| KubernetesError::NotInCluster(error.to_string()))?
    } else {
        let failed = |reason: String| KubernetesError::Kubeconfig {
            path: path.clone(),
            reason,
        };
        let kubeconfig = Kubeconfig::read_from(path).map_err(|error| failed(error.to_string()))?;
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|error| failed(error.to_string()))?
    };
    Client::try_from(config).map_err(KubernetesError::Client)
}

/// What one kind's watcher tells, for ever.
fn follow(api: Api<DynamicObject>, scope: &Scope, kind: Kind) -> BoxStream<'static, (Kind, News)> {
    // From the API server's cache: all nodes list when it comes back.
    let mut config = watcher::Config::default().any_semantic();
    if let (Kind::Pod, Scope::Node(node)) = (kind, scope) {
        config = config.fields(&format!("spec.nodeName={node}"));
    }
    let events = Box::pin(watcher(api, config));
    stream::unfold((events, Backoff::default(), None), move |state| async move {
        let (mut events, mut backoff, wait) = state;
        if let Some(wait) = wait {
            sleep(wait).await;
        }
        let now = Instant::now;
        let (news, wait) = match events.next().await? {
            Ok(event) => {
                if is_answer(&event) {
                    backoff.succeeded(now());
                }
                (News::Event(Box::new(event)), None)
            }
            Err(error) if is_not_found(&error) => (News::Absent, Some(backoff::MAX)),
            Err(error) => {
                let wait = backoff.failed(now()).saturating_duration_since(now());
                (News::Away(chain(&error)), Some(wait))
            }
        };
        Some(((kind, news), (events, backoff, wait)))
    })
    .boxed()
}

/// Whether the API has told this: a watcher says by itself that it is about to list.
fn is_answer(event: &Event<DynamicObject>) -> bool {
    !matches!(event, Event::Init)
}

/// The API answers, and has no such resource.
fn is_not_found(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 404)
        }
        _ => false,
    }
}

/// An error with its causes: the first alone says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// What is known, and what was said of it.
struct Known {
    store: Store,
    /// Kinds that cannot be watched now.
    away: BTreeSet<Kind>,
    complaints: Vec<String>,
    said_none: bool,
}

impl Known {
    fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self {
            store: Store::new(kinds),
            away: BTreeSet::new(),
            complaints: Vec::new(),
            said_none: false,
        }
    }

    fn take(&mut self, (kind, news): (Kind, News)) {
        match news {
            News::Event(event) => {
                if is_answer(&event) {
                    self.back(kind);
                }
                self.store.take(kind, *event);
            }
            News::Absent => {
                self.back(kind);
                if self.store.absent(kind) {
                    debug!(%kind, "the Kubernetes API has no such resource; it is looked for again");
                }
            }
            News::Away(error) => {
                if self.away.is_empty() && self.store.complete() {
                    warn!(%kind, error, "the Kubernetes API cannot be watched; the last policies hold");
                } else if self.away.is_empty() {
                    warn!(%kind, error, "the Kubernetes API cannot be watched; which policies there are is not known yet");
                } else {
                    debug!(%kind, error, "the Kubernetes API cannot be watched");
                }
                self.away.insert(kind);
            }
        }
    }

    fn back(&mut self, kind: Kind) {
        if self.away.remove(&kind) && self.away.is_empty() {
            info!("the Kubernetes API is watched again");
        }
    }

    fn tell(&mut self, out: &watch::Sender<super::PolicyObjects>) {
        // A part of a first list would be other policies.
        if !self.store.complete() {
            return;
        }
        let objects = self.store.objects();
        let none = !objects.known;
        if none && !self.said_none {
            info!("the cluster has no Antrea policies (crd.antrea.io/v1beta1): no policy source; they are looked for");
        }
        self.said_none = none;
        let failures = objects.failures.iter().map(Failure::to_string).collect();
        complain(&mut self.complaints, failures);
        publish(objects, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An API that refuses every list: the watcher begins each attempt with `Init`.
    #[test]
    fn an_api_is_back_when_it_answers() {
        let kind = Kind::NetworkPolicy;
        let mut known = Known::new([kind]);
        let told = |event| (kind, News::Event(Box::new(event)));
        for _ in 0..2 {
            known.take(told(Event::Init));
            known.take((kind, News::Away("Unauthorized".to_owned())));
        }
        known.take(told(Event::Init));
        assert_eq!(known.away, BTreeSet::from([kind]));
        known.take(told(Event::InitDone));
        assert_eq!(known.away, BTreeSet::new());
    }
}
