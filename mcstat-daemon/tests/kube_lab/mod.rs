//! A real Kubernetes API: etcd and kube-apiserver in a network namespace of their own, asked by kubectl. No node, no
//! controller: what is not created is not there.
//!
//! It needs root, etcd, openssl, and the two programs that `cargo xtask setup` brings.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use mcstat_bed::{
    command::{command, output},
    netns::Netns,
    process::Daemon,
};

/// Antrea's kinds, as far as anybody here looks at them.
pub const CRDS: &str = include_str!("crds.yaml");
const TOKEN: &str = "lab";
const START: Duration = Duration::from_secs(120);

/// The API, and where it is.
pub struct Api {
    // Dropped in this order.
    apiserver: Option<Daemon>,
    _etcd: Daemon,
    pub netns: Netns,
    dir: tempfile::TempDir,
}

impl Api {
    /// Starts it in a network namespace of its own and waits until it is ready.
    pub fn start(name: &str) -> Self {
        Self::within(Netns::new(format!("mcstat-{}-{name}", std::process::id())).unwrap())
    }

    /// Starts it in a network namespace that somebody else has made.
    pub fn within(netns: Netns) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("tokens"), format!("{TOKEN},admin,1,system:masters\n")).unwrap();
        // The key of the service accounts: the API server wants one, and nobody here uses it.
        let args = ["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out"];
        output(command("openssl").args(args).arg(path("sa.key"))).unwrap();
        let etcd = Daemon::start(
            "etcd",
            &netns,
            command("etcd").arg("--data-dir").arg(path("etcd")).args([
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--initial-advertise-peer-urls=http://127.0.0.1:2380",
                "--initial-cluster=default=http://127.0.0.1:2380",
                "--unsafe-no-fsync",
            ]),
            path("etcd.log"),
        );
        let etcd = etcd.expect("this test needs etcd: run `cargo xtask setup`");
        let mut api = Self {
            apiserver: None,
            _etcd: etcd,
            netns,
            dir,
        };
        api.start_server();
        api
    }

    /// Starts the API server, again maybe, on the same state.
    pub fn start_server(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let key = path("sa.key").display().to_string();
        let server = Daemon::start(
            "kube-apiserver",
            &self.netns,
            command(program("MCSTAT_KUBE_APISERVER", "kube-apiserver"))
                .arg(format!("--cert-dir={}", path("certificates").display()))
                .arg(format!("--token-auth-file={}", path("tokens").display()))
                .arg(format!("--service-account-signing-key-file={key}"))
                .arg(format!("--service-account-key-file={key}"))
                .args([
                    "--etcd-servers=http://127.0.0.1:2379",
                    "--bind-address=127.0.0.1",
                    "--advertise-address=192.0.2.1",
                    "--secure-port=6443",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    "--service-cluster-ip-range=10.96.0.0/16",
                    "--authorization-mode=RBAC",
                    // A Pod may then be made without the service account that a controller makes.
                    "--disable-admission-plugins=ServiceAccount",
                ]),
            path("apiserver.log"),
        );
        let mut server = server.unwrap();
        fs::write(self.kubeconfig(), kubeconfig(&path("certificates/apiserver.crt"))).unwrap();
        let ready = || self.try_kubectl(&["get", "--raw", "/readyz"]).ok();
        server.wait_for("kube-apiserver is ready", START, ready).unwrap();
        self.apiserver = Some(server);
    }

    /// SIGKILL: as when its machine goes.
    pub fn kill_server(&mut self) {
        self.apiserver.take().expect("it runs").kill();
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap()
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut kubectl = command(program("MCSTAT_KUBECTL", "kubectl"));
        kubectl
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.kubeconfig())
            .args(arguments);
        self.netns.output(&mut kubectl)
    }

    /// Creates or changes these objects.
    pub fn apply(&self, yaml: &str) {
        let file = self.dir.path().join("objects.yaml");
        fs::write(&file, yaml).unwrap();
        self.kubectl(&["apply", "--filename", &file.display().to_string()]);
    }
}

/// The program that a variable names, else by its name.
fn program(variable: &str, name: &str) -> PathBuf {
    let set = std::env::var_os(variable).filter(|set| !set.is_empty());
    let program = set.map_or_else(|| PathBuf::from(name), PathBuf::from);
    let found = || {
        let path = command(name)
            .get_envs()
            .find_map(|(key, value)| (key == "PATH").then(|| value.unwrap().to_owned()));
        std::env::split_paths(&path.unwrap()).any(|dir| dir.join(&program).is_file())
    };
    assert!(
        program.is_file() || found(),
        "this test needs {name}: run `cargo xtask setup`, or set {variable} to its path"
    );
    program
}

fn kubeconfig(certificate: &Path) -> String {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority": certificate}}],
        "users": [{"name": "lab", "user": {"token": TOKEN}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    })
    .to_string()
}
