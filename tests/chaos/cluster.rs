//! The type `Site`: the cluster of a chaos run, embedded or real, accessed without the proxy.

use std::sync::Arc;
use std::time::Duration;

use demo_cluster::{Cluster, Fixture, ShellImages, workloads_of};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::bed::node;
use crate::support::launcher::Launcher;
use crate::support::wait;

const DEBIAN: &str = "docker.io/library/debian:12";

/// The cluster of a run.
pub(crate) struct Site {
    pub(crate) config: Config,
    pub(crate) client: Client,
    embedded: Option<Cluster>,
    /// Image of the probe; `None` means the default of the launcher.
    image: Option<String>,
    /// The node that all calls use on a real cluster.
    node: Option<String>,
    files: tempfile::TempDir,
}

impl Site {
    /// Starts an embedded cluster with two nodes for each worker.
    pub(crate) async fn embedded(workers: usize) -> Self {
        let nodes = (0..workers).flat_map(|worker| {
            let mut pair = [
                node(&format!("healthy-{worker}"), "healthy-h100-8"),
                node(&format!("faulty-{worker}"), "ecc-remap-pending"),
            ];
            pair.iter_mut().for_each(|node| node.images = vec![DEBIAN.to_owned()]);
            pair
        });
        let nodes: Vec<_> = nodes.collect();
        // The pods that own the processes on the nodes. The names of the pods are different on each node.
        let pods = nodes.iter().flat_map(|node| {
            workloads_of(node).into_iter().map(|mut pod| {
                pod.metadata.name = pod.metadata.name.map(|name| format!("{name}-{}", node.name));
                pod
            })
        });
        let pods = pods.collect();
        let namespaces = (0..workers).map(namespace).collect();
        let fixture = Fixture { namespaces, pods, programs: Arc::new(ShellImages::default()), ..Fixture::of(nodes) };
        let cluster = Cluster::start(fixture).await.expect("a free port");
        let site = Self::of(cluster.kubeconfig(), Some(cluster)).await;
        let program = [b"\x7fELF\x02\x01".as_slice(), &[0; 12], &[62, 0], &[7; 300_000]].concat();
        std::fs::write(site.files.path().join("node-probe"), program).expect("a file");
        site
    }

    /// Opens the cluster of a kubeconfig file, and creates a namespace for each worker. The nodes must have the image.
    pub(crate) async fn real(kubeconfig: &str, image: String, workers: usize) -> Self {
        let site = Self::of(Kubeconfig::read_from(kubeconfig).expect("a kubeconfig"), None).await;
        let nodes = Api::<Node>::all(site.client.clone()).list(&ListParams::default()).await.expect("nodes");
        let node = nodes.items.first().expect("a node").name_any();
        for worker in 0..workers {
            let namespaces = Api::<Namespace>::all(site.client.clone());
            let _ = namespaces.create(&PostParams::default(), &namespace(worker)).await;
            let accounts = Api::<ServiceAccount>::namespaced(site.client.clone(), &namespace_name(worker));
            wait::until("a service account", async || accounts.get_opt("default").await.ok().flatten()).await;
        }
        Self { image: Some(image), node: Some(node), ..site }
    }

    async fn of(kubeconfig: Kubeconfig, embedded: Option<Cluster>) -> Self {
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a context");
        let client = Client::try_from(config.clone()).expect("a client");
        Self { config, client, embedded, image: None, node: None, files: tempfile::tempdir().expect("a directory") }
    }

    /// Returns whether the cluster is the embedded one.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Returns the name of a worker's healthy or faulty node.
    pub(crate) fn node(&self, worker: usize, healthy: bool) -> String {
        let kind = if healthy { "healthy" } else { "faulty" };
        self.node.clone().unwrap_or_else(|| format!("{kind}-{worker}"))
    }

    /// Configures a launcher for this cluster.
    pub(crate) fn configure(&self, launcher: Launcher, worker: usize) -> Launcher {
        let launcher = launcher
            .env("GPU_SYRINGE_PROBE_NAMESPACE", namespace_name(worker))
            .env("GPU_SYRINGE_ALLOW_NODES", "*")
            .env("GPU_SYRINGE_BASE_IMAGE", DEBIAN)
            .env("GPU_SYRINGE_PROBE_BINARY", self.files.path().join("node-probe"));
        match &self.image {
            Some(image) => launcher.env("GPU_SYRINGE_IMAGE", image),
            None => launcher.env("GPU_SYRINGE_IMAGE_DIGEST", demo_cluster::probe_image_digest()),
        }
    }

    /// Returns the API of the pods in the namespace of a worker.
    pub(crate) fn pods_api(&self, worker: usize) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &namespace_name(worker))
    }

    /// Returns the pods that exist in the namespace of a worker.
    pub(crate) async fn pods(&self, worker: usize) -> Vec<Pod> {
        self.pods_api(worker).list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
    }

    /// Deletes the pods of a worker, as another user of the cluster might.
    pub(crate) async fn delete_pods(&self, worker: usize, now: bool) -> usize {
        let parameters = if now { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
        let pods = self.pods(worker).await;
        for pod in &pods {
            let _ = self.pods_api(worker).delete(&pod.name_any(), &parameters).await;
        }
        pods.len()
    }

    /// Stops the kubelet of a worker's nodes for some time. On a real cluster, the command in `CHAOS_STOP_KUBELET` is run,
    /// with the number of seconds as its last argument.
    pub(crate) async fn stop_kubelet(&self, worker: usize, time: Duration) {
        let Some(cluster) = &self.embedded else {
            let Ok(command) = std::env::var("CHAOS_STOP_KUBELET") else { return };
            let command = format!("{command} {}", time.as_secs().clamp(1, 20));
            let stopping = tokio::task::spawn_blocking(move || {
                std::process::Command::new("sh").args(["-c", &command]).status().expect("a shell")
            });
            assert!(stopping.await.expect("it ends").success(), "CHAOS_STOP_KUBELET failed");
            return;
        };
        let nodes = [true, false].map(|healthy| self.node(worker, healthy));
        let set = |stopped| {
            cluster.faults(|faults| nodes.iter().for_each(|node| faults.on(node).not_ready = stopped));
        };
        set(true);
        tokio::time::sleep(time).await;
        set(false);
    }

    /// Removes the namespaces of a real cluster.
    pub(crate) async fn remove(&self, workers: usize) {
        if self.embedded.is_none() {
            for worker in 0..workers {
                let namespaces = Api::<Namespace>::all(self.client.clone());
                let _ = namespaces.delete(&namespace_name(worker), &DeleteParams::default()).await;
            }
        }
    }
}

fn namespace_name(worker: usize) -> String {
    format!("gpu-syringe-chaos-{worker}")
}

fn namespace(worker: usize) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(namespace_name(worker));
    let label = ("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned());
    namespace.metadata.labels = Some([label].into());
    namespace
}
