//! A private Open vSwitch: its own database, sockets and processes, with the userspace datapath.
//!
//! The system's Open vSwitch, if one runs, is not touched. Multicast data is forwarded by flows to groups of members, as
//! Antrea does it, never flooded: a Pod that joined nothing gets nothing.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{netns::Netns, process::Daemon};
use crate::command::{command, output};

/// Name of the bridge, as Antrea's.
pub(crate) const BRIDGE: &str = "br-int";

/// Everything that is no multicast data. ARP, neighbour discovery and unicast take the normal path; IGMP and MLD
/// reports end at the switch (Antrea punts them to its agent): no Pod sees another's. General queries of the node reach
/// every Pod.
const BASE_FLOWS: &[&str] = &[
    "priority=0,actions=NORMAL",
    "priority=100,ip,nw_dst=224.0.0.0/4,actions=drop",
    "priority=100,ipv6,ipv6_dst=ff00::/8,actions=drop",
    "priority=220,in_port=LOCAL,ip,nw_proto=2,nw_dst=224.0.0.1,actions=ALL",
    "priority=220,in_port=LOCAL,icmp6,icmp_type=130,ipv6_dst=ff02::1,actions=ALL",
    "priority=210,ip,nw_proto=2,actions=drop",
    "priority=210,icmp6,icmp_type=133,actions=NORMAL",
    "priority=210,icmp6,icmp_type=134,actions=NORMAL",
    "priority=210,icmp6,icmp_type=135,actions=NORMAL",
    "priority=210,icmp6,icmp_type=136,actions=NORMAL",
];

/// A running Open vSwitch with the bridge [`BRIDGE`].
pub(crate) struct Ovs {
    // Stopped in this order: the switch while its database is still there.
    _switch: Daemon,
    _database: Daemon,
    dir: PathBuf,
}

impl Ovs {
    /// Starts it in `netns` with all its files in `dir`.
    pub(crate) fn start(netns: &Netns, dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        output(
            private(&dir, "ovsdb-tool")
                .arg("create")
                .arg(dir.join("conf.db"))
                .arg(schema),
        )?;
        let socket = dir.join("db.sock");
        let remote = format!("--remote=punix:{}", socket.display());
        let mut command = daemon(&dir, "ovsdb-server");
        command.arg(dir.join("conf.db")).arg(remote);
        let mut database = Daemon::start("ovsdb-server", netns, &mut command, dir.join("ovsdb-server.out"))?;
        database.wait_for("the OVSDB socket", Duration::from_secs(10), || {
            socket.exists().then_some(())
        })?;
        let mut command = daemon(&dir, "ovs-vswitchd");
        command.arg(format!("unix:{}", socket.display()));
        let switch = Daemon::start("ovs-vswitchd", netns, &mut command, dir.join("ovs-vswitchd.out"))?;
        let ovs = Self {
            _switch: switch,
            _database: database,
            dir,
        };
        ovs.vsctl("--no-wait init")?;
        ovs.vsctl(&format!(
            "add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev fail_mode=secure protocols=OpenFlow10,OpenFlow15"
        ))?;
        for flow in BASE_FLOWS {
            ovs.ofctl(&["add-flow", BRIDGE, flow])?;
        }
        Ok(ovs)
    }

    /// Path of the OVSDB socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("db.sock")
    }

    /// `ovs-vsctl` with words without quoting; it waits until the switch has done it.
    pub(crate) fn vsctl(&self, words: &str) -> Result<String> {
        let mut vsctl = private(&self.dir, "ovs-vsctl");
        vsctl
            .arg("--timeout=10")
            .arg(format!("--db=unix:{}", self.socket().display()));
        output(vsctl.args(words.split_whitespace()))
    }

    /// `ovs-ofctl` with OpenFlow 1.5.
    pub(crate) fn ofctl(&self, args: &[&str]) -> Result<String> {
        output(private(&self.dir, "ovs-ofctl").arg("-OOpenFlow15").args(args))
    }

    /// Forwards `group` to the ports of its members, in an OpenFlow group of type all.
    pub(crate) fn forward(&self, id: u32, group: IpAddr, ofports: &[u32]) -> Result<()> {
        let buckets: String = ofports.iter().map(|port| format!(",bucket=output:{port}")).collect();
        self.ofctl(&["add-group", BRIDGE, &format!("group_id={id},type=all{buckets}")])?;
        let matches = match group {
            IpAddr::V4(group) => format!("ip,nw_dst={group}"),
            IpAddr::V6(group) => format!("ipv6,ipv6_dst={group}"),
        };
        self.ofctl(&[
            "add-flow",
            BRIDGE,
            &format!("priority=200,{matches},actions=group:{id}"),
        ])?;
        Ok(())
    }
}

/// A program of Open vSwitch that sees only the files in `dir`.
fn private(dir: &Path, program: &str) -> Command {
    let mut command = command(program);
    for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(name, dir);
    }
    command
}

/// A daemon of Open vSwitch in the foreground.
fn daemon(dir: &Path, program: &str) -> Command {
    let mut command = private(dir, program);
    command.arg(format!(
        "--unixctl={}",
        dir.join(program).with_extension("ctl").display()
    ));
    command.args(["--no-chdir", "-vconsole:warn", "-vsyslog:off"]);
    command
}
