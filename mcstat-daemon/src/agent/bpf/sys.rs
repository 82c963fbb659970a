//! The system calls that aya 0.14 does not offer: batched map access, mapped arrays, what stands on a hook, what
//! [`rcu`](super::rcu) waits by.
//!
//! The only file of the agent that holds `unsafe` for the kernel's sake; everything above it is safe.
#![expect(unsafe_code, reason = "bpf(2), mmap(2) and membarrier(2) have no safe interface")]

use std::{
    fs, io, mem,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_map_type, bpf_prog_info};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use zerocopy::{FromBytes, Immutable, IntoBytes};

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: the callers fill `attr` with pointers to live buffers of the sizes they name.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attr), size_of::<bpf_attr>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn zeroed_attr() -> bpf_attr {
    // SAFETY: bpf_attr is a union of plain integers; the kernel wants unused bytes to be zero.
    unsafe { mem::zeroed() }
}

/// Bytes that one element of a per-CPU map takes in a reading: its value for every possible CPU.
pub fn per_cpu_size<T>(cpus: usize) -> usize {
    size_of::<T>().next_multiple_of(8) * cpus
}

/// Reads the elements `start .. start + count` of a per-CPU array into `values` (BPF_MAP_LOOKUP_BATCH).
///
/// `values` holds [`per_cpu_size`] bytes an element, CPU after CPU. `keys` is scratch of `count` keys.
///
/// # Errors
/// What bpf(2) returns; `InvalidInput` when a buffer is too short.
pub fn lookup_batch(
    map: BorrowedFd<'_>,
    start: u32,
    count: u32,
    element_size: usize,
    keys: &mut [u32],
    values: &mut [u64],
) -> io::Result<()> {
    if keys.len() < count as usize || size_of_val(values) < element_size * count as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // The kernel begins behind the key it is given; none means at the first.
    let before = start.wrapping_sub(1);
    let mut after = 0u32;
    let mut attr = zeroed_attr();
    attr.batch.in_batch = if start == 0 { 0 } else { ptr::from_ref(&before) as u64 };
    attr.batch.out_batch = ptr::from_mut(&mut after) as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = count;
    attr.batch.map_fd = map.as_raw_fd() as u32;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => Ok(()),
        // ENOENT says that the end of the map was reached; the elements are there all the same.
        // SAFETY: the kernel wrote `count` in the batch arm that was filled above.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) && unsafe { attr.batch.count } == count => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes one element of a per-CPU array: `values` holds [`per_cpu_size`] bytes, CPU after CPU.
///
/// # Errors
/// What bpf(2) returns.
pub fn update_per_cpu(map: BorrowedFd<'_>, index: u32, values: &[u64]) -> io::Result<()> {
    let mut attr = zeroed_attr();
    // SAFETY: writing the plain integers of the union's element arm.
    let element = unsafe { &mut attr.__bindgen_anon_2 };
    element.map_fd = map.as_raw_fd() as u32;
    element.key = ptr::from_ref(&index) as u64;
    element.__bindgen_anon_1.value = values.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Writes entries of a map (BPF_MAP_UPDATE_BATCH); one that is there is replaced.
///
/// # Errors
/// What bpf(2) returns; some of the entries may be written. `InvalidInput` when the numbers differ.
pub fn update_batch<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    if keys.len() != values.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = zeroed_attr();
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.values = values.as_ptr() as u64;
    attr.batch.count = u32::try_from(keys.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    attr.batch.map_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Deletes entries of a map (BPF_MAP_DELETE_BATCH); one that is not there is no error.
///
/// # Errors
/// What bpf(2) returns; some of the entries may be deleted.
pub fn delete_batch<K: IntoBytes + Immutable>(map: BorrowedFd<'_>, mut keys: &[K]) -> io::Result<()> {
    while !keys.is_empty() {
        let mut attr = zeroed_attr();
        attr.batch.keys = keys.as_ptr() as u64;
        attr.batch.count = u32::try_from(keys.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        attr.batch.map_fd = map.as_raw_fd() as u32;
        match bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr) {
            Ok(_) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                // SAFETY: the kernel wrote how many it deleted before the one that is missing.
                let deleted = unsafe { attr.batch.count } as usize;
                keys = keys.get(deleted + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// All entries of a map that is no array (BPF_MAP_LOOKUP_BATCH), `batch` a call.
///
/// # Errors
/// What bpf(2) returns.
pub fn entries<K, V>(map: BorrowedFd<'_>, batch: usize) -> io::Result<Vec<(K, V)>>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes + Immutable + Copy,
{
    let mut all = Vec::new();
    let (mut keys, mut values) = (vec![K::new_zeroed(); batch], vec![V::new_zeroed(); batch]);
    let (mut before, mut after): (Option<K>, K) = (None, K::new_zeroed());
    loop {
        let mut attr = zeroed_attr();
        attr.batch.in_batch = before.as_ref().map_or(0, |key| ptr::from_ref(key) as u64);
        attr.batch.out_batch = ptr::from_mut(&mut after) as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = u32::try_from(batch).map_err(|_| io::ErrorKind::InvalidInput)?;
        attr.batch.map_fd = map.as_raw_fd() as u32;
        let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
        let ended = match &result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(_) => return result.map(|_| all),
        };
        // SAFETY: the kernel wrote `count` in the batch arm that was filled above.
        let found = unsafe { attr.batch.count } as usize;
        all.extend(keys.iter().copied().zip(values.iter().copied()).take(found));
        if ended || found == 0 {
            return Ok(all);
        }
        before = Some(after);
    }
}

/// Runs a program `repeat` times on `packet` (BPF_PROG_TEST_RUN); its return value and the mean nanoseconds of a run.
///
/// # Errors
/// What bpf(2) returns.
pub fn test_run(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> io::Result<(u32, u32)> {
    let mut attr = zeroed_attr();
    attr.test.prog_fd = program.as_raw_fd() as u32;
    attr.test.data_in = packet.as_ptr() as u64;
    attr.test.data_size_in = u32::try_from(packet.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    attr.test.repeat = repeat;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    // SAFETY: the kernel filled the test arm.
    Ok(unsafe { (attr.test.retval, attr.test.duration) })
}

/// Programs that one hook of an interface can hold (BPF_MPROG_MAX, include/linux/bpf_mprog.h).
const MAX_PROGRAMS: usize = 64;

/// Ids of the programs on a TCX hook, in the order in which they see a packet (BPF_PROG_QUERY).
///
/// # Errors
/// What bpf(2) returns: `EINVAL` before Linux 6.6.
pub fn tcx_programs(ifindex: u32, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut attr = zeroed_attr();
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = hook as u32;
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.count = MAX_PROGRAMS as u32;
    match bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) {
        // SAFETY: the kernel filled the query arm.
        Ok(_) => ids.truncate(unsafe { attr.query.__bindgen_anon_2.count } as usize),
        // Nothing was ever on this hook.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => ids.clear(),
        Err(error) => return Err(error),
    }
    Ok(ids)
}

/// The name of a program, 15 bytes at most; `None` without `CAP_SYS_ADMIN` or when it is gone.
pub fn program_name(id: u32) -> Option<String> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    let fd = bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr).ok()?;
    // SAFETY: a descriptor that the call returned and nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: bpf_prog_info is plain integers.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = ptr::from_mut(&mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).ok()?;
    let name = info.name.iter().take_while(|byte| **byte != 0);
    Some(name.map(|byte| char::from(*byte as u8)).collect())
}

/// `membarrier(MEMBARRIER_CMD_GLOBAL)`: with more than one CPU online it is `synchronize_rcu()`, with one it does nothing
/// (kernel/sched/membarrier.c).
///
/// # Errors
/// What membarrier(2) returns; `ENOSYS` and `EPERM` where a seccomp profile refuses it, `EINVAL` with nohz_full.
pub fn membarrier() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A map with a map in it. Replacing that one from user space ends in `synchronize_rcu()`, so that no program still
/// uses the old one (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c, since Linux 4.20).
#[derive(Debug)]
pub struct MapOfMaps {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl MapOfMaps {
    /// Makes both, of one entry each; they go with the value.
    ///
    /// # Errors
    /// What bpf(2) returns.
    pub fn new() -> io::Result<Self> {
        let inner = create_map(bpf_map_type::BPF_MAP_TYPE_ARRAY, None)?;
        let outer = create_map(bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(inner.as_fd()))?;
        Ok(Self { outer, inner })
    }

    /// Replaces the inner map by itself.
    ///
    /// # Errors
    /// What bpf(2) returns.
    pub fn replace(&self) -> io::Result<()> {
        let (key, value) = (0u32, self.inner.as_raw_fd());
        let mut attr = zeroed_attr();
        // SAFETY: writing the plain integers of the union's element arm.
        let element = unsafe { &mut attr.__bindgen_anon_2 };
        element.map_fd = self.outer.as_raw_fd() as u32;
        element.key = ptr::from_ref(&key) as u64;
        element.__bindgen_anon_1.value = ptr::from_ref(&value) as u64;
        bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
    }
}

fn create_map(kind: bpf_map_type, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    // SAFETY: writing the plain integers of the union's map arm.
    let map = unsafe { &mut attr.__bindgen_anon_1 };
    (map.map_type, map.key_size, map.value_size, map.max_entries) = (kind as u32, 4, 4, 1);
    map.inner_map_fd = inner.map_or(0, |inner| inner.as_raw_fd() as u32);
    for (to, from) in map.map_name.iter_mut().zip(b"mcstat_wait") {
        *to = *from as libc::c_char;
    }
    let fd = bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)?;
    // SAFETY: a descriptor that the call returned and nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Removes the limit on locked memory, which kernels before 5.11 charge maps to. Best effort.
pub fn raise_memlock() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a pointer to a live value.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// An array map in this process's memory (BPF_F_MMAPABLE).
///
/// The programs write the same memory at the same time: reads are copies that may be torn between words, never within
/// one aligned word. What must be exact is a word, or is read when nobody writes.
#[derive(Debug)]
pub struct Mapped<T> {
    base: NonNull<T>,
    entries: u32,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping is shared memory; all access is by volatile copies and atomics.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Copy + FromBytes + IntoBytes + Immutable> Mapped<T> {
    /// Maps all `entries` of `map`, whose values are `T`.
    ///
    /// # Errors
    /// What mmap(2) returns: `EINVAL` when the map is not mmapable or smaller.
    pub fn new(map: BorrowedFd<'_>, entries: u32) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(entries as usize * size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new shared mapping of a file descriptor; nothing of this process is replaced.
        let base = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map.as_fd(),
                0,
            )?
        };
        Ok(Self {
            base: base.cast(),
            entries,
            bytes,
        })
    }

    /// Number of entries.
    pub fn len(&self) -> u32 {
        self.entries
    }

    /// Whether there are no entries; never so.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn at(&self, index: u32) -> *mut T {
        assert!(index < self.entries, "entry {index} of a map of {}", self.entries);
        // SAFETY: inside the mapping, by the assertion.
        unsafe { self.base.as_ptr().add(index as usize) }
    }

    /// A copy of an entry.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len).
    pub fn read(&self, index: u32) -> T {
        // SAFETY: inside the mapping; T is any bytes.
        unsafe { self.at(index).read_volatile() }
    }

    /// Replaces an entry. For entries or moments that no program writes.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    pub fn write(&self, index: u32, value: T) {
        // SAFETY: inside the mapping.
        unsafe { self.at(index).write_volatile(value) }
    }

    /// The aligned word at byte `offset` of an entry (use `offset_of!`).
    ///
    /// # Panics
    /// When the index or the offset is outside, or the offset not a multiple of 8.
    pub fn word(&self, index: u32, offset: usize) -> &AtomicU64 {
        assert!(
            offset + 8 <= size_of::<T>() && offset.is_multiple_of(8),
            "word at byte {offset}"
        );
        // SAFETY: inside the mapping, aligned (the mapping is page-aligned and T a multiple of 8), alive with self.
        unsafe { AtomicU64::from_ptr(self.at(index).cast::<u64>().add(offset / 8)) }
    }

    /// The first word of an entry, without the cost of checks in a scan.
    pub fn first_word(&self, index: u32) -> u64 {
        self.word(index, 0).load(Ordering::Acquire)
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, of that size.
        let _ = unsafe { munmap(self.base.cast(), self.bytes.get()) };
    }
}

/// CPUs that may ever come up: how many values a per-CPU element has (`/sys/devices/system/cpu/possible`).
///
/// # Errors
/// When the file cannot be read or understood.
pub fn possible_cpus() -> io::Result<usize> {
    cpus("possible")
}

/// CPUs that are up now.
///
/// # Errors
/// As [`possible_cpus`].
pub fn online_cpus() -> io::Result<usize> {
    cpus("online")
}

fn cpus(which: &str) -> io::Result<usize> {
    let text = fs::read_to_string(format!("/sys/devices/system/cpu/{which}"))?;
    parse_cpu_list(text.trim()).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
}

fn parse_cpu_list(text: &str) -> Option<usize> {
    text.split(',').try_fold(0, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + last.checked_sub(first)? + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        assert_eq!(parse_cpu_list("0-1"), Some(2));
        assert_eq!(parse_cpu_list("0"), Some(1));
        assert_eq!(parse_cpu_list("0-3,8-11"), Some(8));
        assert_eq!(parse_cpu_list("3-1"), None);
        assert_eq!(parse_cpu_list(""), None);
    }
}
