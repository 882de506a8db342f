//! The type `Site`: a real cluster, selected by environment variables, and launchers that use it.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client as Kubernetes, Config, ResourceExt};

use crate::support::client::Client;
use crate::support::launcher::Launcher;
use crate::support::wait;

/// The cluster, and a home directory for the launchers. The session files in this directory identify the site's own pods.
pub(crate) struct Site {
    /// The name of a node that is Ready.
    pub(crate) node: String,
    pub(crate) kubernetes: Kubernetes,
    kubeconfig: String,
    pub(crate) image: String,
    pub(crate) namespace: String,
    home: tempfile::TempDir,
}

fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must be set for these tests"))
}

impl Site {
    /// Opens the cluster of `GPU_SYRINGE_E2E_KUBECONFIG`, with the image of `GPU_SYRINGE_E2E_IMAGE`.
    pub(crate) async fn open() -> Self {
        let kubeconfig = named("GPU_SYRINGE_E2E_KUBECONFIG");
        let read = Kubeconfig::read_from(&kubeconfig).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.expect("a context");
        let kubernetes = Kubernetes::try_from(config).expect("a client");
        let nodes = Api::<Node>::all(kubernetes.clone()).list(&ListParams::default()).await.expect("nodes");
        let node = nodes.items.iter().find(|node| is_ready(node)).expect("a node that is Ready").name_any();
        Self {
            node,
            kubernetes,
            kubeconfig,
            image: named("GPU_SYRINGE_E2E_IMAGE"),
            namespace: std::env::var("GPU_SYRINGE_E2E_NAMESPACE").unwrap_or_else(|_| "gpu-syringe".into()),
            home: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Creates and uses a namespace that admits privileged pods and has no policy. [`Self::remove_namespace`] removes it.
    pub(crate) async fn in_a_namespace_without_policy(self) -> Self {
        let mut namespace = Namespace::default();
        namespace.metadata.generate_name = Some("gpu-syringe-e2e-".into());
        let label = ("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned());
        namespace.metadata.labels = Some([label].into());
        let made = Api::<Namespace>::all(self.kubernetes.clone()).create(&PostParams::default(), &namespace).await;
        let namespace = made.expect("a namespace").name_any();
        let accounts = Api::<ServiceAccount>::namespaced(self.kubernetes.clone(), &namespace);
        wait::until("the namespace has its service account", async || accounts.get_opt("default").await.ok().flatten())
            .await;
        Self { namespace, ..self }
    }

    /// Removes the namespace that [`Self::in_a_namespace_without_policy`] created.
    pub(crate) async fn remove_namespace(&self) {
        let namespaces = Api::<Namespace>::all(self.kubernetes.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.expect("the namespace is removed");
    }

    /// Returns a launcher for the cluster.
    pub(crate) fn launcher(&self) -> Launcher {
        Launcher::inheriting(self.home.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("GPU_SYRINGE_IMAGE", &self.image)
            .env("GPU_SYRINGE_PROBE_NAMESPACE", &self.namespace)
            // The only node of a small cluster belongs to the control plane.
            .env("GPU_SYRINGE_ALLOW_NODES", "*")
    }

    /// Starts a session with a launcher for the cluster.
    pub(crate) async fn client(&self) -> Client {
        Client::start(self.launcher()).await
    }

    /// Returns the existing pods of this site's launchers. Other launchers may use the same namespace.
    pub(crate) async fn pods(&self) -> Vec<String> {
        let spec = self.launcher().args(["pod-spec", "-o", "json"]).run().await.json();
        let owner = spec["metadata"]["labels"]["gpu-syringe.dev/owner"].as_str().expect("an identity").to_owned();
        let ours = ListParams::default().labels(&format!("gpu-syringe.dev/owner={owner}"));
        let pods = Api::<Pod>::namespaced(self.kubernetes.clone(), &self.namespace);
        pods.list(&ours).await.expect("pods").iter().map(ResourceExt::name_any).collect()
    }

    /// Asserts that no pod is left now.
    pub(crate) async fn assert_bare(&self) {
        assert_eq!(self.pods().await, Vec::<String>::new());
    }

    /// Waits until no pod is left.
    pub(crate) async fn until_bare(&self) {
        wait::until("the probe pod is gone", async || self.pods().await.is_empty().then_some(())).await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
