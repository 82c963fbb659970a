//! A laboratory for Pod sources: network namespaces with names of this process's own, removed on drop, and a runtime
//! inside one of them. Needs root and iproute2; a missing one fails the test with the command that did not work.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    future::Future,
    process::{Command, Output},
    time::Duration,
};

use mcstat::agent::pods::PodPorts;
use tokio::sync::watch;

/// How long a test waits for what must come. Only a broken program uses it up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command that must succeed, and returns its standard output without the last line feed.
pub(crate) fn sh(command: &str) -> String {
    let output = attempt(command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "`{command}` failed ({}): {errors}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Runs a command that may fail.
pub(crate) fn attempt(command: &str) -> Output {
    Command::new("sh")
        .args(["-c", command])
        .output()
        .expect("sh must be there")
}

/// Namespaces of one test. The node's is the one that host sides lie in.
pub(crate) struct Lab {
    /// Begins every Pod's namespace.
    pub(crate) prefix: String,
    /// The node's namespace.
    pub(crate) node: String,
}

impl Lab {
    /// Makes the node's namespace. `tag` keeps the tests of one process apart.
    pub(crate) fn new(tag: &str) -> Self {
        let pid = std::process::id();
        let lab = Self {
            prefix: format!("mcstat{pid}{tag}-"),
            node: format!("MCSTAT{pid}{tag}"),
        };
        sh(&format!("ip netns add {0} && ip -n {0} link set lo up", lab.node));
        lab
    }

    /// Makes a Pod's namespace.
    pub(crate) fn add_netns(&self, pod: &str) {
        sh(&format!("ip netns add {}{pod}", self.prefix));
    }

    /// Puts a veth between node and Pod, both ends up, with an address inside.
    pub(crate) fn add_veth(&self, pod: &str, interface: &str, host: &str, address: &str) {
        let Self { prefix, node } = self;
        sh(&format!(
            "ip -n {node} link add {host} type veth peer name {interface} netns {prefix}{pod} && \
             ip -n {node} link set {host} up && ip -n {prefix}{pod} link set {interface} up && \
             ip -n {prefix}{pod} addr add {address} dev {interface}"
        ));
    }

    /// ifindex of a link in the node's namespace, by iproute2.
    pub(crate) fn ifindex(&self, host: &str) -> u32 {
        let line = sh(&format!("ip -n {} -o link show dev {host}", self.node));
        line.split(':')
            .next()
            .and_then(|index| index.parse().ok())
            .unwrap_or_else(|| panic!("no index in {line:?}"))
    }

    /// Runs a future on a thread inside the node's namespace.
    pub(crate) fn run<F: Future<Output = ()>>(&self, test: impl FnOnce() -> F + Send) {
        let file =
            std::fs::File::open(format!("/run/netns/{}", self.node)).expect("the node's namespace must be there");
        let inside = || {
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering a namespace needs root");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime must start");
            runtime.block_on(test());
        };
        let result = std::thread::scope(|scope| scope.spawn(inside).join());
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let listed = attempt("ip netns list").stdout;
        let listed = String::from_utf8_lossy(&listed);
        let names = listed.lines().filter_map(|line| line.split_whitespace().next());
        for name in names.filter(|name| name.starts_with(&self.prefix) || *name == self.node) {
            attempt(&format!("ip netns del {name}"));
        }
    }
}

/// Waits until the published list is as wanted and returns it.
pub(crate) async fn wait(
    list: &mut watch::Receiver<PodPorts>,
    what: &str,
    wanted: impl FnMut(&PodPorts) -> bool,
) -> PodPorts {
    let waited = tokio::time::timeout(PATIENCE, list.wait_for(wanted))
        .await
        .map(|found| found.map(|found| found.clone()));
    match waited {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => panic!("the source ended before: {what}"),
        Err(_) => panic!("never: {what}; the list is {:#?}", list.borrow()),
    }
}

/// `namespace/name interface host_interface ifindex` of each counted port.
pub(crate) fn shown(list: &PodPorts) -> Vec<String> {
    list.ports
        .iter()
        .map(|port| {
            format!(
                "{}/{} {} {} {}",
                port.pod.namespace, port.pod.name, port.interface, port.host_interface, port.ifindex
            )
        })
        .collect()
}

/// `name interface reason` of each port that is not counted.
pub(crate) fn reasons(list: &PodPorts) -> Vec<String> {
    list.uncounted
        .iter()
        .map(|port| format!("{} {} {}", port.pod.name, port.interface, port.reason))
        .collect()
}
