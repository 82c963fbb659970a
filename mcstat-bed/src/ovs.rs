//! A private Open vSwitch: its own database, sockets and processes, with the userspace datapath.
//!
//! The system's Open vSwitch, if one runs, is not touched. Both daemons can be killed and started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    command::{command, output},
    netns::Netns,
    process::Daemon,
};

/// Name of the bridge, as Antrea's.
pub const BRIDGE: &str = "br-int";
/// Name of the gateway's port, as Antrea's.
pub const GATEWAY: &str = "antrea-gw0";
/// OpenFlow number of the gateway's port, as Antrea's.
pub const GATEWAY_PORT: u32 = 2;
/// Name of the tunnel's port, as Antrea's.
pub const TUNNEL: &str = "antrea-tun0";
/// OpenFlow number of the tunnel's port, as Antrea's.
pub const TUNNEL_PORT: u32 = 1;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running Open vSwitch with the bridge [`BRIDGE`].
pub struct Ovs {
    // Stopped in this order: the switch while its database is still there.
    switch: Mutex<Option<Daemon>>,
    database: Mutex<Option<Daemon>>,
    netns: Netns,
    dir: PathBuf,
    /// What goes with ovs-vswitchd, and is done again when it has started again.
    again: Mutex<Vec<Again>>,
}

/// A command, words without quoting.
pub(crate) enum Again {
    /// `ip` in the node's namespace: the addresses of internal ports.
    Ip(String),
    /// `ovs-ofctl`: the settings of ports.
    Ofctl(String),
    /// `ovs-appctl`: the neighbours of tunnels.
    Appctl(String),
}

impl Ovs {
    /// Starts it in `netns` with all its files in `dir`. The bridge forwards nothing yet.
    pub(crate) fn start(netns: &Netns, dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        output(
            private(&dir, "ovsdb-tool")
                .arg("create")
                .arg(dir.join("conf.db"))
                .arg(schema),
        )?;
        let ovs = Self {
            switch: Mutex::new(None),
            database: Mutex::new(None),
            netns: netns.clone(),
            dir,
            again: Mutex::default(),
        };
        ovs.start_ovsdb()?;
        ovs.vsctl("--no-wait init")?;
        ovs.spawn_vswitchd()?;
        ovs.vsctl(&format!(
            "add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev fail_mode=secure protocols=OpenFlow10,OpenFlow15"
        ))?;
        Ok(ovs)
    }

    /// Path of the OVSDB socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("db.sock")
    }

    /// The run directory: `<bridge>.mgmt` and `ovs-vswitchd.ctl` are in it.
    pub fn run_dir(&self) -> &Path {
        &self.dir
    }

    /// Process id of ovs-vswitchd; nothing while it is away.
    pub fn vswitchd_pid(&self) -> Option<u32> {
        lock(&self.switch).as_ref().map(Daemon::pid)
    }

    /// Kills ovs-vswitchd: flows, groups and their counters are gone, and nothing is forwarded.
    pub fn kill_vswitchd(&self) {
        if let Some(daemon) = lock(&self.switch).take() {
            daemon.kill();
        }
    }

    /// Starts ovs-vswitchd and waits until it has made bridge and ports from the database. It has no flows: that is the
    /// agent's part ([`install`](crate::pipeline::Pipeline::install)).
    pub fn start_vswitchd(&self) -> Result<()> {
        self.spawn_vswitchd()?;
        // ovs-vsctl returns when the switch has taken this change, and with it all before.
        self.vsctl(&format!("set bridge {BRIDGE} other_config:started=1"))?;
        self.vsctl(&format!("remove bridge {BRIDGE} other_config started"))?;
        lock(&self.again).iter().try_for_each(|again| self.apply(again))
    }

    /// [`kill_vswitchd`](Self::kill_vswitchd), then [`start_vswitchd`](Self::start_vswitchd).
    pub fn restart_vswitchd(&self) -> Result<()> {
        self.kill_vswitchd();
        self.start_vswitchd()
    }

    fn spawn_vswitchd(&self) -> Result<()> {
        let mut command = self.daemon("ovs-vswitchd");
        command.arg(format!("unix:{}", self.socket().display()));
        let log = self.dir.join("ovs-vswitchd.out");
        let daemon = Daemon::start("ovs-vswitchd", &self.netns, &mut command, log)?;
        *lock(&self.switch) = Some(daemon);
        Ok(())
    }

    /// Kills ovsdb-server.
    pub fn kill_ovsdb(&self) {
        if let Some(daemon) = lock(&self.database).take() {
            daemon.kill();
        }
    }

    /// Starts ovsdb-server and waits until it answers. A switch that ran on connects by itself.
    pub fn start_ovsdb(&self) -> Result<()> {
        let mut command = self.daemon("ovsdb-server");
        let remote = format!("--remote=punix:{}", self.socket().display());
        command.arg(self.dir.join("conf.db")).arg(remote);
        let log = self.dir.join("ovsdb-server.out");
        let mut daemon = Daemon::start("ovsdb-server", &self.netns, &mut command, log)?;
        // A socket file may be a dead server's: only a connection counts.
        let connects = || std::os::unix::net::UnixStream::connect(self.socket()).ok();
        daemon.wait_for("the OVSDB socket", PATIENCE, connects)?;
        *lock(&self.database) = Some(daemon);
        Ok(())
    }

    /// [`kill_ovsdb`](Self::kill_ovsdb), then [`start_ovsdb`](Self::start_ovsdb).
    pub fn restart_ovsdb(&self) -> Result<()> {
        self.kill_ovsdb();
        self.start_ovsdb()
    }

    /// `ovs-vsctl` with words without quoting; it waits until the switch has done it.
    pub fn vsctl(&self, words: &str) -> Result<String> {
        let mut vsctl = private(&self.dir, "ovs-vsctl");
        vsctl
            .arg("--timeout=20")
            .arg(format!("--db=unix:{}", self.socket().display()));
        output(vsctl.args(words.split_whitespace()))
    }

    /// `ovs-ofctl` with OpenFlow 1.5.
    pub fn ofctl(&self, args: &[&str]) -> Result<String> {
        output(private(&self.dir, "ovs-ofctl").arg("-OOpenFlow15").args(args))
    }

    /// Gives `lines` to a command of `ovs-ofctl` that reads flows or groups from a file. All or nothing for flows: in one
    /// bundle.
    pub fn ofctl_lines(&self, words: &[&str], lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        // A name of this thread's own: two may change flows at once.
        let file = self.dir.join(format!("lines-{:?}", std::thread::current().id()));
        fs::write(&file, lines.join("\n") + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        let name = file.display().to_string();
        let result = self.ofctl(&[words, &[BRIDGE, &name]].concat());
        let _ = fs::remove_file(&file);
        result
            .map(drop)
            .with_context(|| format!("the lines were:\n{}", lines.join("\n")))
    }

    /// `ovs-appctl` to ovs-vswitchd, words without quoting.
    pub fn appctl(&self, words: &str) -> Result<String> {
        let mut appctl = private(&self.dir, "ovs-appctl");
        appctl.arg("-t").arg(self.dir.join("ovs-vswitchd.ctl")).arg("-T20");
        output(appctl.args(words.split_whitespace()))
    }

    /// Waits until the flows' counters hold every packet that the datapath has forwarded.
    pub fn revalidate(&self) -> Result<()> {
        self.appctl("revalidator/wait").map(drop)
    }

    /// Packets that the kernel dropped because the switch did not take them off its sockets in time, over all ports. No
    /// counter of Open vSwitch knows of them.
    pub fn queue_drops(&self) -> Result<u64> {
        let text = self.netns.output(command("ss").args(["-0", "-m", "-H"]))?;
        let memory = text.split("skmem:(").skip(1).filter_map(|rest| rest.split_once(')'));
        memory
            .filter_map(|(fields, _)| fields.rsplit(',').next()?.strip_prefix('d'))
            .map(|drops| {
                drops
                    .parse::<u64>()
                    .with_context(|| format!("`ss` shows no number of drops: {text}"))
            })
            .sum()
    }

    /// Runs a command now, and again after each restart of the switch.
    pub(crate) fn keep(&self, again: Again) -> Result<()> {
        self.apply(&again)?;
        lock(&self.again).push(again);
        Ok(())
    }

    fn apply(&self, again: &Again) -> Result<()> {
        match again {
            Again::Ip(words) => self.netns.ip(words),
            Again::Ofctl(words) => self.ofctl(&words.split_whitespace().collect::<Vec<_>>()),
            Again::Appctl(words) => self.appctl(words),
        }
        .map(drop)
    }

    /// A daemon of Open vSwitch in the foreground.
    fn daemon(&self, program: &str) -> Command {
        let mut command = private(&self.dir, program);
        let control = self.dir.join(program).with_extension("ctl");
        command.arg(format!("--unixctl={}", control.display()));
        command.args(["--no-chdir", "-vconsole:warn", "-vsyslog:off"]);
        command
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

/// A panic elsewhere leaves nothing half done in here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
