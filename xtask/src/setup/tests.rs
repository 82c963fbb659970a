//! Which toolchain is chosen, of made-up ones, and which systems count as Debian.

use std::{fs, path::Path};

use super::{apiserver, apt::is_debian};
use crate::build_ebpf::choose;

const CORE: &str = "lib/rustlib/src/rust/library/Cargo.lock";
const PREBUILT: &str = "lib/rustlib/bpfel-unknown-none/lib/libcore.rlib";
const NIGHTLY: &str = "rustup/nightly-x86_64-unknown-linux-gnu";
const OLD_NIGHTLY: &str = "rustup/nightly-2026-01-31-x86_64-unknown-linux-gnu";
const STABLE: &str = "rustup/stable-x86_64-unknown-linux-gnu";

/// A toolchain under `root` that has these files besides rustc and cargo.
fn toolchain(root: &Path, name: &str, has: &[&str]) {
    for file in ["bin/rustc", "bin/cargo"].iter().chain(has) {
        let file = root.join(name).join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }
}

/// The choice under `root`: its directory there, and whether `core` must be built.
fn chosen(root: &Path, set: Option<&str>) -> Option<(String, bool)> {
    let toolchain = choose(set, &root.join("rustup"), &root.join("usr"), "little")?;
    let name = toolchain.sysroot.strip_prefix(root).unwrap();
    Some((name.display().to_string(), toolchain.build_std))
}

#[test]
fn a_nightly_with_rust_src_stands_before_the_system() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    assert_eq!(chosen(root, None), None);
    toolchain(root, "usr", &[PREBUILT]);
    toolchain(root, NIGHTLY, &[]);
    toolchain(root, STABLE, &[]);
    assert_eq!(chosen(root, None), Some(("usr".into(), false)), "no source, not chosen");
    toolchain(root, STABLE, &[CORE]);
    assert_eq!(chosen(root, None), Some((STABLE.into(), true)));
    toolchain(root, NIGHTLY, &[CORE]);
    assert_eq!(chosen(root, None), Some((NIGHTLY.into(), true)));
    // A `core` that is there already need not be built.
    toolchain(root, NIGHTLY, &[PREBUILT]);
    assert_eq!(chosen(root, None), Some((NIGHTLY.into(), false)));
}

#[test]
fn of_two_nightlies_the_one_with_rust_src_is_chosen() {
    let root = tempfile::tempdir().unwrap();
    toolchain(root.path(), OLD_NIGHTLY, &[]);
    toolchain(root.path(), NIGHTLY, &[CORE]);
    assert_eq!(chosen(root.path(), None), Some((NIGHTLY.into(), true)));
}

#[test]
fn what_the_person_sets_is_taken_or_nothing() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    toolchain(root, "usr", &[PREBUILT]);
    toolchain(root, NIGHTLY, &[CORE]);
    toolchain(root, STABLE, &[]);
    assert_eq!(chosen(root, Some("nightly")), Some((NIGHTLY.into(), true)));
    assert_eq!(
        chosen(root, Some("stable")),
        None,
        "it does not fit, and no other is taken for it"
    );
    let system = root.join("usr");
    assert_eq!(chosen(root, system.to_str()), Some(("usr".into(), false)));
}

#[test]
fn a_toolchain_for_the_other_byte_order_does_not_fit() {
    let root = tempfile::tempdir().unwrap();
    toolchain(root.path(), "usr", &["lib/rustlib/bpfeb-unknown-none/lib/libcore.rlib"]);
    assert_eq!(chosen(root.path(), None), None);
}

/// First lines of os-release(5) files, as the distributions ship them.
#[test]
fn only_debian_12_and_newer_is_debian() {
    let bookworm = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
    assert!(is_debian(bookworm));
    assert!(is_debian("ID=debian\nVERSION_ID=13\n"));
    // Testing and unstable have no number.
    assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux forky/sid\"\nID=debian\n"));
    assert!(!is_debian("ID=debian\nVERSION_ID=\"11\"\n"));
    assert!(!is_debian("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n"));
    assert!(!is_debian("ID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"9.4\"\n"));
    assert!(!is_debian(""));
}

#[test]
fn an_old_go_is_told_from_a_new_one() {
    for (told, enough) in [
        ("go version go1.19.8 linux/amd64", false),
        ("go version go1.25.9 linux/amd64", false),
        ("go version go1.26.0 linux/amd64", true),
        ("go version go1.26rc1 linux/amd64", true),
        ("go version go1.30 linux/arm64", true),
        ("go: not found", false),
    ] {
        assert_eq!(apiserver::is_new_enough(told), enough, "{told}");
    }
}

#[test]
fn the_kube_apiserver_is_of_the_version_that_go_mod_pins() {
    let pinned = include_str!("../../kube/go.mod");
    let line = format!("k8s.io/kubernetes v{}", apiserver::VERSION);
    assert!(pinned.lines().any(|pinned| pinned.contains(&line)), "{line}");
}
