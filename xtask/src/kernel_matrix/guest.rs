//! One boot of a kernel under QEMU, with the host's files as its root.
//!
//! It promises: no disk image, no network device, nothing of the host written but the share, an end within the limit.
//! QEMU interprets (TCG): nested virtualisation is not there on most CI machines, and not needed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::debian::Kernel;
use crate::{
    bed::signal,
    command::{command, find, output, run},
};

/// What the first process needs before it has the host's files; the rest is loaded from there by the kernel itself.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_rng", "9pnet_virtio", "9p", "overlay", "af_packet"];

const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr tsc=reliable \
                            random.trust_cpu=on nowatchdog";

/// The first file system of the guest, as `<dir>/initramfs.gz`: busybox, the modules of [`MODULES`] and `init`.
pub(super) fn initramfs(kernel: &Kernel, init: &str, dir: &Path) -> Result<PathBuf> {
    let root = dir.join("initramfs");
    let _ = fs::remove_dir_all(&root);
    for directory in ["bin", "modules"] {
        fs::create_dir_all(root.join(directory)).with_context(|| format!("cannot make {}", root.display()))?;
    }
    let busybox = find("busybox").context("busybox has just been installed and is not in PATH")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh"))?;
    let mut order = String::new();
    for module in module_files(kernel)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let plain = name.trim_end_matches(".xz");
        let target = root.join("modules").join(plain);
        if plain == name {
            fs::copy(&module, &target).with_context(|| format!("cannot copy {}", module.display()))?;
        } else {
            run(command("xz").arg("-dc").arg(&module).stdout(File::create(&target)?))?;
        }
        order += &format!("{plain}\n");
    }
    fs::write(root.join("modules/order"), order)?;
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let image = dir.join("initramfs.gz");
    let pack = "cd \"$1\" && find . | cpio -o -H newc --quiet | gzip -1 >\"$2\"";
    output(command("sh").args(["-c", pack, "sh"]).args([&root, &image]))?;
    Ok(image)
}

/// The files of [`MODULES`] and what they need, in the order in which they are loaded.
fn module_files(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
    for module in MODULES {
        let mut modprobe = command("modprobe");
        modprobe
            .arg("-d")
            .arg(&kernel.root)
            .args(["-S", &kernel.release, "--show-depends", module]);
        for line in output(&mut modprobe)?.lines() {
            // The others are built in.
            let file = line.trim().strip_prefix("insmod ").map(str::trim);
            files.extend(file.filter(|file| seen.insert((*file).to_owned())).map(PathBuf::from));
        }
    }
    Ok(files)
}

/// Boots and waits until the guest switches itself off; `progress` is called now and then.
pub(super) fn boot(
    kernel: &Kernel,
    initramfs: &Path,
    share: &Path,
    limit: Duration,
    mut progress: impl FnMut(),
) -> Result<()> {
    let console = share.join("console.log");
    let mut qemu = qemu(kernel, initramfs, share);
    qemu.stdin(Stdio::null())
        .stdout(File::create(&console)?)
        .stderr(File::create(share.join("qemu.log"))?);
    let mut guest = Guest(qemu.spawn().context("cannot run qemu-system-x86_64")?);
    let status = signal::wait_for("the guest switches itself off", limit, || {
        progress();
        Ok(guest.0.try_wait()?)
    });
    let status = status.with_context(|| format!("the console's output is in {}", console.display()))?;
    if !status.success() {
        let said = fs::read_to_string(share.join("qemu.log")).unwrap_or_default();
        bail!("qemu-system-x86_64 failed ({status}): {}", said.trim());
    }
    progress();
    Ok(())
}

fn qemu(kernel: &Kernel, initramfs: &Path, share: &Path) -> Command {
    let mut qemu = command("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max"]);
    qemu.args(["-smp", "2", "-m", "2048", "-nodefaults", "-no-user-config"]);
    qemu.args(["-display", "none", "-no-reboot", "-net", "none", "-serial", "stdio"]);
    qemu.args(["-append", COMMAND_LINE, "-device", "virtio-rng-pci"]);
    qemu.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(initramfs);
    qemu.args([
        "-fsdev",
        "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
    ]);
    qemu.args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot"]);
    qemu.arg("-fsdev")
        .arg(format!("local,id=share,path={},security_model=none", share.display()));
    qemu.args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]);
    qemu
}

/// A running QEMU, ended with its owner.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself; a child that was not waited for keeps its pid.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
