//! A private Open vSwitch, with the userspace datapath unless said, in a network namespace and a run directory of its own.
//!
//! Needs root, iproute2 and openvswitch-switch; the binary that uses it has the module `pods_lab`.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod pipeline;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use mcstat::agent::{config::OvsdbConfig, ovs::snooping};

use crate::pods_lab::{Lab, sh};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A private Open vSwitch. Its processes die with it.
pub(crate) struct Switch {
    pub(crate) lab: Lab,
    directory: tempfile::TempDir,
    pub(crate) server: Option<Child>,
    pub(crate) switch: Option<Child>,
}

impl Switch {
    /// Starts one with the bridge `br-int` and the userspace datapath. `tag` keeps the tests of one process apart.
    pub(crate) fn new(tag: &str) -> Self {
        Self::with_datapath(tag, "netdev")
    }

    /// As [`Switch::new`], with the datapath `system` (the kernel's, which must have openvswitch.ko) or `netdev`.
    pub(crate) fn with_datapath(tag: &str, datapath: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut switch = Self {
            lab: Lab::new(tag),
            directory,
            server: None,
            switch: None,
        };
        sh(&format!(
            "ovsdb-tool create {} {SCHEMA}",
            switch.path("conf.db").display()
        ));
        switch.start_server();
        switch.vsctl("--no-wait init");
        switch.start_switch();
        switch.vsctl(&format!(
            "add-br br-int -- set bridge br-int datapath_type={datapath} fail_mode=secure"
        ));
        switch
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn spawn(&self, program: &str, arguments: &[String]) -> Child {
        let directory = self.directory.path();
        Command::new("ip")
            .args(["netns", "exec", &self.lab.node, program])
            .args(arguments)
            .args(["-vconsole:off", "--no-chdir"])
            .envs(["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"].map(|name| (name, directory)))
            .stdin(Stdio::null())
            .spawn()
            .expect("iproute2 must be installed")
    }

    pub(crate) fn start_server(&mut self) {
        let (database, socket) = (self.path("conf.db"), self.path("db.sock"));
        let remote = format!("--remote=punix:{}", socket.display());
        let control = format!("--unixctl={}", self.path("ovsdb.ctl").display());
        self.server = Some(self.spawn("ovsdb-server", &[database.display().to_string(), remote, control]));
        // A socket file may be a dead server's: only an answer counts.
        sh(&format!(
            "ovs-vsctl --db=unix:{} --retry --timeout=30 --no-wait get-manager",
            socket.display()
        ));
    }

    pub(crate) fn start_switch(&mut self) {
        let remote = format!("unix:{}", self.path("db.sock").display());
        // Pid file and control socket have the names that a node's have.
        self.switch = Some(self.spawn("ovs-vswitchd", &[remote, "--pidfile".to_owned()]));
    }

    pub(crate) fn vsctl(&self, command: &str) -> String {
        sh(&format!(
            "ovs-vsctl --db=unix:{} --timeout=30 {command}",
            self.path("db.sock").display()
        ))
    }

    /// `ovs-ofctl` on the bridge: `-O OpenFlow15 <command> <bridge's socket> <arguments>`.
    pub(crate) fn ofctl(&self, command: &str, arguments: &str) -> String {
        let socket = self.path("br-int.mgmt");
        sh(&format!(
            "ovs-ofctl -O OpenFlow15 {command} {} {arguments}",
            socket.display()
        ))
    }

    /// `ovs-ofctl` with its input.
    pub(crate) fn ofctl_with(&self, command: &str, input: &str) {
        let file = self.path("input");
        std::fs::write(&file, input).expect("a file");
        self.ofctl(command, &file.display().to_string());
    }

    /// `ovs-appctl` on the switch.
    pub(crate) fn appctl(&self, command: &str) -> String {
        let control = snooping::control_socket(self.directory.path()).expect("a running switch");
        sh(&format!("ovs-appctl -t {} {command}", control.display()))
    }

    /// The run directory.
    pub(crate) fn run_dir(&self) -> &Path {
        self.directory.path()
    }

    /// Makes a Pod with a port as antrea-agent makes it.
    pub(crate) fn add_pod(&self, pod: &str, host: &str, container: &str, address: &str) {
        self.lab.add_netns(pod);
        self.lab.add_veth(pod, "eth0", host, &format!("{address}/24"));
        self.add_port(pod, host, container, &format!("external_ids:ip-address={address}"));
    }

    pub(crate) fn add_port(&self, pod: &str, host: &str, container: &str, more: &str) {
        self.vsctl(&format!(
            "add-port br-int {host} -- set port {host} external_ids:antrea-type=container \
             external_ids:container-id={container} external_ids:pod-name={pod} external_ids:pod-namespace=mkt {more}"
        ));
    }

    pub(crate) fn config(&self) -> OvsdbConfig {
        OvsdbConfig {
            socket: self.path("db.sock"),
            bridge: "br-int".to_owned(),
        }
    }

    /// What a counted port looks like.
    pub(crate) fn port(&self, pod: &str, interface: &str, host: &str) -> String {
        format!("mkt/{pod} {interface} {host} {}", self.lab.ifindex(host))
    }
}

/// kill -9, and the end awaited.
pub(crate) fn kill(process: &mut Option<Child>) {
    if let Some(mut child) = process.take() {
        // Either fails only when the process is gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        kill(&mut self.switch);
        kill(&mut self.server);
    }
}
