//! A Pod of the bed: a network namespace, a veth into the bridge, and the port row that Antrea would write.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{netns::Netns, ovs::BRIDGE, ovs::Ovs};

/// A Pod with one interface, `eth0`.
pub(crate) struct Pod {
    /// Pod name.
    pub(crate) name: &'static str,
    /// OpenFlow port number.
    pub(crate) ofport: u32,
    /// The network namespace.
    pub(crate) netns: Netns,
}

impl Pod {
    /// The Pod number `index` (from 0) of the bed `bed`.
    pub(crate) fn new(
        bed: &str,
        node: &Netns,
        ovs: &Ovs,
        namespace: &'static str,
        name: &'static str,
        index: u8,
    ) -> Result<Self> {
        let netns = Netns::new(format!("{bed}-{name}"))?;
        let container = format!("{:06x}{:058x}", u32::from(index) + 0xc0_0000, std::process::id());
        // Antrea's rule for the host side: eight characters of the Pod's name, then six hex digits.
        let prefix: String = name.chars().take(8).collect();
        let host_interface = format!("{}-{}", prefix.trim_start_matches('-'), &container[..6]);
        let (ipv4, ipv6) = (
            Ipv4Addr::new(10, 10, 0, 11 + index),
            Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0x11 + u16::from(index)),
        );
        let mac = format!("02:00:00:00:00:{:02x}", 0x11 + index);
        node.ip(&format!(
            "link add {host_interface} type veth peer name eth0 address {mac} netns {}",
            netns.name()
        ))?;
        netns
            .within(|| Ok(fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0")?))
            .context("cannot enable IPv6 in a Pod")?;
        netns.ip(&format!("addr add {ipv4}/24 dev eth0"))?;
        netns.ip(&format!("addr add {ipv6}/64 dev eth0 nodad"))?;
        // A partial checksum is never finished by the userspace datapath, and receivers drop the packet silently.
        netns.output(crate::command::command("ethtool").args(["-K", "eth0", "tx", "off"]))?;
        node.ip(&format!("link set {host_interface} up"))?;
        netns.ip("link set eth0 up")?;
        let ofport = 10 + u32::from(index);
        ovs.vsctl(&format!(
            "add-port {BRIDGE} {host_interface} -- set interface {host_interface} ofport_request={ofport} \
             -- set port {host_interface} external_ids:antrea-type=container external_ids:container-id={container} \
             external_ids:pod-namespace={namespace} external_ids:pod-name={name} \
             external_ids:attached-mac=\"{mac}\" external_ids:ip-address=\"{ipv4},{ipv6}\" \
             external_ids:net-ns=\"/host/run/netns/{}\"",
            netns.name()
        ))?;
        Ok(Self { name, ofport, netns })
    }

    /// Starts a sender; its `wait` says when all is sent.
    pub(crate) fn send(&self, group: IpAddr, count: u64, pps: u32, size: u32) -> Result<Sender> {
        let mut command = traffic("send")?;
        command.arg(format!("--group={group}")).arg(format!("--count={count}"));
        command
            .arg(format!("--pps={pps}"))
            .arg(format!("--size={size}"))
            .stdout(Stdio::piped());
        Ok(Sender(self.netns.spawn(&mut command)?))
    }

    /// Joins `groups` and returns when the kernel has done so.
    pub(crate) fn receive(&self, groups: &[IpAddr]) -> Result<Receiver> {
        let mut command = traffic("recv")?;
        command.args(groups.iter().map(|group| format!("--group={group}")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.netns.spawn(&mut command)?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().context("a receiver has no output")?);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        let receiver = Receiver { child, stdin, stdout };
        if read? == 0 || line.trim() != "ready" {
            bail!(
                "the receiver in {} did not join {groups:?}: it said {line:?}",
                self.name
            );
        }
        Ok(receiver)
    }
}

/// This program again, as a sender, receiver or querier.
pub(crate) fn traffic(what: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find xtask itself")?);
    command.args(["traffic", what]);
    Ok(command)
}

/// A running sender.
pub(crate) struct Sender(Child);

impl Sender {
    /// Waits for the last packet and returns how many were sent.
    pub(crate) fn wait(mut self) -> Result<u64> {
        let mut said = String::new();
        self.0
            .stdout
            .take()
            .context("a sender has no output")?
            .read_to_string(&mut said)?;
        let report: Value =
            serde_json::from_str(&said).with_context(|| format!("a sender failed; it said {said:?}"))?;
        report["packets"].as_u64().context("a sender's report has no packets")
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running receiver: a kernel member of its groups.
pub(crate) struct Receiver {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Receiver {
    /// Leaves the groups and returns the report: `{"groups": {"239.1.1.1": {"packets": 1, "bytes": 1}}}`, bytes of payload.
    pub(crate) fn finish(mut self) -> Result<Value> {
        drop(self.stdin.take());
        let mut said = String::new();
        self.stdout.read_to_string(&mut said)?;
        serde_json::from_str(&said).with_context(|| format!("a receiver failed; it said {said:?}"))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
