//! Waiting until every program that runs now has ended: an RCU grace period, some 10 ms, up to a second under load.
//!
//! Promises: what returns `Ok` has waited. Both ways rest on what the kernel does, not on a manual page that says so;
//! `tests/kernel_race.rs` holds each against a race that fails without it.

use std::{io, sync::OnceLock};

use super::sys::{self, MapOfMaps};

/// A way to wait.
#[derive(Debug)]
pub enum Wait {
    /// By membarrier(2).
    Membarrier,
    /// By replacing a map in a map.
    MapUpdate(MapOfMaps),
}

impl Wait {
    /// Chooses a way by waiting once: membarrier(2), unless it is refused or would do nothing, with one CPU online.
    ///
    /// # Errors
    /// What bpf(2) returns when the other way fails too.
    pub fn choose() -> io::Result<Self> {
        let refusal = match sys::online_cpus() {
            Ok(1) => "one CPU is online".to_owned(),
            _ => match sys::membarrier() {
                Ok(()) => {
                    tracing::info!("waiting for running programs by membarrier(2)");
                    return Ok(Self::Membarrier);
                }
                Err(error) => error.to_string(),
            },
        };
        let maps = MapOfMaps::new()?;
        maps.replace()?;
        tracing::info!(
            membarrier = refusal,
            "waiting for running programs by updates of a map of maps"
        );
        Ok(Self::MapUpdate(maps))
    }

    /// Waits.
    ///
    /// # Errors
    /// What the system call returns.
    pub fn wait(&self) -> io::Result<()> {
        match self {
            Self::Membarrier => sys::membarrier(),
            Self::MapUpdate(maps) => maps.replace(),
        }
    }
}

/// Waits, in the way that this process chose the first time.
///
/// # Errors
/// As [`Wait::choose`]; nothing is chosen then, and the next call tries again.
pub fn wait() -> io::Result<()> {
    static CHOSEN: OnceLock<Wait> = OnceLock::new();
    if let Some(chosen) = CHOSEN.get() {
        return chosen.wait();
    }
    let chosen = Wait::choose()?;
    // Another thread may have chosen meanwhile: either way this one has waited.
    CHOSEN.get_or_init(|| chosen);
    Ok(())
}
