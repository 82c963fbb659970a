//! What the hot path is made of, read from the instructions that the kernel runs.
//!
//! Proved, for each classifier, as the verifier rewrote it and from its control flow alone:
//! - it calls nothing of the kernel; what it calls are its own five functions off the path (judging, a miss, a message,
//!   a tally, headers outside the linear part);
//! - a packet is counted in a slot, whose rule counts by it, where the address of this CPU's counter is computed. **No path
//!   from the entry through there to the exit holds any call**, and there is such a path;
//! - every path there passes the look-up in `slots`.
//!
//! Not proved by instructions: that the slot found is READY and the key's (the tests that count say so), and anything of
//! a frame whose headers lie outside the linear part: it is counted in a function of its own, by helper calls.
//!
//! Before Linux 6.10 a per-CPU array look-up is a call. There the same is proved of every other call: a path of a hit
//! holds the look-up in `counters`, and nothing else of the kernel is called.
//!
//! It holds with the JIT on.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;
mod xlated;

use std::{collections::BTreeSet, fs, os::fd::AsFd};

use aya::maps::MapInfo;
use mcstat::agent::bpf::Kernel;
use support::{Bpffs, open, run};
use xlated::{Callee, Insn, Program};

const CLASSIFIERS: [&str; 2] = ["mcstat_outbound", "mcstat_inbound"];
/// The functions that the hot path leaves to.
const OFF_PATH: [&str; 5] = ["judge", "message", "miss", "nonlinear", "tally"];
/// Where a classifier counts: in the path of each family.
const PLACES: usize = 2;

/// The object as it is embedded in the agent.
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mcstat.bpf.o"));

fn program(kernel: &mut Kernel, name: &str) -> Program {
    let program = kernel.programs.program(name).unwrap();
    Program::read(program.fd().unwrap().as_fd())
}

/// Whether this kernel computes the address of a per-CPU array's value in place (Linux 6.10).
fn per_cpu_in_place() -> bool {
    support::release() >= (6, 10)
}

/// Where a program's first function comes by this CPU's counter: the place, or before Linux 6.10 the call.
fn counting(program: &Program) -> Vec<usize> {
    let main = &program.functions[0];
    let in_place = program.per_cpu_addresses(main);
    let found = if per_cpu_in_place() {
        in_place
    } else {
        assert_eq!(in_place, [0usize; 0], "per-CPU addresses in place before Linux 6.10");
        let calls = program.calls(main).into_iter();
        calls
            .filter(|(_, callee)| matches!(callee, Callee::Kernel(_)))
            .map(|(at, _)| at)
            .collect()
    };
    assert!(
        !found.is_empty(),
        "nothing comes by a per-CPU address: is the JIT off (net.core.bpf_jit_enable)?"
    );
    found
}

/// The calls of a program's first function that lie on a path through a place where it counts; the look-ups there are
/// none of them.
fn calls_on_the_hit_path(program: &Program) -> Vec<Callee> {
    let main = &program.functions[0];
    let counting = counting(program);
    let on_path = |at: &usize| {
        let calls = program.calls_on_paths_through(main, *at).into_iter();
        let others = calls.filter(|(call, _)| !counting.contains(call));
        others.map(|(_, callee)| callee).collect::<Vec<_>>()
    };
    counting.iter().flat_map(on_path).collect()
}

#[test]
fn no_path_through_a_hit_holds_a_call() {
    let bpffs = Bpffs::new();
    let options = bpffs.options();
    let mut kernel = open(&options);
    let id = |name: &str| MapInfo::from_pin(options.pins().join(name)).unwrap().id();
    for name in CLASSIFIERS {
        let program = program(&mut kernel, name);
        let main = &program.functions[0];
        assert_eq!(main.name, name);
        let counting = counting(&program);
        let calls = program.calls(main).into_iter();
        let called: BTreeSet<Callee> = calls
            .filter(|(at, _)| !counting.contains(at))
            .map(|(_, callee)| callee)
            .collect();
        let off_path = OFF_PATH.map(|name| Callee::Function(name.to_owned()));
        assert_eq!(called, BTreeSet::from(off_path), "{name}: what the main function calls");
        assert_eq!(
            calls_on_the_hit_path(&program),
            [],
            "{name}: calls on the path of a hit"
        );

        let reached = program.reachable(main.insns.start, &[]);
        let loads = program.map_loads(main);
        let of = |map: &str| {
            let loads = loads.iter().filter(|(_, loaded)| *loaded == id(map));
            loads.map(|(at, _)| *at).collect::<Vec<usize>>()
        };
        assert_eq!(counting.len(), PLACES, "{name}: where it counts");
        assert_eq!(of("counters").len(), PLACES, "{name}: look-ups in `counters`");
        for judging in ["policies", "policy_ports", "rules"] {
            assert_eq!(of(judging), [0usize; 0], "{name}: `{judging}` is looked up elsewhere");
        }
        for per_cpu in ["event_counts", "report_walk"] {
            assert_eq!(of(per_cpu), [0usize; 0], "{name}: no other per-CPU map is used");
        }
        assert!(!of("slots").is_empty(), "{name}: no look-up in `slots`");
        for map in ["slots", "counters"] {
            let around = program.reachable(main.insns.start, &of(map));
            for at in &counting {
                assert!(
                    !around.contains(at),
                    "{name}: {at} is reached without a look-up in `{map}`"
                );
            }
        }
        for at in counting {
            assert!(reached.contains(&at), "{name}: nobody comes to {at}");
            let after = program.reachable(at, &[]);
            assert!(
                program.exits(main).iter().any(|exit| after.contains(exit)),
                "{name}: no exit after {at}"
            );
        }
    }
}

/// The control: with a function call put between finding a slot and counting in it, the same analysis finds it.
#[test]
fn a_call_on_the_hit_path_is_found() {
    let bpffs = Bpffs::new();
    let mut options = bpffs.options();
    options.test_delay = 1;
    let mut kernel = open(&options);
    for name in CLASSIFIERS {
        let calls = calls_on_the_hit_path(&program(&mut kernel, name));
        // One on the path of each family.
        let delay = Callee::Function("delay".to_owned());
        assert_eq!(calls, vec![delay; PLACES], "{name}");
    }
}

/// The control: the functions off the path do call helpers, and those are seen.
#[test]
fn helper_calls_off_the_path_are_seen() {
    let bpffs = Bpffs::new();
    let mut kernel = open(&bpffs.options());
    for name in CLASSIFIERS {
        let program = program(&mut kernel, name);
        let helpers = |function: &str| {
            let calls = program.calls(program.function(function)).into_iter();
            calls.filter(|(_, callee)| matches!(callee, Callee::Kernel(_))).count()
        };
        // Reserve, load and submit for three sizes of record; a load for each header.
        assert!(helpers("message") >= 3, "{name}: {}", helpers("message"));
        assert!(helpers("nonlinear") >= 3, "{name}: {}", helpers("nonlinear"));
        // Before Linux 6.10 the look-ups in `counters` and `rules`.
        let look_ups = 2 * usize::from(!per_cpu_in_place());
        assert_eq!((helpers("miss"), helpers("tally")), (look_ups, 0), "{name}");
        // The look-up in the trie.
        assert_eq!(helpers("judge"), 1, "{name}");
    }
    let clock = program(&mut kernel, "mcstat_clock");
    assert_eq!(clock.calls(&clock.functions[0]), [], "the clock reads jiffies in place");
}

fn by_hand(insns: &[(u8, u8, i16, i32)], starts: &[(usize, &str)]) -> Program {
    let insns = insns.iter().map(|&(code, registers, off, imm)| Insn {
        code,
        registers,
        off,
        imm,
    });
    let starts: Vec<_> = starts.iter().map(|(at, name)| (*at, (*name).to_owned())).collect();
    Program::new(insns.collect(), &starts, 0)
}

#[test]
fn the_analysis_finds_calls_before_behind_and_in_a_loop_and_no_others() {
    const IF: (u8, u8, i16, i32) = (0x15, 0, 0, 0);
    const JUMP: (u8, u8, i16, i32) = (0x05, 0, 0, 0);
    const HELPER: (u8, u8, i16, i32) = (0x85, 0, 0, 7);
    const COUNT: (u8, u8, i16, i32) = (0xbf, 0, -1, 0);
    const EXIT: (u8, u8, i16, i32) = (0x95, 0, 0, 0);
    let to = |insn: (u8, u8, i16, i32), off| (insn.0, insn.1, off, insn.3);
    let calls = |insns: &[(u8, u8, i16, i32)]| {
        let program = by_hand(insns, &[(0, "main")]);
        let main = &program.functions[0];
        let at = program.per_cpu_addresses(main)[0];
        let calls = program.calls_on_paths_through(main, at);
        calls.into_iter().map(|(at, _)| at).collect::<Vec<_>>()
    };
    // if … { call } else { count }: not on the path, though it stands before the count.
    assert_eq!(calls(&[to(IF, 2), HELPER, to(JUMP, 1), COUNT, EXIT]), [0usize; 0]);
    // if … { call }; count.
    assert_eq!(calls(&[to(IF, 1), HELPER, COUNT, EXIT]), [1]);
    // count; if … { call }.
    assert_eq!(calls(&[COUNT, to(IF, 1), HELPER, EXIT]), [2]);
    // loop { call; count }: the jump back alone leads from one to the other.
    assert_eq!(calls(&[to(JUMP, 1), HELPER, COUNT, to(IF, -3), EXIT]), [1]);
    // A call that nothing leads to.
    assert_eq!(calls(&[COUNT, EXIT, HELPER, to(JUMP, -4)]), [0usize; 0]);
    // The second half of a 16-byte load is no instruction, whatever it looks like.
    let load = by_hand(&[(0x18, 0x10, 0, 9), (0, 0, 0, 0), COUNT, EXIT], &[(0, "main")]);
    assert_eq!(load.reachable(0, &[]), BTreeSet::from([0, 2, 3]));
    assert_eq!(load.map_loads(&load.functions[0]), [(0, 9)]);
}

/// The verifier's work is bounded: what it costs to load, and how far from its limit of a million.
#[test]
fn the_verifier_walks_through_at_most_50_000_instructions() {
    let bpffs = Bpffs::new();
    let mut kernel = open(&bpffs.options());
    for name in CLASSIFIERS {
        let verified = program(&mut kernel, name).verified;
        println!("{name}: {verified} verified instructions");
        assert!((1..=50_000).contains(&verified), "{name}: {verified}");
    }
}

/// A frame whose headers lie outside the linear part goes the longest way. Linux 6.1 gives each function a multiple of 32
/// bytes and refuses more than 512 in a row.
#[test]
fn the_longest_way_leaves_room_on_the_stack() {
    let bpffs = Bpffs::new();
    let mut kernel = open(&bpffs.options());
    for name in CLASSIFIERS {
        let program = program(&mut kernel, name);
        // The race test's callback takes 32 bytes behind a miss.
        let mut ways = vec![(vec![name, "nonlinear", "miss"], 512 - 32)];
        if name == "mcstat_outbound" {
            ways.push((vec![name, "nonlinear", "judge", "transport"], 512));
            ways.push((vec![name, "nonlinear", "message", "walk_report", "record_step"], 512));
        }
        for (names, room) in ways {
            let stacks = names.iter().map(|function| program.stack(program.function(function)));
            let way: Vec<u32> = stacks.collect();
            println!("{names:?}: {way:?} bytes of stack");
            assert!(way.iter().all(|bytes| *bytes > 0), "{names:?}: {way:?}");
            let rounded: u32 = way.iter().map(|bytes| bytes.next_multiple_of(32)).sum();
            assert!(rounded <= room, "{names:?}: {way:?}");
        }
    }
}

/// Names of the sections and symbols of an ELF object (64 bit, little-endian).
fn elf_names(object: &[u8]) -> (Vec<String>, Vec<String>) {
    let u16_at = |at: usize| u16::from_le_bytes(object[at..at + 2].try_into().unwrap()) as usize;
    let u32_at = |at: usize| u32::from_le_bytes(object[at..at + 4].try_into().unwrap()) as usize;
    let u64_at = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().unwrap()) as usize;
    let text = |at: usize| {
        let length = object[at..].iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(object[at..at + length].to_vec()).unwrap()
    };
    assert_eq!(
        object[..6],
        *b"\x7fELF\x02\x01",
        "the embedded object is not ELF: run `cargo xtask setup`"
    );
    let section = |index: usize| u64_at(0x28) + index * u16_at(0x3a);
    let offset = |section: usize| u64_at(section + 0x18);
    let names = offset(section(u16_at(0x3e)));
    let (mut sections, mut symbols) = (Vec::new(), Vec::new());
    for index in 0..u16_at(0x3c) {
        let at = section(index);
        sections.push(text(names + u32_at(at)));
        if u32_at(at + 4) == 2 {
            let strings = offset(section(u32_at(at + 0x28)));
            let table = offset(at)..offset(at) + u64_at(at + 0x20);
            symbols.extend(table.step_by(24).map(|symbol| text(strings + u32_at(symbol))));
        }
    }
    (sections, symbols)
}

#[test]
fn the_object_holds_no_panic_and_no_legacy_map() {
    let (sections, symbols) = elf_names(OBJECT);
    for name in CLASSIFIERS.iter().chain(&OFF_PATH) {
        assert!(
            symbols.iter().any(|symbol| symbol.contains(name)),
            "no symbol {name} in {symbols:?}"
        );
    }
    let panics = |name: &&String| name.contains("panic") || name.contains("rust_begin_unwind");
    assert_eq!(symbols.iter().filter(panics).collect::<Vec<_>>(), [""; 0]);
    assert!(sections.iter().any(|name| name == ".maps"), "{sections:?}");
    // What libbpf refuses: maps without BTF, and code that stands in no program's section.
    let refused = |name: &&String| *name == "maps" || name.starts_with("maps/") || name.starts_with(".text.unlikely");
    assert_eq!(sections.iter().filter(refused).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn bpftool_loads_the_object() {
    let bpffs = Bpffs::new();
    let object = tempfile::NamedTempFile::new().unwrap();
    fs::write(object.path(), OBJECT).unwrap();
    let (programs, maps) = (bpffs.path().join("programs"), bpffs.path().join("maps"));
    run(
        "bpftool",
        &format!(
            "prog loadall {} {} pinmaps {}",
            object.path().display(),
            programs.display(),
            maps.display()
        ),
    );
    let names = |directory: &std::path::Path| {
        let entries = fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<_>>()
    };
    let wanted = ["mcstat_clock", "mcstat_inbound", "mcstat_outbound"];
    assert_eq!(names(&programs), wanted.map(str::to_owned).into());
    let maps = names(&maps);
    for name in [
        "slots",
        "counters",
        "carried",
        "ports",
        "port_stats",
        "port_carried",
        "settings",
        "policies",
        "policy_ports",
        "rules",
        "rule_names",
        "report_walk",
    ] {
        assert!(maps.contains(name), "no map {name} in {maps:?}");
    }
    assert!(maps.contains("event_counts") && maps.contains("events"), "{maps:?}");
}
