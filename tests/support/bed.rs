//! `Bed`: a demo cluster, its kubeconfig, a home directory and launchers. `node`: a node of a base scenario.
//! `Prints`, `Fails`, `Stuck`: fake node-probes.
#![allow(dead_code, reason = "each test program uses only some of the functions")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use demo_cluster::{Cluster, Faults, Fixture, Invocation, NodeFixture, NodeProbe, Process, Programs, Streams};
use k8s_openapi::api::core::v1::Pod;
use syringe_core::scenarios;

use crate::support::client::Client;
use crate::support::launcher::Launcher;
use crate::support::wait;

/// The namespace of probe pods.
pub(crate) const NAMESPACE: &str = "gpu-syringe";
/// Maximum time until a pod is deleted after the end of its call.
const REMOVAL: Duration = Duration::from_secs(5);

/// A cluster and a home directory for its launchers.
pub(crate) struct Bed {
    /// The cluster.
    pub(crate) cluster: Cluster,
    home: tempfile::TempDir,
}

impl Bed {
    /// Starts a cluster with one healthy node, `gpu-1`.
    pub(crate) async fn healthy() -> Self {
        Self::of(Fixture::of([node("gpu-1", "healthy-h100-8")])).await
    }

    /// Starts a cluster with one healthy node and these faults.
    pub(crate) async fn with(faults: impl FnOnce(&mut Faults)) -> Self {
        let bed = Self::healthy().await;
        bed.cluster.faults(faults);
        bed
    }

    /// Starts a cluster with one healthy node that runs another program instead of node-probe.
    pub(crate) async fn running(programs: impl Programs) -> Self {
        let programs = Arc::new(programs);
        Self::of(Fixture { programs, ..Fixture::of([node("gpu-1", "healthy-h100-8")]) }).await
    }

    /// Starts a cluster with this fixture.
    pub(crate) async fn of(fixture: Fixture) -> Self {
        let cluster = Cluster::start(fixture).await.expect("a free port");
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("config"), cluster.kubeconfig_yaml()).expect("a file");
        Self { cluster, home }
    }

    /// Returns the home directory of the launchers.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns the path of the kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home().join("config")
    }

    /// Returns a launcher with the kubeconfig of the cluster and the digest of the image that its nodes have.
    pub(crate) fn launcher(&self) -> Launcher {
        self.bare_launcher().env("GPU_SYRINGE_IMAGE_DIGEST", demo_cluster::probe_image_digest())
    }

    /// Returns a launcher with the kubeconfig of the cluster and no other setting.
    pub(crate) fn bare_launcher(&self) -> Launcher {
        Launcher::alone(self.home()).env("KUBECONFIG", self.kubeconfig())
    }

    /// Starts a session with a launcher that has the kubeconfig and the image digest.
    pub(crate) async fn client(&self) -> Client {
        Client::start(self.launcher()).await
    }

    /// Returns the lines of the audit log, oldest first.
    pub(crate) fn audit(&self) -> Vec<serde_json::Value> {
        let file = self.home().join("state/gpu-syringe/audit.jsonl");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Returns the existing probe pods.
    pub(crate) fn pods(&self) -> Vec<Pod> {
        self.cluster.pods(NAMESPACE)
    }

    /// Asserts that this number of pods was created, and that none is left.
    pub(crate) fn assert_bare(&self, created: u64) {
        let names: Vec<_> = self.pods().into_iter().filter_map(|pod| pod.metadata.name).collect();
        assert_eq!((self.cluster.pods_created(), names), (created, Vec::new()));
    }

    /// Waits until no probe pod is left.
    pub(crate) async fn until_bare(&self) {
        wait::within(REMOVAL, "the probe pod is gone", async || self.pods().is_empty().then_some(())).await;
    }
}

/// Returns a node with the facts of this scenario.
pub(crate) fn node(name: &str, scenario: &str) -> NodeFixture {
    NodeFixture::from_facts(name, scenarios::named(scenario).expect("a scenario").report())
}

/// A node-probe that prints the same text for all arguments.
pub(crate) struct Prints(pub(crate) &'static str);

impl Programs for Prints {
    fn start(&self, _: &Invocation, streams: Streams) -> Option<Process> {
        let text = self.0;
        Some(Box::pin(async move {
            let _ = streams.stdout.send(text.into()).await;
            0
        }))
    }
}

/// A node-probe that keeps the pod running. For all other commands, it exits with code 2 and this error text.
pub(crate) struct Fails(pub(crate) &'static str);

impl Programs for Fails {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        if invocation.argv.get(1).is_some_and(|word| word == "hold") {
            return NodeProbe.start(invocation, streams);
        }
        let words = self.0;
        Some(Box::pin(async move {
            let _ = streams.stderr.send(words.into()).await;
            2
        }))
    }
}

/// A node-probe that neither prints nor exits, as if the driver hung.
pub(crate) struct Stuck;

impl Programs for Stuck {
    fn start(&self, _: &Invocation, streams: Streams) -> Option<Process> {
        Some(Box::pin(async move {
            let _open = streams;
            std::future::pending().await
        }))
    }
}
