//! `Ephemeral`: the method `--via ephemeral`, which adds an ephemeral container to a running pod with a GPU.
//!
//! Kubernetes cannot remove an ephemeral container from the spec of a pod: the container is stopped, and the result
//! contains what stays. The probe sees NVML and the processes of that pod, not those of the host.

use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, SecurityContext};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use syringe_core::probe_command::{HoldCommand, ProbeCommand};
use tokio::time::{Instant, sleep, timeout_at};

use super::probe_steps::ProbeSteps;
use crate::probe::exec::read_report;
use crate::probe::exec::read_report::ReceivedReport;
use crate::probe::lifecycle::end_container::{AddedContainer, FinalState};
use crate::probe::lifecycle::late::{self, LATE_TIME, LateObject};
use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::lifecycle::random_name::probe_name;
use crate::probe::probe_context::ProbeContext;
use crate::probe::refusal::admission_policy;
use crate::probe::refusal::next_steps::NO_PROBE;
use crate::probe::request::Phase;
use crate::probe::result::{CleanUp, ProbeContainer, Timings};
use crate::probe::target_container::TargetContainer;
use crate::settings::{EphemeralPod, ProbeMethod};
use kube_read::Failure;
use kube_read::client::api_error::{page_of_proxy, request_failed, timed_out};
use kube_read::client::api_status::{is_conflict, is_not_a_status, is_page_of_proxy};
use kube_read::client::retry;
use kube_read::failure::kube_reason;

/// A pod in this namespace is used only if --ephemeral-pod specifies it.
const SYSTEM_NAMESPACE: &str = "kube-system";
/// Time limit for adding the container, with all retries.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Pause after a conflict.
const PAUSE: Duration = Duration::from_millis(100);
/// Limit of the pod list: several times the maximum number of pods on a node.
const MAX_PODS: u32 = 500;

/// An ephemeral container in a pod of another owner.
pub(in crate::probe) struct Ephemeral {
    probe_container: Option<ProbeContainer>,
    /// The container whose process namespace our container shares.
    target: Option<TargetContainer>,
    added: Added,
    /// UID of the pod; `None` until the container is added.
    uid: Option<String>,
    /// The entry among the open probes, which is added before the first request.
    open: Option<OpenProbe>,
}

/// The outcome of a request to add the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    No,
    Yes,
    /// The response was lost.
    Unknown,
}

impl Ephemeral {
    pub(in crate::probe) fn new() -> Self {
        Self { probe_container: None, target: None, added: Added::No, uid: None, open: None }
    }

    fn failed(context: &ProbeContext, why: impl std::fmt::Display, next: impl Into<String>) -> Failure {
        Failure::new(format!("Adding an ephemeral container on node {}", context.request.node), why, next)
    }

    /// Chooses the pod: the pod in the settings, the pod in the request, or the first suitable pod.
    async fn choose(context: &ProbeContext) -> Result<TargetContainer, Failure> {
        let node = &context.request.node;
        let setting = context.settings.ephemeral_pod.as_ref();
        let asked = match setting {
            Some(EphemeralPod::Named(pod)) => Some(pod),
            Some(EphemeralPod::Any) | None => None,
        };
        if let (None, Some(target)) = (asked, &context.request.target) {
            // A model can specify this pod, so the pod must not be in [`SYSTEM_NAMESPACE`].
            if target.namespace == SYSTEM_NAMESPACE {
                return Err(Self::failed(
                    context,
                    format!("pod {}/{} is in {SYSTEM_NAMESPACE}; nothing was created", target.namespace, target.pod),
                    "To allow this pod, specify it with --ephemeral-pod; or use --via pod.",
                ));
            }
            return Ok(target.clone());
        }
        let pods: Api<Pod> = match asked {
            Some(pod) => context.pods(&pod.namespace),
            None => Api::all(context.connection.client.clone()),
        };
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(MAX_PODS);
        let what = || format!("Listing the pods of node {node} to add an ephemeral container");
        let list = match retry::read(|| pods.list(&on_node)).await {
            Some(Ok(list)) => list.items,
            Some(Err(kube::Error::Api(status))) if status.code == 403 && !is_not_a_status(&status) => {
                let next = "Your user needs list on pods in the namespaces of the GPU pods (gpu-syringe setup --apply --user NAME grants it).";
                return Err(Self::failed(context, kube_reason(&kube::Error::Api(status)), next));
            }
            Some(Err(error)) => return Err(request_failed(&context.connection, what(), &error)),
            None => return Err(timed_out(&context.connection, what())),
        };
        let named = |pod: &Pod| match asked {
            Some(asked) => pod.name_any() == asked.name,
            None => pod.namespace().as_deref() != Some(SYSTEM_NAMESPACE),
        };
        let fit = list.iter().filter(|pod| named(pod)).filter_map(TargetContainer::first_with_gpu);
        let first = fit.min_by(|one, other| (&one.namespace, &one.pod).cmp(&(&other.namespace, &other.pod)));
        // The entry stays in the spec of the pod of another owner, so a person must specify the pod.
        if let (None, Some(TargetContainer { namespace, pod, .. })) = (setting, &first) {
            return Err(Self::failed(
                context,
                format!(
                    "no pod is specified, and nothing was created. The entry of an ephemeral container stays in its \
                        pod until the pod is deleted. On this node, {namespace}/{pod} has a GPU"
                ),
                format!(
                    "Specify the pod (--ephemeral-pod {namespace}/{pod}), or use --ephemeral-pod any, so that \
                        gpu-syringe chooses a pod on each node."
                ),
            ));
        }
        first.ok_or_else(|| match asked {
            Some(asked) => Self::failed(
                context,
                format!("pod {asked} is not a running pod with a GPU on that node, or it is a static pod"),
                "Specify another pod with --ephemeral-pod, or use --ephemeral-pod any, so that gpu-syringe chooses a \
                    pod.",
            ),
            None => Self::failed(
                context,
                "no pod with a GPU is running on the node outside kube-system",
                "Use --via pod, or --via none to read only the Kubernetes API.",
            ),
        })
    }

    /// Adds the container, with retries. A repeated patch changes nothing, since the name of the container stays the same.
    async fn add(&mut self, context: &ProbeContext, container: &EphemeralContainer) -> Result<(), Failure> {
        let Some(open) = self.open.clone() else { return Err(context.out_of_time("no pod was chosen")) };
        // The probe is recorded before the request: if this launcher is killed, the next launcher must find the
        // container.
        context.begin(open.clone()).await;
        let pods = context.pods(&open.namespace);
        let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
        let params = PatchParams::default();
        let end = Instant::now() + REQUEST_TIME;
        loop {
            let patching = pods.patch_ephemeral_containers(&open.pod, &params, &patch);
            let error = match timeout_at(end.min(Instant::now() + retry::TRY_TIME), patching).await {
                Ok(Ok(extended)) => {
                    context.record.created(&open, extended.metadata.uid.as_deref());
                    (self.added, self.uid) = (Added::Yes, extended.metadata.uid);
                    return Ok(());
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            if error.as_ref().is_none_or(may_be_added) {
                context.record.created(&open, None);
                self.added = Added::Unknown;
            }
            let pause = error.as_ref().map_or(Some(Duration::ZERO), patch_pause);
            if let Some(pause) = pause.filter(|pause| Instant::now() + *pause < end && !context.is_cancelled()) {
                sleep(pause).await;
                continue;
            }
            return Err(Self::not_added(context, &open, error.as_ref()));
        }
    }

    fn not_added(context: &ProbeContext, open: &OpenProbe, error: Option<&kube::Error>) -> Failure {
        let Some(error) = error else {
            let why = format!("{} did not answer within {REQUEST_TIME:?}", context.connection.server);
            let next = format!("Check that {} can be reached, and try again.", context.connection.server);
            return Self::failed(context, why, next);
        };
        if let kube::Error::Api(status) = error
            && is_page_of_proxy(status)
        {
            let what = format!("Adding an ephemeral container on node {}", context.request.node);
            return page_of_proxy(&context.connection, what, error);
        }
        let why = kube_reason(error);
        if let Some(denial) = admission_policy::denial(&why, &open.namespace) {
            return denial.failure(format!("Adding an ephemeral container on node {}", context.request.node), &why);
        }
        let next = match error {
            kube::Error::Api(status) if status.code == 403 => {
                "Your user needs patch on pods/ephemeralcontainers in the namespace of the pod: bind ClusterRole gpu-syringe-ephemeral there."
            }
            kube::Error::Api(status) if status.code == 404 => {
                "The pod is gone, or the cluster is older than Kubernetes 1.25, which added ephemeral containers. Try again."
            }
            _ => "See the message, or specify another pod with --ephemeral-pod.",
        };
        Self::failed(context, why, next)
    }

    /// Returns the container to clean up, if it may exist.
    fn added_container(&self, context: &ProbeContext) -> Option<AddedContainer> {
        Some(AddedContainer {
            client: context.connection.client.clone(),
            settings: context.settings.clone(),
            probe_container: self.probe_container.clone().filter(|_| self.added != Added::No)?,
            uid: self.uid.clone(),
        })
    }
}

/// Returns whether the container may have been added although the request failed.
fn may_be_added(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500,
        error => !retry::is_not_sent(error),
    }
}

/// Returns the pause before the request is repeated. A pod that was changed in the meantime causes a conflict.
fn patch_pause(error: &kube::Error) -> Option<Duration> {
    match error {
        kube::Error::Api(status) if is_conflict(status) => Some(PAUSE),
        error => retry::retry_pause(error),
    }
}

impl ProbeSteps for Ephemeral {
    fn method(&self) -> ProbeMethod {
        ProbeMethod::Ephemeral
    }

    async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
        if context.settings.no_ephemeral {
            let next = "Start gpu-syringe without --no-ephemeral, or with another --via.";
            return Err(Self::failed(context, "--no-ephemeral forbids ephemeral containers", next));
        }
        let target = Self::choose(context).await?;
        let container = container(context, &target.container)?;
        let TargetContainer { namespace, pod, .. } = &target;
        self.probe_container = Some(ProbeContainer {
            namespace: namespace.clone(),
            pod: pod.clone(),
            container: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            method: self.method(),
            if_missing: NO_PROBE,
        });
        context.record.uses_image(container.image.as_deref().unwrap_or_default());
        self.open = Some(context.open_probe(namespace, pod, Some(&container.name)));
        self.target = Some(target);
        self.add(context, &container).await
    }

    async fn read(&self, context: &ProbeContext, timings: &mut Timings) -> Result<ReceivedReport, Failure> {
        let (Some(probe_container), Some(target)) = (&self.probe_container, &self.target) else {
            return Err(context.out_of_time("no container was added"));
        };
        let argv = context.command().with_container(target.id.clone()).argv();
        let document = read_report::read(context, probe_container, &argv, timings).await?;
        Ok(document.with_note(Some(format!(
            "read from inside pod {}/{}, next to its container {}: with the NVML library of that pod. The probe saw only \
                 the processes and files of the pod, not those of the host",
            probe_container.namespace, probe_container.pod, target.container
        ))))
    }

    async fn clean_up(&mut self, context: &ProbeContext) -> CleanUp {
        let Some(open) = self.open.take() else {
            return CleanUp { pod: String::new(), deleted: true, left_behind: None };
        };
        let Some(added) = self.added_container(context) else {
            context.session.open.remove(&open);
            return CleanUp { pod: String::new(), deleted: true, left_behind: None };
        };
        context.report(Phase::Remove);
        let accepted = context.accepted.load(Ordering::Relaxed);
        let mut state = added.end(accepted).await;
        if state == FinalState::NotAdded && self.added == Added::Yes {
            state = FinalState::Gone;
        }
        let left_behind = left_behind(&open, state);
        let deleted = left_behind.is_none();
        let pod = format!("{}/{}", open.namespace, open.pod);
        match state {
            FinalState::Gone | FinalState::Ended => context.session.open.remove(&open),
            _ => late::end_in_background(context, LateObject::Container(added), open),
        }
        CleanUp { pod, deleted, left_behind }
    }
}

/// Returns a description of what stays in the cluster.
fn left_behind(open: &OpenProbe, state: FinalState) -> Option<String> {
    let OpenProbe { namespace, pod, container, lifetime_seconds: seconds, .. } = open;
    let container = container.as_deref().unwrap_or_default();
    let looks = format!("gpu-syringe looks for the container for up to {} s and stops it", LATE_TIME.as_secs());
    let what = match state {
        FinalState::Gone => return None,
        FinalState::NotAdded => {
            return Some(format!(
                "ephemeral container {container} may still be added to pod {namespace}/{pod}, because the request was not \
                 answered. {looks}. The container exits on its own within {seconds} s of its start"
            ));
        }
        FinalState::Ended => "has ended".to_owned(),
        FinalState::Stuck | FinalState::Waits => {
            format!("has not started; if it starts, it exits on its own within {seconds} s, and {looks}")
        }
        FinalState::Unknown => format!(
            "could not be stopped; it exits on its own within {seconds} s, and {looks}; to stop it now, run: {}",
            open.command()
        ),
    };
    Some(format!(
        "ephemeral container {container} {what}. The entry of the container stays in the spec of pod {namespace}/{pod} until that pod is deleted, \
         because Kubernetes cannot remove ephemeral containers"
    ))
}

fn container(context: &ProbeContext, target: &str) -> Result<EphemeralContainer, Failure> {
    let seconds = context.settings.probe_lifetime().as_secs();
    let hold = HoldCommand { seconds, releasable: true, operator: context.is_for_actions() };
    Ok(EphemeralContainer {
        name: probe_name()?,
        image: Some(context.settings.probe_image()),
        image_pull_policy: Some(context.settings.image_pull_policy.as_str().into()),
        command: Some(ProbeCommand::Hold(hold).argv()),
        // The probe shares the process namespace of the target: /proc/1/root is the root of the target, with its NVML
        // library.
        // node-probe loads that library as an unprivileged user, and runs nothing else from that root.
        target_container_name: Some(target.to_owned()),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            run_as_user: Some(0),
            run_as_non_root: Some(false),
            ..SecurityContext::default()
        }),
        ..EphemeralContainer::default()
    })
}
