//! The maps of one ABI: loaded with the object, re-used when they are pinned and fit, checked before they are trusted.
//!
//! aya does not check a pinned map that it re-uses, so this does: type, key and value size, number of entries, and the
//! ABI that whoever created them wrote down.

use std::{
    fs,
    mem::offset_of,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapInfo, MapType},
};
use mcstat_common::{
    abi::{
        Carry, Counter, DENIED_ENTRIES, Denied, DeniedKey, EventCounts, PORT_ENTRIES, Port, PortBook, PortStats,
        ReportWalk, RuleCounter, RuleName, Settings, Slot, VANISHED_ENTRIES, Vanished, WAYS,
    },
    policy::{PolicyKey, PolicyValue, PortList},
};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    KernelError,
    kept::Kept,
    layout::{Layout, Limits, Sizes},
    policy::Policies,
    sys::{self, Mapped},
};

/// The object that build.rs made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mcstat.bpf.o"));

/// Where and how to load.
#[derive(Debug, Clone)]
pub struct Options {
    /// The BPF file system.
    pub bpffs: PathBuf,
    /// ABI version of the pins; [`mcstat_common::abi::ABI_VERSION`] but in upgrade tests.
    pub abi: u32,
    /// What the operator allows.
    pub limits: Limits,
    /// Event rate of one port: messages a second, and burst.
    pub events: (u32, u32),
    /// For the race test alone: iterations between finding a slot and counting in it.
    pub test_delay: u32,
}

impl Options {
    /// `<bpffs>/mcstat/v<ABI>`.
    pub fn pins(&self) -> PathBuf {
        pins(&self.bpffs, self.abi)
    }
}

/// `<bpffs>/mcstat/v<abi>`.
pub fn pins(bpffs: &Path, abi: u32) -> PathBuf {
    bpffs.join("mcstat").join(format!("v{abi}"))
}

/// The maps in use. Shared by the tick (reads) and the ports thread (frees).
#[derive(Debug)]
pub struct Maps {
    /// Possible CPUs.
    pub cpus: usize,
    /// The slot index.
    pub slots: Mapped<Slot>,
    /// What belongs to the slots beside their counters.
    pub carried: Mapped<Carry>,
    /// The counted ports.
    pub ports: Mapped<Port>,
    /// Off-path counters of the programs.
    pub port_stats: Mapped<PortStats>,
    /// The agent's additions to them.
    pub port_carried: Mapped<PortStats>,
    /// What the programs know of the node.
    pub settings: Mapped<Settings>,
    /// What the ledger must not forget.
    pub kept: Kept,
    /// Lists of rules with ports.
    pub policy_ports: Mapped<PortList>,
    /// Which rule each slot of `rules` is.
    pub rule_names: Mapped<RuleName>,
    /// How many entries the trie of policy sets can have.
    pub trie_entries: u32,
    counters: MapData,
    event_counts: MapData,
    trie: MapData,
    rules: MapData,
    fold: Mutex<()>,
    policies: Mutex<Policies>,
}

impl Maps {
    /// The per-CPU counters.
    pub fn counters(&self) -> BorrowedFd<'_> {
        self.counters.fd().as_fd()
    }

    /// The per-CPU event counts.
    pub fn event_counts(&self) -> BorrowedFd<'_> {
        self.event_counts.fd().as_fd()
    }

    /// The trie of policy sets.
    pub(super) fn trie(&self) -> BorrowedFd<'_> {
        self.trie.fd().as_fd()
    }

    /// The per-CPU counters of rules.
    pub(super) fn rules(&self) -> BorrowedFd<'_> {
        self.rules.fd().as_fd()
    }

    /// What is known of the policy sets in the maps; held while ports get their sets and while rules are retired or read.
    pub(super) fn policies(&self) -> MutexGuard<'_, Policies> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while totals move from a slot to its port, and while a reading is taken: no total is seen twice or not at
    /// all.
    pub fn fold_lock(&self) -> MutexGuard<'_, ()> {
        self.fold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A word of the settings.
    pub fn setting(&self, offset: usize) -> &AtomicU64 {
        self.settings.word(0, offset)
    }

    /// How many slots of the table are in use.
    pub fn slots_used(&self) -> &AtomicU64 {
        self.setting(offset_of!(Settings, slots_used))
    }
}

/// What [`load`] made.
pub struct Loaded {
    /// The programs, not yet loaded into the kernel, and the ring buffer.
    pub ebpf: Ebpf,
    /// The maps.
    pub maps: Maps,
    /// Whether the maps were created just now.
    pub fresh: bool,
    /// How large they are.
    pub layout: Layout,
}

/// Loads the object with its maps: pinned ones where they fit, new ones pinned where there are none.
///
/// # Errors
/// [`KernelError`]; nothing that was pinned before is changed or removed.
pub fn load(options: &Options) -> Result<Loaded, KernelError> {
    if OBJECT.is_empty() {
        return Err(KernelError::NoObject);
    }
    sys::raise_memlock();
    let cpus = sys::possible_cpus().map_err(|error| KernelError::System {
        call: "possible CPUs",
        error,
    })?;
    let directory = options.pins();
    fs::create_dir_all(directory.join("links")).map_err(|error| KernelError::Pins {
        path: directory.clone(),
        error: error.to_string(),
    })?;
    let wanted = Layout::new(&options.limits, cpus)?;
    let known = existing(&directory, options.abi)?;
    let sizes = known.as_ref().map_or(wanted.sizes, |known| known.sizes);
    if sizes != wanted.sizes {
        tracing::warn!(
            ?sizes,
            wanted = ?wanted.sizes,
            "the pinned maps keep their size; `mcstat` with no pins resizes them"
        );
    }
    let seed = known.as_ref().map_or_else(new_seed, |known| Ok(known.seed))?;
    check_pins(&directory, &expected(sizes))?;
    let mut ebpf = load_object(options, &directory, sizes, seed)?;
    let maps = take_maps(&mut ebpf, cpus, sizes)?;
    let fresh = known.is_none();
    initialise(&maps, options, fresh, seed);
    Ok(Loaded {
        ebpf,
        maps,
        fresh,
        layout: Layout {
            sizes,
            total_bytes: sizes.bytes(cpus),
        },
    })
}

/// Writes what the configuration decides, and into new maps what stays for their life.
fn initialise(maps: &Maps, options: &Options, fresh: bool, seed: u64) {
    update_settings(maps, |settings| {
        if fresh {
            settings.seed = seed;
            settings.next_port_id = settings.next_port_id.max(1);
        }
        settings.slots_per_port = options.limits.slots_per_port;
        settings.half_table = maps.slots.len() / 2;
    });
    // Last: a crash before this leaves maps that the next start takes for new ones.
    update_settings(maps, |settings| settings.abi = options.abi);
}

/// Changes settings in place: only words that change are written, since the programs write others (the clock, the
/// number of used slots).
pub fn update_settings(maps: &Maps, change: impl FnOnce(&mut Settings)) {
    let before = maps.settings.read(0);
    let mut after = before;
    change(&mut after);
    let words = before
        .as_bytes()
        .chunks_exact(8)
        .zip(after.as_bytes().chunks_exact(8))
        .enumerate();
    for (at, (old, new)) in words {
        if old != new
            && let Ok(new) = new.try_into()
        {
            maps.setting(at * 8).store(u64::from_ne_bytes(new), Ordering::Release);
        }
    }
}

/// What pinned maps of this ABI dictate.
struct Existing {
    sizes: Sizes,
    seed: u64,
}

fn existing(directory: &Path, abi: u32) -> Result<Option<Existing>, KernelError> {
    let path = directory.join("settings");
    if !path.exists() {
        return Ok(None);
    }
    check_pins(directory, &expected(Sizes::default()))?;
    let data = MapData::from_pin(&path)?;
    let settings = Mapped::<Settings>::new(data.fd().as_fd(), 1)
        .map_err(|error| KernelError::System {
            call: "mmap of settings",
            error,
        })?
        .read(0);
    if settings.abi == 0 {
        return Ok(None);
    }
    if settings.abi != abi {
        return Err(KernelError::UnknownAbi {
            path: directory.to_owned(),
            found: settings.abi,
            known: abi,
        });
    }
    Ok(Some(Existing {
        sizes: pinned_sizes(directory)?,
        seed: settings.seed,
    }))
}

fn pinned_sizes(directory: &Path) -> Result<Sizes, KernelError> {
    let entries =
        |name: &str| -> Result<u32, KernelError> { Ok(MapInfo::from_pin(directory.join(name))?.max_entries()) };
    Ok(Sizes {
        slots: entries("slots")?,
        ring_bytes: entries("events")?,
        rules: entries("rules")?,
        policy_prefixes: entries("policies")?,
    })
}

const DENIED: &str = "denied";

/// Name, type, key size, value size, entries; 0 entries = not checked.
type Expected = (&'static str, MapType, usize, usize, u32);

fn expected(sizes: Sizes) -> [Expected; 17] {
    let Sizes {
        slots,
        ring_bytes,
        rules,
        policy_prefixes,
    } = sizes;
    let stats = size_of::<PortStats>();
    let (key, value) = (size_of::<PolicyKey>(), size_of::<PolicyValue>());
    let denial = size_of::<DeniedKey>();
    [
        ("slots", MapType::Array, 4, size_of::<Slot>(), slots),
        ("counters", MapType::PerCpuArray, 4, size_of::<Counter>(), slots),
        ("carried", MapType::Array, 4, size_of::<Carry>(), slots),
        ("ports", MapType::Array, 4, size_of::<Port>(), PORT_ENTRIES),
        ("port_stats", MapType::Array, 4, stats, 2 * PORT_ENTRIES),
        ("port_carried", MapType::Array, 4, stats, 2 * PORT_ENTRIES),
        ("books", MapType::Hash, 4, size_of::<PortBook>(), PORT_ENTRIES),
        ("vanished", MapType::Hash, 4, size_of::<Vanished>(), VANISHED_ENTRIES),
        (DENIED, MapType::Hash, denial, size_of::<Denied>(), DENIED_ENTRIES),
        ("settings", MapType::Array, 4, size_of::<Settings>(), 1),
        ("policies", MapType::LpmTrie, key, value, policy_prefixes),
        ("policy_ports", MapType::Array, 4, size_of::<PortList>(), rules),
        ("rules", MapType::PerCpuArray, 4, size_of::<RuleCounter>(), rules),
        ("rule_names", MapType::Array, 4, size_of::<RuleName>(), rules),
        ("report_walk", MapType::PerCpuArray, 4, size_of::<ReportWalk>(), 1),
        ("event_counts", MapType::PerCpuArray, 4, size_of::<EventCounts>(), 1),
        ("events", MapType::RingBuf, 0, 0, ring_bytes),
    ]
}

fn check_pins(directory: &Path, expected: &[Expected]) -> Result<(), KernelError> {
    for (name, kind, key, value, entries) in expected {
        let path = directory.join(name);
        if !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path)?;
        let found = (
            info.map_type()?,
            info.key_size() as usize,
            info.value_size() as usize,
            info.max_entries(),
        );
        let fits = found.0 == *kind && found.1 == *key && found.2 == *value && (*entries == 0 || found.3 == *entries);
        if !fits {
            return Err(KernelError::ForeignMap {
                path,
                found: format!(
                    "{:?}, key {} B, value {} B, {} entries",
                    found.0, found.1, found.2, found.3
                ),
                wanted: format!("{kind:?}, key {key} B, value {value} B, {entries} entries"),
            });
        }
    }
    Ok(())
}

fn new_seed() -> Result<u64, KernelError> {
    let mut bytes = [0; 8];
    std::io::Read::read_exact(
        &mut fs::File::open("/dev/urandom").map_err(|error| KernelError::System {
            call: "/dev/urandom",
            error,
        })?,
        &mut bytes,
    )
    .map_err(|error| KernelError::System {
        call: "/dev/urandom",
        error,
    })?;
    Ok(u64::from_ne_bytes(bytes))
}

fn load_object(options: &Options, directory: &Path, sizes: Sizes, seed: u64) -> Result<Ebpf, KernelError> {
    let sets = sizes.slots / WAYS;
    let ring_half = u64::from(sizes.ring_bytes) / 2;
    let mut loader = EbpfLoader::new();
    loader.override_global("SETS", &sets, true);
    loader.override_global("SEED", &seed, true);
    loader.override_global("RING_HALF", &ring_half, true);
    loader.override_global("TEST_DELAY", &options.test_delay, true);
    for (name, _, _, _, entries) in expected(sizes) {
        loader.map_max_entries(name, entries);
        loader.map_pin_path(name, directory.join(name));
    }
    Ok(loader.load(OBJECT)?)
}

fn take_maps(ebpf: &mut Ebpf, cpus: usize, sizes: Sizes) -> Result<Maps, KernelError> {
    let mut take = |name: &'static str| match ebpf.take_map(name) {
        Some(Map::PerCpuArray(data) | Map::LpmTrie(data)) => Ok(data),
        _ => Err(KernelError::MissingMap { name }),
    };
    let (counters, event_counts) = (take("counters")?, take("event_counts")?);
    let (trie, rules) = (take("policies")?, take("rules")?);
    let mut take = |name: &'static str| match ebpf.take_map(name) {
        Some(Map::HashMap(data)) => Ok(data),
        _ => Err(KernelError::MissingMap { name }),
    };
    let kept = Kept::new(take("books")?, take("vanished")?, Some(take(DENIED)?))?;
    let Sizes { slots, .. } = sizes;
    // The others stay with the object: its programs are loaded later and need their descriptors.
    let ebpf = &*ebpf;
    Ok(Maps {
        cpus,
        slots: mapped(ebpf, "slots", slots)?,
        carried: mapped(ebpf, "carried", slots)?,
        ports: mapped(ebpf, "ports", PORT_ENTRIES)?,
        port_stats: mapped(ebpf, "port_stats", 2 * PORT_ENTRIES)?,
        port_carried: mapped(ebpf, "port_carried", 2 * PORT_ENTRIES)?,
        settings: mapped(ebpf, "settings", 1)?,
        kept,
        policy_ports: mapped(ebpf, "policy_ports", sizes.rules)?,
        rule_names: mapped(ebpf, "rule_names", sizes.rules)?,
        trie_entries: sizes.policy_prefixes,
        counters,
        event_counts,
        trie,
        rules,
        fold: Mutex::new(()),
        policies: Mutex::default(),
    })
}

fn mapped<T: Copy + FromBytes + IntoBytes + Immutable>(
    ebpf: &Ebpf,
    name: &'static str,
    entries: u32,
) -> Result<Mapped<T>, KernelError> {
    let Some(Map::Array(data)) = ebpf.map(name) else {
        return Err(KernelError::MissingMap { name });
    };
    Mapped::new(data.fd().as_fd(), entries).map_err(|error| KernelError::System {
        call: "mmap of a map",
        error,
    })
}

/// Opens the maps of another ABI from their pins, to read them.
///
/// # Errors
/// [`KernelError`]; among them a pin that is not the map that mcstat put there.
pub fn open_pinned(directory: &Path) -> Result<Maps, KernelError> {
    check_pins(directory, &expected(Sizes::default()))?;
    let cpus = sys::possible_cpus().map_err(|error| KernelError::System {
        call: "possible CPUs",
        error,
    })?;
    let sizes = pinned_sizes(directory)?;
    let Sizes { slots, .. } = sizes;
    Ok(Maps {
        cpus,
        slots: mapped_pin(directory, "slots", slots)?,
        carried: mapped_pin(directory, "carried", slots)?,
        ports: mapped_pin(directory, "ports", PORT_ENTRIES)?,
        port_stats: mapped_pin(directory, "port_stats", 2 * PORT_ENTRIES)?,
        port_carried: mapped_pin(directory, "port_carried", 2 * PORT_ENTRIES)?,
        settings: mapped_pin(directory, "settings", 1)?,
        kept: Kept::new(
            MapData::from_pin(directory.join("books"))?,
            MapData::from_pin(directory.join("vanished"))?,
            later_pin(directory, DENIED)?,
        )?,
        policy_ports: mapped_pin(directory, "policy_ports", sizes.rules)?,
        rule_names: mapped_pin(directory, "rule_names", sizes.rules)?,
        trie_entries: sizes.policy_prefixes,
        counters: MapData::from_pin(directory.join("counters"))?,
        event_counts: MapData::from_pin(directory.join("event_counts"))?,
        trie: MapData::from_pin(directory.join("policies"))?,
        rules: MapData::from_pin(directory.join("rules"))?,
        fold: Mutex::new(()),
        policies: Mutex::default(),
    })
}

/// A map that the first maps of an ABI did not have.
fn later_pin(directory: &Path, name: &'static str) -> Result<Option<MapData>, KernelError> {
    let path = directory.join(name);
    path.exists()
        .then(|| MapData::from_pin(path))
        .transpose()
        .map_err(KernelError::from)
}

fn mapped_pin<T: Copy + FromBytes + IntoBytes + Immutable>(
    directory: &Path,
    name: &'static str,
    entries: u32,
) -> Result<Mapped<T>, KernelError> {
    let data = MapData::from_pin(directory.join(name))?;
    Mapped::new(data.fd().as_fd(), entries).map_err(|error| KernelError::System {
        call: "mmap of a map",
        error,
    })
}
