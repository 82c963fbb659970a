//! The agent as its users run it: the binary with a configuration file, in the network namespace of the calling thread,
//! asked by `mcstat get`.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

const MCSTAT: &str = env!("CARGO_BIN_EXE_mcstat");

/// A node: configuration, socket, log. Agents come and go in it.
pub struct Node {
    directory: tempfile::TempDir,
    running: Option<Child>,
}

impl Node {
    /// `source` is the YAML of the key of that name.
    pub fn new(bpffs: &Path, source: &Value) -> Self {
        Self::with(bpffs, source, &Value::Null)
    }

    /// The same with more keys, or other values of the ones that are set here.
    pub fn with(bpffs: &Path, source: &Value, more: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = serde_json::json!({
            "node": "n1",
            "source": source,
            "tick": "100ms",
            "window": "1s",
            "bpffs": bpffs,
            "socket": directory.path().join("agent.sock"),
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        // JSON is YAML.
        fs::write(directory.path().join("agent.yaml"), config.to_string()).unwrap();
        Self {
            directory,
            running: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What all agents of this node wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts the agent; it needs some time to answer.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "one agent at a time");
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.path("log"))
            .unwrap();
        let child = Command::new(MCSTAT)
            .args(["agent", "--config"])
            .arg(self.path("agent.yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(child);
    }

    /// SIGSTOP: it does nothing until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.running.as_ref().expect("an agent runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    /// SIGKILL, and the end awaited.
    pub fn kill(&mut self) {
        let mut child = self.running.take().expect("an agent runs");
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "the agent ended by itself: {}",
            self.log()
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// All Pods of a namespace as the agent tells them in one list.
    pub fn pods(&self, namespace: &str) -> Vec<Value> {
        let output = Command::new(MCSTAT)
            .args(["get", "podmulticaststats", "-n", namespace, "-o", "json", "--socket"])
            .arg(self.path("agent.sock"))
            .output()
            .unwrap();
        let mut list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        }
    }

    /// A Pod as the agent tells it; `None` while it does not answer or knows no such Pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Value> {
        self.get(&["podmulticaststats", name, "-n", namespace])
            .filter(|object| object["metadata"]["name"] == name)
    }

    /// What `mcstat get` prints of these words as JSON; `None` while the agent does not answer or has no such thing.
    pub fn get(&self, words: &[&str]) -> Option<Value> {
        let mut get = Command::new(MCSTAT);
        get.arg("get").args(words).args(["-o", "json", "--socket"]);
        let output = get.arg(self.path("agent.sock")).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // Either fails only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Packets that the Pod sent and received; `None` while an interface of it is not counted.
pub fn packets(pod: &Value) -> Option<(u64, u64)> {
    let status = &pod["status"];
    let counted = |interface: &Value| interface["counted"] == true;
    let interfaces = status["interfaces"].as_array()?;
    (!interfaces.is_empty() && interfaces.iter().all(counted)).then_some(())?;
    Some((
        status["outbound"]["sent"].as_u64()?,
        status["inbound"]["packets"].as_u64()?,
    ))
}
