//! Policies in force: objects and the node's Pods in, changes of the maps out, on a thread of its own, since a change may
//! wait for RCU.
//!
//! A list of Pods is handed on to the ports thread when it is compiled, so that a new Pod is judged from its first packet
//! on. Changes that come together are made together. What an earlier run left in the maps judges until both the objects and
//! the Pods are known; what a source that has gone away said last holds.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    bpf::{
        maps::Maps,
        now,
        policy::{self, PolicyError},
    },
    pods::PodPorts,
    policy::{Failure, PolicyObjects, complain},
};
use crate::ledger::{
    snapshot::{KnownPolicy, RuleReading},
    verdict::{Change, CompileError, Compiler, Model, ObjectKey, PodName, Policy, Problem, Reach, Stored, Tables},
};

/// The least time between two changes: what comes meanwhile is one change more.
const PACE: Duration = Duration::from_millis(20);
/// How often a change that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why policies are not in force.
#[derive(Debug, Error)]
pub enum JudgeError {
    /// The maps, at the start.
    #[error("the policies in the maps cannot be read: {0}")]
    Read(io::Error),
    /// They cannot be compiled now.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The maps do not take them.
    #[error(transparent)]
    Apply(#[from] PolicyError),
}

/// The policies in force.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// What the kernel judges by.
    pub(super) tables: Arc<Tables>,
    /// Every policy that there is.
    pub(super) policies: Arc<[KnownPolicy]>,
    /// What each rule is about.
    pub(super) reach: Arc<Reach>,
    /// What is not judged as it is written, as sentences.
    pub(super) problems: Arc<[String]>,
}

/// What the tick is told.
#[derive(Debug, Clone)]
pub(super) enum InForce {
    /// The source of policies, or the one of Pods, has told nothing yet: what an earlier run judged by goes on, if it left
    /// anything.
    NotRead(Option<Judged>),
    /// There is no policy source.
    NoSource,
    /// Policies, be it none.
    Policies(Judged),
}

/// What the thread listens to, and whom it tells.
pub(super) struct Channels {
    /// The policies, and what they refer to.
    pub(super) objects: watch::Receiver<PolicyObjects>,
    /// The node's Pods.
    pub(super) pods: watch::Receiver<PodPorts>,
    /// The same Pods, once they are compiled.
    pub(super) compiled: watch::Sender<PodPorts>,
    /// What is in force.
    pub(super) judged: watch::Sender<InForce>,
    /// Last readings of rules that are gone, for one more summary.
    pub(super) retired: mpsc::Sender<RuleReading>,
}

/// What the thread works on.
pub(super) struct Judge {
    maps: Arc<Maps>,
    compiler: Compiler,
    tables: Tables,
    /// A change that was not made whole.
    unfinished: Option<Change>,
    /// Whether the last round is to be tried again.
    again: bool,
    complaints: Vec<String>,
    /// What went wrong last.
    trouble: Option<String>,
}

/// What became of a change.
enum Made {
    Whole,
    /// Nothing was done: a set finds no room beside what is in force. The compiler was told.
    NoRoom,
}

/// What is to be in force.
#[derive(Debug, Default)]
struct Wanted {
    /// `None`: nothing was told yet.
    model: Option<Model>,
    /// Whether there is a policy source.
    known: bool,
    /// What the source could not take over, as sentences; it has logged them.
    failures: Vec<String>,
    /// Sorted, each once; `None` until a source of Pods was connected.
    pods: Option<Vec<PodName>>,
}

impl Wanted {
    /// Takes a list of Pods; whether it has others than before.
    fn take_pods(&mut self, list: &PodPorts) -> bool {
        // An empty list of a source that was never connected says nothing about the Pods.
        if !list.connected && self.pods.is_none() {
            return false;
        }
        let names = list.ports.iter();
        let mut names: Vec<_> = names
            .map(|port| PodName::new(&port.pod.namespace, &port.pod.name))
            .collect();
        names.sort();
        names.dedup();
        let news = self.pods.as_ref() != Some(&names);
        self.pods = Some(names);
        news
    }

    fn take_objects(&mut self, objects: &PolicyObjects) {
        self.known = objects.known;
        self.failures = objects.failures.iter().map(Failure::to_string).collect();
        let objects = objects.objects.iter().filter(|_| objects.known);
        self.model = Some(objects.cloned().collect());
    }
}

impl Judge {
    /// Begins with what lies in the maps.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub(super) fn open(maps: Arc<Maps>) -> Result<Self, JudgeError> {
        let stored = policy::stored(&maps).map_err(JudgeError::Read)?;
        let tables = Tables::adopting(&stored, policy::pods(&maps));
        let compiler = Compiler::adopting(policy::limits(&maps), stored);
        Ok(Self {
            maps,
            compiler,
            tables,
            unfinished: None,
            again: false,
            complaints: Vec::new(),
            trouble: None,
        })
    }

    /// What an earlier run left to judge by, of whose policies nothing is known but the rules in the maps.
    pub(super) fn earlier(&self) -> InForce {
        InForce::NotRead(self.tables.judge_anybody().then(|| Judged {
            tables: Arc::new(self.tables.clone()),
            policies: Arc::default(),
            reach: Arc::default(),
            problems: Arc::default(),
        }))
    }

    /// Follows objects and Pods on a thread until one of their senders is gone. What is in force stays in force.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn spawn(mut self, runtime: Handle, mut channels: Channels) -> io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name("policy".to_owned()).spawn(move || {
            let mut wanted = Wanted::default();
            let mut objects_changed = false;
            loop {
                let list = channels.pods.borrow_and_update().clone();
                let mut changed = wanted.take_pods(&list);
                if objects_changed {
                    wanted.take_objects(&channels.objects.borrow_and_update());
                    changed = true;
                }
                let worked = self.round(changed, &wanted, &channels);
                channels.compiled.send_if_modified(|told| {
                    let changed = *told != list;
                    *told = list;
                    changed
                });
                if worked {
                    thread::sleep(PACE);
                }
                let next = runtime.block_on(async {
                    tokio::select! {
                        pods = channels.pods.changed() => pods.map(|()| false),
                        objects = channels.objects.changed() => objects.map(|()| true),
                        () = sleep(RETRY), if self.again => Ok(false),
                    }
                });
                match next {
                    Ok(changed) => objects_changed = changed,
                    Err(_) => return,
                }
            }
        })
    }

    /// Brings into force what is wanted, and what an earlier round could not; whether there was anything to do.
    fn round(&mut self, changed: bool, wanted: &Wanted, channels: &Channels) -> bool {
        let (Some(model), Some(pods)) = (&wanted.model, &wanted.pods) else {
            return false;
        };
        if !changed && !self.again {
            return false;
        }
        let made = match self.unfinished.take() {
            Some(change) => self.make(change, channels).map(drop),
            None => Ok(()),
        };
        let made = made.and_then(|()| self.bring(model, pods, channels));
        self.again = made.is_err();
        let trouble = made.err().map(|error| error.to_string());
        if let Some(error) = trouble.as_ref().filter(|error| self.trouble.as_ref() != Some(error)) {
            warn!(error, "the policies are not in force as they are");
        }
        self.trouble = trouble;
        channels.judged.send_replace(if wanted.known {
            InForce::Policies(self.judged(model, &wanted.failures))
        } else {
            InForce::NoSource
        });
        true
    }

    fn judged(&self, model: &Model, failures: &[String]) -> Judged {
        let problems = self.trouble.iter().chain(failures).chain(&self.complaints);
        Judged {
            tables: Arc::new(self.tables.clone()),
            policies: model.all_policies().map(|policy| known(model, policy)).collect(),
            reach: Arc::new(self.compiler.reach()),
            problems: problems.cloned().collect(),
        }
    }

    /// Compiles and makes the change, and again where what was there before was in the way of more: the compiler says why
    /// that ends.
    fn bring(&mut self, model: &Model, pods: &[PodName], channels: &Channels) -> Result<(), JudgeError> {
        let mut left_out = Vec::new();
        loop {
            let change = self.compiler.compile(model, pods)?;
            let next = change.again.then(|| texts(&change.problems));
            match (self.make(change, channels), next) {
                (Ok(Made::NoRoom), _) => {}
                (Ok(Made::Whole), Some(problems)) => left_out = problems,
                (Ok(Made::Whole), None) => return Ok(()),
                (Err(error), _) => {
                    // What was to be put right by this change, and is not.
                    if !left_out.is_empty() {
                        complain(&mut self.complaints, left_out);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Makes a change. What was done of one that fails is done; the rest waits for the next round.
    fn make(&mut self, mut change: Change, channels: &Channels) -> Result<Made, JudgeError> {
        let begun = Instant::now();
        let last = match policy::apply(&self.maps, &change, now()) {
            Ok(last) => last,
            Err(error) => {
                if let Some(set) = change.sets.iter().find(|set| error.is_about(set)) {
                    debug!(%error, "the next change leaves out what asks for most");
                    self.compiler.no_room(set);
                    return Ok(Made::NoRoom);
                }
                self.unfinished = Some(change);
                return Err(error.into());
            }
        };
        self.tables.apply(&change);
        debug!(
            milliseconds = begun.elapsed().as_millis(),
            rules = change.rules.len(),
            sets = change.sets.len(),
            pods = change.flips.len(),
            again = change.again,
            "policies in force"
        );
        // What the next change, which follows at once, puts right is nothing to complain of.
        if !change.again {
            complain(&mut self.complaints, texts(&change.problems));
        }
        self.compiler.release(std::mem::take(&mut change.retired));
        for reading in last {
            // A tick that does not read is no reason to wait.
            let _ = channels.retired.try_send(reading);
        }
        Ok(Made::Whole)
    }
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

fn known(model: &Model, (key, uid, policy): (&ObjectKey, &Arc<str>, &Policy)) -> KnownPolicy {
    KnownPolicy {
        key: key.clone(),
        uid: Arc::clone(uid),
        multicast: model.is_multicast(key, policy),
    }
}

/// What every port of the maps is judged by goes: there is no policy source.
///
/// # Errors
/// The maps cannot be read, or the change cannot be made.
pub(super) fn clear(maps: &Maps) -> Result<(), JudgeError> {
    let stored = policy::stored(maps).map_err(JudgeError::Read)?;
    if stored == Stored::default() {
        return Ok(());
    }
    info!("no policy source is configured; what an earlier run judged by is taken out of the maps");
    let change = Compiler::adopting(policy::limits(maps), stored).compile(&Model::default(), &[])?;
    policy::apply(maps, &change, now())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::pods::PodPort, ledger::snapshot::PodRef};

    fn port(name: &str, interface: &str) -> PodPort {
        PodPort {
            pod: PodRef {
                namespace: "mkt".to_owned(),
                name: name.to_owned(),
                sandbox: format!("sandbox-{name}"),
            },
            interface: interface.to_owned(),
            host_interface: String::new(),
            ifindex: 1,
            addresses: Vec::new(),
            ofport: None,
            netns: None,
        }
    }

    fn list(connected: bool, ports: &[(&str, &str)]) -> PodPorts {
        PodPorts {
            ports: ports.iter().map(|(name, interface)| port(name, interface)).collect(),
            uncounted: Vec::new(),
            userspace: false,
            connected,
        }
    }

    /// The first change retires the rules that are for no Pod: it must not be made for a list that nobody has read.
    #[test]
    fn pods_are_known_once_their_source_was_connected() {
        let mut wanted = Wanted::default();
        assert!(!wanted.take_pods(&list(false, &[])));
        assert_eq!(wanted.pods, None);
        assert!(
            wanted.take_pods(&list(true, &[])),
            "now it is known that there are none"
        );
        assert!(wanted.take_pods(&list(true, &[("b", "eth0"), ("a", "eth0"), ("a", "eth1")])));
        let names = ["a", "b"].map(|name| PodName::new("mkt", name));
        assert_eq!(wanted.pods.as_deref(), Some(&names[..]), "once each, whatever it has");
        assert!(
            !wanted.take_pods(&list(true, &[("a", "eth1"), ("b", "eth0")])),
            "the same Pods"
        );
        assert!(
            !wanted.take_pods(&list(false, &[("a", "eth0"), ("b", "eth0")])),
            "away: the last list"
        );
    }
}
