//! Two cores count in one entry at once.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Barrier},
    thread,
};

use crate::{
    Scale,
    objects::{Subjects, ns_per_packet},
    stats::Series,
    support::{self, Bpffs, frames, in_netns},
};

const PROGRAMS: [(&str, &str); 5] = [
    ("bench_empty", "empty"),
    ("bench_empty_b", "empty again"),
    ("mcstat_outbound", "mcstat"),
    ("bench_hash", "hash"),
    ("bench_hash_bare", "bare hash"),
];

/// A program alone on core 0, alone on core 1, and on both at once.
#[derive(Default)]
struct Rounds {
    solo: [Series; 2],
    both: [Series; 2],
}

/// Measures and prints goal 6.
pub(crate) fn run(scale: Scale) {
    assert!(
        crate::stats::last_cpu() >= 1,
        "the contention part needs two CPUs; leave it out by naming the others"
    );
    in_netns(move || {
        let bpffs = Bpffs::new();
        let mut subjects = Subjects::open(&bpffs);
        support::enter(&subjects.kernel, &support::pod_port("cores", "lo", 1, &["10.0.0.2"]));
        let programs = PROGRAMS.map(|(name, _)| Arc::new(subjects.program(name)));
        let frame = Arc::new(frames::data("10.0.0.2", "239.1.2.3", 22));
        let repeat = scale.repeat / 2;
        let mut rounds: Vec<Rounds> = PROGRAMS.iter().map(|_| Rounds::default()).collect();
        // The first inserts.
        programs.iter().for_each(|program| {
            ns_per_packet(program, &frame, 1);
        });
        for round in 0..scale.rounds {
            for step in 0..PROGRAMS.len() {
                let at = (round + step) % PROGRAMS.len();
                for core in 0..2 {
                    let [ns] = on_cores([core], &programs[at], &frame, repeat);
                    rounds[at].solo[core].0.push(ns);
                }
                let both = on_cores([0, 1], &programs[at], &frame, repeat);
                for (core, ns) in both.into_iter().enumerate() {
                    rounds[at].both[core].0.push(ns);
                }
            }
        }
        let port = support::reading(&subjects.kernel, "cores");
        assert_eq!(port.outbound.groups.len(), 1);
        let sent = 1 + scale.rounds as u64 * 4 * u64::from(repeat);
        assert_eq!(port.outbound.groups[0].admitted.packets, sent, "mcstat's slot");
        for map in ["hash_entries", "bare_entries"] {
            assert_eq!(subjects.hash_entries(map)[0].2, sent, "{map}");
        }
        print(&rounds);
    });
}

/// ns of CPU a packet on each of the cores, all begun behind one barrier, under SCHED_FIFO.
fn on_cores<const N: usize>(cores: [usize; N], program: &Arc<OwnedFd>, frame: &Arc<Vec<u8>>, repeat: u32) -> [f64; N] {
    let barrier = Arc::new(Barrier::new(N));
    cores
        .map(|core| {
            let (program, frame, barrier) = (program.clone(), frame.clone(), barrier.clone());
            thread::spawn(move || {
                support::pin_to(core);
                real_time();
                barrier.wait();
                ns_per_packet(&program, &frame, repeat)
            })
        })
        .map(|thread| thread.join().unwrap())
}

/// Makes this thread SCHED_FIFO, so that nothing but interrupts stands between the two cores.
fn real_time() {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: a pointer to a live value; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    assert_eq!(
        result,
        0,
        "SCHED_FIFO (CAP_SYS_NICE, and room in the cgroup's real-time budget): {}",
        std::io::Error::last_os_error()
    );
}

fn print(rounds: &[Rounds]) {
    println!("\n## Two cores on one entry (ns of CPU a packet, min–med–max; the worse core)\n");
    println!("| program | solo | both at once | **×, median of the paired rounds** |");
    println!("|---|---:|---:|---:|");
    for ((_, name), rounds) in PROGRAMS.iter().zip(rounds) {
        let factor = |core: usize| rounds.both[core].paired(&rounds.solo[core], |a, b| a / b).median();
        let worse = usize::from(factor(1) > factor(0));
        println!(
            "| {name} | {} | {} | **{:.2}** |",
            rounds.solo[worse].spread(1),
            rounds.both[worse].spread(1),
            factor(worse)
        );
    }
}
