//! A slot counts under one verdict alone: what becomes of it when another decision is made, under traffic and over a kill.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod policy_lab;
mod support;

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mcstat::{
    agent::bpf::{Kernel, free, maps::update_settings, rcu, read::Reader, settle, sys},
    ledger::{
        snapshot::{Enforced, RuleReading, Traffic},
        verdict::Transport,
    },
};
use mcstat_common::{
    abi::{Carry, SLOT_VERDICT, Slot},
    policy::DECISION_DROP,
    slot::{self, READY, UNJUDGED},
};
use policy_lab::{
    DROP_ONE, ENFORCED, Lab,
    messages::{data, first_fragment},
    policy_of,
};
use support::{Bpffs, Random, agents_hook, in_netns, pin_to};

/// The same groups as [`DROP_ONE`] has, decided by others, where ports say so.
const BY_PORTS: &str = "{name: web, action: Drop, to: [{ipBlock: {cidr: 239.1.0.0/16}}], ports: [{protocol: UDP, port: 5000}]}, \
                        {name: rest, action: Allow, to: [{ipBlock: {cidr: 239.0.0.0/8}}]}";
const UNENFORCED: Enforced = Enforced {
    data: false,
    reports: false,
    sources: false,
};

/// Packets of one system call, so that a sender is in the program for most of its time.
const BATCH: u32 = 16;

/// Each of these tests wants both CPUs for itself: beside another one its races would hardly be run.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // Another test's failure is not this one's.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sender on each of two CPUs, that takes one of the frames after the other.
struct Senders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Senders {
    fn start(lab: &Lab, frames: &[Vec<u8>]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..2)
            .map(|cpu| {
                let (stop, program, frames) = (Arc::clone(&stop), lab.program(), frames.to_vec());
                thread::spawn(move || {
                    pin_to(cpu);
                    let mut sent = 0;
                    while !stop.load(Ordering::SeqCst) {
                        for frame in &frames {
                            sys::test_run(program.as_fd(), frame, BATCH).unwrap();
                        }
                        sent += frames.len() as u64 * u64::from(BATCH);
                    }
                    sent
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// How many packets both have sent.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    }
}

fn ready(lab: &Lab) -> Vec<(u32, Slot)> {
    let slots = &lab.kernel.maps.slots;
    let indices = 0..slots.len();
    let ready = indices.filter(|index| slot::state_of(slots.first_word(*index)) == READY);
    ready.map(|index| (index, slots.read(index))).collect()
}

fn verdict(lab: &Lab, index: u32) -> u64 {
    lab.kernel.maps.slots.word(index, SLOT_VERDICT).load(Ordering::SeqCst)
}

/// Packets that the rules decided: admitted, dropped, would be dropped.
fn decided(rules: &[RuleReading]) -> u64 {
    rules
        .iter()
        .map(|rule| rule.data.packets + rule.would_drop.packets)
        .sum()
}

/// Policies, what is enforced and slots change and go while both CPUs send: the rules' totals, the Pod's, and what was sent
/// stay the same number.
#[test]
fn rules_and_groups_count_every_packet_once_whatever_changes_meanwhile() {
    let _alone = alone();
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.set(policy_of("p", 5, DROP_ONE));
        let udp = [[239, 1, 1, 1], [239, 1, 2, 2]]
            .map(|group| [5000, 6000].map(|port| data(group.into(), Transport::Udp(port))));
        let strange =
            [Transport::UdpFragment, Transport::Other].map(|transport| data([239, 1, 1, 1].into(), transport));
        let first = first_fragment([239, 1, 1, 1].into());
        let frames: Vec<_> = udp.into_iter().flatten().chain(strange).chain([first]).collect();
        let senders = Senders::start(&lab, &frames);
        let mut random = Random(6);
        let (mut gone, mut folded, mut settled) = (0, 0, 0);
        for round in 0..300 {
            match random.below(4) {
                0 => gone += decided(&lab.set(policy_of("p", 5, if round % 2 == 0 { BY_PORTS } else { DROP_ONE }))),
                1 => lab.enforce(if random.below(2) == 0 { ENFORCED } else { UNENFORCED }),
                2 => settled += settle::settle_stale(&lab.kernel.maps, rcu::wait).unwrap(),
                _ => {
                    let victims: Vec<u32> = ready(&lab).into_iter().map(|(index, _)| index).collect();
                    folded += free::fold(&lab.kernel.maps, &victims, rcu::wait).unwrap();
                }
            }
        }
        let sent = senders.stop();
        println!("{sent} packets, {settled} slots settled by themselves, {folded} folded");
        assert!(
            folded > 0 && settled > 0,
            "{folded} folded, {settled} settled: hardly anything happened"
        );
        assert!(sent > 3000, "the senders hardly ran: {sent}");
        // Every packet is decided by some rule of either policy.
        assert_eq!(decided(&lab.rules()) + gone, sent, "by the rules");
        let [admitted, dropped, _] = lab.data();
        assert_eq!(admitted + dropped, sent, "by the Pod");
        // And when the port goes, what its rules decided is theirs.
        let rules = lab.rules();
        let port = lab.reading().id;
        free::free_port(&lab.kernel.maps, port).unwrap();
        assert_eq!(lab.rules(), rules, "without the port's slots");
    });
}

/// Packets that were counted under no verdict.
fn strays(lab: &Lab) -> u64 {
    let mut reader = Reader::new(&lab.kernel.maps);
    let unjudged = ready(lab)
        .into_iter()
        .filter(|(index, _)| verdict(lab, *index) == UNJUDGED);
    unjudged
        .map(|(index, _)| reader.slot(&lab.kernel.maps, index).unwrap().counted.packets)
        .sum()
}

/// The number of rounds after which in so many a packet had been counted under no verdict, or lost, or twice, if that was
/// within the most. Between finding a slot and counting in it there is a delay.
fn rounds_until(mut wrong: u32, most: u64, wait: fn() -> io::Result<()>) -> Option<u64> {
    in_netns(move || {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        // Some 100 µs: the delay alone decides how wide the race is.
        options.test_delay = 100_000;
        // To look through a large table would take longer than that.
        options.limits.slots = 256;
        let mut lab = Lab::new(&options);
        lab.enter();
        lab.set(policy_of("p", 5, DROP_ONE));
        let frames = [data([239, 1, 1, 1].into(), Transport::Udp(5000))];
        let mut before = 0;
        for round in 1..=most {
            let senders = Senders::start(&lab, &frames);
            let mut strayed = 0;
            for flip in 0..20 {
                lab.enforce(if flip % 2 == 0 { ENFORCED } else { UNENFORCED });
                settle::settle_stale(&lab.kernel.maps, wait).unwrap();
                thread::sleep(Duration::from_millis(1));
                strayed += strays(&lab);
            }
            let sent = senders.stop();
            let now = decided(&lab.rules());
            wrong -= u32::from(strayed > 0 || now.wrapping_sub(before) != sent);
            if wrong == 0 {
                return Some(round);
            }
            before = now;
        }
        None
    })
}

#[test]
fn with_a_delay_the_rcu_wait_is_what_makes_a_settlement_exact() {
    let _alone = alone();
    // As in `kernel_race`: a wait that does nothing passes in fewer than one of a thousand runs.
    let needed = rounds_until(3, 100, || Ok(()))
        .expect("no three rounds in 100 were wrong without the wait: the race was not run");
    println!("without the wait three of {needed} rounds were wrong");
    let tries = (5 * needed).clamp(30, 200);
    assert_eq!(rounds_until(1, tries, rcu::wait), None, "of {tries} with the wait");
}

/// However often the policy changes, a group needs a slot for what is decided now and one for what was before.
#[test]
fn a_slot_without_a_verdict_is_taken_by_the_next_decision() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.enforce(ENFORCED);
        let frame = data([239, 1, 1, 1].into(), Transport::Udp(5000));
        for change in 0..20 {
            let action = if change % 2 == 0 { "Drop" } else { "Allow" };
            let rule = format!("{{name: r{change}, action: {action}, to: [{{ipBlock: {{cidr: 239.1.1.1/32}}}}]}}");
            let last = lab.set(policy_of("p", 5, &rule));
            assert_eq!(decided(&last), 3 * u64::from(change > 0), "the last of the rule before");
            lab.send(&frame, 3);
        }
        let slots = ready(&lab);
        assert_eq!(slots.len(), 1, "{slots:?}");
        assert_eq!(lab.data(), [30, 30, 0]);
        let group = &lab.reading().outbound.groups[0];
        assert_eq!(group.last_source, Some("10.0.0.2".parse().unwrap()));
        assert!(group.last_seen.is_some());
    });
}

/// Where ports decide, each decision has its slot, and what finds no room is judged and counted all the same.
#[test]
fn each_decision_by_ports_has_a_slot_of_its_own() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.enforce(ENFORCED);
        lab.set(policy_of("p", 5, BY_PORTS));
        let send = |lab: &Lab, transport, times| lab.send(&data([239, 1, 1, 1].into(), transport), times);
        // Below the port, above it, and again: the second packets find the slots of the first.
        for port in [4000, 5000, 6000, 4999, 5000, 5001] {
            send(&lab, Transport::Udp(port), 2);
        }
        lab.send(&first_fragment([239, 1, 1, 1].into()), 1);
        send(&lab, Transport::UdpFragment, 2);
        send(&lab, Transport::Other, 4);
        let mut ports: Vec<_> = ready(&lab)
            .iter()
            .map(|(_, slot)| (slot.first_port, slot.last_port, slot.decision & DECISION_DROP != 0))
            .collect();
        ports.sort_unstable();
        // Fragments and other protocols have no port: the first lies beyond the last.
        let wanted = [
            (0, 4999, false),
            (1, 0, false),
            (2, 0, false),
            (5000, 5000, true),
            (5001, 0x7fff, false),
        ];
        assert_eq!(ports, wanted);
        let frame = data([239, 1, 1, 1].into(), Transport::Udp(5000)).len() as u64;
        let four = Traffic {
            packets: 4,
            segments: 4,
            bytes: 4 * frame,
        };
        assert_eq!(lab.rule("web").data, four);
        assert_eq!(lab.rule("rest").data.packets, 8 + 3 + 4);
        assert_eq!(lab.reading().outbound.groups.len(), 1, "one group in what is shown");
        assert_eq!(lab.data(), [15, 4, 0]);
    });
}

/// Sixteen rules for one group are more decisions than a set of slots has ways.
#[test]
fn more_decisions_for_a_group_than_ways_are_counted_in_other_groups() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        let rules: Vec<_> = (0..16)
            .map(|n| {
                format!(
                    "{{name: r{n}, action: Allow, to: [{{ipBlock: {{cidr: 239.1.1.1/32}}}}], ports: [{{protocol: UDP, port: {}}}]}}",
                    5000 + n
                )
            })
            .collect();
        lab.set(policy_of("p", 5, &rules.join(", ")));
        for port in 5000..5016 {
            lab.send(&data([239, 1, 1, 1].into(), Transport::Udp(port)), 10);
        }
        let outbound = lab.reading().outbound;
        let (in_group, other) = (outbound.groups[0].admitted.packets, outbound.other[0].admitted.packets);
        assert_eq!((in_group, other, outbound.overflow.window_full), (80, 80, 80));
        for n in 0..16 {
            assert_eq!(lab.rule(&format!("r{n}")).data.packets, 10, "r{n}");
        }
    });
}

/// Whatever step of a settlement the agent is killed at, the next one finds every total as it was.
#[test]
fn a_settlement_that_was_cut_off_is_finished_by_the_next_start() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.enforce(ENFORCED);
        lab.set(policy_of("p", 5, DROP_ONE));
        let frames = [1, 2].map(|host| data([239, 1, 1, host].into(), Transport::Udp(5000)));
        let mut sent = 0;
        // Which steps had been made: verdict taken off, log valid, carried, given to the rule, counters zeroed, log ended.
        for steps in 1..=6 {
            frames.iter().for_each(|frame| lab.send(frame, 7));
            sent += 7;
            let before = (lab.rules(), lab.data());
            assert_eq!(before.1, [sent, sent, 0]);
            for (index, slot) in ready(&lab) {
                cut_off(&lab, index, &slot, steps);
                drop(lab);
                lab = Lab::new(&bpffs.options());
                assert_eq!((lab.rules(), lab.data()), before, "after {steps} steps");
                assert_eq!(verdict(&lab, index), UNJUDGED);
            }
        }
        frames.iter().for_each(|frame| lab.send(frame, 7));
        assert_eq!(lab.data(), [sent + 7, sent + 7, 0]);
        assert_eq!((decided(&lab.rules()), ready(&lab).len()), (2 * (sent + 7), 2));
    });
}

/// And so does the next one that has another map ABI.
#[test]
fn a_settlement_that_was_cut_off_is_finished_before_an_upgrade() {
    in_netns(|| {
        for steps in 1..=6 {
            let bpffs = Bpffs::new();
            let mut lab = Lab::new(&bpffs.options());
            lab.enter();
            lab.enforce(ENFORCED);
            lab.set(policy_of("p", 5, DROP_ONE));
            for host in [1, 2] {
                lab.send(&data([239, 1, 1, host].into(), Transport::Udp(5000)), 7);
            }
            let before = (lab.rules(), lab.data());
            let slots = ready(&lab);
            let (index, slot) = &slots[steps as usize % slots.len()];
            cut_off(&lab, *index, slot, steps);
            drop(lab);
            let mut newer = bpffs.options();
            newer.abi += 1;
            let kernel = Kernel::open_and_upgrade(&newer, agents_hook(), &[bpffs.options().abi]).unwrap();
            drop(kernel);
            let lab = Lab::new(&newer);
            assert_eq!((lab.rules(), lab.data()), before, "after {steps} steps");
        }
    });
}

/// The first steps of settling a slot, as `settle` makes them.
fn cut_off(lab: &Lab, index: u32, slot: &Slot, steps: u32) {
    let maps = &lab.kernel.maps;
    let word = maps.slots.word(index, SLOT_VERDICT);
    word.store(slot::settling(word.load(Ordering::SeqCst)), Ordering::SeqCst);
    let read = Reader::new(maps).slot(maps, index).unwrap();
    let (drops, rule) = (
        slot.decision & DECISION_DROP != 0,
        u32::from(slot.decision & !DECISION_DROP),
    );
    let mut name = maps.rule_names.read(rule);
    for (total, more) in name
        .carried
        .iter_mut()
        .zip([read.counted.packets, read.counted.segments, read.counted.bytes])
    {
        *total += more;
    }
    let mut carry: Carry = maps.carried.read(index);
    if drops {
        carry.dropped += read.counted.packets;
    } else {
        carry.packets += read.counted.packets;
        carry.segments += read.counted.segments;
        carry.bytes += read.counted.bytes;
    }
    if steps >= 2 {
        update_settings(maps, |settings| {
            settings.settle_carry = carry;
            settings.settle_rule = u64::from(rule);
            settings.settle_data.copy_from_slice(&name.carried[..3]);
            settings.settle_would_drop = name.carried[6];
            settings.settle_slot = u64::from(index) + 1;
        });
    }
    if steps >= 3 {
        maps.carried.write(index, carry);
    }
    if steps >= 4 {
        maps.rule_names.write(rule, name);
    }
    if steps >= 5 {
        let zeroes = vec![0; sys::per_cpu_size::<mcstat_common::abi::Counter>(maps.cpus) / 8];
        sys::update_per_cpu(maps.counters(), index, &zeroes).unwrap();
    }
    if steps >= 6 {
        update_settings(maps, |settings| settings.settle_slot = 0);
    }
}
