//! A directory and what happens in it; [`Files::look`] is called by hand, so nothing waits.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn policy(name: &str, action: &str) -> String {
    format!(
        "---\napiVersion: crd.antrea.io/v1beta1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: mkt}}\nspec:\n  \
         priority: 1\n  appliedTo: [{{podSelector: {{}}}}]\n  egress:\n  - {{name: r, action: {action}, to: [{{ipBlock: \
         {{cidr: 225.1.1.1/32}}}}]}}\n"
    )
}

struct Directory {
    directory: TempDir,
    files: Files,
}

impl Directory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path().to_owned(), &[]);
        Self { directory, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        // A new file each time: another inode, whatever the clock of the file system.
        fs::write(self.path(".new"), text).unwrap();
        fs::rename(self.path(".new"), self.path(name)).unwrap();
    }

    fn look(&mut self) -> (Vec<String>, Vec<String>) {
        let found = self.files.look().unwrap();
        assert!(found.known);
        let objects = found
            .objects
            .iter()
            .map(|object| format!("{} {}", object.key, object.uid));
        let root = format!("{}/", self.directory.path().display());
        let failures = found
            .failures
            .iter()
            .map(|failure| failure.to_string().replace(&root, ""));
        (objects.collect(), failures.collect())
    }
}

const P: &str = "NetworkPolicy mkt/p file:NetworkPolicy/mkt/p";
const Q: &str = "NetworkPolicy mkt/q file:NetworkPolicy/mkt/q";

#[test]
fn files_are_read_in_the_order_of_their_names() {
    let mut directory = Directory::new();
    assert_eq!(directory.look(), (vec![], vec![]));
    directory.write("b.yml", &policy("p", "Drop"));
    directory.write("a.yaml", &policy("q", "Drop"));
    directory.write(
        "c.json",
        r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mkt", "uid": "7"}}"#,
    );
    directory.write("notes.txt", "not YAML: [");
    directory.write(".hidden.yaml", "not YAML: [");
    fs::create_dir(directory.path("directory.yaml")).unwrap();
    assert_eq!(
        directory.look(),
        (vec![Q.to_owned(), P.to_owned(), "Namespace mkt 7".to_owned()], vec![])
    );
}

#[test]
fn a_bad_document_leaves_the_last_good_state_of_its_file() {
    let mut directory = Directory::new();
    directory.write("a.yaml", &policy("p", "Drop"));
    directory.write("b.yaml", "kind: [");
    let (objects, failures) = directory.look();
    assert_eq!(
        objects,
        [P],
        "a file that never was good holds nothing, the other is used"
    );
    assert!(failures[0].starts_with("b.yaml, document 1, line "), "{failures:?}");
    let told = "; nothing in the file is used, since it has not been good yet";
    assert!(failures[0].ends_with(told), "{failures:?}");

    let both = policy("q", "Drop") + &policy("p", "Pass");
    directory.write("a.yaml", &both);
    directory.write("b.yaml", "");
    let refused = "a.yaml, document 2, line 11: NetworkPolicy mkt/p, rule r: multicast and IGMP know the actions Allow and \
                   Drop, not Pass; the file's last good state holds";
    for _ in 0..2 {
        assert_eq!(
            directory.look(),
            (vec![P.to_owned()], vec![refused.to_owned()]),
            "said as long as it holds"
        );
    }
    directory.write("a.yaml", &both.replace("Pass", "Allow"));
    assert_eq!(directory.look(), (vec![Q.to_owned(), P.to_owned()], vec![]));
    fs::remove_file(directory.path("a.yaml")).unwrap();
    assert_eq!(directory.look(), (vec![], vec![]));
}

#[test]
fn a_policy_that_comes_back_is_another_one() {
    let mut directory = Directory::new();
    directory.write("a.yaml", &policy("p", "Drop"));
    assert_eq!(directory.look().0, [P]);
    directory.write("a.yaml", &policy("p", "Allow"));
    assert_eq!(directory.look().0, [P], "a change keeps it");
    fs::rename(directory.path("a.yaml"), directory.path("b.yaml")).unwrap();
    assert_eq!(directory.look().0, [P], "so does another file");
    for again in 1..3 {
        directory.write("b.yaml", "");
        assert_eq!(directory.look().0, [""; 0]);
        directory.write("b.yaml", &policy("p", "Drop"));
        assert_eq!(directory.look().0, [format!("{P}#{again}")]);
    }
    // Another process: what the maps hold of it is still its own, the last one where there are several.
    let uid = P.rsplit_once(' ').unwrap().1;
    let earlier = [format!("{uid}#2").into(), uid.into(), "file:NetworkPolicy/mkt/q".into()];
    directory.files = Files::new(directory.directory.path().to_owned(), &earlier);
    directory.write("c.yaml", &policy("q", "Drop"));
    assert_eq!(directory.look().0, [format!("{P}#2"), Q.to_owned()]);
    directory.write("b.yaml", "");
    directory.look();
    directory.write("b.yaml", &policy("p", "Drop"));
    assert_eq!(directory.look().0, [format!("{P}#3"), Q.to_owned()]);
}

#[test]
fn what_two_files_say_is_taken_from_the_first() {
    let mut directory = Directory::new();
    directory.write("a.yaml", &policy("p", "Drop"));
    directory.write("b.yaml", &policy("p", "Allow"));
    let twice = "b.yaml: NetworkPolicy mkt/p is in a.yaml too, which counts";
    assert_eq!(directory.look(), (vec![P.to_owned()], vec![twice.to_owned()]));
}

/// A policy copied whole with another name: rules are told apart by the UID, so two of one would share their counters.
#[test]
fn policies_with_one_uid_are_no_two_policies() {
    let mut directory = Directory::new();
    let with_uid =
        |name: &str, uid: &str| policy(name, "Drop").replace("metadata: {", &format!("metadata: {{uid: {uid}, "));
    let (p, q) = ("NetworkPolicy mkt/p u".to_owned(), "NetworkPolicy mkt/q u");
    directory.write("a.yaml", &with_uid("p", "u"));
    directory.write("b.yaml", &(policy("r", "Drop") + &with_uid("q", "u")));
    let r = "NetworkPolicy mkt/r file:NetworkPolicy/mkt/r".to_owned();
    let twin = "b.yaml, document 2, line 11: NetworkPolicy mkt/q has the metadata.uid of NetworkPolicy mkt/p in a.yaml, \
                which counts; take it out of one of them";
    for _ in 0..2 {
        assert_eq!(directory.look(), (vec![p.clone(), r.clone()], vec![twin.to_owned()]));
    }
    directory.write("b.yaml", &with_uid("q", "v"));
    assert_eq!(directory.look(), (vec![p.clone(), q.replace(" u", " v")], vec![]));
    // In one file: what is good of it holds, as with any fault.
    directory.write("b.yaml", &(with_uid("r", "v") + &with_uid("q", "v")));
    let twin = "b.yaml, document 2, line 11: NetworkPolicy mkt/q has the metadata.uid of NetworkPolicy mkt/r; take it out of \
                one of them; the file's last good state holds";
    assert_eq!(
        directory.look(),
        (vec![p.clone(), q.replace(" u", " v")], vec![twin.to_owned()])
    );
    // One that takes a UID which is given by name.
    directory.write(
        "b.yaml",
        &(with_uid("q", "file:NetworkPolicy/mkt/s") + &policy("s", "Drop")),
    );
    let (objects, failures) = directory.look();
    assert_eq!((objects.len(), failures.len()), (2, 1), "{failures:?}");
    // Other kinds are told apart by their names.
    let pod = |name: &str| format!("--- {{apiVersion: v1, kind: Pod, metadata: {{name: {name}, uid: u}}}}\n");
    directory.write("b.yaml", &(pod("a") + &pod("b")));
    assert_eq!(directory.look().1, [""; 0]);
}

#[test]
fn what_cannot_be_read_leaves_what_was_there() {
    let mut directory = Directory::new();
    directory.write("a.yaml", &policy("p", "Drop"));
    assert_eq!(directory.look().0, [P]);
    fs::write(directory.path(".new"), [0xff, 0xfe]).unwrap();
    fs::rename(directory.path(".new"), directory.path("a.yaml")).unwrap();
    let (objects, failures) = directory.look();
    assert_eq!(objects, [P]);
    assert!(failures[0].starts_with("a.yaml cannot be read: "), "{failures:?}");
    fs::remove_file(directory.path("a.yaml")).unwrap();
    symlink("a.yaml", directory.path("a.yaml")).unwrap();
    let (objects, failures) = directory.look();
    assert_eq!(objects, [P]);
    assert!(failures[0].starts_with("a.yaml cannot be read: "), "{failures:?}");
    fs::remove_file(directory.path("a.yaml")).unwrap();
    nix::unistd::mkfifo(&directory.path("a.yaml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(
        directory.look(),
        (vec![], vec![]),
        "a pipe is no file, and nobody waits for it"
    );
    let gone = directory.directory.path().to_owned();
    drop(directory.directory);
    assert_eq!(
        directory.files.look().unwrap_err().kind(),
        io::ErrorKind::NotFound,
        "{}",
        gone.display()
    );
}

/// A ConfigMap is mounted as links through one link that is exchanged.
#[test]
fn a_mounted_config_map_is_followed() {
    let mut directory = Directory::new();
    for (version, name) in [("..1", "p"), ("..2", "q")] {
        fs::create_dir(directory.path(version)).unwrap();
        fs::write(directory.path(version).join("a.yaml"), policy(name, "Drop")).unwrap();
    }
    symlink("..1", directory.path("..data")).unwrap();
    symlink("..data/a.yaml", directory.path("a.yaml")).unwrap();
    assert_eq!(directory.look().0, [P]);
    symlink("..2", directory.path("..data_tmp")).unwrap();
    fs::rename(directory.path("..data_tmp"), directory.path("..data")).unwrap();
    assert_eq!(directory.look().0, [Q]);
}

#[tokio::test]
async fn changes_are_published_until_the_end() {
    let directory = Directory::new();
    directory.write("a.yaml", &policy("p", "Drop"));
    let (out, mut seen) = watch::channel(PolicyObjects::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let path = directory.directory.path().to_owned();
    let running = tokio::spawn(run(path, Vec::new(), out, async move {
        let _ = stopped.await;
    }));
    assert_eq!(seen.wait_for(|found| found.known).await.unwrap().objects.len(), 1);
    directory.write("b.yaml", &policy("q", "Drop"));
    assert_eq!(
        seen.wait_for(|found| found.objects.len() == 2).await.unwrap().failures,
        []
    );
    stop.send(()).unwrap();
    assert!(running.await.unwrap().is_ok());
    assert!(seen.changed().await.is_err(), "the thread has ended");
}

#[test]
fn a_count_that_grows_tells_that_a_policy_was_made_again() {
    let file = "file:NetworkPolicy/mkt/p";
    assert!(is_made_again(file, &format!("{file}#1")));
    assert!(is_made_again(&format!("{file}#9"), &format!("{file}#10")));
    assert!(!is_made_again(&format!("{file}#1"), &format!("{file}#1")));
    assert!(!is_made_again(&format!("{file}#2"), file), "who counts began anew");
    assert!(!is_made_again(file, "file:NetworkPolicy/mkt/q#1"), "another one");
    assert!(!is_made_again("5f0c#1", "5f0c#2"), "a cluster's UIDs are whole");
}
