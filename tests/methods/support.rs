//! Helpers of the tests of probe methods: clusters with GPU nodes (`node`, `fixture`, `with_image`), the type
//! `Launcher`, and files of the probe (`program`, `probe_binary`).

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use demo_cluster::{
    Cluster, Fixture, NodeFixture, PROBE_IMAGE, PROBE_IMAGE_PINNED, ShellImages, Timing, probe_image_digest,
    workload_pod, workloads_of,
};
use gpu_syringe::audit::{AuditLine, AuditLog};
use gpu_syringe::call::CallContext;
use gpu_syringe::consent::{AlwaysYes, Consent};
use gpu_syringe::probe::{OnPhase, Prober};
use gpu_syringe::settings::Settings;
use gpu_syringe::tools;
use k8s_openapi::api::core::v1::Pod;
use kube_read::Contexts;
use kube_read::Failure;
use serde_json::{Value, json};
use syringe_core::report::Report;
use syringe_core::scenarios;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const NAMESPACE: &str = "gpu-syringe";
pub(crate) const DEBIAN: &str = "docker.io/library/debian:12";
/// The Debian image with its digest, as a node reports a pulled image.
pub(crate) const DEBIAN_PINNED: &str =
    "docker.io/library/debian@sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd";
pub(crate) const BUSYBOX: &str = "docker.io/library/busybox:1.37";

/// Returns a node in the state of a scenario, with the images that inject needs.
pub(crate) fn node(name: &str, scenario: &str) -> NodeFixture {
    let facts = Report { hostname: Some(name.to_owned()), ..scenarios::named(scenario).unwrap().report() };
    let mut node = NodeFixture::from_facts(name, facts);
    node.images.extend([DEBIAN.to_owned(), BUSYBOX.to_owned()]);
    node
}

/// Returns a cluster of a faulty node with its workloads, on which pods start fast.
pub(crate) fn fixture() -> Fixture {
    let node = node("gpu-1", "ecc-remap-pending");
    let pods = workloads_of(&node);
    Fixture { pods, programs: Arc::new(ShellImages::default()), ..Fixture::of([node]) }
}

/// Returns a cluster whose base image has the name of the Debian image and these programs.
pub(crate) fn with_image(image: demo_cluster::Image) -> Fixture {
    let mut fixture = fixture();
    for node in &mut fixture.nodes {
        node.images = [PROBE_IMAGE, PROBE_IMAGE_PINNED, DEBIAN].map(str::to_owned).into();
    }
    Fixture { programs: Arc::new(ShellImages::of([(DEBIAN, image)])), ..fixture }
}

/// The image of the probe as nodes report it.
pub(crate) const OURS: [&str; 2] = [PROBE_IMAGE, PROBE_IMAGE_PINNED];

/// Returns a pod of the cluster's software that runs this image on a node with privileges.
pub(crate) fn privileged_pod(name: &str, node: &str, image: &str) -> Pod {
    let mut pod = workload_pod("kube-system", name, node, 0);
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.security_context.get_or_insert_default().privileged = Some(true);
    pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].image_id = image.to_owned();
    pod
}

/// Returns a timing that is slow enough to cancel a call before its end.
pub(crate) fn slow() -> Timing {
    Timing { container_start: Duration::from_millis(400), ..Timing::fast() }
}

/// Returns a file with the header of a program for this machine, long enough for many frames.
pub(crate) fn program(machine: u8) -> Vec<u8> {
    let mut bytes = [b"\x7fELF\x02\x01".as_slice(), &[0; 12], &[machine, 0]].concat();
    let mut state = 1_u32;
    bytes.extend((0..500_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    }));
    bytes
}

static PROGRAMS: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    for (name, machine) in [("amd64", 62), ("arm64", 183)] {
        std::fs::write(directory.path().join(name), program(machine)).unwrap();
    }
    directory
});

/// Returns the file of a probe for this architecture.
pub(crate) fn probe_binary(architecture: &str) -> PathBuf {
    PROGRAMS.path().join(architecture)
}

/// A launcher, as a host would start it with some arguments.
pub(crate) struct Launcher {
    pub(crate) settings: Arc<Settings>,
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) prober: Prober,
    pub(crate) cancel: CancellationToken,
    /// Called with each phase of a call.
    pub(crate) on_phase: OnPhase,
    /// Contains the audit log.
    folder: TempDir,
}

impl Launcher {
    pub(crate) fn start(cluster: &Cluster, words: &[&str]) -> Self {
        let binary = probe_binary("amd64");
        let usual = ["--probe-binary", binary.to_str().unwrap(), "--start-timeout", "5", "--call-timeout", "20"];
        let usual = [&usual[..], &["--ephemeral-pod", "any"]].concat();
        // An argument of the test replaces the default argument.
        let usual = usual.chunks(2).filter(|pair| !words.contains(&pair[0])).flatten();
        let settings = Settings::from_args(usual.chain(words).copied()).unwrap();
        Self::with_settings(cluster, settings.with_released_digest(probe_image_digest()))
    }

    /// Starts a launcher with exactly these arguments.
    pub(crate) fn exactly(cluster: &Cluster, words: &[&str]) -> Self {
        let settings = Settings::from_args(words.iter().copied()).unwrap();
        Self::with_settings(cluster, settings.with_released_digest(probe_image_digest()))
    }

    /// Starts a launcher that has no image digest, like a launcher that was built without a release.
    pub(crate) fn without_digest(cluster: &Cluster) -> Self {
        let binary = probe_binary("amd64");
        let settings = Settings::from_args(["--probe-binary", binary.to_str().unwrap()]).unwrap();
        Self::with_settings(cluster, settings)
    }

    fn with_settings(cluster: &Cluster, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let contexts = Arc::new(Contexts::in_memory(cluster.kubeconfig(), None));
        let folder = tempfile::tempdir().unwrap();
        let prober = Prober::new(settings.clone(), CancellationToken::new()).with_audit(AuditLog::at(folder.path()));
        let cancel = CancellationToken::new();
        Self { settings, contexts, prober, cancel, on_phase: Arc::new(|_| ()), folder }
    }

    pub(crate) async fn call(&self, tool: &str, args: Value) -> Result<Value, Failure> {
        let tools = tools::all(self.settings.mode);
        let entry = tools.iter().find(|entry| entry.name == tool).unwrap();
        let consent = Consent::new(Arc::new(AlwaysYes), Arc::default());
        let call = CallContext::new(self.settings.clone(), self.contexts.clone(), self.prober.clone(), consent);
        entry
            .call(CallContext { cancel: self.cancel.clone(), on_phase: self.on_phase.clone(), ..call }, args)
            .await
            .map(|rendered| rendered.json)
    }

    /// Returns the inventory of the fixture's node.
    pub(crate) async fn inventory(&self) -> Result<Value, Failure> {
        self.call("get_gpu_inventory", json!({ "node_name": "gpu-1" })).await
    }

    /// Returns the lines of the audit log.
    pub(crate) fn audit(&self) -> Vec<AuditLine> {
        AuditLog::at(self.folder.path()).read(100).unwrap()
    }

    /// Returns the error text of a call that must fail.
    pub(crate) async fn failure(&self) -> String {
        self.inventory().await.expect_err("a failure").to_string()
    }
}

/// Returns the number of existing probe pods.
pub(crate) fn ours(cluster: &Cluster) -> usize {
    cluster.pods(NAMESPACE).len()
}
