//! A node with Pods on one machine: network namespaces, veths and a private Open vSwitch with the userspace datapath.
//!
//! It promises: names that carry this process's id, so that two beds do not meet; real kernel receivers and senders in
//! the Pods; a querier of IGMPv3 and MLDv2; nothing left behind when it is dropped, after Ctrl-C too. It has no Kubernetes; the Pods exist as port rows
//! with the external ids that Antrea writes.

pub(crate) mod netns;
pub(crate) mod ovs;
pub(crate) mod pod;
pub(crate) mod process;
pub(crate) mod signal;

use std::{
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use self::{
    netns::Netns,
    ovs::{BRIDGE, Ovs},
    pod::{Pod, traffic},
    process::Daemon,
};

/// The node and its Pods.
pub(crate) struct Bed {
    // Dropped in this order: querier, Pods, switch, node, files.
    _querier: Daemon,
    /// The Pods, in the order given.
    pub(crate) pods: Vec<Pod>,
    /// The switch.
    pub(crate) ovs: Ovs,
    /// The node's network namespace: agent, aggregator, switch and the host sides of the veths.
    pub(crate) node: Netns,
    dir: Scratch,
}

impl Bed {
    /// Builds the bed with these Pods, as (namespace, name).
    pub(crate) fn up(pods: &[(&'static str, &'static str)]) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces, Open vSwitch and eBPF need root; run it as root");
        }
        signal::install()?;
        let name = format!("mcstat-{}", std::process::id());
        let dir = Scratch::new(env::temp_dir().join(&name))?;
        let node = Netns::new(format!("{name}-node"))?;
        // The node's own IPv6 chatter on the veths would be inbound traffic of the Pods.
        let off = || Ok(fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?);
        node.within(off).context("cannot switch IPv6 off on the node's veths")?;
        let ovs = Ovs::start(&node, dir.path.join("ovs"))?;
        let mut made = Vec::new();
        for (index, (namespace, pod)) in (0u8..).zip(pods) {
            signal::check()?;
            made.push(Pod::new(&name, &node, &ovs, namespace, pod, index)?);
        }
        node.ip(&format!("link set {BRIDGE} up"))?;
        let mut query = traffic("query")?;
        query.arg(format!("--interface={BRIDGE}"));
        let querier = Daemon::start("querier", &node, &mut query, dir.path.join("querier.log"))?;
        Ok(Self {
            _querier: querier,
            pods: made,
            ovs,
            node,
            dir,
        })
    }

    /// The Pod of this name.
    pub(crate) fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods
            .iter()
            .find(|pod| pod.name == name)
            .with_context(|| format!("the bed has no Pod {name}"))
    }

    /// Forwards `group` to the Pods named.
    pub(crate) fn forward(&self, id: u32, group: IpAddr, members: &[&str]) -> Result<()> {
        let ofports: Result<Vec<u32>> = members.iter().map(|name| Ok(self.pod(name)?.ofport)).collect();
        self.ovs.forward(id, group, &ofports?)
    }

    /// A directory for sockets, logs and configuration.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// A bpffs of its own: `/sys/fs/bpf` may not be mounted, and what is pinned there is not ours.
    pub(crate) fn bpffs(&self) -> PathBuf {
        self.dir.path.join("bpf")
    }
}

/// A directory with a bpffs mounted in it.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        let bpffs = path.join("bpf");
        fs::create_dir_all(&bpffs).with_context(|| format!("cannot make {}", bpffs.display()))?;
        let scratch = Self { path };
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount bpffs on {}", bpffs.display()))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Not mounted when that was what failed.
        let _ = umount2(&self.path.join("bpf"), MntFlags::MNT_DETACH);
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("left behind: {}: {error}", self.path.display());
        }
    }
}
