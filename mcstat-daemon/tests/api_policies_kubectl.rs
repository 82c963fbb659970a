//! The statistics of policies through a real kubectl, and that `mcstat get` prints the same.
//!
//! The nodes and their numbers are those of `api_support::policies`.

mod api_support;

use std::sync::Arc;

use api_support::{
    Printed,
    both::{Both, meaning},
    in_own_network, noon,
    policies::index,
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
fn kubectl_prints_policies_as_antrea_does() {
    with_both(|both| {
        let cluster_wide = "\
NAME         SESSIONS   PACKETS   BYTES    CREATED AT
acnp-feeds   0          1012      143704   2026-11-24T11:00:00Z
acnp-idle    0          0         0        2026-11-24T12:00:00Z
";
        for arguments in ["", " -A", " -n mkt", ".stats.antrea.io"] {
            let arguments = format!("get antreaclusternetworkpolicystats{arguments}");
            assert_eq!(both.kubectl(&split(&arguments)), ok(cluster_wide), "{arguments}");
        }
        let namespaced = "\
NAMESPACE   NAME   SESSIONS   PACKETS   BYTES   CREATED AT
dev         lab    0          0         0       2026-11-24T11:30:00Z
mkt         igmp   0          4         216     2026-11-24T11:00:00Z
";
        assert_eq!(both.kubectl(&split("get antreanetworkpolicystats -A")), ok(namespaced));
        let one = "NAME   SESSIONS   PACKETS   BYTES   CREATED AT\nigmp   0          4         216     2026-11-24T11:00:00Z\n";
        assert_eq!(
            both.kubectl(&split("get antreanetworkpolicystats -n mkt igmp")),
            ok(one)
        );
        let rule = "jsonpath={.ruleTrafficStats[0].name}:{.ruleTrafficStats[0].trafficStats.packets}";
        let mut arguments = split("get antreanetworkpolicystats -n mkt igmp -o");
        arguments.push(rule);
        assert_eq!(both.kubectl(&arguments), ok("drop-report:4"));
    });
}

#[test]
fn kubectl_says_what_is_not_there() {
    with_both(|both| {
        let missing = both.kubectl(&split("get antreanetworkpolicystats -n mkt lab"));
        let text = "Error from server (NotFound): antreanetworkpolicystats.stats.antrea.io \"lab\" not found\n";
        assert_eq!((missing.code, missing.stderr.as_str()), (Some(1), text));
        let missing = both.kubectl(&split("get antreaclusternetworkpolicystats x"));
        let text = "Error from server (NotFound): antreaclusternetworkpolicystats.stats.antrea.io \"x\" not found\n";
        assert_eq!((missing.code, missing.stderr.as_str()), (Some(1), text));
    });
    in_own_network(|| {
        let both = Both::start(Arc::new(SharedIndex::default()));
        for (arguments, said) in [
            ("get antreaclusternetworkpolicystats", "No resources found\n"),
            (
                "get antreanetworkpolicystats",
                "No resources found in default namespace.\n",
            ),
            ("get antreanetworkpolicystats -A", "No resources found\n"),
        ] {
            let nothing = Printed {
                code: Some(0),
                stdout: String::new(),
                stderr: said.to_owned(),
            };
            assert_eq!(both.kubectl(&split(arguments)), nothing);
            assert_eq!(both.mcstat(&split(arguments)), nothing);
        }
    });
}

#[test]
fn kubectl_and_mcstat_print_the_same_of_policies() {
    with_both(|both| {
        for arguments in [
            "get antreaclusternetworkpolicystats",
            "get antreaclusternetworkpolicystats -o wide",
            "get antreaclusternetworkpolicystats -A -o name",
            "get antreaclusternetworkpolicystats acnp-idle acnp-feeds x",
            "get antreanetworkpolicystats -A -o wide",
            "get antreanetworkpolicystats -n mkt",
            "get antreanetworkpolicystats -n dev lab -o name",
            "get antreanetworkpolicystats.stats.antrea.io -n dev lab",
            "get antreanetworkpolicystats igmp",
        ] {
            let (theirs, ours) = (both.kubectl(&split(arguments)), both.mcstat(&split(arguments)));
            assert_eq!(ours, theirs, "{arguments}");
        }
        for arguments in [
            "get antreaclusternetworkpolicystats",
            "get antreaclusternetworkpolicystats acnp-feeds",
            "get antreanetworkpolicystats -A",
            "get antreanetworkpolicystats -n mkt igmp",
        ] {
            for form in [" -o json", " -o yaml"] {
                let arguments = format!("{arguments}{form}");
                let (theirs, ours) = (both.kubectl(&split(&arguments)), both.mcstat(&split(&arguments)));
                assert_eq!((theirs.code, theirs.stderr.as_str()), (Some(0), ""));
                assert_eq!(meaning(&ours.stdout), meaning(&theirs.stdout), "{arguments}");
            }
        }
    });
}

#[test]
fn kubectl_sorts_policies_by_their_numbers() {
    with_both(|both| {
        let sorted = both.kubectl(&split(
            "get antreaclusternetworkpolicystats --sort-by=.trafficStats.packets -o name",
        ));
        assert_eq!(
            sorted,
            ok("antreaclusternetworkpolicystats.stats.antrea.io/acnp-idle\n\
                antreaclusternetworkpolicystats.stats.antrea.io/acnp-feeds\n")
        );
        let wide = both.lines(&split("get antreanetworkpolicystats -n dev -o wide"));
        assert_eq!(wide[1].join(" "), "lab 0 0 0 2026-11-24T11:30:00Z 9 2/2");
    });
}
