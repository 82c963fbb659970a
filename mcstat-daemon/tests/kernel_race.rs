//! The race that everything rests on: two CPUs count in slots that the agent frees at the same time.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use mcstat::agent::bpf::{Kernel, free, rcu, sys};
use mcstat_common::slot;
use support::{Bpffs, Random, enter, frames, in_netns, open, pin_to, pod_port, reading, total};

/// `MCSTAT_RACE_ROUNDS` sets another number: an interpreted machine is ten times slower.
const ROUNDS: u64 = 1000;
const GROUPS: u64 = 5000;

fn outbound(kernel: &mut Kernel) -> OwnedFd {
    kernel
        .programs
        .program("mcstat_outbound")
        .unwrap()
        .fd()
        .unwrap()
        .as_fd()
        .try_clone_to_owned()
        .unwrap()
}

/// A frame for each of 5,000 groups; their lengths differ, so that bytes in the wrong place are seen too.
fn group_frames() -> Vec<Vec<u8>> {
    (0..GROUPS)
        .map(|group| {
            let address = Ipv4Addr::from(0xef00_0000 + group as u32 + 1);
            frames::data("10.0.0.2", &address.to_string(), 18 + (group % 61) as usize)
        })
        .collect()
}

/// READY slots, a random part of them.
fn some_slots(kernel: &Kernel, random: &mut Random, one_in: u64) -> Vec<u32> {
    (0..kernel.maps.slots.len())
        .filter(|index| slot::state_of(kernel.maps.slots.first_word(*index)) == slot::READY)
        .filter(|_| random.below(one_in) == 0)
        .collect()
}

struct Sent {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// One CPU's part of a round: sends to random groups of the first `groups`, `packets` times.
fn send(program: &OwnedFd, frames: &[Vec<u8>], seed: u64, groups: u64, packets: u64, sent: &Sent) {
    let mut random = Random(seed);
    let mut bytes = 0;
    for _ in 0..packets {
        let frame = &frames[random.below(groups) as usize];
        sys::test_run(program.as_fd(), frame, 1).unwrap();
        bytes += frame.len() as u64;
    }
    sent.packets.fetch_add(packets, Ordering::SeqCst);
    sent.bytes.fetch_add(bytes, Ordering::SeqCst);
}

fn rounds() -> u64 {
    let set = std::env::var("MCSTAT_RACE_ROUNDS");
    set.map_or(ROUNDS, |set| {
        let rounds = set.parse().expect("MCSTAT_RACE_ROUNDS is a number");
        assert!(rounds > 0, "MCSTAT_RACE_ROUNDS=0 is no test");
        rounds
    })
}

#[test]
fn a_thousand_rounds_of_counting_and_freeing_lose_nothing() {
    let _alone = alone();
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        // Fewer slots than groups: insertions, full windows and the port's limit all happen.
        options.limits.slots = 4096;
        options.limits.slots_per_port = 3500;
        let mut kernel = open(&options);
        enter(&kernel, &pod_port("race", "lo", 1, &["10.0.0.2"]));
        let program = Arc::new(outbound(&mut kernel));
        let frames = Arc::new(group_frames());
        let sent = Arc::new(Sent {
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let mut random = Random(1);
        let (mut folded, mut in_other) = (0, 0);
        let rounds = rounds();
        for round in 0..rounds {
            let groups = 1 + random.below(GROUPS);
            let packets = 500 + random.below(2000);
            let senders: Vec<_> = (0..2)
                .map(|cpu| {
                    let (program, frames, sent) = (program.clone(), frames.clone(), sent.clone());
                    let seed = round * 2 + cpu;
                    thread::spawn(move || {
                        pin_to(cpu as usize);
                        send(&program, &frames, seed, groups, packets, &sent);
                    })
                })
                .collect();
            let victims = some_slots(&kernel, &mut random, 2);
            folded += free::fold(&kernel.maps, &victims, rcu::wait).unwrap();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            let port = reading(&kernel, "race");
            let (packets, segments, bytes) = total(&port.outbound);
            assert_eq!(
                packets,
                sent.packets.load(Ordering::SeqCst),
                "packets after round {round}"
            );
            assert_eq!(segments, packets, "segments after round {round}");
            assert_eq!(bytes, sent.bytes.load(Ordering::SeqCst), "bytes after round {round}");
            in_other = port.outbound.other[0].admitted.packets;
        }
        // The rounds must have done what they are for.
        assert!(
            folded as u64 > 100 * rounds,
            "only {folded} slots were folded in {rounds} rounds"
        );
        assert!(in_other > 0);
        let used = (0..kernel.maps.slots.len())
            .filter(|index| kernel.maps.slots.first_word(*index) != 0)
            .count();
        assert_eq!(
            kernel.maps.slots_used().load(Ordering::SeqCst),
            used as u64,
            "the number of used slots drifted"
        );
    });
}

/// Each of these tests wants both CPUs for itself: beside another one its race would hardly be run.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // Another test's failure is not this one's.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of rounds after which so many had lost or doubled packets, if that was within the most. In each there is a
/// delay between finding a slot and counting in it.
fn rounds_until(mut wrong: u32, most: u64, wait: fn() -> io::Result<()>) -> Option<u64> {
    in_netns(move || {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        // Some 100 µs: the delay alone decides how wide the race is.
        options.test_delay = 100_000;
        let mut kernel = open(&options);
        enter(&kernel, &pod_port("race", "lo", 1, &["10.0.0.2"]));
        let program = Arc::new(outbound(&mut kernel));
        let frames = Arc::new(group_frames());
        let mut random = Random(2);
        let mut before = 0;
        for round in 1..=most {
            let stop = Arc::new(AtomicBool::new(false));
            let senders: Vec<_> = (0..2u64)
                .map(|cpu| {
                    let (program, frames, stop) = (program.clone(), frames.clone(), stop.clone());
                    thread::spawn(move || {
                        pin_to(cpu as usize);
                        let mut random = Random(round * 2 + cpu);
                        let mut sent = 0u64;
                        while !stop.load(Ordering::SeqCst) {
                            let frame = &frames[random.below(4) as usize];
                            sys::test_run(program.as_fd(), frame, 1).unwrap();
                            sent += 1;
                        }
                        sent
                    })
                })
                .collect();
            for _ in 0..20 {
                let victims = some_slots(&kernel, &mut random, 1);
                free::fold(&kernel.maps, &victims, wait).unwrap();
                thread::sleep(std::time::Duration::from_millis(1));
            }
            stop.store(true, Ordering::SeqCst);
            let sent: u64 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
            let now = total(&reading(&kernel, "race").outbound).0;
            wrong -= u32::from(now - before != sent);
            if wrong == 0 {
                return Some(round);
            }
            before = now;
        }
        None
    })
}

/// The other way to wait, whatever this kernel would choose.
fn by_map_update() -> io::Result<()> {
    static MAPS: OnceLock<sys::MapOfMaps> = OnceLock::new();
    MAPS.get_or_init(|| sys::MapOfMaps::new().expect("a map of maps"))
        .replace()
}

#[test]
fn with_a_delay_the_rcu_wait_is_what_makes_it_exact() {
    let _alone = alone();
    // The control says how often the race shows; one sample of that says little, three say enough: with these numbers a
    // wait that does nothing passes in fewer than one of a thousand runs.
    let needed = rounds_until(3, 100, || Ok(()))
        .expect("no three rounds in 100 were wrong without the wait: the race was not run");
    let tries = (5 * needed).clamp(30, 200);
    assert_eq!(
        rounds_until(1, tries, sys::membarrier),
        None,
        "of {tries} with membarrier(2)"
    );
    assert_eq!(
        rounds_until(1, tries, by_map_update),
        None,
        "of {tries} with updates of a map of maps"
    );
}

/// Refuses membarrier(2) to this thread, as a container's seccomp profile does.
fn refuse_membarrier(errno: i32) {
    // Classic BPF on struct seccomp_data (linux/seccomp.h): load the number of the call, compare, return.
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_membarrier as u32)
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: a live program of the length named; this thread alone is concerned.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(result, 0, "seccomp: {}", io::Error::last_os_error());
}

#[test]
fn where_membarrier_is_refused_the_wait_is_another() {
    assert!(matches!(rcu::Wait::choose().unwrap(), rcu::Wait::Membarrier));
    for errno in [libc::ENOSYS, libc::EPERM, libc::EINVAL] {
        let refused = thread::spawn(move || {
            refuse_membarrier(errno);
            let error = sys::membarrier().expect_err("it is refused");
            assert_eq!(error.raw_os_error(), Some(errno));
            let chosen = rcu::Wait::choose().unwrap();
            assert!(matches!(chosen, rcu::Wait::MapUpdate(_)), "{chosen:?}");
            chosen.wait().unwrap();
        });
        refused.join().unwrap();
    }
}
