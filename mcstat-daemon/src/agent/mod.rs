//! The I/O around the ledger: Pods and ports, programs and maps, the tick, the push and the local API.
//!
//! ```text
//!  policy source ──watch──▶ policy thread ──▶ rules, policy sets
//!  Pod source ─────watch────────┘ │ compiled
//!                                 ▼
//!                          ports thread ──▶ programs, ports table, freed slots
//!                              │ departed, uncounted
//!  maps, ring buffer,          │
//!  /proc/<pid>/net ─────▶ tick ◀┘──▶ Snapshot ─▶ ledger ─▶ NodeStatsSummary ──watch──▶ local API, push
//! ```
//! One task owns the tick and the ledger. When the agent ends, programs and maps stay: counting goes on.

pub mod backoff;
pub mod bpf;
pub mod config;
mod judge;
pub mod local;
mod news;
pub mod ovs;
pub mod pods;
pub mod policy;
mod ports;
pub mod publish;
mod reported;
mod tick;
pub mod witness;

use std::{collections::BTreeMap, sync::Arc, thread::JoinHandle};

use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::{error, info};

use self::{
    bpf::{Kernel, KernelError, attach::Hook, layout::Limits, maps::Options},
    config::{Config, SourceKind},
    judge::{InForce, Judge, JudgeError},
    ovs::follow::{Follower, follow},
    pods::PodPorts,
    policy::PolicyObjects,
    ports::{Channels as PortsChannels, Ports},
    tick::{Channels, Tick},
    witness::Witness,
};
use crate::{
    api::summary::NodeStatsSummary,
    ledger::{LAG, Ledger, snapshot::RuleReading},
};

/// Why the agent cannot start, or had to end.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The Pods of OVSDB.
    #[error(transparent)]
    Ovsdb(#[from] pods::ovsdb::OvsdbError),
    /// The Pods of network namespaces.
    #[error(transparent)]
    Netns(#[from] pods::netns::NetnsError),
    /// Policies of files.
    #[error(transparent)]
    Files(#[from] policy::files::FilesError),
    /// Policies of the Kubernetes API.
    #[error(transparent)]
    Kubernetes(#[from] policy::kubernetes::KubernetesError),
    /// What is left of policies in the maps.
    #[error("{0}; see docs/policies.md")]
    Judge(#[from] JudgeError),
    /// The second witness.
    #[error("the Pods' network namespaces cannot be followed: {0}")]
    Witness(#[from] pods::link::LinkError),
    /// The local API.
    #[error(transparent)]
    Local(#[from] local::LocalError),
    /// The push.
    #[error(transparent)]
    Publish(#[from] publish::TargetError),
    /// A thread or a descriptor.
    #[error("{0}; check the limits on tasks and open files")]
    System(#[from] std::io::Error),
    /// A part ended that never should.
    #[error("{0} ended by itself; restart the agent and report this")]
    Ended(&'static str),
}

/// Counts, serves and pushes until `shutdown` completes.
///
/// # Errors
/// [`AgentError`]. Programs and maps stay as they are, whatever the reason of the end.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    let kernel = Kernel::open(&options(&config), Hook::Tcx)?;
    info!(
        node = config.node,
        slots = kernel.layout.sizes.slots,
        possible_cpus = kernel.maps.cpus,
        map_bytes = kernel.layout.total_bytes,
        taken_over = !kernel.fresh,
        "maps ready"
    );
    let (wanted, wanted_seen) = watch::channel(PodPorts::default());
    let (objects, objects_seen) = watch::channel(PolicyObjects::default());
    let (summaries, summaries_seen) = watch::channel(None::<Arc<NodeStatsSummary>>);
    let (departed, departed_seen) = mpsc::channel(1024);
    let (uncounted, uncounted_seen) = watch::channel(Vec::new());
    let (joined, joined_seen) = watch::channel(Arc::default());

    let (detached, detached_seen) = watch::channel(BTreeMap::new());
    let (suspects, suspects_seen) = watch::channel(Vec::new());

    // Read first: without a policy source the next step takes them out of the maps.
    let stored = bpf::policy::stored(&kernel.maps)?;
    let earlier = stored.rules.into_iter().map(|rule| rule.id.uid).collect();
    let Judging {
        thread: judge_thread,
        compiled,
        judged,
        retired,
    } = judge(&config, &kernel, wanted_seen, objects_seen).await?;
    let judge_alive = judged.clone();
    let limits = (config.slot_idle, config.maps.ports);
    let clock = kernel.clock.try_clone()?;
    let ports = Ports::new(
        Arc::clone(&kernel.maps),
        kernel.programs,
        clock,
        limits,
        PortsChannels {
            departed,
            uncounted,
            joined: joined_seen,
            detached,
            suspects: suspects_seen,
        },
    );
    let ports_thread = ports.spawn(Handle::current(), compiled)?;
    let mut ledger = Ledger::new(node(&config));
    ledger.set_lag(jiff::SignedDuration::try_from(config.switch.lag).unwrap_or(LAG));
    let kept = &kernel.maps.kept;
    // Which Pods live is known when the source has answered: the ports thread forgets the others.
    kept.forget(&kernel.maps, |_| true).map_err(KernelError::from)?;
    ledger.restore(kept.books(), &kept.vanished_readings(&kernel.clock.read(&kernel.maps)?));
    ledger.restore_denials(kept.denied());
    let ports_alive = uncounted_seen.clone();
    let channels = Channels {
        departed: departed_seen,
        uncounted: uncounted_seen,
        wanted: wanted.subscribe(),
        joined,
        detached: detached_seen,
        suspects,
        switch: follow_switch(&config),
        judged,
        retired,
    };
    let witness = Witness::open()?;
    let tick = Tick::new(kernel.maps, kernel.clock, kernel.ring, ledger, witness, channels)?;

    let (stop, stopped) = watch::channel(false);
    let until_stopped = || {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let source = follow_source(&config, wanted, until_stopped());
    let policies = follow_policies(&config, earlier, objects, until_stopped());
    let local = local::serve(&config.socket, summaries_seen.clone(), until_stopped());
    let targets = config.publish.targets.clone();
    let push = publish::run(summaries_seen, targets, config.publish.interval, until_stopped());
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        result = source => result.and(Err(AgentError::Ended("the Pod source"))),
        result = policies => result.and(Err(AgentError::Ended("the policy source"))),
        () = ended(judge_alive), if judge_thread.is_some() => Err(AgentError::Ended("the policy thread")),
        result = local => result.map_err(AgentError::from).and(Err(AgentError::Ended("the local API"))),
        () = ended(ports_alive) => Err(AgentError::Ended("the ports thread")),
        result = pushing(push, config.publish.targets.is_empty()) => result,
        result = tick.run(config.tick, summaries) => result.map_err(AgentError::from).and(Err(AgentError::Ended("the tick"))),
    };
    // Dropping the sources' senders ends the threads; what they attached and brought into force stays.
    stop.send_replace(true);
    let threads = judge_thread.into_iter().chain([ports_thread]);
    for thread in threads {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if !tokio::task::spawn_blocking(move || thread.join())
            .await
            .is_ok_and(|end| end.is_ok())
        {
            error!("the thread {name} died");
        }
    }
    drop(kernel.lock);
    info!("stopped; programs and maps stay, counting goes on");
    outcome
}

/// The judge, and what it tells.
struct Judging {
    thread: Option<JoinHandle<()>>,
    /// The Pods, once they are compiled.
    compiled: watch::Receiver<PodPorts>,
    judged: watch::Receiver<InForce>,
    retired: mpsc::Receiver<RuleReading>,
}

/// Starts the policy thread between the source of Pods and the ports thread; without a policy source there is none.
async fn judge(
    config: &Config,
    kernel: &Kernel,
    pods: watch::Receiver<PodPorts>,
    objects: watch::Receiver<PolicyObjects>,
) -> Result<Judging, AgentError> {
    let (compiled, compiled_seen) = watch::channel(PodPorts::default());
    let (judged, judged_seen) = watch::channel(InForce::NoSource);
    let (retired, retired_seen) = mpsc::channel(4096);
    let mut judging = Judging {
        thread: None,
        compiled: compiled_seen,
        judged: judged_seen,
        retired: retired_seen,
    };
    if has_policy_source(config) {
        let judge = Judge::open(Arc::clone(&kernel.maps))?;
        judged.send_replace(judge.earlier());
        let channels = judge::Channels {
            objects,
            pods,
            compiled,
            judged,
            retired,
        };
        judging.thread = Some(judge.spawn(Handle::current(), channels)?);
    } else {
        let maps = Arc::clone(&kernel.maps);
        let cleared = tokio::task::spawn_blocking(move || judge::clear(&maps)).await;
        cleared.map_err(|_| AgentError::Ended("the clearing of policies"))??;
        judging.compiled = pods;
    }
    Ok(judging)
}

fn has_policy_source(config: &Config) -> bool {
    config.policy.kubernetes.enabled || !config.policy.files.as_os_str().is_empty()
}

/// Runs the policy source; without one it does not end.
async fn follow_policies(
    config: &Config,
    earlier: Vec<Arc<str>>,
    objects: watch::Sender<PolicyObjects>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    if config.policy.kubernetes.enabled {
        let options = policy::kubernetes::Options {
            kubeconfig: config.policy.kubernetes.kubeconfig.clone(),
            scope: policy::kubernetes::Scope::Node(config.node.clone()),
        };
        return Ok(policy::kubernetes::run(options, objects).await?);
    }
    if has_policy_source(config) {
        return Ok(policy::files::run(config.policy.files.clone(), earlier, objects, shutdown).await?);
    }
    std::future::pending().await
}

/// Completes when the other side is gone.
async fn ended<T>(mut channel: watch::Receiver<T>) {
    while channel.changed().await.is_ok() {}
}

async fn pushing(
    push: impl Future<Output = Result<(), publish::TargetError>>,
    nowhere: bool,
) -> Result<(), AgentError> {
    push.await?;
    if nowhere {
        std::future::pending::<()>().await;
    }
    Err(AgentError::Ended("the push"))
}

/// The switch that the Pods are ports of, followed by a task that ends with the tick.
fn follow_switch(config: &Config) -> Option<Follower> {
    let read = config.switch.read && config.source.kind == SourceKind::Ovsdb;
    let run_dir = config.source.ovsdb.socket.parent().filter(|_| read)?;
    let (follower, task) = follow(ovs::follow::Options {
        run_dir: run_dir.to_owned(),
        bridge: config.source.ovsdb.bridge.clone(),
        revalidate: config.switch.revalidate,
    });
    tokio::spawn(task);
    Some(follower)
}

async fn follow_source(
    config: &Config,
    wanted: watch::Sender<PodPorts>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    match config.source.kind {
        SourceKind::Ovsdb => Ok(pods::ovsdb::run(config.source.ovsdb.clone(), wanted, shutdown).await?),
        SourceKind::Netns => Ok(pods::netns::run(config.source.netns.clone(), wanted, shutdown).await?),
    }
}

fn options(config: &Config) -> Options {
    Options {
        bpffs: config.bpffs.clone(),
        abi: mcstat_common::abi::ABI_VERSION,
        limits: Limits {
            memory_bytes: u64::from(config.maps.memory_mib) << 20,
            slots: config.maps.slots,
            slots_per_port: config.maps.slots_per_port,
            ports: config.maps.ports,
            ring_bytes: config.events.ring_kib << 10,
        },
        events: (config.events.per_second, config.events.burst),
        test_delay: 0,
    }
}

fn node(config: &Config) -> crate::ledger::Node {
    crate::ledger::Node {
        name: config.node.clone(),
        start_time: bpf::now(),
        push_interval_seconds: config.publish.interval.as_secs() as u32,
        window_seconds: u32::try_from(config.window.as_secs()).unwrap_or(u32::MAX),
    }
}
