//! `Embedded`: a demo cluster in this process with its kubeconfig. `large`: starts a cluster with many GPU nodes and
//! pods. `nodes`: the nodes of such a cluster.

use std::path::PathBuf;
use std::sync::Arc;

use demo_cluster::{Cluster, Fixture, NodeFacts, NodeFixture, Timing, workload_pod};
use syringe_core::report::Report;
use syringe_core::scenarios;

use crate::options::Options;

/// A running cluster with its kubeconfig.
pub(crate) struct Embedded {
    pub(crate) cluster: Cluster,
    directory: tempfile::TempDir,
}

impl Embedded {
    pub(crate) async fn start(fixture: Fixture) -> Self {
        let cluster = Cluster::start(fixture).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("kubeconfig"), cluster.kubeconfig_yaml()).unwrap();
        Self { cluster, directory }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }
}

/// Returns `count` nodes with eight healthy GPUs each.
pub(crate) fn nodes(count: usize) -> Vec<NodeFixture> {
    let facts: Arc<Report> = Arc::new(scenarios::named("healthy-h100-8").unwrap().report());
    let node = |number: usize| {
        let node = NodeFixture::from_facts(&format!("node-{number:04}"), Report::clone(&facts));
        NodeFixture { facts: NodeFacts::Known(facts.clone()), ..node }
    };
    (0..count).map(node).collect()
}

/// Starts the large cluster. One pod in ten holds GPUs.
pub(crate) async fn large(options: &Options) -> Embedded {
    let pod = |number: usize| {
        let node = format!("node-{:04}", number % options.nodes);
        let gpus = if number.is_multiple_of(10) { 4 } else { 0 };
        workload_pod(&format!("team-{}", number % 50), &format!("job-{number}"), &node, gpus)
    };
    let pods = (0..options.pods).map(pod).collect();
    Embedded::start(Fixture { nodes: nodes(options.nodes), pods, timing: Timing::fast(), ..Fixture::default() }).await
}
