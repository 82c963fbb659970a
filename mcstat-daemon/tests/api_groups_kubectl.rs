//! `multicastgroups` through a real kubectl, and that `mcstat get` prints the same.
//!
//! The cluster and its numbers are those of `api_support::groups`.

mod api_support;

use std::sync::Arc;

use api_support::{
    Printed,
    both::{Both, meaning},
    groups::index,
    in_own_network, mcstat, noon, printed,
};
use mcstat::aggregator::index::SharedIndex;

fn split(arguments: &str) -> Vec<&str> {
    arguments.split(' ').collect()
}

fn ok(stdout: &str) -> Printed {
    Printed {
        code: Some(0),
        stdout: stdout.to_owned(),
        stderr: String::new(),
    }
}

fn with_both(body: impl FnOnce(&Both) + Send) {
    in_own_network(|| body(&Both::start(index(noon()))));
}

#[test]
fn kubectl_prints_groups_as_the_design_says() {
    with_both(|both| {
        let expected = "\
GROUP       PODS                                        STATUS
232.1.1.1   mkt/rec-0                                   OK
239.1.1.1   mkt/rec-0,mkt/rec-1,mkt/rec-2 + 1 more...   OK
239.9.9.9   <none>                                      OK
ff15::1     mkt/rec-1                                   JoinedNoTraffic
";
        for arguments in [
            "get multicastgroups",
            "get multicastgroup",
            "get mcg",
            "get mcg -A",
            "get mcg -n mkt",
        ] {
            assert_eq!(both.kubectl(&split(arguments)), ok(expected), "{arguments}");
        }
        let one = "GROUP     PODS        STATUS\nff15::1   mkt/rec-1   JoinedNoTraffic\n";
        assert_eq!(both.kubectl(&["get", "mcg", "ff15::1"]), ok(one));
        let missing = "Error from server (NotFound): multicastgroup.stats.antrea.io \"224.0.0.10\" not found\n";
        let unknown = both.kubectl(&["get", "multicastgroup", "224.0.0.10"]);
        assert_eq!((unknown.code, unknown.stderr.as_str()), (Some(1), missing));
        assert_eq!(
            both.kubectl(&["get", "mcg", "224.0.0.1", "-o", "name"]),
            ok("multicastgroup.stats.antrea.io/224.0.0.1\n")
        );
    });
}

#[test]
fn kubectl_sorts_and_selects_groups() {
    with_both(|both| {
        let first_column = |arguments: &str| -> Vec<String> {
            let answer = both.kubectl(&split(arguments));
            assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{arguments}");
            let lines = answer.stdout.lines().skip(1);
            lines
                .map(|line| line.split_whitespace().next().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            first_column("get mcg --sort-by=.status.received.packets"),
            ["239.9.9.9", "ff15::1", "232.1.1.1", "239.1.1.1"]
        );
        assert_eq!(
            first_column("get mcg --field-selector status.hidden=true"),
            ["224.0.0.1", "ff02::1:ff00:1"]
        );
        assert_eq!(first_column("get mcg --field-selector status.hidden!=").len(), 6);
        let wide = both.kubectl(&split("get mcg 232.1.1.1 -o wide"));
        let words: Vec<Vec<&str>> = wide
            .stdout
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words,
            [
                vec![
                    "GROUP",
                    "PODS",
                    "STATUS",
                    "SENDERS",
                    "SSM_SOURCES",
                    "SENT",
                    "RECEIVED",
                    "LAST",
                    "NODES",
                    "QUERIER"
                ],
                vec![
                    "232.1.1.1",
                    "mkt/rec-0",
                    "OK",
                    "mkt/src-0",
                    "10.0.0.9",
                    "31",
                    "30",
                    "4s",
                    "n7,n8",
                    "10.0.0.1"
                ]
            ]
        );
    });
}

#[test]
fn kubectl_and_mcstat_print_the_same_of_groups() {
    with_both(|both| {
        for arguments in [
            "get multicastgroups",
            "get mcg -A",
            "get mcg -o wide",
            "get mcg -o name",
            "get mcg ff15::1 239.1.1.1 -o wide",
            "get mcg 224.0.0.10 ff15::1",
            "get mcg 224.0.0.1",
            "get mcg ff15::1 -A",
        ] {
            let (theirs, ours) = (both.kubectl(&split(arguments)), both.mcstat(&split(arguments)));
            assert_eq!(ours, theirs, "{arguments}");
        }
        for arguments in ["get mcg", "get mcg ff15::1", "get mcg ff15::1 232.1.1.1"] {
            for form in [" -o json", " -o yaml"] {
                let arguments = format!("{arguments}{form}");
                let (theirs, ours) = (both.kubectl(&split(&arguments)), both.mcstat(&split(&arguments)));
                assert_eq!((theirs.code, theirs.stderr.as_str()), (Some(0), ""));
                assert_eq!(meaning(&ours.stdout), meaning(&theirs.stdout), "{arguments}");
            }
        }
        let all = both.kubectl(&split("get mcg -o wide --field-selector status.hidden!="));
        assert_eq!(both.mcstat(&split("get mcg -o wide --all-groups")), all);
    });
}

#[test]
fn no_groups_are_said_without_a_namespace() {
    in_own_network(|| {
        let both = Both::start(Arc::new(SharedIndex::default()));
        let nothing = Printed {
            code: Some(0),
            stdout: String::new(),
            stderr: "No resources found\n".into(),
        };
        assert_eq!(both.kubectl(&["get", "mcg"]), nothing);
        assert_eq!(both.mcstat(&["get", "mcg"]), nothing);
    });
}

#[test]
fn all_groups_is_refused_for_pods() {
    let refused = printed(mcstat(["get", "pmcs", "--all-groups"]));
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        refused.stderr,
        "error: --all-groups is for multicastgroups: leave it out\n"
    );
}
