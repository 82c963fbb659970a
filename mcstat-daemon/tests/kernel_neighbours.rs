//! Others on the hooks of a Pod's veth: who stands before us is told, who takes us off is made good.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod support;

use std::os::unix::fs::symlink;

use agent_process::{Node, packets};
use mcstat::agent::bpf::{Kernel, attach::Hook, chain::Chain, table::Entry};
use serde_json::{Value, json};
use support::{
    Bpffs, agents_hook, attach, frames, in_netns, need_tcx, open, open_with, run,
    wire::{Sender, Wire, eventually},
};

fn chains(kernel: &mut Kernel, entry: &Entry) -> [Chain; 2] {
    kernel.programs.chains(entry).unwrap().map(|(_, chain)| chain)
}

fn alone() -> [Chain; 2] {
    [(); 2].map(|()| Chain {
        ours: true,
        before: vec![],
    })
}

/// A filter on what the Pod sends.
fn filter(interface: &str, priority: u16) {
    let rule = "protocol ip u32 match ip dst 239.9.9.9/32 classid 1:1";
    run(
        "tc",
        &format!("filter add dev {interface} ingress pref {priority} {rule}"),
    );
}

/// A second mcstat is another program like any.
#[test]
fn on_tcx_what_came_to_the_head_later_is_told_by_name() {
    need_tcx();
    in_netns(|| {
        let (bpffs, others) = (Bpffs::new(), Bpffs::new());
        let wire = Wire::new("pod-a");
        wire.up(1500);
        let mut kernel = open(&bpffs.options());
        let entry = attach(&mut kernel, "a", &wire, &[]);
        assert_eq!(chains(&mut kernel, &entry), alone());
        let mut other = open(&others.options());
        let their_entry = attach(&mut other, "a", &wire, &[]);
        let [outbound, inbound] = chains(&mut kernel, &entry);
        let id = |kernel: &mut Kernel, name: &str| kernel.programs.program(name).unwrap().info().unwrap().id();
        for (chain, name) in [(outbound, "mcstat_outbound"), (inbound, "mcstat_inbound")] {
            let theirs = format!("{name} (program {})", id(&mut other, name));
            assert_eq!((chain.ours, chain.before), (true, vec![theirs]));
        }
        assert_eq!(chains(&mut other, &their_entry), alone(), "nobody stands before them");
        // The kernel takes a link off in its own time once its pin is gone.
        other.programs.detach(&their_entry);
        eventually("they are gone", || chains(&mut kernel, &entry) == alone());
        kernel.programs.detach(&entry);
        let nobody = [(); 2].map(|()| Chain::default());
        eventually("we are gone", || chains(&mut kernel, &entry) == nobody);
    });
}

#[test]
fn on_clsact_filters_of_a_lower_priority_are_told() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let wire = Wire::new("pod-a");
        wire.up(1500);
        let mut kernel = open_with(&bpffs.options(), Hook::Clsact);
        let entry = attach(&mut kernel, "a", &wire, &[]);
        assert_eq!(chains(&mut kernel, &entry), alone());
        filter("pod-a", 100);
        assert_eq!(chains(&mut kernel, &entry), alone(), "behind us is no matter");
        filter("pod-a", 3);
        let [outbound, inbound] = chains(&mut kernel, &entry);
        assert_eq!(outbound.before, ["u32 (tc priority 3)"]);
        assert_eq!((outbound.ours, &inbound), (true, &alone()[1]));
        run("tc", "filter del dev pod-a egress pref 7");
        assert!(!chains(&mut kernel, &entry)[1].ours);
    });
}

#[test]
fn on_tcx_its_programs_are_told_before_the_filters() {
    need_tcx();
    in_netns(|| {
        let (bpffs, others) = (Bpffs::new(), Bpffs::new());
        let wire = Wire::new("pod-a");
        wire.up(1500);
        let mut kernel = open_with(&bpffs.options(), Hook::Clsact);
        let entry = attach(&mut kernel, "a", &wire, &[]);
        filter("pod-a", 3);
        let mut other = open(&others.options());
        attach(&mut other, "a", &wire, &[]);
        let [outbound, inbound] = chains(&mut kernel, &entry);
        assert!(
            outbound.before[0].starts_with("mcstat_outbound (program "),
            "{outbound:?}"
        );
        assert_eq!((outbound.before.len(), inbound.before.len()), (2, 1));
    });
}

/// The Pod's condition `Counted`: status, reason, message.
fn counted(pod: &Value) -> [String; 3] {
    let conditions = pod["status"]["conditions"].as_array().unwrap().iter();
    let condition = conditions.into_iter().find(|condition| condition["type"] == "Counted");
    ["status", "reason", "message"].map(|key| condition.unwrap()[key].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_agent_says_who_stands_before_it_and_comes_back_when_taken_off() {
    in_netns(|| {
        let (bpffs, others) = (Bpffs::new(), Bpffs::new());
        let wire = Wire::new("mkt-feed-0");
        wire.up(1500);
        let pods = tempfile::tempdir().unwrap();
        symlink(wire.pod.path(), pods.path().join("mkt_feed-0")).unwrap();
        let mut node = Node::new(
            &bpffs.path(),
            &json!({"kind": "netns", "netns": {"directory": pods.path()}}),
        );
        node.start();
        let feed = || node.pod("mkt", "feed-0").filter(|pod| packets(pod).is_some());
        eventually("the Pod is counted", || feed().is_some());
        let well = ["True", "AllInterfaces", ""].map(str::to_owned);
        assert_eq!(counted(&feed().unwrap()), well);

        let tcx = agents_hook() == Hook::Tcx;
        let theirs = if tcx {
            let mut other = open(&others.options());
            let entry = attach(&mut other, "other", &wire, &[]);
            Some((other, entry))
        } else {
            filter("mkt-feed-0", 3);
            None
        };
        eventually("that another program stands before ours", || {
            feed().is_some_and(|pod| counted(&pod) != well)
        });
        let [status, reason, message] = counted(&feed().unwrap());
        assert_eq!((status.as_str(), reason.as_str()), ("True", "BehindAnotherProgram"));
        let name = if tcx {
            "mcstat_outbound (program "
        } else {
            "u32 (tc priority 3) "
        };
        assert!(message.contains(&format!("eth0: {name}")), "{message}");
        assert!(
            message.ends_with("before mcstat on mkt-feed-0; what it drops or redirects is not counted"),
            "{message}"
        );
        assert_eq!(feed().unwrap()["status"]["summary"], "OK", "it is counted all the same");
        match theirs {
            Some((mut other, entry)) => other.programs.detach(&entry),
            None => drop(run("tc", "filter del dev mkt-feed-0 ingress pref 3")),
        }
        eventually("that it is gone", || feed().is_some_and(|pod| counted(&pod) == well));

        // Somebody takes our programs off, and traffic is counted again without any help.
        for (direction, hook) in [("outbound", "ingress"), ("inbound", "egress")] {
            if tcx {
                let pin = bpffs.options().pins().join(format!("links/1-{direction}"));
                run("bpftool", &format!("link detach pinned {}", pin.display()));
            } else {
                run("tc", &format!("filter del dev mkt-feed-0 {hook} pref 7"));
            }
        }
        let before = packets(&feed().unwrap()).unwrap().0;
        let frame = [frames::data("10.0.0.2", "239.1.1.1", 100)];
        eventually("packets are counted again", || {
            wire.pod.run(|| Sender::on("eth0").send(&frame, 1));
            packets(&feed().unwrap()).unwrap().0 > before
        });
        assert!(
            node.log().contains("somebody took mcstat's programs off"),
            "{}",
            node.log()
        );
        node.kill();
    });
}
