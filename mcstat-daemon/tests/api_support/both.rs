//! One server for a real kubectl and for `mcstat get`.

use std::sync::Arc;

use mcstat::aggregator::{
    http::{Role, router},
    index::SharedIndex,
};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Runtime,
};

use super::{Kubectl, Printed, mcstat, noon, printed};

/// This index at noon, over TCP for kubectl and over a unix socket for mcstat.
pub(crate) struct Both {
    kubectl: Kubectl,
    folder: tempfile::TempDir,
    _runtime: Runtime,
}

impl Both {
    /// Call it in a network of your own.
    pub(crate) fn start(index: Arc<SharedIndex>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let app = router(index, Role::Aggregator, noon);
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

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Printed {
        self.kubectl.run(arguments)
    }

    pub(crate) fn mcstat(&self, arguments: &[&str]) -> Printed {
        let mut command = mcstat(arguments);
        command.env("MCSTAT_SOCKET", self.folder.path().join("s"));
        printed(command)
    }

    pub(crate) fn lines(&self, arguments: &[&str]) -> Vec<Vec<String>> {
        let answer = self.kubectl(arguments);
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        answer
            .stdout
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect()
    }
}

/// What JSON or YAML says (YAML contains JSON), every number as f64, since Go prints 0.0 as 0; the fixtures have none that
/// loses by it.
pub(crate) fn meaning(text: &str) -> serde_yaml::Value {
    numbers_alike(serde_yaml::from_str(text).unwrap())
}

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
