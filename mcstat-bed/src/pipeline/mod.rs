//! Antrea's multicast pipeline on the bed's bridge: what an antrea-agent would install, and change as Pods, groups and
//! policies come and go.
//!
//! It promises the tables by Antrea's names, its matches, priorities, registers, groups of type all and cookies. It does
//! not speak for an agent: IGMP is sent to the controller port and nobody takes it, so groups have the members that the
//! test names.

mod flows;
pub mod query;
pub mod read;
pub mod tables;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};

pub use self::flows::Verdict;
use self::{
    flows::{Group, Port, QUERY_GROUP, Rule, Side, Writer},
    query::Query,
    read::Flow,
    tables::Table,
};
use crate::{
    Bed,
    ovs::BRIDGE,
    pod::{Pod, gateway},
    traffic::Count,
};

/// Priority of the first rule; each later one is below, so the first that matches holds.
const FIRST_RULE: u16 = 44_900;

/// What is installed, apart from what follows from the Pods.
pub(crate) struct State {
    round: u16,
    groups: BTreeMap<Ipv4Addr, Group>,
    groups_v6: BTreeMap<IpAddr, (u32, Vec<String>)>,
    rules: Vec<Rule>,
    next_group: u32,
    next_rule: u16,
}

impl Default for State {
    fn default() -> Self {
        Self {
            round: 1,
            groups: BTreeMap::new(),
            groups_v6: BTreeMap::new(),
            rules: Vec::new(),
            next_group: QUERY_GROUP + 1,
            next_rule: FIRST_RULE,
        }
    }
}

/// The pipeline of a bed.
#[derive(Clone, Copy)]
pub struct Pipeline<'bed> {
    pub(crate) bed: &'bed Bed,
}

impl Pipeline<'_> {
    /// Number of a table; nothing where the pipeline has none of that name.
    pub fn table(&self, table: Table) -> Option<u8> {
        tables::id(table, self.bed.policies)
    }

    /// Installs everything again with the cookies of `round`, as an agent does after its own restart (a higher round;
    /// flows that are there keep their counters) and after the switch's (they are not there).
    pub fn install(&self, round: u16) -> Result<()> {
        self.state().round = round;
        self.bed
            .ovs
            .vsctl(&format!("--no-wait set bridge {BRIDGE} external_ids:roundNum={round}"))?;
        let (writer, ports, state) = (self.writer(), self.ports(), self.state());
        let mut groups = vec![writer.query_group(&ports)];
        let mut flows = writer.base();
        for port in &ports {
            flows.extend(writer.pod(port));
            flows.extend(writer.pod_metrics(port, ""));
        }
        for rule in &state.rules {
            flows.extend(writer.rule(rule, &ports));
        }
        for (address, group) in &state.groups {
            groups.push(writer.group(group, &ports));
            flows.push(writer.route(*address, group.id));
        }
        for (address, (id, pods)) in &state.groups_v6 {
            let (group, flow) = writer.group_v6(*address, *id, &self.ofports(pods));
            groups.push(group);
            flows.push(flow);
        }
        self.groups(&groups)?;
        self.flows(&flows)
    }

    /// The round of the cookies.
    pub fn round(&self) -> u16 {
        self.state().round
    }

    /// Forwards an IPv4 group to the gateway and to these Pods.
    pub fn set_group(&self, group: Ipv4Addr, pods: &[&str]) -> Result<()> {
        self.set_group_with(group, pods, &[])
    }

    /// Forwards an IPv4 group to the gateway, to these Pods and, through the tunnel, to these nodes (by the address of
    /// their tunnel's end). A group that is there changes its members in one step.
    pub fn set_group_with(&self, address: Ipv4Addr, pods: &[&str], nodes: &[Ipv4Addr]) -> Result<()> {
        if !nodes.is_empty() && self.bed.vtep.is_none() {
            bail!(
                "{address} cannot have members behind a tunnel: the bed {} has none",
                self.bed.name
            );
        }
        let pods = self.known(pods)?;
        let (writer, ports, mut state) = (self.writer(), self.ports(), self.state());
        let id = state.groups.get(&address).map_or(state.next_group, |group| group.id);
        let nodes = nodes.to_vec();
        let group = Group { id, pods, nodes };
        self.groups(&[writer.group(&group, &ports)])?;
        if state.groups.insert(address, group).is_none() {
            state.next_group += 1;
            self.flows(&[writer.route(address, id)])?;
        }
        Ok(())
    }

    /// Forwards an IPv6 group to these Pods. Antrea has no such thing: it is outside of the multicast tables.
    pub fn set_group_v6(&self, address: IpAddr, pods: &[&str]) -> Result<()> {
        let pods = self.known(pods)?;
        let (writer, mut state) = (self.writer(), self.state());
        let id = state.groups_v6.get(&address).map_or(state.next_group, |(id, _)| *id);
        let (group, flow) = writer.group_v6(address, id, &self.ofports(&pods));
        self.groups(&[group])?;
        if state.groups_v6.insert(address, (id, pods)).is_none() {
            state.next_group += 1;
            self.flows(&[flow])?;
        }
        Ok(())
    }

    /// Takes an IPv4 group out; what is sent to it goes to the gateway alone, as to a group that nobody ever joined.
    pub fn remove_group(&self, address: Ipv4Addr) -> Result<()> {
        let group = self.state().groups.remove(&address);
        let group = group.with_context(|| format!("the pipeline has no group {address}"))?;
        self.delete(&[self.writer().route(address, group.id)])?;
        self.groups(&[format!("delete group_id={}", group.id)])
    }

    /// A rule for what these Pods send to `cidr`. `id` is its conjunction and must be new. Rules hold in the order in which
    /// they were added.
    pub fn add_egress_rule(&self, id: u32, pods: &[&str], cidr: &str, verdict: Verdict) -> Result<()> {
        self.add_rule(id, Side::Egress, pods, format!("nw_dst={cidr}"), None, verdict)
    }

    /// The same for UDP alone, to this port or to any.
    pub fn add_egress_rule_for_udp(
        &self,
        id: u32,
        pods: &[&str],
        cidr: &str,
        port: Option<u16>,
        verdict: Verdict,
    ) -> Result<()> {
        let port = port.map_or_else(String::new, |port| format!(",tp_dst={port}"));
        let service = Some(format!("udp{port}"));
        self.add_rule(id, Side::Egress, pods, format!("nw_dst={cidr}"), service, verdict)
    }

    /// A rule for what these Pods are to get from `cidr`. Antrea makes such rules only for queries
    /// ([`add_query_rule`](Self::add_query_rule)).
    pub fn add_ingress_rule(&self, id: u32, pods: &[&str], cidr: &str, verdict: Verdict) -> Result<()> {
        self.add_rule(id, Side::Ingress, pods, format!("nw_dst={cidr}"), None, verdict)
    }

    /// A rule for the IGMP queries that these Pods are to get.
    pub fn add_query_rule(&self, id: u32, pods: &[&str], verdict: Verdict) -> Result<()> {
        let to = format!("nw_proto=2,nw_dst={}", flows::ALL_HOSTS);
        self.add_rule(id, Side::Ingress, pods, to, None, verdict)
    }

    fn add_rule(
        &self,
        id: u32,
        side: Side,
        pods: &[&str],
        to: String,
        service: Option<String>,
        verdict: Verdict,
    ) -> Result<()> {
        if !self.bed.policies {
            bail!("the bed {} has no tables of rules", self.bed.name);
        }
        let pods = self.known(pods)?;
        let (writer, ports, mut state) = (self.writer(), self.ports(), self.state());
        if state.rules.iter().any(|rule| rule.id == id) {
            bail!("the pipeline has a rule {id} already");
        }
        let priority = state.next_rule;
        let rule = Rule {
            id,
            side,
            pods,
            to,
            service,
            verdict,
            priority,
        };
        self.flows(&writer.rule(&rule, &ports))?;
        state.next_rule -= 1;
        state.rules.push(rule);
        Ok(())
    }

    /// Takes a rule and its counter out.
    pub fn remove_rule(&self, id: u32) -> Result<()> {
        let (writer, ports, mut state) = (self.writer(), self.ports(), self.state());
        let position = state.rules.iter().position(|rule| rule.id == id);
        let position = position.with_context(|| format!("the pipeline has no rule {id}"))?;
        let rule = state.rules.remove(position);
        self.delete(&writer.rule(&rule, &ports))
    }

    /// Adds the flows that count the Pods again, with the cookies of `round`: their counters go on, and their durations
    /// begin again.
    pub fn re_add_pod_flows(&self, round: u16) -> Result<()> {
        self.re_add(round, "")
    }

    /// The same with `reset_counts`: their counters begin again, too.
    pub fn reset_pod_flows(&self, round: u16) -> Result<()> {
        self.re_add(round, "reset_counts,")
    }

    fn re_add(&self, round: u16, flags: &str) -> Result<()> {
        self.state().round = round;
        let writer = self.writer();
        let flows: Vec<_> = self
            .ports()
            .iter()
            .flat_map(|port| writer.pod_metrics(port, flags))
            .collect();
        self.flows(&flows)
    }

    /// Adds what a Pod's port needs. `Bed::add_pod` has done so.
    pub fn add_pod_flows(&self, pod: &str) -> Result<()> {
        let (writer, port) = (self.writer(), self.port(pod)?);
        self.flows(&[writer.pod(&port), writer.pod_metrics(&port, "")].concat())
    }

    /// Deletes what a Pod's port needs, the two flows that count it among them: counts that were not pushed are lost.
    pub fn delete_pod_flows(&self, pod: &str) -> Result<()> {
        let (writer, port) = (self.writer(), self.port(pod)?);
        self.delete(&[writer.pod(&port), writer.pod_metrics(&port, "")].concat())
    }

    /// Takes a Pod out of all groups, and makes the queries' group anew.
    pub(crate) fn forget(&self, pod: &str) -> Result<()> {
        let (writer, ports) = (self.writer(), self.ports());
        let left: Vec<Port> = ports.into_iter().filter(|port| port.name != pod).collect();
        let mut state = self.state();
        let mut groups = vec![writer.query_group(&left)];
        for group in state
            .groups
            .values_mut()
            .filter(|group| group.pods.iter().any(|name| name == pod))
        {
            group.pods.retain(|name| name != pod);
            groups.push(writer.group(group, &left));
        }
        self.groups(&groups)
    }

    /// Makes the queries' group anew, with every Pod.
    pub(crate) fn query_group(&self) -> Result<()> {
        self.groups(&[self.writer().query_group(&self.ports())])
    }

    /// Sends one IGMP query to every Pod, as the agent does: out of the gateway.
    pub fn query(&self, query: Query) -> Result<()> {
        let frame = query.frame(gateway(self.bed.number), self.bed.gateway_mac());
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let port = crate::ovs::GATEWAY_PORT;
        self.bed
            .ovs
            .ofctl(&[
                "packet-out",
                BRIDGE,
                &format!("in_port={port},packet={hex},actions=table"),
            ])
            .map(drop)
    }

    /// All flows of a table as `ovs-ofctl` sees them now, without waiting for counters to be pushed.
    pub fn dump(&self, table: Table) -> Result<Vec<Flow>> {
        let id = self
            .table(table)
            .with_context(|| format!("the pipeline has no table {table:?}"))?;
        let text = self
            .bed
            .ovs
            .ofctl(&["--no-names", "dump-flows", BRIDGE, &format!("table={id}")])?;
        read::flows(&text)
    }

    /// What the switch counted of a Pod's sending: frames that no rule denied. Nothing where there is no such flow.
    pub fn outbound(&self, pod: &str) -> Result<Option<Count>> {
        let wanted = flows::outbound_match(&self.port(pod)?);
        self.count(Table::MulticastEgressPodMetric, &wanted)
    }

    /// What the switch counted towards a Pod: frames that it meant to give it, its own among them.
    pub fn inbound(&self, pod: &str) -> Result<Option<Count>> {
        let wanted = flows::inbound_match(&self.port(pod)?);
        self.count(Table::MulticastIngressPodMetric, &wanted)
    }

    /// What the switch counted for a rule.
    pub fn rule(&self, id: u32) -> Result<Option<Count>> {
        let found = self.state().rules.iter().find(|rule| rule.id == id).cloned();
        let rule = found.with_context(|| format!("the pipeline has no rule {id}"))?;
        self.count(rule.side.tables().1, &flows::metric_match(id, rule.verdict))
    }

    fn count(&self, table: Table, matches: &str) -> Result<Option<Count>> {
        let flows = self.dump(table)?;
        Ok(flows.iter().find(|flow| flow.matches == matches).map(|flow| flow.count))
    }

    fn writer(&self) -> Writer {
        Writer {
            policies: self.bed.policies,
            encap: self.bed.vtep.is_some(),
            round: self.state().round,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.bed.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ports(&self) -> Vec<Port> {
        self.bed.pods.iter().map(port).collect()
    }

    fn port(&self, pod: &str) -> Result<Port> {
        self.bed.pod(pod).map(port)
    }

    fn ofports(&self, pods: &[String]) -> Vec<u32> {
        let ports = self.ports();
        let members = ports.iter().filter(|port| pods.contains(&port.name));
        members.map(|port| port.ofport).collect()
    }

    /// A name that no Pod has is a mistake of the test.
    fn known(&self, pods: &[&str]) -> Result<Vec<String>> {
        pods.iter().map(|name| Ok(self.bed.pod(name)?.name.clone())).collect()
    }

    fn flows(&self, flows: &[String]) -> Result<()> {
        self.bed.ovs.ofctl_lines(&["--bundle", "add-flows"], flows)
    }

    /// Deletes exactly the flows that these lines would add.
    fn delete(&self, flows: &[String]) -> Result<()> {
        let lines: Vec<String> = flows.iter().map(|line| strict_deletion(line)).collect();
        self.flows(&lines)
    }

    fn groups(&self, groups: &[String]) -> Result<()> {
        let command = |line: &String| match line.starts_with("delete ") {
            true => line.clone(),
            false => format!("add_or_mod {line}"),
        };
        let lines: Vec<String> = groups.iter().map(command).collect();
        self.bed.ovs.ofctl_lines(&["--bundle", "add-groups"], &lines)
    }
}

fn port(pod: &Pod) -> Port {
    Port {
        name: pod.name.clone(),
        ofport: pod.ofport,
        ipv4: pod.ipv4,
        mac: pod.mac.clone(),
    }
}

/// The line that deletes what `line` adds: its table, priority and match.
fn strict_deletion(line: &str) -> String {
    let matched = line.split(",actions=").next().unwrap_or(line);
    let fields = matched.split(',').filter(|field| !field.starts_with("cookie="));
    format!("delete_strict {}", fields.collect::<Vec<_>>().join(","))
}
