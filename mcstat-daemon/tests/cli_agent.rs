//! `mcstat agent` as a process: how it says that it cannot start. What it does once started is in the kernel tests.

mod api_support;

use api_support::{mcstat, printed};

/// What stands on standard error; the agent has ended with 1 and printed nothing.
fn refused(arguments: &[&str]) -> String {
    let answer = printed(mcstat(["agent"].iter().chain(arguments)));
    assert_eq!(
        (answer.code, answer.stdout.as_str()),
        (Some(1), ""),
        "{}",
        answer.stderr
    );
    answer.stderr
}

#[test]
fn a_wrong_configuration_is_one_line_that_says_each_thing_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yaml");
    let name = path.to_str().unwrap();
    assert_eq!(
        refused(&["--config", name]),
        format!("error: configuration {name} cannot be read: No such file or directory (os error 2); check --config\n")
    );
    std::fs::write(&path, "source:\n  ovsdb:\n    sokcet: /x\n").unwrap();
    assert_eq!(
        refused(&["--config", name]),
        format!(
            "error: configuration {name}: source.ovsdb: unknown field `sokcet`, expected `socket` or `bridge` at line 3 \
             column 5; docs/configuration.md lists every key\n"
        )
    );
}
