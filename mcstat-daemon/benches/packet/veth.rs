//! End to end: frames over a veth pair, with nothing, an empty program, mcstat or the hash on the host side.

use std::{
    fs, io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use aya::programs::{LinkOrder, TcAttachType, tc::TcAttachOptions};

use crate::{
    Scale,
    objects::Subjects,
    stats::{Series, cpu_ns, last_cpu, wall_ns},
    support::{self, Bpffs, frames, in_netns},
};

/// What stands on the host side of the pair.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Nothing,
    Bench(&'static str),
    Mcstat,
}

const CONFIGURATIONS: [(On, &str); 6] = [
    (On::Nothing, "no program"),
    (On::Bench("bench_empty"), "empty"),
    (On::Mcstat, "mcstat"),
    (On::Bench("bench_hash"), "hash"),
    (On::Nothing, "no program again"),
    (On::Bench("bench_empty_b"), "empty again"),
];
const EMPTY: usize = 1;

/// One configuration: CPU ns a packet, and packets a second.
#[derive(Default)]
struct Measured {
    cpu: Series,
    rate: Series,
}

/// Measures and prints goal 7.
pub(crate) fn run(scale: Scale) {
    in_netns(move || {
        support::pin_to(last_cpu());
        support::ip("link add h0 type veth peer name p0");
        // Nothing but our frames shall pass.
        for interface in ["h0", "p0"] {
            support::ip(&format!("link set {interface} arp off addrgenmode none"));
            support::ip(&format!("link set {interface} up"));
        }
        let bpffs = Bpffs::new();
        let mut subjects = Subjects::open(&bpffs);
        let port = support::pod_port("veth", "h0", support::ifindex("h0"), &["10.0.0.2"]);
        let entry = support::enter(&subjects.kernel, &port);
        let mut unicast = frames::data("10.0.0.2", "10.0.0.3", 22);
        unicast[..6].copy_from_slice(&[0x02, 0x42, 0xac, 0x11, 0x00, 0x03]);
        let kinds = [
            ("unicast UDP", unicast, false),
            ("IPv4 to one group", frames::data("10.0.0.2", "239.1.2.3", 22), true),
        ];
        let sender = Sender::new(support::ifindex("p0"));
        println!("\n## Over veth (min–med–max; Δ and ÷ are medians of the paired rounds)\n");
        println!(
            "| packet | on the host side | CPU ns a packet | Δ to no program | Mpackets/s | ÷ no program | **÷ empty** |"
        );
        println!("|---|---|---:|---:|---:|---:|---:|");
        for (name, frame, counted) in &kinds {
            let mut measured: Vec<Measured> = CONFIGURATIONS.iter().map(|_| Measured::default()).collect();
            for round in 0..scale.rounds {
                for step in 0..CONFIGURATIONS.len() {
                    let at = (round + step) % CONFIGURATIONS.len();
                    let before = sent_to(&subjects, "veth");
                    let (cpu, rate) = with(&mut subjects, CONFIGURATIONS[at].0, &entry, || {
                        sender.send(frame, scale.burst / 10);
                        let (cpu, wall) = (cpu_ns(), wall_ns());
                        sender.send(frame, scale.burst);
                        let (cpu, wall) = (cpu_ns() - cpu, wall_ns() - wall);
                        (
                            cpu as f64 / scale.burst as f64,
                            scale.burst as f64 * 1000.0 / wall as f64,
                        )
                    });
                    let sent = (scale.burst + scale.burst / 10) as u64;
                    let wanted = if *counted && CONFIGURATIONS[at].0 == On::Mcstat {
                        sent
                    } else {
                        0
                    };
                    assert_eq!(
                        sent_to(&subjects, "veth") - before,
                        wanted,
                        "{name}, {}: counted by mcstat; dropped on the way: {}",
                        CONFIGURATIONS[at].1,
                        backlog_drops()
                    );
                    measured[at].cpu.0.push(cpu);
                    measured[at].rate.0.push(rate);
                }
            }
            print(name, &measured);
        }
    });
}

fn print(kind: &str, measured: &[Measured]) {
    for (at, (_, name)) in CONFIGURATIONS.iter().enumerate() {
        let relative = |base: usize| measured[at].rate.paired(&measured[base].rate, |a, b| a / b).median();
        println!(
            "| {kind} | {name} | {} | {:+.0} | {} | {:.2} | **{:.2}** |",
            measured[at].cpu.spread(0),
            measured[at].cpu.above(&measured[0].cpu),
            measured[at].rate.spread(3),
            relative(0),
            relative(EMPTY),
        );
    }
}

fn sent_to(subjects: &Subjects, pod: &str) -> u64 {
    support::total(&support::reading(&subjects.kernel, pod).outbound).0
}

/// Packets that the CPU's backlog had no room for (second column, `Documentation/networking/scaling.rst`).
fn backlog_drops() -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    text.lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|hex| u64::from_str_radix(hex, 16).unwrap())
        .sum()
}

/// Runs `work` with both directions of the host side attached, as the agent attaches them.
fn with<T>(subjects: &mut Subjects, on: On, entry: &mcstat::agent::bpf::table::Entry, work: impl FnOnce() -> T) -> T {
    match on {
        On::Nothing => work(),
        On::Mcstat => {
            subjects.kernel.programs.attach(entry).unwrap();
            let result = work();
            subjects.kernel.programs.detach(entry);
            result
        }
        On::Bench(name) => {
            let program = subjects.classifier(name);
            let links = [TcAttachType::Ingress, TcAttachType::Egress].map(|direction| {
                let options = TcAttachOptions::TcxOrder(LinkOrder::first());
                program.attach_with_options("h0", direction, options).unwrap()
            });
            let result = work();
            for link in links {
                subjects.classifier(name).detach(link).unwrap();
            }
            result
        }
    }
}

/// A packet socket on the Pod's side that goes round the qdisc.
struct Sender(OwnedFd);

/// Frames a system call.
const BATCH: usize = 64;

impl Sender {
    fn new(ifindex: u32) -> Self {
        // SAFETY: system calls with pointers to live values of the sizes given.
        unsafe {
            let socket = checked(
                libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0),
                "socket",
            );
            let one: libc::c_int = 1;
            checked(
                libc::setsockopt(
                    socket,
                    libc::SOL_PACKET,
                    libc::PACKET_QDISC_BYPASS,
                    ptr::from_ref(&one).cast(),
                    size_of_val(&one) as u32,
                ),
                "PACKET_QDISC_BYPASS",
            );
            let mut address: libc::sockaddr_ll = mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = ifindex as i32;
            checked(
                libc::bind(socket, ptr::from_ref(&address).cast(), size_of_val(&address) as u32),
                "bind to p0",
            );
            Self(OwnedFd::from_raw_fd(socket))
        }
    }

    /// Sends the frame `count` times, rounded up to whole batches of none: exactly `count`.
    fn send(&self, frame: &[u8], count: usize) {
        let mut part = libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        };
        // SAFETY: all-zero is a valid header; the one buffer outlives the calls, which only read it.
        let mut messages: Vec<libc::mmsghdr> = vec![unsafe { mem::zeroed() }; BATCH];
        for message in &mut messages {
            message.msg_hdr.msg_iov = &raw mut part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let mut left = count;
        while left > 0 {
            let batch = left.min(BATCH);
            // SAFETY: `batch` headers are there.
            let sent = unsafe { libc::sendmmsg(self.0.as_raw_fd(), messages.as_mut_ptr(), batch as u32, 0) };
            left -= checked(sent, "sendmmsg") as usize;
        }
    }
}

fn checked(result: libc::c_int, call: &str) -> libc::c_int {
    assert!(result >= 0, "{call}: {}", io::Error::last_os_error());
    result
}
