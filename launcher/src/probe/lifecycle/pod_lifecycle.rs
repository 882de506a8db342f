//! `PodLifecycle`: creates and deletes the probe pod of the methods pod, inject and logs.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::PostParams;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::probe::lifecycle::delete_pod::{Deletion, delete_pod};
use crate::probe::lifecycle::late::{self, LATE_TIME, LateObject};
use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::lifecycle::pod_spec::{CONTAINER, ProbePod, SESSION_LABEL};
use crate::probe::probe_context::ProbeContext;
use crate::probe::refusal::{admission_policy, create_forbidden, next_steps};
use crate::probe::request::Phase;
use crate::probe::result::{CleanUp, CreateOutcome, ProbeContainer};
use crate::settings::ProbeMethod;
use kube_read::Failure;
use kube_read::client::api_error::page_of_proxy;
use kube_read::client::api_status::{is_already_exists, is_conflict, is_page_of_proxy};
use kube_read::client::retry::{is_closed, is_not_sent, retry_pause};
use kube_read::failure::{Cause, kube_reason};

/// Time limit of the creation with all retries. Admission webhooks may be slow.
pub(crate) const CREATE_TIME: Duration = Duration::from_secs(10);
/// Pause after a conflict.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
/// Time limit for checking whether a pod exists after the response to its creation was lost.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// A pod that is created for one call.
pub(crate) struct PodLifecycle {
    pod: ProbePod,
    outcome: CreateOutcome,
    /// The entry in the list of open probes. It exists from before the first request until the pod is deleted.
    open: Option<OpenProbe>,
}

impl PodLifecycle {
    pub(crate) fn new(pod: ProbePod) -> Self {
        Self { pod, outcome: CreateOutcome::NotCreated, open: None }
    }

    /// Returns the container in which the probe runs.
    pub(crate) fn probe_container(&self, method: ProbeMethod, if_missing: &'static str) -> ProbeContainer {
        let ProbePod { name, namespace, object } = &self.pod;
        let image = object.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
        ProbeContainer {
            namespace: namespace.clone(),
            pod: name.clone(),
            container: CONTAINER.into(),
            image: image.unwrap_or_default(),
            method,
            if_missing,
        }
    }

    /// Creates the pod, with retries. The name stays the same, so a retry never creates a second pod.
    pub(crate) async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
        let open = context.open_probe(&self.pod.namespace, &self.pod.name, None);
        let containers = self.pod.object.spec.iter().flat_map(|spec| &spec.containers);
        containers
            .filter_map(|container| container.image.as_deref())
            .for_each(|image| context.record.uses_image(image));
        context.begin(open.clone()).await;
        self.open = Some(open);
        let pods = context.pods(&self.pod.namespace);
        let params = PostParams::default();
        let end = Instant::now() + CREATE_TIME;
        loop {
            // The outcome is `Unanswered` until a response arrives, even if this task panics.
            let before = std::mem::replace(&mut self.outcome, CreateOutcome::Unanswered);
            let created = timeout_at(end, pods.create(&params, &self.pod.object)).await;
            self.outcome = before;
            let error = match created {
                Ok(Ok(pod)) => {
                    self.record_created(context, pod.metadata.uid);
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    self.record_open(context, CreateOutcome::Unanswered);
                    if self.is_found(context).await {
                        return Ok(());
                    }
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
            let may_exist = outcome_of(&error);
            if let Some(outcome) = &may_exist {
                self.record_open(context, outcome.clone());
            }
            let is_taken = matches!(&error, kube::Error::Api(status) if is_already_exists(status));
            if (is_taken || may_exist.is_some() && is_closed(&error)) && self.is_found(context).await {
                return Ok(());
            }
            // The cause is HTTP 429, a server that is starting, a quota that changed in the meantime, or a closed
            // connection.
            if let Some(pause) = create_pause(&error).filter(|pause| Instant::now() + *pause < end) {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = context.cancel.cancelled() => {}
                    () = context.stop.cancelled() => {}
                }
                if !context.is_cancelled() {
                    continue;
                }
            }
            let code = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
            return Err(self.not_created(context, kube_reason(&error), code));
        }
    }

    fn record_created(&mut self, context: &ProbeContext, uid: Option<String>) {
        if let Some(open) = &self.open {
            context.record.created(open, uid.as_deref());
        }
        context.admitted.notify_one();
        self.outcome = CreateOutcome::Created { uid };
    }

    /// Records that the pod may exist. A later rejection does not change this, because an earlier attempt may have
    /// created the pod.
    fn record_open(&mut self, context: &ProbeContext, outcome: CreateOutcome) {
        if let Some(open) = &self.open {
            context.record.created(open, None);
        }
        if self.outcome != CreateOutcome::Unanswered {
            self.outcome = outcome;
        }
    }

    /// Checks whether an attempt whose response was lost created the pod. The labels show that the pod does not belong to
    /// another launcher.
    async fn is_found(&mut self, context: &ProbeContext) -> bool {
        let pods = context.pods(&self.pod.namespace);
        match timeout(LOOK_TIME, pods.get_metadata_opt(&self.pod.name)).await {
            Ok(Ok(Some(pod))) if pod.labels().get(SESSION_LABEL) == Some(&context.session.identity.session) => {
                self.record_created(context, pod.metadata.uid);
                true
            }
            // A failed read shows nothing about the pod.
            Ok(Ok(_) | Err(_)) | Err(_) => false,
        }
    }

    pub(crate) async fn clean_up(&mut self, context: &ProbeContext) -> CleanUp {
        let ProbePod { name, namespace, .. } = &self.pod;
        let outcome = std::mem::replace(&mut self.outcome, CreateOutcome::NotCreated);
        let open = self.open.take();
        if outcome == CreateOutcome::NotCreated {
            open.iter().for_each(|open| context.session.open.remove(open));
            return CleanUp { pod: name.clone(), deleted: true, left_behind: None };
        }
        context.report(Phase::Remove);
        let deletion = delete_pod(&context.pods(namespace), name, &outcome).await;
        if let (Ok(Deletion::NotFound), CreateOutcome::Unanswered, Some(open)) = (&deletion, &outcome, &open) {
            let left_behind = Some(format!(
                "pod {namespace}/{name} may still be created, because the request to create it was not answered. \
                    gpu-syringe looks for the pod for up to {} s and deletes it. The pod exits on its own within {} s of \
                    its start. To make sure, run: {}",
                LATE_TIME.as_secs(),
                open.lifetime_seconds,
                open.command()
            ));
            late::end_in_background(context, LateObject::Pod(context.pods(namespace)), open.clone());
            return CleanUp { pod: name.clone(), deleted: false, left_behind };
        }
        // A pod that could not be deleted is no longer in use, so the next clean-up tries again.
        open.iter().for_each(|open| context.session.open.remove(open));
        let left_behind = deletion.err().map(|reason| {
            tracing::warn!(pod = %name, %reason, "the probe pod could not be deleted");
            let by = if reason.is_forbidden {
                "A user who may delete pods in this namespace can run"
            } else {
                "The next call or start of gpu-syringe deletes the pod. To delete it now, run"
            };
            format!(
                "pod {namespace}/{name} could not be deleted ({reason}). It exits on its own within {} s. {by}: kubectl -n \
                 {namespace} delete pod {name}",
                context.settings.probe_lifetime().as_secs(),
            )
        });
        CleanUp { pod: name.clone(), deleted: left_behind.is_none(), left_behind }
    }

    fn creating(&self, context: &ProbeContext) -> String {
        format!("Creating the probe pod for node {} in namespace {}", context.request.node, self.pod.namespace)
    }

    fn not_created(&self, context: &ProbeContext, why: String, code: Option<u16>) -> Failure {
        let namespace = &self.pod.namespace;
        let what = self.creating(context);
        if let Some(denial) = admission_policy::denial(&why, namespace) {
            return denial.failure(what, &why);
        }
        let (cause, next) = match code {
            Some(401) => (
                Cause::Refused,
                "The API server rejected your credentials: sign in again (check with kubectl get nodes in that context).".into(),
            ),
            Some(403) => create_forbidden::classify(&why, namespace),
            Some(404) => (Cause::NamespaceMissing, next_steps::namespace_missing(namespace)),
            _ => (Cause::Other, format!("Check that {} can be reached, and try again.", context.connection.server)),
        };
        Failure::new(what, why, next).because_of(cause)
    }
}

/// Returns what the error shows about the creation of the pod; `None` if the request did not create it.
fn outcome_of(error: &kube::Error) -> Option<CreateOutcome> {
    match error {
        // The name is unique, so an earlier attempt succeeded, or a proxy sent this request twice.
        kube::Error::Api(status) if is_already_exists(status) => Some(CreateOutcome::Unknown),
        // A proxy stopped waiting, but the API server may still create the pod.
        kube::Error::Api(status) if status.code == 504 => Some(CreateOutcome::Unanswered),
        kube::Error::Api(status) if status.code >= 500 => Some(CreateOutcome::Unknown),
        kube::Error::Api(_) => None,
        error if is_not_sent(error) => None,
        _ => Some(CreateOutcome::Unanswered),
    }
}

/// Returns the pause before the next attempt. A quota that changed in the meantime causes a conflict, and nothing was
/// created.
fn create_pause(error: &kube::Error) -> Option<Duration> {
    match error {
        kube::Error::Api(status) if is_conflict(status) => Some(CONFLICT_PAUSE),
        kube::Error::Api(status) if is_already_exists(status) => Some(CONFLICT_PAUSE),
        error => retry_pause(error),
    }
}
