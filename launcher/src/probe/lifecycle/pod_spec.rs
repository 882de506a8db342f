//! `ProbePod`: the pod object that is created on a node, and that `gpu-syringe pod-spec` prints. `hold`: its main
//! process. `MANAGED_BY`, `OWNER_LABEL`, `SESSION_LABEL`, `TOOL_LABEL`: its labels.
//!
//! docs/probe-pod.md gives the reason for each field.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, LocalObjectReference, Pod, PodSpec, ResourceRequirements, SeccompProfile,
    SecurityContext, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use syringe_core::probe_command::{HoldCommand, ProbeCommand};

use crate::probe::lifecycle::launcher_identity::LauncherIdentity;
use crate::probe::lifecycle::random_name::probe_name;
use crate::settings::{KeyValue, Settings};
use kube_read::Failure;

/// Name of the pod's only container.
pub const CONTAINER: &str = "probe";
/// Value of the `app.kubernetes.io/managed-by` label, by which the clean-up selects pods.
pub const MANAGED_BY: &str = "gpu-syringe";
/// Label with the identity of the lock directory of the launcher.
pub(crate) const OWNER_LABEL: &str = "gpu-syringe.dev/owner";
/// Label that identifies the launcher process that created the pod.
pub(crate) const SESSION_LABEL: &str = "gpu-syringe.dev/session";
/// Label with the name of the tool.
pub(crate) const TOOL_LABEL: &str = "gpu-syringe.dev/tool";
/// Memory limit of the probe: ten times the measured use.
const MEMORY_LIMIT: &str = "128Mi";
/// User ID of a probe that is not privileged.
const PLAIN_USER: i64 = 65_532;
/// Time between the planned exit of the pod's process and the deadline at which Kubernetes stops the pod.
const DEADLINE_SLACK_SECONDS: u64 = 10;

/// A probe pod that is about to be created.
#[derive(Clone, Debug)]
pub struct ProbePod {
    /// The name. It is unique, so that the pod can be deleted by name if the response to its creation was lost.
    pub name: String,
    pub namespace: String,
    pub object: Pod,
}

impl ProbePod {
    /// Returns the pod for one call of `tool` on `node`.
    ///
    /// # Errors
    /// If the system has no random numbers for the name.
    pub fn new(settings: &Settings, owner: &LauncherIdentity, node: &str, tool: &str) -> Result<Self, Failure> {
        let name = probe_name()?;
        let lifetime = settings.probe_lifetime().as_secs();
        // With a RuntimeClass, the runtime adds the GPUs to an unprivileged container, so no host namespace is needed.
        let privileged = settings.runtime_class.is_none().then_some(true);
        let object = Pod {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(settings.probe_namespace.clone()),
                labels: Some(labels(settings, owner, tool)),
                annotations: Some(annotations(settings)),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                // The pod bypasses the scheduler, because the node to diagnose may be cordoned, tainted or full.
                node_name: Some(node.to_owned()),
                tolerations: Some(tolerations(settings)),
                runtime_class_name: settings.runtime_class.clone(),
                // The host's PID namespace gives access to the host's processes and, through /proc/1/root, to the
                // host's files. A pod without volumes starts twice as fast.
                host_pid: privileged,
                // Without CNI, the pod starts faster, and can start on a node whose network is broken.
                host_network: privileged,
                dns_policy: Some("Default".into()),
                restart_policy: Some("Never".into()),
                active_deadline_seconds: i64::try_from(lifetime + DEADLINE_SLACK_SECONDS).ok(),
                termination_grace_period_seconds: Some(0),
                // The pod needs no credentials for the cluster.
                automount_service_account_token: Some(false),
                enable_service_links: Some(false),
                image_pull_secrets: pull_secrets(settings),
                containers: vec![container(settings)],
                ..PodSpec::default()
            }),
            status: None,
        };
        Ok(Self { name, namespace: settings.probe_namespace.clone(), object })
    }

    /// Sets `argv` as the main process.
    #[must_use]
    pub(crate) fn running(mut self, argv: Vec<String>) -> Self {
        if let Some(container) = self.container() {
            container.command = Some(argv);
        }
        self
    }

    /// Sets an image that is on the node, for --via inject.
    #[must_use]
    pub(crate) fn with_image(mut self, image: &str, hold: Vec<String>) -> Self {
        if let Some(container) = self.container() {
            container.image = Some(image.to_owned());
            // The image must be on the node, so it is never pulled.
            container.image_pull_policy = Some("Never".into());
            container.command = Some(hold);
            if let Some(context) = &mut container.security_context {
                context.read_only_root_filesystem = Some(false);
            }
        }
        if let Some(spec) = &mut self.object.spec {
            spec.image_pull_secrets = None;
        }
        self
    }

    /// Sets an image of the probe that is on the node.
    #[must_use]
    pub(crate) fn with_present_image(mut self, image: &str) -> Self {
        if let Some(container) = self.container() {
            container.image = Some(image.to_owned());
            // This image is not in the settings, so it must not be pulled.
            container.image_pull_policy = Some("Never".into());
        }
        self
    }

    fn container(&mut self) -> Option<&mut Container> {
        self.object.spec.as_mut()?.containers.first_mut()
    }

    /// Adds annotations.
    pub(crate) fn with_annotations(mut self, annotations: BTreeMap<String, String>) -> Self {
        self.object.metadata.annotations.get_or_insert_default().extend(annotations);
        self
    }
}

/// Returns the main process of the pod. The process exits by itself, even if the launcher was killed or the network is
/// down. node-probe rejects an action if the main process was not started for an `operator`. The admission policy
/// checks this argument.
pub(crate) fn hold(settings: &Settings, operator: bool) -> Vec<String> {
    let seconds = settings.probe_lifetime().as_secs();
    ProbeCommand::Hold(HoldCommand { seconds, releasable: false, operator }).argv()
}

fn container(settings: &Settings) -> Container {
    let quantities = |pairs: &[(&str, &str)]| {
        let quantity = |(name, amount): &(&str, &str)| ((*name).to_owned(), Quantity((*amount).to_owned()));
        Some(pairs.iter().map(quantity).collect::<BTreeMap<_, _>>())
    };
    Container {
        name: CONTAINER.into(),
        image: Some(settings.probe_image()),
        image_pull_policy: Some(settings.image_pull_policy.as_str().into()),
        command: Some(hold(settings, false)),
        resources: Some(ResourceRequirements {
            // The requests are explicitly zero: otherwise a LimitRange sets default requests, and a full node rejects
            // the pod because of them.
            requests: quantities(&[("cpu", "0"), ("memory", "0")]),
            limits: quantities(&[("memory", MEMORY_LIMIT)]),
            ..ResourceRequirements::default()
        }),
        env: settings.runtime_class.as_ref().map(|_| runtime_environment()),
        security_context: Some(security(settings)),
        ..Container::default()
    }
}

fn security(settings: &Settings) -> SecurityContext {
    if settings.runtime_class.is_some() {
        // These values are required by the Pod Security level "restricted".
        return SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            run_as_user: Some(PLAIN_USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..SecurityContext::default()
        };
    }
    SecurityContext {
        // A privileged container is required for device files, /dev/kmsg and /proc entries of other processes.
        privileged: Some(true),
        read_only_root_filesystem: Some(true),
        run_as_user: Some(0),
        ..SecurityContext::default()
    }
}

/// Makes NVIDIA's container runtime add every GPU and NVML to the container.
fn runtime_environment() -> Vec<EnvVar> {
    [("NVIDIA_VISIBLE_DEVICES", "all"), ("NVIDIA_DRIVER_CAPABILITIES", "utility")]
        .map(|(name, value)| EnvVar { name: name.into(), value: Some(value.into()), value_from: None })
        .into()
}

fn tolerations(settings: &Settings) -> Vec<Toleration> {
    let given = settings.toleration.iter().map(|given| Toleration {
        key: Some(given.key.clone()),
        operator: Some(if given.value.is_some() { "Equal" } else { "Exists" }.into()),
        value: given.value.clone(),
        effect: given.effect.clone(),
        ..Toleration::default()
    });
    let given: Vec<_> = given.collect();
    if given.is_empty() { vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }] } else { given }
}

fn labels(settings: &Settings, owner: &LauncherIdentity, tool: &str) -> BTreeMap<String, String> {
    let own = [
        ("app.kubernetes.io/name", "node-probe"),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
        ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
        (TOOL_LABEL, tool),
        (OWNER_LABEL, owner.id.as_str()),
        (SESSION_LABEL, owner.session.as_str()),
        // Newer versions of Istio read the label, and older versions read the annotation.
        ("sidecar.istio.io/inject", "false"),
    ];
    // Our labels come last, so that settings cannot replace the labels by which the clean-up finds pods.
    pairs(&settings.label).chain(own.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// Disables sidecar injection: a sidecar keeps the pod running and slows down its start.
fn annotations(settings: &Settings) -> BTreeMap<String, String> {
    let own = [
        ("sidecar.istio.io/inject", "false"),
        ("linkerd.io/inject", "disabled"),
        ("kuma.io/sidecar-injection", "disabled"),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "true"),
    ];
    own.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .chain(pairs(&settings.annotation))
        .collect()
}

fn pairs(pairs: &[KeyValue]) -> impl Iterator<Item = (String, String)> {
    pairs.iter().map(|KeyValue { key, value }| (key.clone(), value.clone()))
}

fn pull_secrets(settings: &Settings) -> Option<Vec<LocalObjectReference>> {
    let secrets: Vec<_> =
        settings.image_pull_secret.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    (!secrets.is_empty()).then_some(secrets)
}
