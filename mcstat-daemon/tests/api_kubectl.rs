//! A real kubectl, straight at the server: what it prints, and that `mcstat get` prints the same, byte for byte.

mod api_support;

use api_support::{
    both::{Both, meaning},
    cluster_index, in_own_network, noon,
};

fn with_both(body: impl FnOnce(&Both) + Send) {
    in_own_network(|| body(&Both::start(cluster_index(noon()))));
}

#[test]
fn kubectl_and_mcstat_print_the_same() {
    with_both(|both| {
        for arguments in [
            "get podmulticaststats -A",
            "get podmulticaststats",
            "get pmcs -n mkt",
            "get pmcs -n mkt feed-0",
            "get pmcs -n mkt src-0 feed-0",
            "get pmcs -n mkt -o wide",
            "get pmcs -A -o wide",
            "get pmcs -A -o name",
            "get pmcs -n mkt feed-0 -o name",
            "get pmcs -n none",
            "get pmcs -n none -o name",
            "get pmcs x",
            "get pmcs -n mkt x",
            "get pmcs -n mkt x feed-0",
            "get pmcs x y -o name",
        ] {
            let arguments: Vec<_> = arguments.split(' ').collect();
            let (theirs, ours) = (both.kubectl(&arguments), both.mcstat(&arguments));
            assert_eq!(ours, theirs, "{arguments:?}");
            assert!(!(ours.stdout.is_empty() && ours.stderr.is_empty()) || arguments.contains(&"none"));
        }
    });
}

#[test]
fn kubectl_and_mcstat_mean_the_same_in_json_and_yaml() {
    with_both(|both| {
        for arguments in [
            "get pmcs -A",
            "get pmcs -n mkt feed-0",
            "get pmcs -n mkt src-0 feed-0",
            "get pmcs -n none",
        ] {
            for form in ["json", "yaml"] {
                let mut arguments: Vec<_> = arguments.split(' ').collect();
                arguments.extend(["-o", form]);
                let (theirs, ours) = (both.kubectl(&arguments), both.mcstat(&arguments));
                assert_eq!((theirs.code, theirs.stderr.as_str()), (Some(0), ""));
                assert_eq!(meaning(&ours.stdout), meaning(&theirs.stdout), "{arguments:?}");
            }
        }
    });
}

#[test]
fn the_table_is_the_one_of_the_design() {
    with_both(|both| {
        let lines = both.lines(&["get", "podmulticaststats", "-A"]);
        assert_eq!(
            lines[0].join(" "),
            "NAMESPACE NAME INBOUND OUTBOUND INBOUND_DROPPED OUTBOUND_DROPPED IGMP_ALLOWED IGMP_DROPPED IN/S OUT/S LAST STATUS"
        );
        assert_eq!(lines[3].join(" "), "mkt feed-0 812 0 12 0 44 0 0 0 95s JoinedNoTraffic");
        assert_eq!(lines[4].join(" "), "mkt rec-0 - - - - - - - - - NotCounted");
        assert_eq!(lines.len(), 6);
    });
}

#[test]
fn sorting_selecting_and_labels_work() {
    with_both(|both| {
        let column = |arguments: &[&str], number: usize| -> Vec<String> {
            both.lines(arguments)
                .into_iter()
                .skip(1)
                .map(|mut line| line.swap_remove(number))
                .collect()
        };
        let sorted = column(&["get", "pmcs", "-A", "--sort-by=.status.inbound.packets"], 1);
        // Where there is no number there is nothing to sort by: first.
        assert_eq!(sorted, ["rec-0", "probe", "solo", "src-0", "feed-0"]);
        let sorted = column(&["get", "pmcs", "-n", "mkt", "--sort-by=.status.outbound.admitted"], 0);
        assert_eq!(sorted, ["rec-0", "feed-0", "src-0"]);
        assert_eq!(
            column(&["get", "pmcs", "-A", "-l", "app in (feed,send),!tier"], 1),
            ["solo", "src-0"]
        );
        assert_eq!(
            column(&["get", "pmcs", "-A", "--field-selector", "metadata.namespace=dev"], 1),
            ["probe"]
        );
        assert_eq!(
            column(&["get", "pmcs", "-n", "mkt", "feed-0", "-L", "app"], 11),
            ["feed"]
        );
        assert_eq!(column(&["get", "pmcs", "-A", "--chunk-size=1"], 1).len(), 5);
        assert_eq!(
            column(
                &[
                    "get",
                    "pmcs",
                    "-A",
                    "-o",
                    "custom-columns=N:.metadata.name,R:.status.outbound.perSecond"
                ],
                1
            ),
            ["81.5", "0", "0", "<none>", "81.5"]
        );
    });
}

#[test]
fn kubectl_explains_what_it_cannot_do() {
    with_both(|both| {
        let told = |arguments: &[&str]| {
            let answer = both.kubectl(arguments);
            assert_eq!(answer.code, Some(1), "{arguments:?}: {answer:?}");
            answer.stderr
        };
        let selector = told(&["get", "pmcs", "-A", "--field-selector", "spec.node=n7"]);
        assert!(selector.starts_with("Error from server (BadRequest)"), "{selector}");
        let ours = "field label not supported: spec.node; use metadata.name or metadata.namespace\n";
        assert!(selector.ends_with(ours), "{selector}");
        let delete = told(&["delete", "pmcs", "-n", "mkt", "feed-0"]);
        assert!(delete.starts_with("Error from server (MethodNotAllowed)"), "{delete}");
        let watch = told(&["get", "pmcs", "-n", "mkt", "--watch-only"]);
        assert!(watch.starts_with("Error from server (MethodNotAllowed)"), "{watch}");
    });
}

#[test]
fn api_resources_lists_the_short_names() {
    with_both(|both| {
        let lines = both.lines(&["api-resources", "--no-headers"]);
        let lines: Vec<_> = lines.iter().map(|line| line.join(" ")).collect();
        let version = "stats.antrea.io/v1alpha1";
        assert_eq!(
            lines,
            [
                format!("antreaclusternetworkpolicystats {version} false AntreaClusterNetworkPolicyStats"),
                format!("antreanetworkpolicystats {version} true AntreaNetworkPolicyStats"),
                format!("multicastgroups mcg {version} false MulticastGroup"),
                format!("podmulticaststats pmcs {version} true PodMulticastStats"),
            ]
        );
    });
}
