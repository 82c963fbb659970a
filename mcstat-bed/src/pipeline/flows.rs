//! The flows and groups of the pipeline as lines of `ovs-ofctl`. Pure: what there is to install goes in, text comes out.

use std::net::{IpAddr, Ipv4Addr};

use super::tables::{
    Category, Table,
    Table::{
        Classifier, MulticastEgressMetric, MulticastEgressPodMetric, MulticastEgressRule, MulticastIngressMetric,
        MulticastIngressPodMetric, MulticastIngressRule, MulticastOutput, MulticastRouting, PipelineIPClassifier,
        PipelineRootClassifier, SpoofGuard,
    },
    cookie, id, tables,
};
use crate::ovs::{GATEWAY_PORT, TUNNEL_PORT};

/// OpenFlow group of the query destination 224.0.0.1: every Pod.
pub(super) const QUERY_GROUP: u32 = 1;
/// Where the queries go.
pub(super) const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

/// What a rule does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Counts it and lets it on.
    Allow,
    /// Counts it and drops it.
    Drop,
}

/// A Pod, as far as flows know it.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) ofport: u32,
    pub(super) ipv4: Ipv4Addr,
    pub(super) mac: String,
}

/// Which side of the Pod a rule is about, in Antrea's words: egress is what the Pod sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Egress,
    Ingress,
}

/// A rule of a policy.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) id: u32,
    pub(super) side: Side,
    pub(super) pods: Vec<String>,
    /// The match of the destination.
    pub(super) to: String,
    /// That of protocol and port, if it asks for any.
    pub(super) service: Option<String>,
    pub(super) verdict: Verdict,
    pub(super) priority: u16,
}

/// Members of a group.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) id: u32,
    pub(super) pods: Vec<String>,
    /// Nodes with members, by the outer address of their tunnel.
    pub(super) nodes: Vec<Ipv4Addr>,
}

/// Everything that writes lines: the shape of the pipeline and the agent's round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    pub(super) policies: bool,
    pub(super) encap: bool,
    pub(super) round: u16,
}

impl Writer {
    fn id(&self, table: Table) -> u8 {
        // Only tables that exist are written to: those of rules only with policies.
        id(table, self.policies).unwrap_or(u8::MAX)
    }

    fn goto(&self, table: Table) -> String {
        format!("goto_table:{}", self.id(table))
    }

    fn flow(&self, table: Table, rest: &str) -> String {
        let cookie = cookie(self.round, Category::of(table));
        format!("table={},cookie={cookie:#x},{rest}", self.id(table))
    }

    /// The first multicast table.
    fn first(&self) -> Table {
        if self.policies {
            MulticastEgressRule
        } else {
            MulticastEgressPodMetric
        }
    }

    /// Where the buckets of Pods go: without policies past the Pod's counter, as in Antrea.
    fn delivery(&self) -> Table {
        if self.policies {
            MulticastIngressRule
        } else {
            MulticastOutput
        }
    }

    /// The flows that are there without any Pod, rule or group.
    pub(super) fn base(&self) -> Vec<String> {
        let mut flows = self.root();
        flows.extend(self.misses());
        let first = self.goto(self.first());
        let mut add = |table, rest: String| flows.push(self.flow(table, &rest));
        let guard = self.goto(SpoofGuard);
        add(
            Classifier,
            format!("priority=200,in_port={GATEWAY_PORT},actions=set_field:0x2/0xf->reg0,{guard}"),
        );
        let classify = self.goto(PipelineIPClassifier);
        add(
            SpoofGuard,
            format!("priority=200,ip,in_port={GATEWAY_PORT},actions={classify}"),
        );
        let resubmit = self.id(self.first());
        add(
            PipelineIPClassifier,
            format!("priority=210,ip,nw_dst=224.0.0.0/4,actions=resubmit(,{resubmit})"),
        );
        let routing = self.goto(MulticastRouting);
        if self.policies {
            add(
                MulticastEgressRule,
                format!("priority=64990,ip,nw_proto=2,reg0=0x3/0xf,actions={routing}"),
            );
        }
        add(
            MulticastEgressPodMetric,
            format!("priority=210,ip,nw_proto=2,actions={routing}"),
        );
        let output = self.goto(MulticastOutput);
        add(
            MulticastIngressPodMetric,
            format!("priority=210,ip,nw_proto=2,actions={output}"),
        );
        let punt = "controller(id=32776,userdata=03,max_len=65535)";
        add(
            MulticastRouting,
            format!("priority=210,ip,nw_proto=2,reg0=0x3/0xf,actions={punt}"),
        );
        add(
            MulticastRouting,
            format!("priority=200,ip,nw_dst={ALL_HOSTS},actions=group:{QUERY_GROUP}"),
        );
        let to_gateway = format!("set_field:{GATEWAY_PORT}->reg1,set_field:0x200000/0x600000->reg0,{output}");
        add(MulticastRouting, format!("priority=190,ip,actions={to_gateway}"));
        add(
            MulticastOutput,
            "priority=200,reg0=0x200000/0x600000,actions=output:reg1".to_owned(),
        );
        if self.encap {
            let from = format!("priority=210,ip,in_port={TUNNEL_PORT},nw_dst=224.0.0.0/4");
            add(Classifier, format!("{from},actions=set_field:0x1/0xf->reg0,{first}"));
            add(
                MulticastRouting,
                format!("priority=210,ip,nw_proto=2,reg0=0x1/0xf,actions={punt}"),
            );
            // What came by the tunnel does not leave by the gateway, nor the other way round.
            add(
                MulticastOutput,
                format!("priority=210,reg0=0x1/0xf,reg1={GATEWAY_PORT},actions=drop"),
            );
            add(
                MulticastOutput,
                format!("priority=210,reg0=0x2/0xf,reg1={TUNNEL_PORT},actions=drop"),
            );
        }
        flows
    }

    /// ARP, neighbour discovery and unicast take the normal path. Antrea forwards no IPv6 multicast; here it goes to the
    /// groups of [`Self::group_v6`] and nowhere else: MLD reports end at the switch, and general queries of the node reach
    /// every Pod.
    fn root(&self) -> Vec<String> {
        let mut flows = vec![
            "priority=200,arp,actions=NORMAL".to_owned(),
            format!("priority=200,ip,actions={}", self.goto(Classifier)),
            "priority=100,ipv6,ipv6_dst=ff00::/8,actions=drop".to_owned(),
            "priority=50,ipv6,actions=NORMAL".to_owned(),
            format!("priority=210,in_port={GATEWAY_PORT},icmp6,icmp_type=130,ipv6_dst=ff02::1,actions=FLOOD"),
        ];
        flows.extend((133..=136).map(|kind| format!("priority=210,icmp6,icmp_type={kind},actions=NORMAL")));
        flows
            .iter()
            .map(|rest| self.flow(PipelineRootClassifier, rest))
            .collect()
    }

    /// What matches nothing goes to the next table, at the ends to the floor, and unicast the normal path.
    fn misses(&self) -> Vec<String> {
        let tables = tables(self.policies);
        let miss = |(position, table): (usize, &Table)| {
            let actions = match (table, tables.get(position + 1)) {
                (PipelineIPClassifier, _) => "NORMAL".to_owned(),
                (PipelineRootClassifier | Classifier | SpoofGuard | MulticastOutput, _) | (_, None) => {
                    "drop".to_owned()
                }
                (_, Some(next)) => self.goto(*next),
            };
            self.flow(*table, &format!("priority=0,actions={actions}"))
        };
        tables.iter().enumerate().map(miss).collect()
    }

    /// The flows of a Pod, its counters apart.
    pub(super) fn pod(&self, port: &Port) -> Vec<String> {
        let Port { ofport, ipv4, mac, .. } = port;
        let guard = self.goto(SpoofGuard);
        let classify = self.goto(PipelineIPClassifier);
        vec![
            self.flow(
                Classifier,
                &format!("priority=190,in_port={ofport},actions=set_field:0x3/0xf->reg0,{guard}"),
            ),
            self.flow(
                SpoofGuard,
                &format!("priority=200,ip,in_port={ofport},dl_src={mac},nw_src={ipv4},actions={classify}"),
            ),
        ]
    }

    /// The two flows that count a Pod's packets, sent and to be got. `flags` such as `reset_counts,`.
    pub(super) fn pod_metrics(&self, port: &Port, flags: &str) -> Vec<String> {
        let next = |table| self.goto(table);
        let (routing, output) = (next(MulticastRouting), next(MulticastOutput));
        vec![
            self.flow(
                MulticastEgressPodMetric,
                &format!("{flags}{},actions={routing}", outbound_match(port)),
            ),
            self.flow(
                MulticastIngressPodMetric,
                &format!("{flags}{},actions={output}", inbound_match(port)),
            ),
        ]
    }

    /// A rule: a conjunction of its Pods, its destination and its service if it has one, and the flow that counts it.
    pub(super) fn rule(&self, rule: &Rule, ports: &[Port]) -> Vec<String> {
        let (table, metric) = rule.side.tables();
        let Rule { id, priority, to, .. } = rule;
        let clauses = if rule.service.is_some() { 3 } else { 2 };
        let mut flows: Vec<String> = self
            .rule_sources(rule, ports)
            .into_iter()
            .map(|from| {
                self.flow(
                    table,
                    &format!("priority={priority},ip,{from},actions=conjunction({id},1/{clauses})"),
                )
            })
            .collect();
        flows.push(self.flow(
            table,
            &format!("priority={priority},ip,{to},actions=conjunction({id},2/{clauses})"),
        ));
        if let Some(service) = &rule.service {
            flows.push(self.flow(
                table,
                &format!("priority={priority},{service},actions=conjunction({id},3/3)"),
            ));
        }
        let deny = if rule.verdict == Verdict::Drop {
            "set_field:0x400/0x400->reg0,"
        } else {
            ""
        };
        let act = format!("set_field:{id:#x}->reg3,{deny}{}", self.goto(metric));
        flows.push(self.flow(table, &format!("priority={priority},conj_id={id},ip,actions={act}")));
        let next = match (rule.verdict, rule.side) {
            (Verdict::Drop, _) => "drop".to_owned(),
            (Verdict::Allow, Side::Egress) => self.goto(MulticastEgressPodMetric),
            (Verdict::Allow, Side::Ingress) => self.goto(MulticastIngressPodMetric),
        };
        flows.push(self.flow(metric, &format!("{},actions={next}", metric_match(*id, rule.verdict))));
        flows
    }

    fn rule_sources(&self, rule: &Rule, ports: &[Port]) -> Vec<String> {
        let chosen = ports.iter().filter(|port| rule.pods.contains(&port.name));
        let from = |port: &Port| match rule.side {
            Side::Egress => format!("nw_src={}", port.ipv4),
            Side::Ingress => format!("reg1={:#x}", port.ofport),
        };
        chosen.map(from).collect()
    }

    /// The OpenFlow group of an IPv4 group: the gateway, each Pod, each node behind the tunnel.
    pub(super) fn group(&self, group: &Group, ports: &[Port]) -> String {
        let members = ports.iter().filter(|port| group.pods.contains(&port.name));
        let local: Vec<u32> = std::iter::once(GATEWAY_PORT)
            .chain(members.map(|port| port.ofport))
            .collect();
        self.buckets(group.id, &local, &group.nodes)
    }

    /// The OpenFlow group of the queries: each Pod.
    pub(super) fn query_group(&self, ports: &[Port]) -> String {
        let local: Vec<u32> = ports.iter().map(|port| port.ofport).collect();
        self.buckets(QUERY_GROUP, &local, &[])
    }

    fn buckets(&self, id: u32, local: &[u32], nodes: &[Ipv4Addr]) -> String {
        let (delivery, output) = (self.id(self.delivery()), self.id(MulticastOutput));
        let to_port = |port: u32| format!("set_field:0x200000/0x600000->reg0,set_field:{port:#x}->reg1");
        let local = local
            .iter()
            .map(|port| format!("{},resubmit(,{delivery})", to_port(*port)));
        let tunnel = to_port(TUNNEL_PORT);
        let remote = nodes
            .iter()
            .map(|node| format!("{tunnel},set_field:{node}->tun_dst,resubmit(,{output})"));
        let buckets = (0u32..).zip(local.chain(remote));
        let buckets: String = buckets
            .map(|(bucket, actions)| format!(",bucket=bucket_id:{bucket},actions={actions}"))
            .collect();
        format!("group_id={id},type=all{buckets}")
    }

    /// The flow that leads to an IPv4 group.
    pub(super) fn route(&self, address: Ipv4Addr, id: u32) -> String {
        self.flow(
            MulticastRouting,
            &format!("priority=200,ip,nw_dst={address},actions=group:{id}"),
        )
    }

    /// Group and flow of an IPv6 group, which Antrea has not.
    pub(super) fn group_v6(&self, address: IpAddr, id: u32, ofports: &[u32]) -> (String, String) {
        let buckets: String = ofports
            .iter()
            .map(|port| format!(",bucket=actions=output:{port}"))
            .collect();
        let flow = format!("priority=200,ipv6,ipv6_dst={address},actions=group:{id}");
        (
            format!("group_id={id},type=all{buckets}"),
            self.flow(PipelineRootClassifier, &flow),
        )
    }
}

impl Side {
    /// Where its rules are, and where they are counted.
    pub(super) fn tables(self) -> (Table, Table) {
        match self {
            Self::Egress => (MulticastEgressRule, MulticastEgressMetric),
            Self::Ingress => (MulticastIngressRule, MulticastIngressMetric),
        }
    }
}

/// The match of the flow that counts what a Pod sends, as `ovs-ofctl` prints it.
pub(super) fn outbound_match(port: &Port) -> String {
    format!("priority=200,ip,nw_src={}", port.ipv4)
}

/// The match of the flow that counts what a Pod is to get, as `ovs-ofctl` prints it.
pub(super) fn inbound_match(port: &Port) -> String {
    format!("priority=200,ip,reg1={:#x}", port.ofport)
}

/// The match of the flow that counts a rule, as `ovs-ofctl` prints it.
pub(super) fn metric_match(id: u32, verdict: Verdict) -> String {
    let denied = if verdict == Verdict::Drop {
        "reg0=0x400/0x400,"
    } else {
        ""
    };
    format!("priority=200,{denied}reg3={id:#x}")
}
