//! Antrea's multicast pipeline, programmed by hand: three Pods, two groups, a rule that allows and one that drops.
//!
//! | Pod | address | port | member of |
//! |---|---|---|---|
//! | a | 10.10.0.11 | 10 | 239.1.1.2 |
//! | b | 10.10.0.12 | 11 | 239.1.1.1, 239.1.1.2 |
//! | c | 10.10.0.13 | 12 | 239.1.1.1 |
//!
//! Rule 4 allows Pod a to send to 239.1.1.1, rule 3 forbids Pods a and b to send to 239.9.9.9, rule 5 forbids Pod c to
//! receive 239.1.1.2. Packets come by packet-out: they run through the tables and are counted like any other.

use std::net::Ipv4Addr;

use super::Switch;

/// Names in the order of the pipeline.
const NAMES: [&str; 8] = [
    "MulticastEgressRule",
    "MulticastEgressMetric",
    "MulticastEgressPodMetric",
    "MulticastRouting",
    "MulticastIngressRule",
    "MulticastIngressMetric",
    "MulticastIngressPodMetric",
    "MulticastOutput",
];

/// Groups; `$4` is the fifth table of the pipeline.
const GROUPS: &str = "\
group_id=101,type=all,bucket=bucket_id:0,actions=set_field:2->reg1,resubmit(,$4),bucket=bucket_id:1,\
actions=set_field:0x200000/0x600000->reg0,set_field:11->reg1,resubmit(,$4),bucket=bucket_id:2,\
actions=set_field:0x200000/0x600000->reg0,set_field:12->reg1,resubmit(,$4)
group_id=102,type=all,bucket=bucket_id:0,actions=set_field:10->reg1,resubmit(,$4),bucket=bucket_id:1,\
actions=set_field:11->reg1,resubmit(,$4),bucket=bucket_id:2,\
actions=set_field:1->reg1,set_field:172.18.0.3->tun_dst,resubmit(,$7)
";

/// Flows; `cP` and `cM` are the cookies of policy and multicast, `$0` to `$7` the tables.
const FLOWS: &str = "\
cookie=0x1000000000000,table=0,priority=210,ip,nw_dst=224.0.0.0/4,actions=set_field:3/0xf->reg0,resubmit(,$0)
cM,table=$0,priority=64990,ip,nw_proto=2,reg0=3/0xf,actions=goto_table:$3
cP,table=$0,priority=14600,ip,nw_src=10.10.0.11,actions=conjunction(4,1/2)
cP,table=$0,priority=14600,ip,nw_dst=239.1.1.1,actions=conjunction(4,2/2)
cP,table=$0,priority=14600,ip,conj_id=4,actions=set_field:4->reg3,goto_table:$1
cP,table=$0,priority=14599,ip,nw_src=10.10.0.11,actions=conjunction(3,1/2)
cP,table=$0,priority=14599,ip,nw_src=10.10.0.12,actions=conjunction(3,1/2)
cP,table=$0,priority=14599,ip,nw_dst=239.9.9.9,actions=conjunction(3,2/2)
cP,table=$0,priority=14599,ip,conj_id=3,actions=set_field:3->reg3,set_field:0x400/0x400->reg0,goto_table:$1
table=$0,priority=0,actions=goto_table:$1
cP,table=$1,priority=200,reg3=4,actions=goto_table:$2
cP,table=$1,priority=200,reg0=0x400/0x400,reg3=3,actions=drop
table=$1,priority=0,actions=goto_table:$2
cM,table=$2,priority=210,ip,nw_proto=2,actions=goto_table:$3
cM,table=$2,priority=200,ip,nw_src=10.10.0.11,actions=goto_table:$3
cM,table=$2,priority=200,ip,nw_src=10.10.0.12,actions=goto_table:$3
cM,table=$2,priority=200,ip,nw_src=10.10.0.13,actions=goto_table:$3
table=$2,priority=0,actions=goto_table:$3
cM,table=$3,priority=210,ip,nw_proto=2,reg0=3/0xf,actions=controller(id=32776,userdata=03)
cM,table=$3,priority=200,ip,nw_dst=239.1.1.1,actions=group:101
cM,table=$3,priority=200,ip,nw_dst=239.1.1.2,actions=group:102
cM,table=$3,priority=190,ip,actions=output:2
table=$3,priority=0,actions=goto_table:$4
cP,table=$4,priority=14500,reg1=12,actions=conjunction(5,1/2)
cP,table=$4,priority=14500,ip,nw_dst=239.1.1.2,actions=conjunction(5,2/2)
cP,table=$4,priority=14500,ip,conj_id=5,actions=set_field:5->reg3,set_field:0x400/0x400->reg0,goto_table:$5
table=$4,priority=0,actions=goto_table:$5
cP,table=$5,priority=200,reg0=0x400/0x400,reg3=5,actions=drop
table=$5,priority=0,actions=goto_table:$6
cM,table=$6,priority=210,ip,nw_proto=2,actions=goto_table:$7
cM,table=$6,priority=200,ip,reg1=10,actions=goto_table:$7
cM,table=$6,priority=200,ip,reg1=11,actions=goto_table:$7
cM,table=$6,priority=200,ip,reg1=12,actions=goto_table:$7
table=$6,priority=0,actions=goto_table:$7
cM,table=$7,priority=200,reg0=0x200000/0x600000,actions=output:reg1
table=$7,priority=0,actions=drop
";

/// The command's text for the pipeline from table `first` on, in an agent's round.
fn placed(text: &str, first: u8, round: u8) -> String {
    let mut text = text
        .replace("cP,", &format!("cookie=0x{round}020000000000,"))
        .replace("cM,", &format!("cookie=0x{round}050000000000,"));
    for position in 0..8 {
        text = text.replace(&format!("${position}"), &(first + position).to_string());
    }
    text
}

/// Names the tables from `first` on, in one transaction: Antrea's numbers depend on its features.
pub(crate) fn name(switch: &Switch, first: u8) {
    let mut command = "clear bridge br-int flow_tables".to_owned();
    for (table, name) in (first..).zip(NAMES) {
        command += &format!(
            " -- --id=@t{table} create Flow_Table name={name} -- set bridge br-int flow_tables:{table}=@t{table}"
        );
    }
    switch.vsctl(&command);
}

/// Programs the pipeline in round 1, from table `first` on.
pub(crate) fn program(switch: &Switch, first: u8) {
    switch.ofctl_with("add-groups", &placed(GROUPS, first, 1));
    switch.ofctl_with("--bundle add-flows", &placed(FLOWS, first, 1));
}

/// Adds all flows again with the cookie of another round, as an agent does that restarted.
pub(crate) fn program_again(switch: &Switch, first: u8, round: u8) {
    switch.ofctl_with("--bundle add-flows", &placed(FLOWS, first, round));
}

/// Sends `count` UDP packets of 142 bytes (Ethernet header included) into the pipeline, as if from `port`.
pub(crate) fn send(switch: &Switch, port: u32, source: &str, group: &str, count: usize) {
    let frame: String = frame(source, group).iter().map(|byte| format!("{byte:02x}")).collect();
    for _ in 0..count {
        switch.ofctl(
            "packet-out",
            &format!("'in_port={port},packet={frame},actions=resubmit(,0)'"),
        );
    }
}

/// 14 + 20 + 8 + 100 bytes. Nobody checks the sums.
fn frame(source: &str, group: &str) -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv4Addr>().expect("an address").octets();
    let mut frame = vec![1, 0, 0x5e, 0, 0, 1, 0x0a, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 128, 0, 0, 0, 0, 8, 17, 0, 0]);
    frame.extend(address(source));
    frame.extend(address(group));
    frame.extend([0x10, 0, 0x13, 0x89, 0, 108, 0, 0]);
    frame.resize(142, 0xa5);
    frame
}
