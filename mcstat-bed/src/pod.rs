//! A Pod of the bed: a network namespace with a process in it, a veth to the bridge, and the port row that Antrea writes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result};

use crate::{
    command::command,
    netns::Netns,
    process::Daemon,
    traffic::{
        PORT,
        recv::Receiver,
        send::{Plan, Sender},
    },
};

/// A Pod with one interface, `eth0`.
pub struct Pod {
    /// Pod namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Container id of the sandbox, 64 hex digits: another one for each Pod that was ever made.
    pub container: String,
    /// OpenFlow port number.
    pub ofport: u32,
    /// Address of `eth0`.
    pub ipv4: Ipv4Addr,
    /// Address of `eth0`.
    pub ipv6: Ipv6Addr,
    /// MAC of `eth0`.
    pub mac: String,
    /// The host side of the veth, a port of the bridge.
    pub host_interface: String,
    /// Position on the node, from 0: addresses, MAC and port number follow from it.
    pub(crate) index: u8,
    // Ends before its namespace is removed.
    _pause: Daemon,
    /// The network namespace.
    pub netns: Netns,
}

/// What a new Pod is to be.
pub(crate) struct Wanted<'a> {
    /// Name of the bed: begins the namespace's name.
    pub(crate) bed: &'a str,
    /// Number of the node: part of every address.
    pub(crate) node: u8,
    /// Pod namespace.
    pub(crate) namespace: &'a str,
    /// Pod name.
    pub(crate) name: &'a str,
    /// Position on the node.
    pub(crate) index: u8,
    /// Of all Pods that this bed ever had.
    pub(crate) serial: u32,
}

impl Pod {
    /// Makes namespace, process and veth; the switch does not know of it yet.
    pub(crate) fn new(node: &Netns, wanted: &Wanted<'_>) -> Result<Self> {
        let Wanted {
            bed,
            name,
            index,
            serial,
            ..
        } = *wanted;
        let netns = Netns::new(format!("{bed}-{name}"))?;
        // As a Pod's sandbox has it: without a process nobody could see the namespace in /proc.
        let pause = Daemon::start("pause", &netns, command("sleep").arg("infinity"), "/dev/null".into())?;
        let container = format!("{:06x}{:058x}", serial + 0xc0_0000, std::process::id());
        // Antrea's rule for the host side: eight characters of the Pod's name, then six hex digits.
        let prefix: String = name.chars().take(8).collect();
        let host_interface = format!("{}-{}", prefix.trim_start_matches('-'), &container[..6]);
        let pod = Self {
            namespace: wanted.namespace.to_owned(),
            name: name.to_owned(),
            container,
            ofport: 10 + u32::from(index),
            ipv4: Ipv4Addr::new(10, 10, wanted.node, 11 + index),
            ipv6: Ipv6Addr::new(0xfd00, 0x10, 0, wanted.node.into(), 0, 0, 0, 0x11 + u16::from(index)),
            mac: format!("02:00:00:00:{:02x}:{:02x}", wanted.node, 0x11 + index),
            host_interface,
            index,
            _pause: pause,
            netns,
        };
        pod.connect(node, wanted.node)?;
        Ok(pod)
    }

    fn connect(&self, node: &Netns, number: u8) -> Result<()> {
        let Self {
            netns,
            host_interface: host,
            mac,
            ipv4,
            ipv6,
            ..
        } = self;
        node.ip(&format!(
            "link add {host} type veth peer name eth0 address {mac} netns {}",
            netns.name()
        ))?;
        netns
            .within(|| Ok(fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0")?))
            .context("cannot enable IPv6 in a Pod")?;
        netns.ip(&format!("addr add {ipv4}/24 dev eth0"))?;
        netns.ip(&format!("addr add {ipv6}/64 dev eth0 nodad"))?;
        // A partial checksum is never finished by the userspace datapath, and receivers drop the packet silently.
        netns.output(command("ethtool").args(["-K", "eth0", "tx", "off"]))?;
        node.ip(&format!("link set {host} up"))?;
        netns.ip("link set eth0 up")?;
        netns.ip(&format!("route add default via {}", gateway(number)))?;
        Ok(())
    }

    /// The words of `ovs-vsctl` that make the port, with everything that Antrea writes about it.
    pub(crate) fn port_words(&self, bridge: &str) -> String {
        let Self {
            host_interface: host, ..
        } = self;
        format!(
            "-- add-port {bridge} {host} -- set interface {host} ofport_request={} \
             -- set port {host} external_ids:antrea-type=container external_ids:container-id={} \
             external_ids:pod-namespace={} external_ids:pod-name={} external_ids:attached-mac=\"{}\" \
             external_ids:ip-address=\"{},{}\" external_ids:net-ns=\"/host/run/netns/{}\" ",
            self.ofport,
            self.container,
            self.namespace,
            self.name,
            self.mac,
            self.ipv4,
            self.ipv6,
            self.netns.name()
        )
    }

    /// Starts a sender of `count` datagrams of `size` bytes; its `wait` says when all is sent.
    pub fn send(&self, group: IpAddr, count: u64, pps: u32, size: u32) -> Sender {
        self.send_as(Plan::new(group, count, pps, size))
    }

    /// Starts a sender.
    pub fn send_as(&self, plan: Plan) -> Sender {
        Sender::start(&self.netns, plan)
    }

    /// Joins `groups` and returns when the kernel has done so.
    pub fn receive(&self, groups: &[IpAddr]) -> Result<Receiver> {
        Receiver::join(&self.netns, "eth0", groups, PORT)
    }
}

/// The gateway's address on the node of this number.
pub(crate) fn gateway(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 10, node, 1)
}
