//! A real kubectl, straight at the server: what it prints, and that `mcstat get` prints the same, byte for byte.

#![expect(clippy::unwrap_used, reason = "a test says what must hold by panicking")]

mod api_support;

use api_support::{Kubectl, Printed, cluster_index, in_own_network, mcstat, noon, printed};
use mcstat::aggregator::http::{Role, router};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Runtime,
};

/// The cluster at noon, over TCP for kubectl and over a unix socket for mcstat.
struct Both {
    kubectl: Kubectl,
    folder: tempfile::TempDir,
    _runtime: Runtime,
}

impl Both {
    /// Call it in a network of your own.
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let app = router(cluster_index(noon()), Role::Aggregator, noon);
        let address = runtime.block_on(async {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let unix = UnixListener::bind(folder.path().join("s")).unwrap();
            let address = tcp.local_addr().unwrap();
            let same = app.clone();
            tokio::spawn(async move { axum::serve(tcp, app).await });
            tokio::spawn(async move { axum::serve(unix, same).await });
            address
        });
        Self {
            kubectl: Kubectl::new(&format!("http://{address}")),
            folder,
            _runtime: runtime,
        }
    }

    fn kubectl(&self, arguments: &[&str]) -> Printed {
        self.kubectl.run(arguments)
    }

    fn mcstat(&self, arguments: &[&str]) -> Printed {
        let mut command = mcstat(arguments);
        command.env("MCSTAT_SOCKET", self.folder.path().join("s"));
        printed(command)
    }

    fn lines(&self, arguments: &[&str]) -> Vec<Vec<String>> {
        let answer = self.kubectl(arguments);
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        answer
            .stdout
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect()
    }
}

fn with_both(body: impl FnOnce(&Both) + Send) {
    in_own_network(|| body(&Both::start()));
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
                // YAML contains JSON; numbers are compared as numbers, since Go prints 0.0 as 0.
                let parse = |text: &str| -> serde_yaml::Value { serde_yaml::from_str(text).unwrap() };
                let (theirs, ours) = (parse(&theirs.stdout), parse(&ours.stdout));
                assert_eq!(numbers_alike(ours), numbers_alike(theirs), "{arguments:?}");
            }
        }
    });
}

/// Every number as f64; the fixture has none that loses by it.
fn numbers_alike(value: serde_yaml::Value) -> serde_yaml::Value {
    use serde_yaml::Value;
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap()),
        Value::Sequence(items) => Value::Sequence(items.into_iter().map(numbers_alike).collect()),
        Value::Mapping(map) => Value::Mapping(
            map.into_iter()
                .map(|(key, value)| (key, numbers_alike(value)))
                .collect(),
        ),
        other => other,
    }
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
fn api_resources_lists_the_short_name() {
    with_both(|both| {
        let lines = both.lines(&["api-resources", "--no-headers"]);
        assert_eq!(
            lines,
            [[
                "podmulticaststats",
                "pmcs",
                "stats.antrea.io/v1alpha1",
                "true",
                "PodMulticastStats"
            ]]
        );
    });
}
