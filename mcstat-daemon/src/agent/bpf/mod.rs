//! The kernel side as the agent holds it: maps, programs, clock, ring buffer; open once, re-open after a restart.
//!
//! Promises: whatever moment the agent is killed at, the next [`Kernel::open`] finds every total and every start time
//! as they were, and counting has never stopped.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use aya::{
    EbpfError,
    maps::{Map, MapData, MapError, RingBuf},
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};
use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use thiserror::Error;

pub mod attach;
pub mod chain;
pub mod clock;
mod denied;
pub mod free;
pub mod kept;
pub mod layout;
pub mod maps;
pub mod policy;
pub mod preflight;
pub mod rcu;
pub mod read;
pub mod ring;
pub mod settle;
pub mod sys;
pub mod table;
pub mod upgrade;

use attach::{Hook, Programs};
use clock::Clock;
use layout::Layout;
use maps::{Maps, Options, update_settings};

/// Why the kernel side cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum KernelError {
    #[error("this binary holds no eBPF object; run `cargo xtask setup`, then build again")]
    NoObject,
    #[error(transparent)]
    Preflight(#[from] preflight::PreflightError),
    #[error(transparent)]
    Layout(#[from] layout::LayoutError),
    #[error("cannot use {path}: {error}; it must be a writable directory of a BPF file system")]
    Pins { path: PathBuf, error: String },
    #[error(
        "{path} holds maps of ABI {found}, this mcstat knows {known}; run the version that made them, or remove the directory (its totals are lost)"
    )]
    UnknownAbi { path: PathBuf, found: u32, known: u32 },
    #[error(
        "{path} is not the map that mcstat pins there: it is {found}, wanted {wanted}; move it away or remove it, nothing was changed"
    )]
    ForeignMap {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("the eBPF object has no map {name}; the binary is damaged, build it again")]
    MissingMap { name: &'static str },
    #[error("the eBPF object has no program {name}; the binary is damaged, build it again")]
    MissingProgram { name: String },
    #[error("another mcstat agent uses {path}; stop it first, or give this one another bpffs")]
    InUse { path: PathBuf },
    #[error("the clock of the kernel did not tick: {ticks} jiffies in {elapsed:?}")]
    NoTicks { ticks: u64, elapsed: Duration },
    #[error("{call}: {error}")]
    System { call: &'static str, error: io::Error },
    #[error("the eBPF object cannot be loaded: {}", chain(.0))]
    Object(#[from] EbpfError),
    #[error("map: {}", chain(.0))]
    Map(#[from] MapError),
    #[error("program: {}", chain(.0))]
    Program(#[from] ProgramError),
    #[error("link: {}", chain(.0))]
    Link(#[from] LinkError),
    #[error("pin: {}", chain(.0))]
    Pin(#[from] PinError),
}

/// A chain of causes in one line; aya's own messages leave the cause out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Everything of the kernel side.
pub struct Kernel {
    /// The maps; shared by the tick and the ports thread.
    pub maps: Arc<Maps>,
    /// The programs; the ports thread's.
    pub programs: Programs,
    /// The clock; the tick's.
    pub clock: ClockSource,
    /// IGMP and MLD messages; the tick's.
    pub ring: RingBuf<MapData>,
    /// How large the maps are.
    pub layout: Layout,
    /// Whether the maps were created just now.
    pub fresh: bool,
    /// Held while this agent lives: two would free each other's slots.
    pub lock: Flock<File>,
}

impl Kernel {
    /// Loads or re-opens everything, and finishes what a killed agent left half done.
    ///
    /// # Errors
    /// [`KernelError`]; what was pinned before stays as it was, and goes on counting.
    pub fn open(options: &Options, hook: Hook) -> Result<Self, KernelError> {
        Self::open_and_upgrade(options, hook, upgrade::KNOWN)
    }

    /// As [`open`](Self::open), taking over maps of the ABI versions in `known`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_and_upgrade(options: &Options, hook: Hook, known: &[u32]) -> Result<Self, KernelError> {
        preflight::Facts::gather(&options.bpffs)?.judge()?;
        let lock = lock(options)?;
        let mut loaded = maps::load(options)?;
        #[cfg(feature = "ebpf-log")]
        show_messages(&mut loaded.ebpf);
        let ring = match loaded.ebpf.take_map("events") {
            Some(Map::RingBuf(data)) => RingBuf::try_from(Map::RingBuf(data))?,
            _ => return Err(KernelError::MissingMap { name: "events" }),
        };
        let older = upgrade::find(options, known)
            .into_iter()
            .map(|abi| Ok((abi, upgrade::prepare(options, abi, &loaded.maps)?)))
            .collect::<Result<Vec<_>, KernelError>>()?;
        let mut programs = Programs::load(loaded.ebpf, &options.pins(), hook)?;
        let clock = ClockSource::new(&mut programs, &loaded.maps)?;
        set_event_rate(&loaded.maps, options.events);
        for (abi, old) in &older {
            upgrade::carry_over(options, *abi, old, &loaded.maps, &mut programs)?;
        }
        let recovered = free::recover(&loaded.maps).map_err(|error| KernelError::System {
            call: "finishing an interrupted fold",
            error,
        })?;
        if recovered > 0 {
            tracing::info!(
                slots = recovered,
                "finished freeing slots that an earlier run had begun"
            );
        }
        policy::recover(&loaded.maps).map_err(|error| KernelError::System {
            call: "listing the policy sets",
            error,
        })?;
        let known: Vec<u32> = table::entries(&loaded.maps).iter().map(|entry| entry.port.id).collect();
        let strays = programs.remove_strays(&known).map_err(|error| KernelError::System {
            call: "removing links of no port",
            error,
        })?;
        if strays > 0 {
            tracing::info!(
                links = strays,
                "took programs off interfaces that are no longer counted"
            );
        }
        let (maps, layout, fresh) = (Arc::new(loaded.maps), loaded.layout, loaded.fresh);
        Ok(Self {
            maps,
            programs,
            clock,
            ring,
            layout,
            fresh,
            lock,
        })
    }
}

/// Puts the programs' debug messages into the agent's own log, until the process ends.
#[cfg(feature = "ebpf-log")]
fn show_messages(ebpf: &mut aya::Ebpf) {
    const EVERY: Duration = Duration::from_millis(200);
    match aya_log::EbpfLogger::init(ebpf) {
        Ok(mut logger) => {
            thread::spawn(move || {
                loop {
                    logger.flush();
                    thread::sleep(EVERY);
                }
            });
        }
        Err(error) => tracing::warn!(%error, "the programs' debug messages cannot be shown"),
    }
}

/// Takes the directory of the pins for this process.
fn lock(options: &Options) -> Result<Flock<File>, KernelError> {
    let path = options.bpffs.join("mcstat");
    let unusable = |error: io::Error| KernelError::Pins {
        path: path.clone(),
        error: error.to_string(),
    };
    fs::create_dir_all(&path).map_err(unusable)?;
    let directory = File::open(&path).map_err(unusable)?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => KernelError::InUse { path: path.clone() },
        error => unusable(error.into()),
    })
}

/// Writes the token bucket in the clock's unit.
fn set_event_rate(maps: &Maps, (rate, burst): (u32, u32)) {
    update_settings(maps, |settings| {
        settings.event_cost = (256 * settings.hz).div_ceil(rate.max(1));
        settings.event_burst = settings.event_cost.saturating_mul(burst.max(1));
    });
}

/// Asks the kernel for its jiffies.
#[derive(Debug)]
pub struct ClockSource {
    program: OwnedFd,
}

/// A frame that is nothing to anybody: BPF_PROG_TEST_RUN wants at least an Ethernet header.
const EMPTY_FRAME: [u8; 64] = [0; 64];
/// How long HZ is measured: 10 ticks of the slowest rate.
const CALIBRATION: Duration = Duration::from_millis(100);

impl ClockSource {
    fn new(programs: &mut Programs, maps: &Maps) -> Result<Self, KernelError> {
        let fd = programs.program("mcstat_clock")?.fd()?.as_fd().try_clone_to_owned();
        let source = Self {
            program: fd.map_err(|error| KernelError::System { call: "dup", error })?,
        };
        if maps.settings.read(0).hz == 0 {
            source.calibrate(maps)?;
        }
        Ok(source)
    }

    /// Measures HZ and sets the anchor.
    fn calibrate(&self, maps: &Maps) -> Result<(), KernelError> {
        let first = self.jiffies(maps)?;
        let started = Instant::now();
        thread::sleep(CALIBRATION);
        let jiffies = self.jiffies(maps)?;
        let elapsed = started.elapsed();
        let ticks = jiffies.saturating_sub(first);
        let hz = clock::rate(ticks, elapsed).ok_or(KernelError::NoTicks { ticks, elapsed })?;
        let anchor = now();
        update_settings(maps, |settings| {
            settings.anchor_jiffies = jiffies;
            settings.anchor_ms = anchor.as_millisecond() as u64;
        });
        update_settings(maps, |settings| settings.hz = hz);
        Ok(())
    }

    /// Another handle on the same clock.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn try_clone(&self) -> Result<Self, KernelError> {
        let program = self
            .program
            .try_clone()
            .map_err(|error| KernelError::System { call: "dup", error })?;
        Ok(Self { program })
    }

    fn jiffies(&self, maps: &Maps) -> Result<u64, KernelError> {
        sys::test_run(self.program.as_fd(), &EMPTY_FRAME, 1).map_err(|error| KernelError::System {
            call: "running mcstat_clock",
            error,
        })?;
        Ok(maps.settings.read(0).clock_jiffies)
    }

    /// The clock now.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn read(&self, maps: &Maps) -> Result<Clock, KernelError> {
        let now_jiffies = self.jiffies(maps)?;
        let settings = maps.settings.read(0);
        let now = now();
        let anchor = Timestamp::from_millisecond(settings.anchor_ms as i64).unwrap_or(now);
        Ok(Clock {
            hz: settings.hz,
            anchor_jiffies: settings.anchor_jiffies,
            anchor,
            now_jiffies,
            now,
        })
    }
}

/// The time of day, in milliseconds: jiffies are no finer.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
