//! A pod of our own: created, and removed again. Three ways use one.

use std::time::Duration;

use kube::api::PostParams;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::eager::Place;
use super::life::{Left, Life};
use super::withdraw::{self, Meant};
use super::{CONTAINER, Phase, ProbePod, forbidden, policy};
use crate::error::{Failure, Obstacle, kube_reason};
use crate::kubernetes::client::retry::{is_retryable as may_pass, retry_after};

/// Time for the API server to take the pod, with all tries: admission webhooks sit behind it.
pub(super) const CREATE_TIME: Duration = Duration::from_secs(10);
/// Time to look whether a pod exists whose creation was not answered.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// A pod that is made for one call.
pub(super) struct OwnPod {
    pod: ProbePod,
    made: Made,
}

/// Whether the pod stands.
enum Made {
    No,
    /// The answer to its creation was lost, or left it open.
    Perhaps,
    Yes {
        uid: Option<String>,
    },
}

impl OwnPod {
    pub(super) fn new(pod: ProbePod) -> Self {
        Self { pod, made: Made::No }
    }

    /// Its container, as a place to run the probe in.
    pub(super) fn place(&self, if_missing: &'static str) -> Place {
        let ProbePod { name, namespace, object } = &self.pod;
        let image = object.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
        Place {
            namespace: namespace.clone(),
            pod: name.clone(),
            container: CONTAINER.into(),
            image: image.unwrap_or_default(),
            if_missing,
        }
    }

    /// Creates it.
    pub(super) async fn enter(&mut self, life: &Life) -> Result<(), Failure> {
        let pods = life.pods(&self.pod.namespace);
        let params = PostParams::default();
        let end = Instant::now() + CREATE_TIME;
        loop {
            let error = match timeout_at(end, pods.create(&params, &self.pod.object)).await {
                Ok(Ok(pod)) => {
                    self.stands(life, pod.metadata.uid);
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    self.may_stand(life);
                    let why = format!("{} did not answer within {CREATE_TIME:?}", life.connection.server);
                    return Err(self.not_created(life, why, None));
                }
            };
            let code = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
            // The name is ours alone: where it is taken, an earlier try came through unseen.
            if code == Some(409) && self.is_there(life).await {
                return Ok(());
            }
            // A plain refusal created nothing; a server that broke down over the request, or a connection, may have.
            if code.is_none_or(|code| code >= 500 || code == 409) {
                self.may_stand(life);
            }
            // Too many requests, or a server that is starting: asking again is safe, since the name stays the same.
            if let kube::Error::Api(status) = &error
                && may_pass(status)
                && Instant::now() < end
            {
                tokio::select! {
                    () = sleep(retry_after(status)) => {}
                    () = life.cancel.cancelled() => {}
                    () = life.stop.cancelled() => {}
                }
                if !life.is_given_up() {
                    continue;
                }
            }
            return Err(self.not_created(life, kube_reason(&error), code));
        }
    }

    fn stands(&mut self, life: &Life, uid: Option<String>) {
        life.record.created(&self.pod.namespace, &self.pod.name, uid.as_deref());
        self.made = Made::Yes { uid };
    }

    /// Remembered from the first answer that leaves it open: a later refusal does not undo what came before it.
    fn may_stand(&mut self, life: &Life) {
        life.record.created(&self.pod.namespace, &self.pod.name, None);
        self.made = Made::Perhaps;
    }

    /// Looks for a pod that an earlier try may have made.
    async fn is_there(&mut self, life: &Life) -> bool {
        if !matches!(self.made, Made::Perhaps) {
            return false;
        }
        let pods = life.pods(&self.pod.namespace);
        match timeout(LOOK_TIME, pods.get_metadata_opt(&self.pod.name)).await {
            Ok(Ok(Some(pod))) => {
                self.stands(life, pod.metadata.uid);
                true
            }
            // A look that fails proves nothing.
            Ok(Ok(None) | Err(_)) | Err(_) => false,
        }
    }

    /// Removes it.
    pub(super) async fn leave(&mut self, life: &Life) -> Left {
        let ProbePod { name, namespace, .. } = &self.pod;
        let made = std::mem::replace(&mut self.made, Made::No);
        let meant = match &made {
            Made::No => return Left { pod: name.clone(), removed: true, left_behind: None },
            Made::Perhaps => Meant::Unseen,
            Made::Yes { uid } => Meant::This(uid.as_deref()),
        };
        (life.on_phase)(Phase::Remove);
        let removed = withdraw::withdraw(&life.pods(namespace), name, meant).await;
        let left_behind = removed.err().map(|reason| {
            tracing::warn!(pod = %name, %reason, "the probe pod could not be removed");
            let by = if reason.is_forbidden {
                "somebody who may delete pods there removes it with"
            } else {
                "the next start sweeps it, or"
            };
            format!(
                "pod {namespace}/{name} could not be removed ({reason}); it ends by itself within {} s, {by}: kubectl -n \
                 {namespace} delete pod {name}",
                life.settings.probe_lifetime().as_secs(),
            )
        });
        Left { pod: name.clone(), removed: left_behind.is_none(), left_behind }
    }

    fn not_created(&self, life: &Life, why: String, code: Option<u16>) -> Failure {
        let namespace = &self.pod.namespace;
        let what = format!("Creating the probe pod for node {} in namespace {namespace}", life.order.node);
        if let Some((who, change)) = policy::behind(&why, namespace) {
            return Failure::new(what, format!("{who} forbids it: {why}"), change).because_of(Obstacle::Policy(who));
        }
        let next = match code {
            Some(401) => {
                "Your credentials were refused: sign in again (kubectl get nodes with that context shows it).".into()
            }
            Some(403) => forbidden::next_step(&why, namespace),
            Some(404) => format!("Create the namespace: kubectl apply -f deploy/namespace.yaml ({namespace})."),
            _ => format!("Check that {} can be reached, and try again.", life.connection.server),
        };
        let failure = Failure::new(what, why, next);
        // The namespace and the user's rights are the same for every node.
        if matches!(code, Some(401 | 403 | 404)) { failure.because_of(Obstacle::EveryNode) } else { failure }
    }
}
