//! Whether this node can run mcstat at all, told before anything is touched.
//!
//! Gathering is I/O, judging is pure, so that every refusal is tested without the machine that deserves it.

use std::{fs, path::Path};

use thiserror::Error;

/// What the judgement rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where the maps are to be pinned.
    pub bpffs: String,
    /// Whether that is a BPF file system.
    pub is_bpffs: bool,
    /// Effective capabilities of this process (`CapEff`).
    pub capabilities: u64,
    /// Whether the kernel has BTF.
    pub btf: bool,
    /// `uname -r`.
    pub release: String,
}

/// Why this node cannot run mcstat; every message names the next step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PreflightError {
    #[error("{path} is not a BPF file system; run `mount -t bpf bpf {path}` or name another by `bpffs`")]
    NoBpffs { path: String },
    #[error("missing {missing}; run as root, or grant CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (CAP_SYS_ADMIN will do)")]
    NoCapability { missing: String },
    #[error("kernel {release} has no BTF (/sys/kernel/btf/vmlinux); use a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf { release: String },
    #[error("kernel {release} is older than 6.1, the oldest that mcstat runs on; upgrade the node's kernel")]
    TooOld { release: String },
    #[error("cannot read {path}: {error}; mcstat needs /proc and /sys")]
    Unreadable { path: String, error: String },
}

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
/// BPF_FS_MAGIC, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

impl Facts {
    /// Reads the facts of this node.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn gather(bpffs: &Path) -> Result<Self, PreflightError> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|error| PreflightError::Unreadable {
                path: path.to_owned(),
                error: error.to_string(),
            })
        };
        let status = read("/proc/self/status")?;
        let capabilities = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0);
        let is_bpffs = nix::sys::statfs::statfs(bpffs).is_ok_and(|stat| stat.filesystem_type().0 == BPF_FS_MAGIC);
        Ok(Self {
            bpffs: bpffs.display().to_string(),
            is_bpffs,
            capabilities,
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            release: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }

    /// Whether mcstat can run.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn judge(&self) -> Result<(), PreflightError> {
        let has = |capability: u32| self.capabilities >> capability & 1 == 1;
        let privileged = has(CAP_SYS_ADMIN);
        let missing: Vec<_> = [
            ("CAP_BPF", CAP_BPF),
            ("CAP_PERFMON", CAP_PERFMON),
            ("CAP_NET_ADMIN", CAP_NET_ADMIN),
        ]
        .into_iter()
        .filter(|(_, number)| !(has(*number) || privileged && *number != CAP_NET_ADMIN))
        .map(|(name, _)| name)
        .collect();
        if !missing.is_empty() {
            return Err(PreflightError::NoCapability {
                missing: missing.join(", "),
            });
        }
        if version(&self.release) < (6, 1) {
            return Err(PreflightError::TooOld {
                release: self.release.clone(),
            });
        }
        if !self.btf {
            return Err(PreflightError::NoBtf {
                release: self.release.clone(),
            });
        }
        if !self.is_bpffs {
            return Err(PreflightError::NoBpffs {
                path: self.bpffs.clone(),
            });
        }
        Ok(())
    }
}

/// Major and minor of a kernel release; (0, 0) when it is not understood.
pub fn version(release: &str) -> (u32, u32) {
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Facts {
        Facts {
            bpffs: "/sys/fs/bpf".into(),
            is_bpffs: true,
            capabilities: 1 << CAP_BPF | 1 << CAP_PERFMON | 1 << CAP_NET_ADMIN,
            btf: true,
            release: "6.1.0-56-amd64".into(),
        }
    }

    #[test]
    fn a_fit_node_passes() {
        assert_eq!(fit().judge(), Ok(()));
        assert_eq!(
            Facts {
                capabilities: 1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN,
                ..fit()
            }
            .judge(),
            Ok(())
        );
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let no_bpffs = Facts {
            is_bpffs: false,
            ..fit()
        }
        .judge()
        .unwrap_err()
        .to_string();
        assert!(no_bpffs.contains("mount -t bpf bpf /sys/fs/bpf"), "{no_bpffs}");
        let no_capability = Facts {
            capabilities: 1 << CAP_NET_ADMIN,
            ..fit()
        }
        .judge()
        .unwrap_err()
        .to_string();
        assert!(
            no_capability.starts_with("missing CAP_BPF, CAP_PERFMON;"),
            "{no_capability}"
        );
        let no_net_admin = Facts {
            capabilities: 1 << CAP_SYS_ADMIN,
            ..fit()
        }
        .judge()
        .unwrap_err()
        .to_string();
        assert!(no_net_admin.starts_with("missing CAP_NET_ADMIN;"), "{no_net_admin}");
        assert!(matches!(
            Facts { btf: false, ..fit() }.judge(),
            Err(PreflightError::NoBtf { .. })
        ));
        for (release, fits) in [
            ("5.15.0", false),
            ("6.0.19", false),
            ("6.1.0", true),
            ("7.2-rc1", true),
            ("x", false),
        ] {
            assert_eq!(
                Facts {
                    release: release.into(),
                    ..fit()
                }
                .judge()
                .is_ok(),
                fits,
                "{release}"
            );
        }
    }
}
