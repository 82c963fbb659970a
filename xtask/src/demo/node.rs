//! The agent and the aggregator on the bed's node, and the ways to ask them.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::denied;
use crate::{
    bed::{Bed, ovs::BRIDGE, process::Daemon, signal},
    command::{command, target_dir},
    setup::find_kubectl,
};

/// Nobody else is in the node's network namespace: any port is free.
const LISTEN: &str = "127.0.0.1:8443";

/// One agent and one aggregator.
pub(super) struct Node<'bed> {
    bed: &'bed Bed,
    agent: Daemon,
    aggregator: Daemon,
    mcstat: PathBuf,
    kubectl: Option<PathBuf>,
}

impl<'bed> Node<'bed> {
    /// Starts both on the node of `bed`.
    pub(super) fn start(bed: &'bed Bed) -> Result<Self> {
        let mcstat = target_dir().join("release/mcstat");
        let mut aggregator = command(&mcstat);
        aggregator.args(["aggregator", "--listen", LISTEN, "--insecure-http", "--policy-files"]);
        aggregator.arg(denied::directory(bed));
        let mut aggregator = Daemon::start(
            "mcstat aggregator",
            &bed.node,
            &mut aggregator,
            bed.dir().join("aggregator.log"),
        )?;
        let connect = || bed.node.within(|| Ok(TcpStream::connect(LISTEN)?)).ok();
        aggregator.wait_for(&format!("listening on {LISTEN}"), Duration::from_secs(10), connect)?;
        let config = bed.dir().join("agent.yaml");
        fs::write(&config, configuration(bed))?;
        let mut agent = command(&mcstat);
        agent.args(["agent", "--config"]).arg(&config);
        let agent = Daemon::start("mcstat agent", &bed.node, &mut agent, bed.dir().join("agent.log"))?;
        Ok(Self {
            bed,
            agent,
            aggregator,
            mcstat,
            kubectl: find_kubectl(),
        })
    }

    /// Waits until the agent counts on every Pod.
    pub(super) fn wait_for_pods(&mut self, count: usize) -> Result<()> {
        let (bed, mcstat) = (self.bed, self.mcstat.clone());
        self.agent
            .wait_for(&format!("{count} Pods counted"), Duration::from_secs(10), || {
                let list = local(bed, &mcstat, "get podmulticaststats -A -o json").ok()?;
                let list: Value = serde_json::from_str(&list).ok()?;
                let counted = list["items"]
                    .as_array()?
                    .iter()
                    .filter(|pod| pod["status"]["inbound"].is_object());
                (counted.count() == count).then_some(())
            })
    }

    /// Asks for `resource` until `enough`, and returns the last list whether or not that came to be.
    pub(super) fn wait_for(
        &mut self,
        resource: &str,
        limit: Duration,
        enough: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let start = Instant::now();
        loop {
            signal::check()?;
            self.aggregator.check()?;
            self.agent.check()?;
            let answer = self.client(&format!("get {resource} -o json"));
            let late = start.elapsed() > limit;
            match answer.and_then(|list| Ok(serde_json::from_str::<Value>(&list)?)) {
                Ok(list) if late || enough(&list) => return Ok(list),
                Err(error) if late => return Err(error),
                _ => thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// `kubectl`, or `mcstat` where there is none.
    pub(super) fn client_name(&self) -> &'static str {
        if self.kubectl.is_some() { "kubectl" } else { "mcstat" }
    }

    /// Runs the client with `words`: kubectl asks the aggregator, `mcstat get` the agent.
    pub(super) fn client(&self, words: &str) -> Result<String> {
        let Some(kubectl) = &self.kubectl else {
            return local(self.bed, &self.mcstat, words);
        };
        let mut command = command(kubectl);
        // Nobody's own configuration or discovery cache is read or written.
        command.env("KUBECONFIG", "/dev/null").env("HOME", self.bed.dir());
        command
            .arg(format!("--server=http://{LISTEN}"))
            .args(words.split_whitespace());
        self.bed.node.output(&mut command)
    }

    /// What a person types while the demo is kept running.
    pub(super) fn hints(&self) -> String {
        let (enter, dir) = (
            format!("nsenter --net=/run/netns/{}", self.bed.node.name()),
            self.bed.dir().display(),
        );
        let client = match &self.kubectl {
            Some(kubectl) => format!(
                "{enter} {} --server=http://{LISTEN} get podmulticaststats -A",
                kubectl.display()
            ),
            None => format!("{enter} curl -s http://{LISTEN}/apis/stats.antrea.io/v1alpha1/podmulticaststats"),
        };
        let feed = self.bed.pods.first().map_or("", |pod| pod.netns.name());
        let xtask = target_dir().join("debug/xtask");
        let mcstat = self.mcstat.display();
        format!(
            "  {client}\n  {mcstat} get podmulticaststats -A -o wide --socket {dir}/agent.sock\n  \
             bpftool map dump pinned {dir}/bpf/mcstat/v1/ports\n  \
             nsenter --net=/run/netns/{feed} {} traffic send --group 239.1.1.1 --count 1000 --pps 300\n  \
             less {dir}/agent.log",
            xtask.display()
        )
    }
}

fn local(bed: &Bed, mcstat: &Path, words: &str) -> Result<String> {
    let mut command = command(mcstat);
    command.args(words.split_whitespace()).arg("--socket").arg(socket(bed));
    bed.node.output(&mut command)
}

fn socket(bed: &Bed) -> PathBuf {
    bed.dir().join("agent.sock")
}

/// The agent's configuration: JSON, which is YAML too, so that no path needs quoting rules.
fn configuration(bed: &Bed) -> String {
    let configuration = json!({
        "node": "demo",
        "source": {"kind": "ovsdb", "ovsdb": {"socket": bed.ovs.socket(), "bridge": BRIDGE}},
        "bpffs": bed.bpffs(),
        "socket": socket(bed),
        "policy": {"files": denied::directory(bed)},
        "publish": {"targets": [format!("http://{LISTEN}")], "interval": "1s"},
    });
    format!("{configuration:#}\n")
}
