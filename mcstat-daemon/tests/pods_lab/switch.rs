//! A private Open vSwitch: ovsdb-server and ovs-vswitchd with the userspace datapath, in their own network namespace and
//! run directory. Needs root, iproute2 and openvswitch-switch.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use mcstat::agent::config::OvsdbConfig;

use super::{Lab, sh};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A private Open vSwitch. Its processes die with it.
pub(crate) struct Switch {
    pub(crate) lab: Lab,
    directory: tempfile::TempDir,
    pub(crate) server: Option<Child>,
    pub(crate) switch: Option<Child>,
}

impl Switch {
    pub(crate) fn new(tag: &str) -> Self {
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
        switch.vsctl("add-br br-int -- set bridge br-int datapath_type=netdev fail_mode=secure");
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
        let control = format!("--unixctl={}", self.path("vswitchd.ctl").display());
        let pid_file = format!("--pidfile={}", self.path("vswitchd.pid").display());
        self.switch = Some(self.spawn("ovs-vswitchd", &[remote, control, pid_file]));
    }

    pub(crate) fn vsctl(&self, command: &str) -> String {
        sh(&format!(
            "ovs-vsctl --db=unix:{} --timeout=30 {command}",
            self.path("db.sock").display()
        ))
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
