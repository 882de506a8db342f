//! `--via ephemeral`: an ephemeral container in a running GPU pod, for full nodes and for the view of a workload.
//!
//! Kubernetes cannot remove an ephemeral container from the spec of a pod: the container is ended, and the result names what
//! stays. The probe sees NVML and the processes of that pod, not of the host.

use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, SecurityContext};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::command::{NO_PROBE, node_probe};
use super::probe_steps::ProbeSteps;
use crate::error::{Failure, RejectionReason, kube_reason};
use crate::kubernetes::client::api_error::{request_failed, timed_out};
use crate::kubernetes::client::api_status::{is_not_a_status, is_not_found};
use crate::kubernetes::client::retry;
use crate::probe::exec_retry::not_yet;
use crate::probe::exec_websocket::{self, Command, ExecEnd, ExecError};
use crate::probe::pod_spec::OPERATOR;
use crate::probe::probe_context::ProbeContext;
use crate::probe::random_name::probe_name;
use crate::probe::read_report::{self, ReceivedReport};
use crate::probe::target_container::TargetContainer;
use crate::probe::types::{CleanUp, Phase, ProbeContainer, Timings};
use crate::probe::{admission_policy, container_state};
use crate::settings::ProbeMethod;

/// Pods in it are never chosen: only --ephemeral-pod can name one.
const SYSTEM_NAMESPACE: &str = "kube-system";
/// Time for one request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Time for the container to end.
const END_TIME: Duration = Duration::from_secs(5);
/// Pause between two checks whether it has.
const PAUSE: Duration = Duration::from_millis(60);
/// Exit code of a process that was killed (128 + SIGKILL).
const KILLED: i32 = 137;
/// Several times the maximum number of pods on a node.
const MAX_PODS: u32 = 500;

/// State of our container after the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalState {
    /// Its pod was deleted.
    Gone,
    /// It has ended.
    Ended,
    /// It cannot start.
    Stuck,
    /// It has not started, and may start at any time.
    Waits,
    /// It runs, or its state is not known.
    Unknown,
}

/// An ephemeral container in a pod of another owner.
pub(in crate::probe) struct Ephemeral {
    probe_container: Option<ProbeContainer>,
    /// The container whose process namespace ours shares.
    target: Option<TargetContainer>,
    /// Whether the container was added, or may have been.
    added: bool,
    /// UID of the pod, once it was.
    uid: Option<String>,
}

impl Ephemeral {
    pub(in crate::probe) fn new() -> Self {
        Self { probe_container: None, target: None, added: false, uid: None }
    }

    fn failed(context: &ProbeContext, why: impl std::fmt::Display, next: impl Into<String>) -> Failure {
        Failure::new(format!("Adding an ephemeral container on node {}", context.request.node), why, next)
    }

    /// Chooses the pod: of the settings, of the request, or the first suitable one.
    async fn choose(context: &ProbeContext) -> Result<TargetContainer, Failure> {
        let node = &context.request.node;
        let asked = context.settings.ephemeral_pod.as_ref();
        if let (None, Some(target)) = (asked, &context.request.target) {
            // A model can name this pod: the same rule applies as for a chosen one.
            if target.namespace == SYSTEM_NAMESPACE {
                return Err(Self::failed(
                    context,
                    format!("pod {}/{} is in {SYSTEM_NAMESPACE}; nothing was created", target.namespace, target.pod),
                    "Name it with --ephemeral-pod to allow that, or use --via pod.",
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
                let next = "Your user needs list on pods where the GPU pods are: see deploy/rbac.yaml.";
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
        first.ok_or_else(|| match asked {
            Some(asked) => Self::failed(
                context,
                format!("pod {asked} is not a running pod with a GPU on that node, or it is a static pod"),
                "Name another pod with --ephemeral-pod, or leave the option out to have one chosen.",
            ),
            None => Self::failed(
                context,
                "no pod with a GPU runs on that node outside kube-system",
                "Use --via pod, or --via none to read only the Kubernetes API.",
            ),
        })
    }

    async fn add(
        &mut self,
        context: &ProbeContext,
        pods: &Api<Pod>,
        container: &EphemeralContainer,
    ) -> Result<(), Failure> {
        let pod = self.probe_container.as_ref().map(|probe_container| probe_container.pod.clone()).unwrap_or_default();
        let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
        let params = PatchParams::default();
        let patching = pods.patch_ephemeral_containers(&pod, &params, &patch);
        let error = match timeout(REQUEST_TIME, patching).await {
            Ok(Ok(extended)) => {
                let namespace = extended.namespace().unwrap_or_default();
                let open = context.open_probe(&namespace, &pod, Some(&container.name));
                context.record.created(&open, extended.metadata.uid.as_deref());
                (self.added, self.uid) = (true, extended.metadata.uid);
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.added = true;
                return Err(Self::failed(context, format!("no answer within {REQUEST_TIME:?}"), "Try again."));
            }
        };
        let why = kube_reason(&error);
        let code = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
        self.added = code.is_none_or(|code| code >= 500);
        let namespace =
            self.probe_container.as_ref().map(|probe_container| probe_container.namespace.as_str()).unwrap_or_default();
        if let Some((who, change)) = admission_policy::refused_by(&why, namespace) {
            return Err(Self::failed(context, format!("denied by {who}: {why}"), change)
                .because_of(RejectionReason::Policy(who)));
        }
        let next = match code {
            Some(403) => "Your user needs patch on pods/ephemeralcontainers in that namespace: see deploy/rbac.yaml.",
            Some(404) => {
                "The pod is gone, or the cluster is older than Kubernetes 1.25, which added ephemeral containers. Try again."
            }
            _ => "See the message, or name another pod with --ephemeral-pod.",
        };
        Err(Self::failed(context, why, next))
    }

    /// Reads the state of the container.
    async fn final_state(&self, context: &ProbeContext, probe_container: &ProbeContainer) -> FinalState {
        let pod =
            match timeout(REQUEST_TIME, context.pods(&probe_container.namespace).get_opt(&probe_container.pod)).await {
                Ok(Ok(Some(pod))) => pod,
                Ok(Ok(None)) => return FinalState::Gone,
                Ok(Err(_)) | Err(_) => return FinalState::Unknown,
            };
        if self.uid.is_some() && pod.metadata.uid != self.uid {
            return FinalState::Gone;
        }
        let state = container_state::state_of(&pod, &probe_container.container);
        // The status is updated late: it proves nothing once an exec was accepted.
        if context.accepted.load(Ordering::Relaxed) || state.is_some_and(|state| state.running.is_some()) {
            return FinalState::Unknown;
        }
        match state.is_some_and(|state| state.terminated.is_some()) {
            true => FinalState::Ended,
            false if container_state::fatal_reason(&pod, probe_container, &context.settings).is_some() => {
                FinalState::Stuck
            }
            false => FinalState::Waits,
        }
    }

    /// Ends the container, and returns its state.
    async fn end(&self, context: &ProbeContext, probe_container: &ProbeContainer) -> FinalState {
        // Once an exec was accepted the container has started.
        if !context.accepted.load(Ordering::Relaxed) {
            let final_state = self.final_state(context, probe_container).await;
            if matches!(final_state, FinalState::Gone | FinalState::Ended | FinalState::Stuck) {
                return final_state;
            }
        }
        if Self::release(context, probe_container).await {
            FinalState::Ended
        } else {
            self.final_state(context, probe_container).await
        }
    }

    /// Tells the container to end; returns whether it certainly has.
    async fn release(context: &ProbeContext, probe_container: &ProbeContainer) -> bool {
        let ProbeContainer { namespace, pod, container, .. } = probe_container;
        let argv = node_probe(&["release".to_owned()]);
        let command = Command { namespace, pod, container, argv: &argv, input: &[] };
        let end = Instant::now() + END_TIME;
        let mut released = false;
        while Instant::now() < end {
            let run = exec_websocket::run(&context.connection.client, &command, REQUEST_TIME, || ());
            let gone = match timeout(END_TIME, run).await {
                Ok(Ok(output)) => match output.ended {
                    // The command may be killed together with its container.
                    ExecEnd::Exit(0 | KILLED) | ExecEnd::Disconnected => {
                        released = true;
                        false
                    }
                    ExecEnd::Exit(_) | ExecEnd::DocumentOnly => false,
                    ExecEnd::Refused(why) => not_yet(&why),
                },
                // The whole pod is gone.
                Ok(Err(ExecError::Kube(kube::Error::Api(status)))) if is_not_found(&status) => return false,
                Ok(Err(ExecError::Kube(error))) => not_yet(&kube_reason(&error)),
                Ok(Err(ExecError::Timeout(_))) | Err(_) => false,
            };
            // Before the release a missing container may not have started yet.
            if gone && released {
                return true;
            }
            sleep(PAUSE).await;
        }
        false
    }
}

impl ProbeSteps for Ephemeral {
    fn method(&self) -> ProbeMethod {
        ProbeMethod::Ephemeral
    }

    async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
        if context.settings.no_ephemeral {
            let next = "Start gpu-syringe without --no-ephemeral, or with another --via.";
            return Err(Self::failed(context, "--no-ephemeral forbids it", next));
        }
        let target = Self::choose(context).await?;
        let container = container(context, &target.container);
        let TargetContainer { namespace, pod, .. } = &target;
        self.probe_container = Some(ProbeContainer {
            namespace: namespace.clone(),
            pod: pod.clone(),
            container: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            if_missing: NO_PROBE,
        });
        let pods = context.pods(namespace);
        self.target = Some(target);
        self.add(context, &pods, &container).await
    }

    async fn read(&self, context: &ProbeContext, timings: &mut Timings) -> Result<ReceivedReport, Failure> {
        let (Some(probe_container), Some(target)) = (&self.probe_container, &self.target) else {
            return Err(context.out_of_time("no container was added"));
        };
        let argv = node_probe(&target.add_container_option(&context.request.command));
        let document = read_report::read(context, probe_container, &argv, timings).await?;
        Ok(document.with_note(Some(format!(
            "read from inside pod {}/{}, next to its container {}: with the NVML library of that pod, and only its \
                 processes and files, not those of the host",
            probe_container.namespace, probe_container.pod, target.container
        ))))
    }

    async fn clean_up(&mut self, context: &ProbeContext) -> CleanUp {
        let Some(probe_container) = self.probe_container.as_ref().filter(|_| self.added) else {
            return CleanUp { pod: String::new(), deleted: true, left_behind: None };
        };
        context.report(Phase::Remove);
        let ProbeContainer { namespace, pod, container, .. } = probe_container;
        let stays = format!(
            "its entry stays in the spec of pod {namespace}/{pod} until that pod is deleted, because Kubernetes cannot remove ephemeral containers"
        );
        let seconds = context.settings.probe_lifetime().as_secs();
        let what = match self.end(context, probe_container).await {
            FinalState::Gone => return CleanUp { pod: format!("{namespace}/{pod}"), deleted: true, left_behind: None },
            FinalState::Ended => "has ended".to_owned(),
            FinalState::Stuck | FinalState::Waits => {
                format!("has not started; if it starts, it exits on its own within {seconds} s")
            }
            FinalState::Unknown => format!("could not be stopped; it exits on its own within {seconds} s"),
        };
        let left = format!("ephemeral container {container} {what}; {stays}");
        CleanUp { pod: format!("{namespace}/{pod}"), deleted: false, left_behind: Some(left) }
    }
}

fn container(context: &ProbeContext, target: &str) -> EphemeralContainer {
    let lifetime = context.settings.probe_lifetime().as_secs().to_string();
    let mut hold = ["hold", "--releasable", "--seconds", &lifetime].map(str::to_owned).to_vec();
    hold.extend(context.is_for_actions().then(|| OPERATOR.to_owned()));
    EphemeralContainer {
        name: probe_name(),
        image: Some(context.settings.probe_image()),
        image_pull_policy: Some(context.settings.image_pull_policy.as_str().into()),
        command: Some(node_probe(&hold)),
        // Shares the process namespace of the target: /proc/1/root is its root, with its NVML library. node-probe loads that
        // library as an unprivileged user, and runs nothing else of it.
        target_container_name: Some(target.to_owned()),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            run_as_user: Some(0),
            run_as_non_root: Some(false),
            ..SecurityContext::default()
        }),
        ..EphemeralContainer::default()
    }
}
