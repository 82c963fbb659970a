//! Debian's kernels, fetched by apt into the tool directory and never installed.
//!
//! It promises: apt's lists and caches of its own, so that the machine's sources and packages stay as they are; no
//! network once a kernel is there. It does not look for a newer one: remove the directory to have it fetched again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    build_ebpf::tools_dir,
    command::{command, output},
};

/// A kernel of the matrix.
pub(super) struct Source {
    /// The series, as a person names it.
    pub(super) name: &'static str,
    /// Where Debian has it, as apt's sources.list has it behind the signature.
    sources: &'static [&'static str],
    /// It has TCX (6.6). Without, tests of what only TCX has are left out.
    pub(super) tcx: bool,
}

/// The generic flavour: the cloud flavour has no 9p, which the guest's root comes by.
const META_PACKAGE: &str = "linux-image-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What the matrix runs by default, oldest first.
pub(super) const KERNELS: &[Source] = &[
    Source {
        name: "6.1",
        sources: &[
            "http://deb.debian.org/debian bookworm main",
            "http://deb.debian.org/debian-security bookworm-security main",
        ],
        tcx: false,
    },
    Source {
        name: "6.12",
        sources: &["http://deb.debian.org/debian bookworm-backports main"],
        tcx: true,
    },
];

/// An unpacked kernel.
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    /// Holds `boot` and `lib/modules`, as the package does.
    pub(super) root: PathBuf,
}

impl Kernel {
    /// The compressed kernel.
    pub(super) fn image(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Its modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }
}

/// The kernel of `source`, fetched and unpacked when it is not there yet.
pub(super) fn ensure(source: &Source) -> Result<Kernel> {
    let dir = tools_dir().join("kernels").join(source.name);
    let root = dir.join("root");
    if !root.exists() {
        let result = fetch(source, &dir, &root);
        result.with_context(|| format!("the kernel {} could not be had; check the network", source.name))?;
    }
    let releases = fs::read_dir(root.join("lib/modules")).with_context(|| format!("look at {}", root.display()))?;
    let releases: Vec<String> = releases
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let [release] = releases.as_slice() else {
        bail!("{} holds {} kernels; remove it", root.display(), releases.len());
    };
    Ok(Kernel {
        release: release.clone(),
        root,
    })
}

fn fetch(source: &Source, dir: &Path, root: &Path) -> Result<()> {
    let cache = dir.join("cache");
    download(source, dir, &cache)?;
    let deb = fs::read_dir(&cache)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get put no package into {}", cache.display()))?;
    // Under another name until it is whole.
    let half = dir.join("unpacking");
    let _ = fs::remove_dir_all(&half);
    output(command("dpkg-deb").arg("-x").args([&deb, &half]))?;
    // Where /lib is a link into /usr, packages may come with the one or the other.
    if half.join("usr/lib/modules").is_dir() && !half.join("lib").exists() {
        fs::rename(half.join("usr/lib"), half.join("lib"))?;
    }
    for release in fs::read_dir(half.join("lib/modules"))?.flatten() {
        output(command("depmod").arg("-b").arg(&half).arg(release.file_name()))?;
    }
    fs::rename(&half, root)?;
    // Best effort: what is left there only costs disk.
    let _ = (fs::remove_dir_all(dir.join("lists")), fs::remove_dir_all(&cache));
    Ok(())
}

/// The package into `cache`, which is emptied first: a package of an earlier try is not to be met again.
fn download(source: &Source, dir: &Path, cache: &Path) -> Result<()> {
    let (lists, list) = (dir.join("lists"), dir.join("sources.list"));
    let _ = fs::remove_dir_all(cache);
    for directory in [lists.join("partial"), cache.join("archives/partial")] {
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let lines = source
        .sources
        .iter()
        .map(|source| format!("deb [signed-by={KEYRING}] {source}\n"));
    fs::write(&list, lines.collect::<String>())?;
    let apt = |program: &str, words: &[&str]| {
        let mut apt = command(program);
        apt.current_dir(cache);
        for (option, value) in [("sourcelist", &list), ("sourceparts", &dir.join("none"))] {
            apt.arg(format!("-o=Dir::Etc::{option}={}", value.display()));
        }
        apt.arg(format!("-o=Dir::State::lists={}", lists.display()))
            .arg(format!("-o=Dir::Cache={}", cache.display()));
        // apt's own user may not write here, and the checks of signatures do not depend on it.
        apt.args(["-q=2", "-o=Acquire::Languages=none", "-o=APT::Sandbox::User="]);
        output(apt.args(words))
    };
    apt("apt-get", &["update"])?;
    let package = depends(&apt("apt-cache", &["depends", META_PACKAGE])?)?;
    println!(
        "kernel-matrix: fetching {package} (the kernel {}, some 100 MB, once)",
        source.name
    );
    apt("apt-get", &["download", &package])?;
    Ok(())
}

/// The package that the meta package stands for, of `apt-cache depends`.
fn depends(text: &str) -> Result<String> {
    let found = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = found.with_context(|| format!("{META_PACKAGE} depends on nothing: {text:?}"))?;
    Ok(package.trim().to_owned())
}

#[cfg(test)]
#[test]
fn the_package_behind_the_meta_package_is_what_it_depends_on() {
    let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
    let package = depends(text).map_err(|error| error.to_string());
    assert_eq!(package, Ok("linux-image-6.1.0-56-amd64".into()));
    assert!(depends("linux-image-amd64\n").is_err());
}
