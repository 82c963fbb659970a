//! `mcstat aggregator` as a process: what it refuses, how it ends, and how an agent's push finds it.

#![expect(clippy::unwrap_used, reason = "a test says what must hold by panicking")]

mod api_support;

use std::{
    fs,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use api_support::{Aggregator, Kubectl, before, cluster, groups, in_own_network, mcstat, policies, printed};
use jiff::Timestamp;
use mcstat::{agent::publish, api::summary::NodeStatsSummary};
use nix::sys::signal::Signal;
use tokio::sync::watch;

fn refused(arguments: &[&str]) -> String {
    let answer = printed(mcstat(["aggregator"].iter().chain(arguments)));
    assert_eq!(
        (answer.code, answer.stdout.as_str()),
        (Some(1), ""),
        "{}",
        answer.stderr
    );
    answer.stderr
}

#[test]
fn plain_http_is_for_loopback_and_on_request_only() {
    let unasked = refused(&["--listen", "127.0.0.1:0"]);
    assert!(unasked.contains("127.0.0.1:0 needs --insecure-http"), "{unasked}");
    let open = refused(&["--insecure-http", "--listen", "0.0.0.0:8080"]);
    assert!(open.contains("0.0.0.0:8080 is no loopback address"), "{open}");
    assert!(open.contains("for example --listen 127.0.0.1:8080"), "{open}");
}

#[test]
fn policies_come_from_one_source() {
    for (arguments, expected) in [
        (
            &["--policy-files", "/p", "--policy-kubernetes", "true"][..],
            "--policy-files /p and --policy-kubernetes true: policies come from one of the two",
        ),
        (
            &["--policy-kubeconfig", "/k"],
            "--policy-kubeconfig /k is for --policy-kubernetes true, which is not set",
        ),
        (
            &["--policy-kubernetes", "true", "--policy-kubeconfig", "/nowhere/k"],
            "the kubeconfig /nowhere/k cannot be used: ",
        ),
    ] {
        let serving = ["--insecure-http", "--listen", "127.0.0.1:0"];
        let told = in_own_network(|| refused(&[&serving, arguments].concat()));
        assert!(told.contains(&format!("error: {expected}")), "{told}");
    }
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let told = in_own_network(|| {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap().to_string();
        (refused(&["--insecure-http", "--listen", &address]), address)
    });
    let (message, address) = told;
    assert!(
        message.starts_with(&format!("error: {address} is already in use: stop the process")),
        "{message}"
    );
    assert!(message.contains("choose another port with --listen"), "{message}");
}

#[test]
fn sigterm_and_sigint_end_it_well() {
    in_own_network(|| {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let aggregator = Aggregator::start("127.0.0.1:0");
            assert_eq!(aggregator.stop(signal), Some(0), "{signal}");
        }
    });
}

/// Publishes these summaries, one task per node, while `body` runs.
fn while_publishing<T>(summaries: Vec<NodeStatsSummary>, target: &str, body: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut senders = Vec::new();
    for summary in summaries {
        let (sender, receiver) = watch::channel(Some(Arc::new(summary)));
        senders.push(sender);
        let targets = vec![target.to_owned()];
        runtime.spawn(publish::run(
            receiver,
            targets,
            Duration::from_millis(100),
            std::future::pending(),
        ));
    }
    body()
}

/// Asks until the list has all five Pods; gives up long after the slowest push (one retry, at most 8 s).
fn wait_for_the_cluster(kubectl: &Kubectl) -> String {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = kubectl.run(["get", "podmulticaststats", "-A", "-o", "name"]);
        if answer.stdout.lines().count() == 5 {
            return answer.stdout;
        }
        assert!(Instant::now() < give_up, "the summaries never arrived: {answer:?}");
    }
}

#[test]
fn pushed_summaries_reach_kubectl() {
    in_own_network(|| {
        let aggregator = Aggregator::start("127.0.0.1:0");
        let kubectl = Kubectl::new(&aggregator.url());
        while_publishing(cluster(Timestamp::now()).to_vec(), &aggregator.url(), || {
            let names = wait_for_the_cluster(&kubectl);
            assert!(names.contains("podmulticaststats.stats.antrea.io/feed-0\n"), "{names}");
        });
        assert_eq!(aggregator.stop(Signal::SIGTERM), Some(0));
    });
}

#[test]
fn an_aggregator_that_comes_late_or_comes_back_is_complete_again() {
    in_own_network(|| {
        // Free, and in a network of our own it stays so.
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let url = format!("http://{address}");
        while_publishing(cluster(Timestamp::now()).to_vec(), &url, || {
            for _ in 0..2 {
                let aggregator = Aggregator::start(&address);
                wait_for_the_cluster(&Kubectl::new(&url));
                aggregator.stop(Signal::SIGKILL);
            }
        });
    });
}

/// The interval is an hour: what arrives after the first summary is news.
#[test]
fn another_membership_is_pushed_at_once() {
    in_own_network(|| {
        let aggregator = Aggregator::start("127.0.0.1:0");
        let kubectl = Kubectl::new(&aggregator.url());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let now = Timestamp::now();
        let [mut n7, _] = groups::nodes(now);
        let (sender, receiver) = watch::channel(Some(Arc::new(n7.clone())));
        runtime.spawn(publish::run(
            receiver,
            vec![aggregator.url()],
            Duration::from_secs(3600),
            std::future::pending(),
        ));
        // Long after the slowest push, as above.
        let members_become = |expected: &str| {
            let give_up = Instant::now() + Duration::from_secs(60);
            loop {
                let pods = "jsonpath={.pods[*].name}";
                let answer = kubectl.run(["get", "multicastgroup", "239.1.1.1", "-o", pods]);
                if answer.stdout == expected {
                    break;
                }
                assert!(Instant::now() < give_up, "{expected:?} never came: {answer:?}");
            }
        };
        members_become("rec-0 rec-1");
        let leave = |summary: &mut NodeStatsSummary, name: &str, ago: i64| {
            for group in &mut summary.multicast {
                group.pods.retain(|pod| pod.name != name);
            }
            summary.observed_at = before(now, ago);
            sender.send_replace(Some(Arc::new(summary.clone())));
        };
        leave(&mut n7, "rec-0", 2);
        members_become("rec-1");
        // Two at once: the second one waits for its second and is not lost.
        leave(&mut n7, "rec-1", 1);
        n7.multicast[2] = groups::nodes(now)[0].multicast[2].clone();
        leave(&mut n7, "rec-1", 0);
        members_become("rec-0");
        assert_eq!(aggregator.stop(Signal::SIGTERM), Some(0));
    });
}

/// The directory has two of the four policies that the nodes tell of; one of them goes, and an aggregator that comes back
/// has the numbers again.
#[test]
fn policies_are_those_of_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let policy = |kind: &str, metadata: &str| {
        let rules = "[{name: r, action: Drop, to: [{ipBlock: {cidr: 225.1.1.1/32}}]}]";
        let spec = format!("{{priority: 1, appliedTo: [{{podSelector: {{}}}}], egress: {rules}}}");
        format!("---\n{{apiVersion: crd.antrea.io/v1beta1, kind: {kind}, metadata: {{{metadata}}}, spec: {spec}}}\n")
    };
    let feeds = policy("ClusterNetworkPolicy", "name: acnp-feeds, uid: uid-feeds");
    let both = feeds.clone() + &policy("NetworkPolicy", "name: igmp, namespace: mkt, uid: uid-igmp");
    let write = |text: &str| {
        fs::write(directory.path().join(".new"), text).unwrap();
        fs::rename(directory.path().join(".new"), directory.path().join("policies.yaml")).unwrap();
    };
    in_own_network(|| {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let url = format!("http://{address}");
        while_publishing(policies::nodes(Timestamp::now()).to_vec(), &url, || {
            for _ in 0..2 {
                write(&both);
                let arguments = [std::ffi::OsStr::new("--policy-files"), directory.path().as_os_str()];
                let aggregator = Aggregator::start_with(&address, arguments);
                let kubectl = Kubectl::new(&url);
                // Long after the slowest push and the next look at the directory.
                let become_ = |expected: &str| {
                    let give_up = Instant::now() + Duration::from_secs(60);
                    let form = "jsonpath={range .items[*]}{.metadata.name}={.trafficStats.packets} {end}";
                    let kinds = "antreaclusternetworkpolicystats,antreanetworkpolicystats";
                    loop {
                        let answer = kubectl.run(["get", kinds, "-A", "-o", form]);
                        if answer.stdout == expected {
                            break;
                        }
                        assert!(Instant::now() < give_up, "{expected:?} never came: {answer:?}");
                    }
                };
                become_("acnp-feeds=1012 igmp=4 ");
                write(&feeds);
                become_("acnp-feeds=1012 ");
                aggregator.stop(Signal::SIGKILL);
            }
        });
    });
}
