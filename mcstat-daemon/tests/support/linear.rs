//! A classifier by hand that drops every frame whose IPv4 header it cannot reach by direct packet access: what tells
//! whether a test's frames are what the test says.

use std::{io, mem, os::fd::FromRawFd, os::fd::OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::{
    Bpffs, run,
    wire::{Sender, Wire},
};

/// `data + 34 <= data_end ? TC_ACT_UNSPEC : TC_ACT_SHOT`; offsets of struct __sk_buff in include/uapi/linux/bpf.h.
const REACHES_IPV4: [[u8; 8]; 7] = [
    [0x61, 0x12, 76, 0, 0, 0, 0, 0],            // r2 = skb->data
    [0x61, 0x13, 80, 0, 0, 0, 0, 0],            // r3 = skb->data_end
    [0x07, 0x02, 0, 0, 34, 0, 0, 0],            // r2 += 14 + 20
    [0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff], // r0 = TC_ACT_UNSPEC
    [0xbd, 0x32, 1, 0, 0, 0, 0, 0],             // if r2 <= r3 skip one
    [0xb7, 0x00, 0, 0, 2, 0, 0, 0],             // r0 = TC_ACT_SHOT
    [0x95, 0x00, 0, 0, 0, 0, 0, 0],             // exit
];

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> i64 {
    // SAFETY: the callers fill `attr` with pointers to live buffers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<bpf_attr>()) };
    assert!(result >= 0, "bpf(2): {}", io::Error::last_os_error());
    result
}

/// Sends `frames` out of the host side of `wire`, `times` times; how many had their IPv4 header in the linear part.
pub fn reached(wire: &Wire, frames: &[Vec<u8>], times: usize) -> u64 {
    let bpffs = Bpffs::new();
    let pin = bpffs.path().join("reaches_ipv4");
    let name = std::ffi::CString::new(pin.to_str().unwrap()).unwrap();
    // SAFETY: all zero is a value of this union of plain integers.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: the arm of BPF_PROG_LOAD, of plain integers.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = aya_obj::generated::bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    load.insns = REACHES_IPV4.as_ptr() as u64;
    load.insn_cnt = REACHES_IPV4.len() as u32;
    load.license = c"GPL".as_ptr() as u64;
    let fd = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) as i32;
    // SAFETY: a descriptor that nobody else owns.
    let _program = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: as above.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: the arm of BPF_OBJ_PIN.
    let object = unsafe { &mut attr.__bindgen_anon_4 };
    object.pathname = name.as_ptr() as u64;
    object.bpf_fd = fd as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr);
    run("tc", &format!("qdisc replace dev {} clsact", wire.host));
    let filter = format!("egress bpf direct-action object-pinned {}", pin.display());
    run(
        "tc",
        &format!("filter replace dev {} pref 1 handle 1 {filter}", wire.host),
    );
    let (before, sender) = (wire.transmitted().0, Sender::on(&wire.host));
    let passed = frames.iter().cycle().take(frames.len() * times);
    let passed = passed.filter(|frame| sender.passes(frame)).count() as u64;
    assert_eq!(wire.transmitted().0 - before, passed, "the device's number");
    passed
}
