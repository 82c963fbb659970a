//! Reading the table: what one tick costs.

use std::os::fd::{AsFd, OwnedFd};

use mcstat::agent::bpf::{Kernel, read::Reader, sys};
use mcstat_common::slot::{READY, state_of};

use crate::{
    Scale,
    stats::{Series, cpu_ns, last_cpu, wall_ns},
    support::{self, Bpffs, frames, in_netns},
};

const SLOTS: u32 = 16_384;

/// Measures and prints goal 8.
pub(crate) fn run(scale: Scale) {
    println!(
        "\n## Reading a table of {SLOTS} slots (ms, min–med–max of {} readings)\n",
        scale.readings
    );
    println!("| used slots | CPU | wall |");
    println!("|---:|---:|---:|");
    for used in [20, 10_000] {
        in_netns(move || {
            support::pin_to(last_cpu());
            let bpffs = Bpffs::new();
            let mut options = bpffs.options();
            options.limits.slots = SLOTS;
            options.limits.slots_per_port = SLOTS;
            let mut kernel = support::open(&options);
            support::enter(&kernel, &support::pod_port("read", "lo", 1, &["10.0.0.2"]));
            let sent = fill(&mut kernel, used);
            let (cpu, wall) = read(&kernel, used, sent, scale.readings);
            println!("| {used} | {} | {} |", cpu.spread(3), wall.spread(3));
        });
    }
}

/// Sends to ever new groups until `used` slots are in use; how many packets that took.
fn fill(kernel: &mut Kernel, used: usize) -> u64 {
    let program: OwnedFd = {
        let program = kernel.programs.program("mcstat_outbound").unwrap();
        program.fd().unwrap().as_fd().try_clone_to_owned().unwrap()
    };
    let in_use = |kernel: &Kernel| {
        (0..kernel.maps.slots.len())
            .filter(|index| state_of(kernel.maps.slots.first_word(*index)) == READY)
            .count()
    };
    let mut sent = 0u32;
    loop {
        let missing = used - in_use(kernel);
        if missing == 0 {
            return u64::from(sent);
        }
        // At most as many as are missing: some find no room in their set.
        for _ in 0..missing {
            sent += 1;
            let group = std::net::Ipv4Addr::from(0xef00_0000 + sent);
            let frame = frames::data("10.0.0.2", &group.to_string(), 22);
            sys::test_run(program.as_fd(), &frame, 1).unwrap();
        }
    }
}

fn read(kernel: &Kernel, used: usize, sent: u64, readings: usize) -> (Series, Series) {
    let mut reader = Reader::new(&kernel.maps);
    let (mut cpu, mut wall) = (Series::default(), Series::default());
    for _ in 0..readings {
        let (mut slots, mut packets) = (0, 0);
        let before = (cpu_ns(), wall_ns());
        reader
            .used(&kernel.maps, |read| {
                slots += 1;
                packets += read.totals.packets;
            })
            .unwrap();
        cpu.0.push((cpu_ns() - before.0) as f64 / 1e6);
        wall.0.push((wall_ns() - before.1) as f64 / 1e6);
        assert_eq!((slots, packets), (used, used as u64), "slots and packets read");
    }
    let total = support::total(&support::reading(kernel, "read").outbound).0;
    assert_eq!(total, sent, "slots and other groups");
    (cpu, wall)
}
