//! A node with Pods on one machine: network namespaces, veths and a private Open vSwitch with the userspace datapath and
//! Antrea's multicast pipeline.
//!
//! The one bed of the tests and of `cargo xtask demo`. It promises: names of this process's own, so that no two beds meet;
//! real kernel receivers and senders in the Pods; flows, groups and port rows as Antrea writes them; nothing left behind
//! when it is dropped, after a panic or Ctrl-C too. It has no Kubernetes and no antrea-agent. It needs root, iproute2,
//! ethtool and openvswitch-switch; a missing one is an error, never a skip.
//!
//! Two limits of the userspace datapath: above 1,000 packets a second it loses some unseen ([`Ovs::queue_drops`] sees
//! them), and its flows' counters lag by 0.5 s ([`Ovs::revalidate`] waits for them).

pub mod command;
pub mod netns;
pub mod ovs;
pub mod pair;
pub mod pipeline;
pub mod pod;
pub mod process;
mod scratch;
pub mod signal;
pub mod traffic;

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};

use self::{
    netns::Netns,
    ovs::{Again, BRIDGE, GATEWAY, GATEWAY_PORT, Ovs},
    pipeline::{
        Pipeline, State,
        tables::{Table, tables},
    },
    pod::{Pod, Wanted, gateway},
    scratch::Scratch,
    traffic::query::Querier,
};

/// What a bed is to be.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The tables of policies are there (Antrea's gate AntreaPolicy). Without them the switch counts nothing inbound.
    pub policies: bool,
    /// Number of the node: its Pods have 10.10.N.11 and on.
    pub node: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policies: true,
            node: 0,
        }
    }
}

/// The node and its Pods.
pub struct Bed {
    // Dropped in this order: querier, Pods, switch, node, files.
    querier: Option<Querier>,
    /// The Pods, in the order of their making.
    pub pods: Vec<Pod>,
    /// The switch.
    pub ovs: Ovs,
    /// The node's network namespace: agent, aggregator, switch and the host sides of the veths.
    pub node: Netns,
    dir: Scratch,
    name: String,
    number: u8,
    policies: bool,
    /// The outer address of the tunnel's end, if there is a tunnel.
    vtep: Option<Ipv4Addr>,
    state: Mutex<State>,
    made: u32,
}

impl Bed {
    /// Builds the bed with these Pods, as (namespace, name).
    pub fn up(pods: &[(&str, &str)]) -> Result<Self> {
        Self::with(Options::default(), pods)
    }

    /// Builds the bed with these Pods, as (namespace, name).
    pub fn with(options: Options, pods: &[(&str, &str)]) -> Result<Self> {
        let mut bed = Self::bare(options)?;
        bed.add_ports(pods)?;
        bed.pipeline().install(1)?;
        Ok(bed)
    }

    /// Node and switch, named tables, no flows.
    pub(crate) fn bare(options: Options) -> Result<Self> {
        static BEDS: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces, Open vSwitch and eBPF need root; run it as root");
        }
        signal::install()?;
        let bed = BEDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcstat-{}-{bed}", std::process::id());
        let dir = Scratch::new(env::temp_dir().join(&name))?;
        let node = Netns::new(format!("{name}-node"))?;
        // The node's own IPv6 chatter on the veths would be inbound traffic of the Pods.
        let off = || Ok(fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?);
        node.within(off).context("cannot switch IPv6 off on the node's veths")?;
        let bed = Self {
            querier: None,
            pods: Vec::new(),
            ovs: Ovs::start(&node, dir.path().join("ovs"))?,
            node,
            dir,
            name,
            number: options.node,
            policies: options.policies,
            vtep: None,
            state: Mutex::default(),
            made: 0,
        };
        bed.set_up_bridge()?;
        Ok(bed)
    }

    /// The gateway, and the names of the tables: one transaction each, whatever the number of tables.
    fn set_up_bridge(&self) -> Result<()> {
        let mac = self.gateway_mac().map(|byte| format!("{byte:02x}")).join(":");
        let names = (0..).zip(tables(self.policies)).map(|(id, table): (u8, &Table)| {
            format!(" -- --id=@t{id} create Flow_Table name={table:?} -- set bridge {BRIDGE} flow_tables:{id}=@t{id}")
        });
        self.ovs.vsctl(&format!(
            "set bridge {BRIDGE} other_config:hwaddr=\"{mac}\" -- add-port {BRIDGE} {GATEWAY} \
             -- set interface {GATEWAY} type=internal ofport_request={GATEWAY_PORT} mac=\"{mac}\" \
             -- set port {GATEWAY} external_ids:antrea-type=gateway{}",
            names.collect::<String>()
        ))?;
        self.ovs.keep(Again::Ip(format!("link set {GATEWAY} up")))?;
        let address = gateway(self.number);
        self.ovs
            .keep(Again::Ip(format!("addr replace {address}/24 dev {GATEWAY}")))
    }

    fn gateway_mac(&self) -> [u8; 6] {
        [0x02, 0, 0, 0, self.number, 0x01]
    }

    /// Makes Pods and their ports; flows are not their business.
    pub(crate) fn add_ports(&mut self, pods: &[(&str, &str)]) -> Result<()> {
        let mut words = String::new();
        for (namespace, name) in pods {
            signal::check()?;
            if self.pods.iter().any(|pod| pod.name == *name) {
                bail!("the bed has a Pod {name} already");
            }
            // The lowest that is free: a Pod made anew gets address and port number of the one that went.
            let free = (0..).find(|index| self.pods.iter().all(|pod| pod.index != *index));
            let wanted = Wanted {
                bed: &self.name,
                node: self.number,
                namespace,
                name,
                index: free.context("the bed is full")?,
                serial: self.made,
            };
            let pod = Pod::new(&self.node, &wanted)?;
            self.made += 1;
            words += &pod.port_words(BRIDGE);
            self.pods.push(pod);
        }
        if !words.is_empty() {
            self.ovs.vsctl(&words)?;
        }
        Ok(())
    }

    /// Adds a Pod, its port and its flows.
    pub fn add_pod(&mut self, namespace: &str, name: &str) -> Result<()> {
        self.add_ports(&[(namespace, name)])?;
        self.pipeline().add_pod_flows(name)?;
        self.pipeline().query_group()
    }

    /// Removes a Pod as antrea-agent does: its flows, then its port, then the Pod itself.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        let host = self.pod(name)?.host_interface.clone();
        self.pipeline().forget(name)?;
        self.pipeline().delete_pod_flows(name)?;
        self.ovs.vsctl(&format!("del-port {BRIDGE} {host}"))?;
        self.node.ip(&format!("link del {host}"))?;
        self.pods.retain(|pod| pod.name != name);
        Ok(())
    }

    /// The Pod of this name.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods
            .iter()
            .find(|pod| pod.name == name)
            .with_context(|| format!("the bed has no Pod {name}"))
    }

    /// The flows and groups of the bridge.
    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline { bed: self }
    }

    /// Asks every Pod by IGMPv3 and MLDv2 what it has joined, every so many seconds, until the bed is gone.
    pub fn start_querier(&mut self, every: u8) -> Result<()> {
        self.querier = Some(Querier::start(&self.node, GATEWAY, every)?);
        Ok(())
    }

    /// Forwards `group` to the Pods named.
    pub fn forward(&self, group: IpAddr, members: &[&str]) -> Result<()> {
        match group {
            IpAddr::V4(group) => self.pipeline().set_group(group, members),
            IpAddr::V6(_) => self.pipeline().set_group_v6(group, members),
        }
    }

    /// Waits until `ready` after the flows' counters are complete, for 20 s; then it is an error that names `what`, and how
    /// many packets the switch never took.
    pub fn eventually(&self, what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let waited = signal::wait_for(what, Duration::from_secs(20), || {
            self.ovs.revalidate()?;
            Ok(ready()?.then_some(()))
        });
        waited.map_err(|error| match self.ovs.queue_drops() {
            Ok(drops) if drops > 0 => error.context(format!("the switch's queues overflowed by {drops} packets")),
            _ => error,
        })
    }

    /// The outer address of this node's end of the tunnel; nothing on a node without one.
    pub fn vtep(&self) -> Option<Ipv4Addr> {
        self.vtep
    }

    /// A directory for sockets, logs and configuration.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A bpffs of its own: `/sys/fs/bpf` may not be mounted, and what is pinned there is not ours.
    pub fn bpffs(&self) -> PathBuf {
        self.dir.path().join("bpf")
    }
}
