//! An ephemeral container in a GPU pod that runs on the node already: for nodes that are full, and to see what a workload
//! sees.
//!
//! Kubernetes never takes an ephemeral container out of a pod's spec. So the container is ended, and the result says what
//! stays. What is read is what that pod has: NVML of its own root, its processes, not the host's.

use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, SecurityContext};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::node_probe;
use super::pod::NO_PROBE;
use crate::error::{Failure, Obstacle, kube_reason};
use crate::probe::document::Document;
use crate::probe::eager::{Place, not_yet};
use crate::probe::exec::{self, Command, Ended, ExecError};
use crate::probe::life::{Left, Life, Way};
use crate::probe::pod::{OPERATOR, probe_name};
use crate::probe::{Beside, Phase, Timings, hopeless, policy};
use crate::settings::Via;

/// Time for one request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Time for the container to end once it was told to.
const END_TIME: Duration = Duration::from_secs(5);
/// Pause between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(60);
/// Exit code of a process that was killed (128 + SIGKILL).
const KILLED: i32 = 137;
/// Pods on one node, several times over.
const MOST_PODS: u32 = 500;

/// What became of our container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its pod was deleted, and it went with the pod.
    Gone,
    /// It has ended.
    Ended,
    /// Something keeps it from starting.
    Stuck,
    /// It never ran, and may start any moment.
    Waits,
    /// It runs, or nobody knows.
    Unknown,
}

/// A container of ours in a pod of somebody else's.
pub(super) struct Ephemeral {
    place: Option<Place>,
    /// The container whose process namespace ours shares.
    beside: Option<Beside>,
    /// Whether the container was added, or may have been.
    added: bool,
    /// UID of the pod, once it was.
    uid: Option<String>,
}

impl Ephemeral {
    pub(super) fn new() -> Self {
        Self { place: None, beside: None, added: false, uid: None }
    }

    fn failed(life: &Life, why: impl std::fmt::Display, next: impl Into<String>) -> Failure {
        Failure::new(format!("Adding an ephemeral container on node {}", life.order.node), why, next)
    }

    /// In the pod that the settings name, or the one that is asked about, or the first that suits.
    async fn choose(life: &Life) -> Result<Beside, Failure> {
        let node = &life.order.node;
        let asked = life.settings.ephemeral_pod.as_ref();
        if let (None, Some(beside)) = (asked, &life.order.beside) {
            return Ok(beside.clone());
        }
        let pods: Api<Pod> = match asked {
            Some(pod) => life.pods(&pod.namespace),
            None => Api::all(life.connection.client.clone()),
        };
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(MOST_PODS);
        let list = match timeout(REQUEST_TIME, pods.list(&on_node)).await {
            Ok(Ok(list)) => list.items,
            Ok(Err(error)) => {
                let next = "Your user needs list on pods where the GPU pods are: see deploy/rbac.yaml.";
                return Err(Self::failed(life, kube_reason(&error), next));
            }
            Err(_) => return Err(Self::failed(life, format!("no answer within {REQUEST_TIME:?}"), "Try again.")),
        };
        let named = |pod: &Pod| match asked {
            Some(asked) => pod.name_any() == asked.name,
            None => pod.namespace().as_deref() != Some("kube-system"),
        };
        let fit = list.iter().filter(|pod| named(pod)).filter_map(Beside::gpus_of);
        let first = fit.min_by(|one, other| (&one.namespace, &one.pod).cmp(&(&other.namespace, &other.pod)));
        first.ok_or_else(|| match asked {
            Some(asked) => Self::failed(
                life,
                format!("pod {asked} is no running pod with a GPU on that node, or is a static one"),
                "Name another one with --ephemeral-pod, or none to have one picked.",
            ),
            None => Self::failed(
                life,
                "no pod outside of kube-system runs there with a GPU",
                "Use --via pod, or --via none for what the Kubernetes API alone knows.",
            ),
        })
    }

    async fn add(&mut self, life: &Life, pods: &Api<Pod>, container: &EphemeralContainer) -> Result<(), Failure> {
        let pod = self.place.as_ref().map(|place| place.pod.clone()).unwrap_or_default();
        let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
        let params = PatchParams::default();
        let patching = pods.patch_ephemeral_containers(&pod, &params, &patch);
        let error = match timeout(REQUEST_TIME, patching).await {
            Ok(Ok(extended)) => {
                let namespace = extended.namespace().unwrap_or_default();
                life.record.created(&namespace, &pod, extended.metadata.uid.as_deref());
                (self.added, self.uid) = (true, extended.metadata.uid);
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.added = true;
                return Err(Self::failed(life, format!("no answer within {REQUEST_TIME:?}"), "Try again."));
            }
        };
        let why = kube_reason(&error);
        let code = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
        self.added = code.is_none_or(|code| code >= 500);
        let namespace = self.place.as_ref().map(|place| place.namespace.as_str()).unwrap_or_default();
        if let Some((who, change)) = policy::behind(&why, namespace) {
            return Err(
                Self::failed(life, format!("{who} forbids it: {why}"), change).because_of(Obstacle::Policy(who))
            );
        }
        let next = match code {
            Some(403) => "Your user needs patch on pods/ephemeralcontainers in that namespace: see deploy/rbac.yaml.",
            Some(404) => {
                "The pod has gone, or the cluster has no ephemeral containers (they came with 1.25). Try again."
            }
            _ => "Look at the message; another pod can be named with --ephemeral-pod.",
        };
        Err(Self::failed(life, why, next))
    }

    /// What the API says of the container.
    async fn fate(&self, life: &Life, place: &Place) -> Fate {
        let pod = match timeout(REQUEST_TIME, life.pods(&place.namespace).get_opt(&place.pod)).await {
            Ok(Ok(Some(pod))) => pod,
            Ok(Ok(None)) => return Fate::Gone,
            Ok(Err(_)) | Err(_) => return Fate::Unknown,
        };
        if self.uid.is_some() && pod.metadata.uid != self.uid {
            return Fate::Gone;
        }
        let state = hopeless::state(&pod, &place.container);
        // A status is behind what runs: once an exec was taken it proves nothing.
        if life.accepted.load(Ordering::Relaxed) || state.is_some_and(|state| state.running.is_some()) {
            return Fate::Unknown;
        }
        match state.is_some_and(|state| state.terminated.is_some()) {
            true => Fate::Ended,
            false if hopeless::reason(&pod, place, &life.settings).is_some() => Fate::Stuck,
            false => Fate::Waits,
        }
    }

    /// Ends the container, and says what became of it.
    async fn end(&self, life: &Life, place: &Place) -> Fate {
        // Where an exec was taken there is nothing to look for.
        if !life.accepted.load(Ordering::Relaxed) {
            let fate = self.fate(life, place).await;
            if matches!(fate, Fate::Gone | Fate::Ended | Fate::Stuck) {
                return fate;
            }
        }
        if Self::release(life, place).await { Fate::Ended } else { self.fate(life, place).await }
    }

    /// Tells the container to end; says whether it has for certain.
    async fn release(life: &Life, place: &Place) -> bool {
        let Place { namespace, pod, container, .. } = place;
        let argv = node_probe(&["release".to_owned()]);
        let command = Command { namespace, pod, container, argv: &argv, input: &[] };
        let end = Instant::now() + END_TIME;
        let mut released = false;
        while Instant::now() < end {
            let run = exec::run(&life.connection.client, &command, REQUEST_TIME, || ());
            let gone = match timeout(END_TIME, run).await {
                Ok(Ok(output)) => match output.ended {
                    // It may be killed with its container, which is the point.
                    Ended::Exit(0 | KILLED) | Ended::Cut => {
                        released = true;
                        false
                    }
                    Ended::Exit(_) | Ended::DocumentOnly => false,
                    Ended::Refused(why) => not_yet(&why),
                },
                // The whole pod is gone.
                Ok(Err(ExecError::Kube(kube::Error::Api(status)))) if status.code == 404 => return false,
                Ok(Err(ExecError::Kube(error))) => not_yet(&kube_reason(&error)),
                Ok(Err(ExecError::Timeout(_))) | Err(_) => false,
            };
            // Before it was told to end, a container that is not there has perhaps not come yet.
            if gone && released {
                return true;
            }
            sleep(PAUSE).await;
        }
        false
    }
}

impl Way for Ephemeral {
    fn via(&self) -> Via {
        Via::Ephemeral
    }

    async fn enter(&mut self, life: &Life) -> Result<(), Failure> {
        if life.settings.no_ephemeral {
            let next = "Start the launcher without --no-ephemeral, or with another --via.";
            return Err(Self::failed(life, "--no-ephemeral forbids it", next));
        }
        let beside = Self::choose(life).await?;
        let container = container(life, &beside.container);
        let Beside { namespace, pod, .. } = &beside;
        self.place = Some(Place {
            namespace: namespace.clone(),
            pod: pod.clone(),
            container: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            if_missing: NO_PROBE,
        });
        let pods = life.pods(namespace);
        self.beside = Some(beside);
        self.add(life, &pods, &container).await
    }

    async fn read(&self, life: &Life, timings: &mut Timings) -> Result<Document, Failure> {
        let (Some(place), Some(beside)) = (&self.place, &self.beside) else {
            return Err(life.out_of_time("no container was added"));
        };
        let argv = node_probe(&beside.looked_into(&life.order.command));
        let document = life.document(place, &argv, timings).await?;
        Ok(document.noting(Some(format!(
            "read from inside pod {}/{}, beside its container {}: with that pod's NVML library and its view of processes \
             and files; the host's own are out of sight",
            place.namespace, place.pod, beside.container
        ))))
    }

    async fn leave(&mut self, life: &Life) -> Left {
        let Some(place) = self.place.as_ref().filter(|_| self.added) else {
            return Left { pod: String::new(), removed: true, left_behind: None };
        };
        (life.on_phase)(Phase::Remove);
        let Place { namespace, pod, container, .. } = place;
        let stays = format!(
            "its entry stays in the spec of pod {namespace}/{pod} until that pod is deleted, since Kubernetes removes no \
             ephemeral container"
        );
        let seconds = life.settings.probe_lifetime().as_secs();
        let what = match self.end(life, place).await {
            Fate::Gone => return Left { pod: format!("{namespace}/{pod}"), removed: true, left_behind: None },
            Fate::Ended => "has ended".to_owned(),
            Fate::Stuck | Fate::Waits => {
                format!("has not started; if it does yet, it ends by itself within {seconds} s")
            }
            Fate::Unknown => format!("could not be ended, it ends by itself within {seconds} s"),
        };
        let left = format!("ephemeral container {container} {what}; {stays}");
        Left { pod: format!("{namespace}/{pod}"), removed: false, left_behind: Some(left) }
    }
}

fn container(life: &Life, target: &str) -> EphemeralContainer {
    let lifetime = life.settings.probe_lifetime().as_secs().to_string();
    let mut hold = ["hold", "--releasable", "--seconds", &lifetime].map(str::to_owned).to_vec();
    hold.extend(life.is_for_actions().then(|| OPERATOR.to_owned()));
    EphemeralContainer {
        name: probe_name(),
        image: Some(life.settings.probe_image()),
        image_pull_policy: Some(life.settings.image_pull_policy.as_str().into()),
        command: Some(node_probe(&hold)),
        // Its process namespace: /proc/1/root is then the target's root, with the NVML library that it was given. node-probe opens
        // that one as nobody, and runs nothing else of it.
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
