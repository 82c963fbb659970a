//! `cargo xtask traffic`: the bed's senders and receivers for a person, in the network namespace that this runs in.
//!
//! Both print one line of JSON: packets and bytes of payload.

use std::{
    io::{self, Read as _},
    net::IpAddr,
    sync::atomic::AtomicBool,
};

use anyhow::{Context, Result, bail};
use mcstat_bed::traffic::{
    Count, PORT,
    recv::Receiver,
    send::{Plan, send},
};
use serde_json::{Map, Value, json};

/// `cargo xtask traffic …`
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Send paced UDP to a group
    Send(SendArgs),
    /// Join groups, print `ready`, count until standard input ends, print the counts
    Recv(RecvArgs),
}

/// What to send.
#[derive(clap::Args)]
pub(crate) struct SendArgs {
    /// The group, IPv4 or IPv6
    #[arg(long, value_parser = multicast)]
    group: IpAddr,
    /// UDP destination port
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// The interface to send by
    #[arg(long, default_value = "eth0")]
    interface: String,
    /// Datagrams
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Datagrams a second; 0 is as fast as it goes
    #[arg(long, default_value_t = 500)]
    pps: u32,
    /// Bytes of payload in each
    #[arg(long, default_value_t = 100)]
    size: u32,
    /// TTL or hop limit
    #[arg(long, default_value_t = 8)]
    ttl: u8,
    /// Let the kernel cut each into segments of this many bytes (`UDP_SEGMENT`)
    #[arg(long)]
    segment: Option<u16>,
}

/// What to join.
#[derive(clap::Args)]
pub(crate) struct RecvArgs {
    /// A group, IPv4 or IPv6; may be given more than once
    #[arg(long = "group", required = true, value_parser = multicast)]
    groups: Vec<IpAddr>,
    /// UDP port
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// The interface to join on
    #[arg(long, default_value = "eth0")]
    interface: String,
}

/// Runs either side.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Send(args) => sender(args),
        Command::Recv(args) => receiver(args),
    }
}

fn sender(args: &SendArgs) -> Result<()> {
    let plan = Plan {
        port: args.port,
        interface: args.interface.clone(),
        ttl: args.ttl,
        segment: args.segment,
        ..Plan::new(args.group, args.count, args.pps, args.size)
    };
    let sent = shown(send(&plan, &AtomicBool::new(false))?);
    println!("{}", json!({"groups": {args.group.to_string(): sent}}));
    Ok(())
}

fn receiver(args: &RecvArgs) -> Result<()> {
    let receiver = Receiver::here(&args.interface, &args.groups, args.port)?;
    println!("ready");
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("cannot read standard input")?;
    let counts = receiver.finish()?.into_iter();
    let groups: Map<String, Value> = counts.map(|(group, count)| (group.to_string(), shown(count))).collect();
    println!("{}", json!({"groups": groups}));
    Ok(())
}

fn shown(count: Count) -> Value {
    json!({"packets": count.packets, "bytes": count.bytes})
}

fn multicast(text: &str) -> Result<IpAddr> {
    let group: IpAddr = text.parse()?;
    if !group.is_multicast() {
        bail!("{group} is not a multicast address");
    }
    Ok(group)
}
