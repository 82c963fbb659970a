//! Whose tables they are: never another Pod's, and of no namespace longer than it lives.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use mcstat::{
    agent::{pods::PodPort, witness::Witness},
    ledger::snapshot::NamespaceReading,
};

use super::{Lab, Mcast, Process, Socket, address, groups, ifindex, pods, port, read, sh};
use crate::{
    pods_lab::attempt,
    witness_lab::{inside, pod_ref, read_at},
};

/// Only the group that tells Pod `a` from Pod `b`.
fn joined(reading: &NamespaceReading) -> Vec<String> {
    groups(reading, "eth0")
        .iter()
        .map(|group| group.group.to_string())
        .collect()
}

fn unavailable(reading: &NamespaceReading) -> &str {
    assert_eq!(
        (reading.interfaces.len(), reading.socket_drops),
        (0, None),
        "{reading:?}"
    );
    reading.unavailable.as_deref().unwrap()
}

/// Two Pods, a socket in each, joined to 239.0.0.1 and 239.0.0.2.
fn two(lab: &Lab) -> ([String; 2], [Socket; 2], [PodPort; 2]) {
    let namespaces = pods(lab, ["a", "b"]);
    let sockets = [("a", "239.0.0.1"), ("b", "239.0.0.2")].map(|(pod, group)| {
        let socket = Socket::new(&format!("{}{pod}", lab.prefix), address(group));
        socket.mcast(Mcast::JoinGroup, ifindex(lab, pod, "eth0"), &[address(group)]);
        socket
    });
    let ports = ["a", "b"].map(|pod| port(lab, pod, &format!("v{pod}"), None));
    (namespaces, sockets, ports)
}

#[test]
fn a_process_that_moves_to_another_pod_takes_its_own_tables_nowhere() {
    let lab = Lab::new("wkv");
    lab.run(async || {
        let ([a, b], _sockets, ports) = two(&lab);
        let mut witness = Witness::open().unwrap();
        witness.follow(&ports);
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(unavailable(&read_at(&mut witness, "a", start)), "NoProcess");

        // It goes to the other namespace with its number when it is told to.
        let script = format!("read _ && exec nsenter --net=/run/netns/{b} sleep 600");
        let mut mover = Process::start(&a, Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()));
        let now = start + second;
        assert_eq!(joined(&read_at(&mut witness, "a", now)), ["239.0.0.1"]);
        assert_eq!(unavailable(&read_at(&mut witness, "b", now)), "NoProcess");

        mover.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let pid = mover.0.id();
        let net = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let there = inside(&b, || std::fs::read_link("/proc/thread-self/ns/net").unwrap());
        while net(pid) != there {
            std::thread::sleep(Duration::from_millis(1));
        }
        // The very next reading, and no search that could help.
        assert_eq!(unavailable(&read_at(&mut witness, "a", now)), "NoProcess");
        let now = now + 2 * second;
        assert_eq!(joined(&read_at(&mut witness, "b", now)), ["239.0.0.2"]);
        assert_eq!(unavailable(&read_at(&mut witness, "a", now)), "NoProcess");
    });
}

/// Starts `sleep 600` under a given process number (clone3 with `set_tid`).
fn sleep_as(pid: libc::pid_t) {
    let set_tid = [pid];
    let mut arguments = libc::clone_args {
        flags: 0,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: set_tid.as_ptr() as u64,
        set_tid_size: 1,
        cgroup: 0,
    };
    // SAFETY: as fork: the child has a copy of everything, and only execs or exits; every string outlives the call.
    let child = unsafe {
        let child = libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of_val(&arguments));
        if child == 0 {
            let (program, seconds) = (c"/bin/sleep".as_ptr(), c"600".as_ptr());
            libc::execl(program, program, seconds, std::ptr::null::<libc::c_char>());
            libc::_exit(127);
        }
        child
    };
    assert_eq!(child, i64::from(pid), "clone3: {}", std::io::Error::last_os_error());
}

#[test]
fn a_number_that_another_pods_process_has_by_now_is_not_believed() {
    let lab = Lab::new("wkn");
    lab.run(async || {
        let ([a, b], _sockets, ports) = two(&lab);
        let process = Process::idle(&a);
        let mut witness = Witness::open().unwrap();
        witness.follow(&ports);
        let now = Instant::now();
        assert_eq!(joined(&read_at(&mut witness, "a", now)), ["239.0.0.1"]);
        let pid = process.0.id().cast_signed();
        drop(process);
        inside(&b, || sleep_as(pid));
        let reading = read_at(&mut witness, "a", now);
        let others = read_at(&mut witness, "b", now + Duration::from_secs(60));
        // SAFETY: the child is this process's own.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
        assert_eq!(unavailable(&reading), "NoProcess");
        assert_eq!(joined(&others), ["239.0.0.2"], "the number is that of a process of b");
    });
}

#[test]
fn a_path_is_believed_only_when_it_leads_to_the_pods_own_namespace() {
    let lab = Lab::new("wkw");
    lab.run(async || {
        let ([a, b], _sockets, ports) = two(&lab);
        let other = Process::idle(&b);
        let mut witness = Witness::open().unwrap();
        let mut with_path = |path: &str| {
            let netns = Some(path.to_owned());
            witness.follow(&[PodPort {
                netns,
                ..ports[0].clone()
            }]);
            read(&mut witness, "a")
        };
        assert_eq!(joined(&with_path(&format!("/run/netns/{a}"))), ["239.0.0.1"]);
        for wrong in [
            format!("/run/netns/{b}"),
            format!("/run/netns/{a}-gone"),
            format!("/proc/{}/ns/net", other.0.id()),
            "/proc/self/ns/net".to_owned(),
            "/dev/null".to_owned(),
        ] {
            assert_eq!(unavailable(&with_path(&wrong)), "NoPath", "{wrong}");
        }
    });
}

/// Takes every capability off the calling thread.
fn drop_capabilities() {
    // `_LINUX_CAPABILITY_VERSION_3` and this thread; effective, permitted and inheritable, 64 bits of each.
    let (mut header, data) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    // SAFETY: both pointers are to arrays of the sizes that this version has.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) };
    assert_eq!(result, 0, "capset: {}", std::io::Error::last_os_error());
}

#[test]
fn no_capability_is_needed_where_a_process_is_visible() {
    let lab = Lab::new("wkc");
    lab.run(async || {
        let ([a, b], _sockets, mut ports) = two(&lab);
        for (port, name) in ports.iter_mut().zip([&a, &b]) {
            port.netns = Some(format!("/run/netns/{name}"));
        }
        let process = Process::idle(&a);
        let mut witness = Witness::open().unwrap();
        witness.follow(&ports);
        let readings = std::thread::scope(|scope| {
            let unprivileged = || {
                drop_capabilities();
                let net = std::fs::read_link(format!("/proc/{}/ns/net", process.0.id()));
                assert!(net.is_err(), "the thread still has CAP_SYS_PTRACE");
                (read(&mut witness, "a"), read(&mut witness, "b"))
            };
            scope.spawn(unprivileged).join().unwrap()
        });
        assert_eq!(joined(&readings.0), ["239.0.0.1"]);
        assert_eq!(
            unavailable(&readings.1),
            "Denied",
            "no process, and no CAP_SYS_ADMIN to enter"
        );
    });
}

#[test]
fn a_pod_whose_veth_leads_nowhere_is_not_available() {
    let lab = Lab::new("wko");
    lab.run(async || {
        let (_, _sockets, mut ports) = two(&lab);
        // Both ends on the node.
        sh(&format!("ip -n {} link add vc type veth peer name vd", lab.node));
        ports[0].ifindex = lab.ifindex("vc");
        let mut witness = Witness::open().unwrap();
        witness.follow(&ports);
        assert_eq!(unavailable(&read(&mut witness, "a")), "NoPeer");
        let seen: Vec<_> = witness
            .read(&Default::default(), Instant::now())
            .into_iter()
            .map(|r| r.pod)
            .collect();
        assert_eq!(seen, [pod_ref("a"), pod_ref("b")]);
        witness.follow(&ports[1..]);
        assert_eq!(witness.read(&Default::default(), Instant::now()).len(), 1);
    });
}

/// A namespace lives as long as somebody holds it, and its veth with it.
#[test]
fn a_deleted_namespace_is_not_kept_alive() {
    let lab = Lab::new("wkg");
    lab.run(async || {
        let [a, b] = pods(&lab, ["a", "b"]);
        let ports = [(&a, "a"), (&b, "b")]
            .map(|(name, pod)| port(&lab, pod, &format!("v{pod}"), Some(&format!("/run/netns/{name}"))));
        let process = Process::idle(&a);
        let mut witness = Witness::open().unwrap();
        witness.follow(&ports);
        for pod in ["a", "b"] {
            assert_eq!(read(&mut witness, pod).unavailable, None);
        }
        drop(process);
        sh(&format!("ip netns del {a} && ip netns del {b}"));
        let gone = |host: &str| {
            !attempt(&format!("ip -n {} link show dev {host}", lab.node))
                .status
                .success()
        };
        let begun = Instant::now();
        while !(gone("va") && gone("vb")) {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "the veths are still there: somebody holds a namespace"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        // The witness is still there and still asked for them.
        for pod in ["a", "b"] {
            assert_eq!(unavailable(&read(&mut witness, pod)), "NoPeer");
        }
    });
}
