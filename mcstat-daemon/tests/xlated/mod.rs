//! A loaded program as the kernel runs it: its instructions after the verifier's rewriting (BPF_OBJ_GET_INFO_BY_FD), cut
//! into functions, and which of them lie on which paths.
//!
//! It knows control flow and nothing of values: a path here may be one that no packet can take. What is proved for
//! every path is therefore proved for every packet; what is only found on a path need not happen. Needs `CAP_SYSLOG` or
//! `CAP_SYS_ADMIN`. Instruction encoding: RFC 9669 and include/uapi/linux/bpf.h.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "test support")]

use std::{
    collections::BTreeSet,
    io,
    mem::zeroed,
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{bpf_attr, bpf_btf_info, bpf_cmd, bpf_prog_info};

const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const CLASS_ALU64: u8 = 0x07;
const CLASS_JMP: u8 = 0x05;
const CLASS_JMP32: u8 = 0x06;
const LD_IMM64: u8 = 0x18;
const JA: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
const CONDITIONS: [u8; 11] = [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0];
/// `src_reg` of a call from function to function.
const PSEUDO_CALL: u8 = 1;
/// `src_reg` of a load of a map's address and of a map value's.
const PSEUDO_MAP: [u8; 2] = [1, 2];
/// `off` of a register move that adds this CPU's offset (BPF_ADDR_PERCPU, include/linux/filter.h, since 6.10).
const ADDR_PERCPU: i16 = -1;
/// `CLASS_ALU64 | BPF_MOV | BPF_X`.
const MOV64: u8 = 0xb0 | 0x08 | CLASS_ALU64;
/// `CLASS_ALU64 | BPF_ADD | BPF_K`.
const ADD64_CONSTANT: u8 = CLASS_ALU64;
const FRAME_POINTER: u8 = 10;

/// One instruction; the second half of a 16-byte load is one of its own, with code 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    pub code: u8,
    pub registers: u8,
    pub off: i16,
    pub imm: i32,
}

impl Insn {
    fn source(self) -> u8 {
        // A C bit field: which half it is depends on the byte order.
        if cfg!(target_endian = "little") {
            self.registers >> 4
        } else {
            self.registers & 0x0f
        }
    }

    fn destination(self) -> u8 {
        if cfg!(target_endian = "little") {
            self.registers & 0x0f
        } else {
            self.registers >> 4
        }
    }

    fn is_jump(self) -> bool {
        matches!(self.code & 0x07, CLASS_JMP | CLASS_JMP32)
    }

    fn is_call(self) -> bool {
        self.is_jump() && self.code & 0xf0 == CALL
    }

    fn is_exit(self) -> bool {
        self.is_jump() && self.code & 0xf0 == EXIT
    }
}

/// A function: the program itself or one that it calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub insns: Range<usize>,
}

/// What a call instruction calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Callee {
    /// A function of the same program.
    Function(String),
    /// A helper or another function of the kernel.
    Kernel(i32),
}

/// A whole program.
#[derive(Debug)]
pub struct Program {
    pub insns: Vec<Insn>,
    /// In the order of the instructions; the first is the entry.
    pub functions: Vec<Function>,
    /// How many instructions the verifier walked through.
    pub verified: u32,
}

impl Program {
    /// Reads a loaded program.
    pub fn read(program: BorrowedFd<'_>) -> Self {
        // SAFETY: all zero is a value of this plain struct, here and below.
        let mut info: bpf_prog_info = unsafe { zeroed() };
        object_info(program, &mut info);
        let (verified, btf) = (info.verified_insns, info.btf_id);
        let (length, count, record) = (info.xlated_prog_len, info.nr_func_info, info.func_info_rec_size);
        assert!(
            count > 0,
            "the program was loaded without BTF: its functions have no names"
        );
        let mut code = vec![0u8; length as usize];
        let mut starts = vec![0u8; count as usize * record as usize];
        // SAFETY: as above.
        info = unsafe { zeroed() };
        (info.xlated_prog_len, info.xlated_prog_insns) = (length, code.as_mut_ptr() as u64);
        (info.nr_func_info, info.func_info_rec_size) = (count, record);
        info.func_info = starts.as_mut_ptr() as u64;
        object_info(program, &mut info);
        assert!(info.xlated_prog_insns != 0, "the kernel hides instructions: CAP_SYSLOG");
        let names = function_names(btf);
        let starts: Vec<(usize, String)> = starts
            .chunks_exact(record as usize)
            .map(|record| (word(record, 0) as usize, names[word(record, 4) as usize].clone()))
            .collect();
        Self::new(code.chunks_exact(8).map(insn).collect(), &starts, verified)
    }

    /// From instructions and the functions that begin among them.
    pub fn new(insns: Vec<Insn>, starts: &[(usize, String)], verified: u32) -> Self {
        let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([insns.len()]);
        let functions = starts.iter().zip(ends).map(|((start, name), end)| Function {
            name: name.clone(),
            insns: *start..end,
        });
        let program = Self {
            functions: functions.collect(),
            insns,
            verified,
        };
        let claimed: BTreeSet<usize> = starts.iter().map(|(start, _)| *start).collect();
        for at in 0..program.insns.len() {
            if let Some(target) = program.called(at) {
                assert!(
                    claimed.contains(&target),
                    "a call to {target}, where no function begins"
                );
            }
        }
        program
    }

    pub fn function(&self, name: &str) -> &Function {
        let found = self.functions.iter().find(|function| function.name == name);
        found.unwrap_or_else(|| panic!("no function {name} in {:?}", self.functions))
    }

    /// Where a call from function to function goes.
    fn called(&self, at: usize) -> Option<usize> {
        let insn = self.insns[at];
        // `off`, not `imm`: the kernel puts the number of the function there once it is translated.
        (insn.is_call() && insn.source() == PSEUDO_CALL).then(|| target(at, i32::from(insn.off)))
    }

    /// What may run right after an instruction, in the same function.
    fn next(&self, at: usize) -> Vec<usize> {
        let insn = self.insns[at];
        if insn.code == LD_IMM64 {
            return vec![at + 2];
        }
        if !insn.is_jump() || insn.is_call() {
            return vec![at + 1];
        }
        match insn.code & 0xf0 {
            EXIT => vec![],
            JA if insn.code == CLASS_JMP32 => vec![target(at, insn.imm)],
            JA if insn.code == CLASS_JMP => vec![target(at, i32::from(insn.off))],
            operation if CONDITIONS.contains(&operation) => vec![at + 1, target(at, i32::from(insn.off))],
            _ => panic!("a jump that this test does not know: {insn:?} at {at}"),
        }
    }

    /// What can be reached from `from` without leaving the function, `from` included; nothing behind what is in `avoid`.
    pub fn reachable(&self, from: usize, avoid: &[usize]) -> BTreeSet<usize> {
        let function = self.functions.iter().find(|function| function.insns.contains(&from));
        let inside = &function.expect("every instruction is in a function").insns;
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            assert!(inside.contains(&at), "a jump out of its function, to {at}");
            if !avoid.contains(&at) && seen.insert(at) {
                open.extend(self.next(at));
            }
        }
        seen
    }

    /// The calls of a function.
    pub fn calls(&self, function: &Function) -> Vec<(usize, Callee)> {
        let calls = function.insns.clone().filter(|at| self.insns[*at].is_call());
        calls.map(|at| (at, self.callee(at))).collect()
    }

    fn callee(&self, at: usize) -> Callee {
        let Some(start) = self.called(at) else {
            return Callee::Kernel(self.insns[at].imm);
        };
        let function = self.functions.iter().find(|function| function.insns.start == start);
        Callee::Function(function.expect("checked when it was read").name.clone())
    }

    /// The exits of a function.
    pub fn exits(&self, function: &Function) -> Vec<usize> {
        let exits = function.insns.clone().filter(|at| self.insns[*at].is_exit());
        exits.collect()
    }

    /// Every call on any path through `function` from its entry by way of `through` to its end: the calls from which
    /// `through` can be reached, and those that can be reached from it.
    pub fn calls_on_paths_through(&self, function: &Function, through: usize) -> Vec<(usize, Callee)> {
        let (entry, after) = (self.reachable(function.insns.start, &[]), self.reachable(through, &[]));
        let calls = self.calls(function).into_iter();
        calls
            .filter(|(at, _)| entry.contains(at))
            .filter(|(at, _)| after.contains(at) || self.reachable(*at, &[]).contains(&through))
            .collect()
    }

    /// Where this CPU's part of a per-CPU map value is computed without a call.
    pub fn per_cpu_addresses(&self, function: &Function) -> Vec<usize> {
        let moves = function.insns.clone().filter(|at| {
            let insn = self.insns[*at];
            insn.code == MOV64 && insn.off == ADDR_PERCPU
        });
        moves.collect()
    }

    /// How many bytes of stack a function uses, by the accesses that name the frame pointer: what the verifier adds up.
    pub fn stack(&self, function: &Function) -> u32 {
        let depth = |at: usize| {
            let insn = self.insns[at];
            let base = match insn.code & 0x07 {
                CLASS_LDX => insn.source(),
                CLASS_ST | CLASS_STX => insn.destination(),
                // r1 = r10; r1 += -24
                _ if insn.code == MOV64 && insn.source() == FRAME_POINTER => {
                    let next = self.insns[at + 1];
                    let offset = next.code == ADD64_CONSTANT && next.destination() == insn.destination();
                    return if offset { next.imm.min(0).unsigned_abs() } else { 0 };
                }
                _ => return 0,
            };
            if base == FRAME_POINTER {
                u32::from(insn.off.min(0).unsigned_abs())
            } else {
                0
            }
        };
        function.insns.clone().map(depth).max().unwrap_or(0)
    }

    /// Where the address of a map, or of a value in it, is loaded: (instruction, map id).
    pub fn map_loads(&self, function: &Function) -> Vec<(usize, u32)> {
        let loads = function.insns.clone().filter(|at| {
            let insn = self.insns[*at];
            insn.code == LD_IMM64 && PSEUDO_MAP.contains(&insn.source())
        });
        loads.map(|at| (at, self.insns[at].imm as u32)).collect()
    }
}

fn target(at: usize, offset: i32) -> usize {
    at.checked_add_signed(offset as isize + 1)
        .expect("a jump before the program")
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn insn(bytes: &[u8]) -> Insn {
    Insn {
        code: bytes[0],
        registers: bytes[1],
        off: i16::from_ne_bytes([bytes[2], bytes[3]]),
        imm: word(bytes, 4) as i32,
    }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> i64 {
    // SAFETY: the callers fill `attr` with pointers to live buffers of the sizes they name.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<bpf_attr>()) };
    assert!(result >= 0, "bpf(2): {}", io::Error::last_os_error());
    result
}

fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) {
    // SAFETY: all zero is a value of this union of plain integers.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.info.bpf_fd = object.as_raw_fd() as u32;
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = std::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr);
}

/// The name of each BTF type, by its id.
fn function_names(btf: u32) -> Vec<String> {
    // SAFETY: all zero is a value of these plain types.
    let (mut attr, mut info): (bpf_attr, bpf_btf_info) = unsafe { (zeroed(), zeroed()) };
    attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = btf;
    let fd = bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr) as i32;
    // SAFETY: a descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    object_info(std::os::fd::AsFd::as_fd(&fd), &mut info);
    let mut bytes = vec![0u8; info.btf_size as usize];
    // SAFETY: as above.
    let mut info: bpf_btf_info = unsafe { zeroed() };
    (info.btf, info.btf_size) = (bytes.as_mut_ptr() as u64, bytes.len() as u32);
    object_info(std::os::fd::AsFd::as_fd(&fd), &mut info);
    type_names(&bytes)
}

/// Walks struct btf_type by struct btf_type (Documentation/bpf/btf.rst); id 0 is void.
fn type_names(btf: &[u8]) -> Vec<String> {
    let header = word(btf, 4) as usize;
    let types = header + word(btf, 8) as usize;
    let end = types + word(btf, 12) as usize;
    let strings = header + word(btf, 16) as usize;
    let (mut at, mut names) = (types, vec![String::new()]);
    while at < end {
        let name = strings + word(btf, at) as usize;
        let length = btf[name..].iter().position(|byte| *byte == 0).unwrap();
        names.push(String::from_utf8(btf[name..name + length].to_vec()).unwrap());
        let info = word(btf, at + 4);
        let members = info as usize & 0xffff;
        at += 12
            + match info >> 24 & 0x1f {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * members,
                6 | 13 => 8 * members,
                _ => 0,
            };
    }
    names
}
