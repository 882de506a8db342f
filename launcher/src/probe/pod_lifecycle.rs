//! A probe pod: create and delete it. Three methods use one.

use std::time::Duration;

use kube::api::PostParams;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::delete_pod::delete_pod;
use super::pod_spec::{CONTAINER, ProbePod};
use super::probe_context::ProbeContext;
use super::types::{CleanUp, CreateOutcome, Phase, ProbeContainer};
use super::{admission_policy, create_forbidden};
use crate::error::{Failure, RejectionReason, kube_reason};
use crate::kubernetes::client::api_error::page_of_proxy;
use crate::kubernetes::client::api_status::is_page_of_proxy;
use crate::kubernetes::client::retry::{is_closed, retry_pause};

/// Time for the creation with all retries. Admission webhooks may be slow.
pub(super) const CREATE_TIME: Duration = Duration::from_secs(10);
/// Time to check whether a pod exists when the answer to its creation was lost.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// A pod that is created for one call.
pub(super) struct PodLifecycle {
    pod: ProbePod,
    outcome: CreateOutcome,
}

impl PodLifecycle {
    pub(super) fn new(pod: ProbePod) -> Self {
        Self { pod, outcome: CreateOutcome::NotCreated }
    }

    /// The container in which the probe runs.
    pub(super) fn probe_container(&self, if_missing: &'static str) -> ProbeContainer {
        let ProbePod { name, namespace, object } = &self.pod;
        let image = object.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
        ProbeContainer {
            namespace: namespace.clone(),
            pod: name.clone(),
            container: CONTAINER.into(),
            image: image.unwrap_or_default(),
            if_missing,
        }
    }

    /// Creates the pod, with retries.
    pub(super) async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
        let pods = context.pods(&self.pod.namespace);
        let params = PostParams::default();
        let end = Instant::now() + CREATE_TIME;
        loop {
            let error = match timeout_at(end, pods.create(&params, &self.pod.object)).await {
                Ok(Ok(pod)) => {
                    self.record_created(context, pod.metadata.uid);
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    self.record_unknown(context);
                    let why = format!("{} did not answer within {CREATE_TIME:?}", context.connection.server);
                    return Err(self.not_created(context, why, None));
                }
            };
            if let kube::Error::Api(status) = &error
                && is_page_of_proxy(status)
            {
                let failure = page_of_proxy(&context.connection, self.creating(context), &error);
                return Err(failure);
            }
            let code = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
            // The name is unique: if it is taken, an earlier attempt succeeded and its answer was lost.
            if code == Some(409) && self.exists(context).await {
                return Ok(());
            }
            // A 4xx answer created nothing; after a server error or a lost connection the pod may exist.
            if code.is_none_or(|code| code >= 500 || code == 409) {
                self.record_unknown(context);
            }
            if is_closed(&error) && self.exists(context).await {
                return Ok(());
            }
            // 429, a server that is starting, or a closed connection. A retry is safe, since the name stays the same.
            if let Some(pause) = retry_pause(&error).filter(|pause| Instant::now() + *pause < end) {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = context.cancel.cancelled() => {}
                    () = context.stop.cancelled() => {}
                }
                if !context.is_given_up() {
                    continue;
                }
            }
            return Err(self.not_created(context, kube_reason(&error), code));
        }
    }

    fn record_created(&mut self, context: &ProbeContext, uid: Option<String>) {
        context.record.created(&self.pod.namespace, &self.pod.name, uid.as_deref());
        self.outcome = CreateOutcome::Created { uid };
    }

    /// A later refusal does not change this: the earlier attempt may have created the pod.
    fn record_unknown(&mut self, context: &ProbeContext) {
        context.record.created(&self.pod.namespace, &self.pod.name, None);
        self.outcome = CreateOutcome::Unknown;
    }

    /// Checks for a pod that an earlier attempt may have created.
    async fn exists(&mut self, context: &ProbeContext) -> bool {
        if self.outcome != CreateOutcome::Unknown {
            return false;
        }
        let pods = context.pods(&self.pod.namespace);
        match timeout(LOOK_TIME, pods.get_metadata_opt(&self.pod.name)).await {
            Ok(Ok(Some(pod))) => {
                self.record_created(context, pod.metadata.uid);
                true
            }
            // A failed read proves nothing.
            Ok(Ok(None) | Err(_)) | Err(_) => false,
        }
    }

    /// Deletes the pod.
    pub(super) async fn clean_up(&mut self, context: &ProbeContext) -> CleanUp {
        let ProbePod { name, namespace, .. } = &self.pod;
        let outcome = std::mem::replace(&mut self.outcome, CreateOutcome::NotCreated);
        if outcome == CreateOutcome::NotCreated {
            return CleanUp { pod: name.clone(), removed: true, left_behind: None };
        }
        (context.on_phase)(Phase::Remove);
        let removed = delete_pod(&context.pods(namespace), name, &outcome).await;
        let left_behind = removed.err().map(|reason| {
            tracing::warn!(pod = %name, %reason, "the probe pod could not be deleted");
            let by = if reason.is_forbidden {
                "a user who may delete pods there can run"
            } else {
                "the next start of gpu-syringe deletes it, or run"
            };
            format!(
                "pod {namespace}/{name} could not be deleted ({reason}); it exits on its own within {} s; {by}: kubectl -n \
                 {namespace} delete pod {name}",
                context.settings.probe_lifetime().as_secs(),
            )
        });
        CleanUp { pod: name.clone(), removed: left_behind.is_none(), left_behind }
    }

    fn creating(&self, context: &ProbeContext) -> String {
        format!("Creating the probe pod for node {} in namespace {}", context.request.node, self.pod.namespace)
    }

    fn not_created(&self, context: &ProbeContext, why: String, code: Option<u16>) -> Failure {
        let namespace = &self.pod.namespace;
        let what = self.creating(context);
        if let Some((who, change)) = admission_policy::refused_by(&why, namespace) {
            return Failure::new(what, format!("denied by {who}: {why}"), change)
                .because_of(RejectionReason::Policy(who));
        }
        let next = match code {
            Some(401) => {
                "The API server rejected your credentials: sign in again (check with kubectl get nodes in that context).".into()
            }
            Some(403) => create_forbidden::next_step(&why, namespace),
            Some(404) => format!("Create the namespace: kubectl apply -f deploy/namespace.yaml ({namespace})."),
            _ => format!("Check that {} can be reached, and try again.", context.connection.server),
        };
        let failure = Failure::new(what, why, next);
        // The namespace and the permissions are the same for every node.
        if matches!(code, Some(401 | 403 | 404)) { failure.cluster_wide() } else { failure }
    }
}
