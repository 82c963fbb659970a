//! Replays numbered snapshots through the ledger, or what reaches an aggregator through its index, and compares what they
//! say with what is recorded.
//!
//! `tests/scenarios/NAME/` holds a `README`, `NN-input-snapshot.json` in the order of the ticks, `NN-output-summary.json`
//! with the whole summary, and `expected.json`: values worked out by hand (`null`: absent), by step and JSON pointer.
//! An aggregator's steps are `NN-input-cluster.json`, what it serves after each is `NN-output-lists.json`.
//! `MCSTAT_BLESS=1` rewrites the outputs; it never touches, and never excuses, the values worked out by hand.
//! `tests/scenarios/README` says how a step is written, IGMP and MLD messages included.

mod scenarios_cluster;
mod scenarios_support;
mod scenarios_tally;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use mcstat::{
    api::summary::NodeStatsSummary,
    ledger::{
        Ledger, Node, WINDOW_SECONDS,
        snapshot::{Enforced, Snapshot},
    },
};
use scenarios_cluster::Cluster;
use scenarios_support::policy::{Counted, Policies};
use scenarios_tally::Tally;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

fn node() -> Node {
    Node {
        name: "n7".to_owned(),
        start_time: "2026-11-24T07:00:00Z".parse().expect("a time"),
        push_interval_seconds: 10,
        window_seconds: WINDOW_SECONDS,
    }
}

#[test]
fn every_scenario_gives_what_is_recorded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut failures = Vec::new();
    let scenarios: Vec<_> = entries(&root).into_iter().filter(|path| path.is_dir()).collect();
    assert!(!scenarios.is_empty(), "no scenarios in {}", root.display());
    for scenario in scenarios {
        replay(&scenario, &mut failures);
    }
    assert!(
        failures.is_empty(),
        "{}\nMCSTAT_BLESS=1 rewrites what is recorded",
        failures.join("\n")
    );
}

fn replay(scenario: &Path, failures: &mut Vec<String>) {
    assert!(scenario.join("README").is_file(), "{}: no README", scenario.display());
    let expected: BTreeMap<String, BTreeMap<String, Value>> = parse(&scenario.join("expected.json"));
    let ticks = steps(scenario, "-input-snapshot.json");
    let arrivals = steps(scenario, "-input-cluster.json");
    assert!(
        ticks.is_empty() != arrivals.is_empty(),
        "{}: steps of either a ledger or an aggregator",
        scenario.display()
    );
    let (steps, said, ending) = if arrivals.is_empty() {
        let said = through_the_ledger(&ticks, failures);
        (ticks, said, "-output-summary.json")
    } else {
        let said = Cluster::replay(scenario, arrivals.values());
        (arrivals, said, "-output-lists.json")
    };
    let recorded = steps_without_input(scenario, &steps);
    assert!(
        recorded.is_empty(),
        "{}: outputs without an input: {recorded:?}",
        scenario.display()
    );
    assert!(
        expected.keys().eq(steps.keys()),
        "{}: expected.json does not name the steps",
        scenario.display()
    );
    for (step, text) in steps.keys().zip(said) {
        by_hand(scenario, step, &text, &expected, failures);
        compare(&scenario.join(format!("{step}{ending}")), &text, failures);
    }
}

/// The summary of each tick.
fn through_the_ledger(steps: &BTreeMap<String, PathBuf>, failures: &mut Vec<String>) -> Vec<String> {
    let mut ledger = Ledger::new(node());
    let (mut held, mut tally) = (Held::default(), Tally::default());
    let mut said = Vec::new();
    for input in steps.values() {
        let snapshot = held.snapshot(input);
        let wrong = tally.check(&snapshot).into_iter();
        failures.extend(wrong.map(|wrong| format!("{}: {wrong}", input.display())));
        let summary = ledger.tick(&snapshot);
        let text = serde_json::to_string_pretty(&summary).expect("a summary is JSON") + "\n";
        let again: NodeStatsSummary = serde_json::from_str(&text).expect("a summary can be read again");
        assert_eq!(again, summary, "{}: it does not survive JSON", input.display());
        said.push(text);
    }
    said
}

/// What holds from one step to the next unless a step says otherwise.
#[derive(Default)]
struct Held {
    ports: Value,
    policies: Option<Policies>,
    enforced: Enforced,
    rules: BTreeMap<String, Counted>,
}

impl Held {
    /// The snapshot of one step.
    fn snapshot(&mut self, input: &Path) -> Snapshot {
        let mut step: Map<String, Value> = parse(input);
        let lines: Vec<String> = take(&mut step, "messages", input).unwrap_or_default();
        self.take_policies(&mut step, input);
        self.ports = step.entry("ports").or_insert_with(|| self.ports.take()).clone();
        let mut snapshot: Snapshot =
            serde_json::from_value(Value::Object(step)).unwrap_or_else(|error| panic!("{}: {error}", input.display()));
        let events = lines.iter().map(|line| {
            let event = scenarios_support::event(line);
            event.unwrap_or_else(|reason| panic!("{}: {line}: {reason}", input.display()))
        });
        snapshot.messages = events.collect();
        let policies = self.policies.as_mut();
        snapshot.policy =
            policies.map(|policies| policies.reading(&snapshot.ports, self.enforced, &self.rules, snapshot.at));
        snapshot
    }

    fn take_policies(&mut self, step: &mut Map<String, Value>, input: &Path) {
        let refused: Vec<String> = take(step, "refused", input).unwrap_or_default();
        let file: Option<Option<String>> = take(step, "policies", input);
        match file {
            Some(Some(name)) => {
                let text = fs::read_to_string(input.with_file_name(name));
                let text = text.unwrap_or_else(|error| panic!("{}: policies: {error}", input.display()));
                let policies = self.policies.get_or_insert_with(Policies::new);
                assert_eq!(policies.take(&text), refused, "{}: refused", input.display());
            }
            Some(None) => self.policies = None,
            None => assert!(refused.is_empty(), "{}: refused without policies", input.display()),
        }
        self.enforced = take(step, "enforced", input).unwrap_or(self.enforced);
        if let Some(rules) = take(step, "rules", input) {
            self.rules = rules;
        }
    }
}

/// A field that a snapshot does not have.
fn take<T: DeserializeOwned>(step: &mut Map<String, Value>, field: &str, input: &Path) -> Option<T> {
    let value = step.remove(field)?;
    let value = serde_json::from_value(value);
    Some(value.unwrap_or_else(|error| panic!("{}: {field}: {error}", input.display())))
}

fn by_hand(
    scenario: &Path,
    step: &str,
    text: &str,
    expected: &BTreeMap<String, BTreeMap<String, Value>>,
    failures: &mut Vec<String>,
) {
    let said: Value = serde_json::from_str(text).expect("what is said is JSON");
    for (pointer, value) in expected.get(step).into_iter().flatten() {
        let found = said.pointer(pointer).unwrap_or(&Value::Null);
        if found != value {
            failures.push(format!(
                "{}: step {step}: {pointer} is {found}, expected {value}",
                scenario.display()
            ));
        }
    }
}

fn compare(recorded: &Path, text: &str, failures: &mut Vec<String>) {
    if std::env::var_os("MCSTAT_BLESS").is_some() {
        fs::write(recorded, text).unwrap_or_else(|error| panic!("{}: {error}", recorded.display()));
    } else if fs::read_to_string(recorded).ok().as_deref() != Some(text) {
        failures.push(format!("{}: now it is\n{text}", recorded.display()));
    }
}

/// The step numbers and files with this ending.
fn steps(scenario: &Path, ending: &str) -> BTreeMap<String, PathBuf> {
    let named = entries(scenario).into_iter().filter_map(|path| {
        let step = path.file_name()?.to_str()?.strip_suffix(ending)?.to_owned();
        Some((step, path))
    });
    named.collect()
}

fn steps_without_input(scenario: &Path, inputs: &BTreeMap<String, PathBuf>) -> Vec<PathBuf> {
    let outputs = ["-output-summary.json", "-output-lists.json"].map(|ending| steps(scenario, ending));
    outputs
        .into_iter()
        .flatten()
        .filter(|(step, _)| !inputs.contains_key(step))
        .map(|(_, path)| path)
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = listing.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths
}

fn parse<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_line_that_says_something_unknown_is_refused() {
    for (line, reason) in [
        ("2026-11-24T08:00:01Z 1 out", "not SOURCE KIND … and not raw HEX"),
        (
            "2026-11-24T08:00:01Z 1 up 10.0.0.1 igmpv2-report 239.1.1.1",
            "up is neither in nor out",
        ),
        (
            "2026-11-24T08:00:01Z 1 out 10.0.0.1 igmpv2-report 239.1.1",
            "239.1.1 is no Ipv4Addr",
        ),
        (
            "2026-11-24T08:00:01Z 1 out 10.0.0.1 igmpv3-report IS(239.1.1.1)",
            "IS is no kind of record",
        ),
        (
            "2026-11-24T08:00:01Z 1 out 10.0.0.1 igmpv3-report IS_EX(239.1.1.1",
            "a ( without its )",
        ),
        (
            "2026-11-24T08:00:01Z 1 in 10.0.0.1 igmpv2-query qrv=2",
            "qrv means nothing here",
        ),
        ("2026-11-24T08:00:01Z 1 out raw 4", "4 is not hexadecimal"),
    ] {
        assert_eq!(scenarios_support::event(line).unwrap_err(), reason, "{line}");
    }
}

#[test]
fn a_line_becomes_the_packet_that_it_says() {
    let line = "2026-11-24T08:00:01Z 1 out 10.0.0.1 igmpv3-report TO_EX(239.1.1.1 x2) IS_IN(239.2.0.1; 192.0.2.1, 192.0.2.2; aux=2)";
    let event = scenarios_support::event(line).unwrap();
    // 24 bytes of IP header with router alert, 8 of IGMP, 8 + 8, and 8 + 2 sources + 2 words.
    assert_eq!(event.original_length, 24 + 8 + 16 + 24);
    let message = event.message.unwrap();
    assert_eq!(message.body.records(), 3);
    assert_eq!(message.envelope.destination.to_string(), "224.0.0.22");
}
