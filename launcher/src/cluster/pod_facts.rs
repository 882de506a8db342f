//! One pod as an explanation wants it: status, containers, events, in the core's own types.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use syringe_core::explanation::{ContainerFacts, ContainerState, PodEvent, PodFacts};
use syringe_core::text::clean;

use super::node::{timed_out, unanswered};
use super::resources::is_gpu_resource;
use super::{Connection, names, patience};
use crate::error::Failure;

/// Events of one pod that are read. Kubernetes keeps them for an hour and counts repeats.
const MOST_EVENTS: u32 = 50;
/// Longest message that is kept.
const MESSAGE_CAP: usize = 400;

/// Reads the pod and its events; the last has why these could not be read.
pub async fn read(
    connection: &Connection,
    namespace: &str,
    name: &str,
) -> Result<(Pod, PodFacts, Option<Failure>), Failure> {
    names::namespace(namespace)?;
    names::pod(name)?;
    let what = || format!("Reading pod {namespace}/{name}");
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let pod = patience::read(|| pods.get_opt(name))
        .await
        .ok_or_else(|| timed_out(connection, what()))?
        .map_err(|error| unanswered(connection, what(), &error))?
        .ok_or_else(|| {
            Failure::new(
                what(),
                format!("there is no such pod in context {}", connection.context),
                "Check name and namespace. A pod that was deleted is gone from the API: its events and the node's kernel log \
                 (analyze_xid_errors) are what is left of it.",
            )
        })?;
    let mut facts = of(&pod);
    // Events are a help, not a need: a user who may not list them still gets an explanation.
    let unread = match events(connection, namespace, &facts.uid).await {
        Ok(events) => {
            facts.events = events;
            None
        }
        Err(failure) => Some(failure),
    };
    Ok((pod, facts, unread))
}

async fn events(connection: &Connection, namespace: &str, uid: &str) -> Result<Vec<PodEvent>, Failure> {
    let what = || format!("Listing the events of the pod in namespace {namespace}");
    let api: Api<Event> = Api::namespaced(connection.client.clone(), namespace);
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(MOST_EVENTS);
    let list = patience::read(|| api.list(&params))
        .await
        .ok_or_else(|| timed_out(connection, what()))?
        .map_err(|error| unanswered(connection, what(), &error))?;
    let mut events: Vec<_> = list.items.iter().map(event).collect();
    events.sort_by_key(|event| event.time);
    Ok(events)
}

fn event(event: &Event) -> PodEvent {
    let micro = event.event_time.as_ref().map(|time| time.0);
    PodEvent {
        time: time(event.last_timestamp.as_ref()).or(micro).or(time(event.first_timestamp.as_ref())),
        reason: clean(event.reason.as_deref().unwrap_or_default(), 80),
        message: clean(event.message.as_deref().unwrap_or_default(), MESSAGE_CAP),
        count: event.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        field: clean(event.involved_object.field_path.as_deref().unwrap_or_default(), MESSAGE_CAP),
    }
}

/// The facts of a pod object, without its events.
fn of(pod: &Pod) -> PodFacts {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    let waits =
        scheduled.filter(|condition| condition.status != "True").and_then(|condition| condition.message.clone());
    let containers = [status.init_container_statuses, status.container_statuses];
    PodFacts {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty()),
        node_ready: None,
        phase: clean(&status.phase.unwrap_or_default(), 20),
        reason: status.reason.map(|reason| clean(&reason, 80)),
        message: status.message.or(waits).map(|message| clean(&message, MESSAGE_CAP)),
        created: time(pod.metadata.creation_timestamp.as_ref()),
        scheduled: scheduled
            .filter(|condition| condition.status == "True")
            .and_then(|condition| time(condition.last_transition_time.as_ref()))
            .or(time(status.start_time.as_ref())),
        deleted: time(pod.metadata.deletion_timestamp.as_ref()),
        containers: containers.into_iter().flatten().flatten().map(|status| container(&status)).collect(),
        events: Vec::new(),
        wants_gpus: wants_gpus(pod),
    }
}

fn container(status: &core::ContainerStatus) -> ContainerFacts {
    ContainerFacts {
        name: clean(&status.name, 63),
        state: status.state.as_ref().map(state).unwrap_or_default(),
        last: status.last_state.as_ref().map(state).filter(|state| *state != ContainerState::Unknown),
        restarts: u32::try_from(status.restart_count).unwrap_or(0),
    }
}

fn state(state: &core::ContainerState) -> ContainerState {
    let words = |text: &Option<String>| clean(text.as_deref().unwrap_or_default(), MESSAGE_CAP);
    if let Some(ended) = &state.terminated {
        return ContainerState::Terminated {
            exit_code: ended.exit_code,
            reason: words(&ended.reason),
            message: words(&ended.message),
            started: time(ended.started_at.as_ref()),
            finished: time(ended.finished_at.as_ref()),
        };
    }
    if let Some(waiting) = &state.waiting {
        return ContainerState::Waiting { reason: words(&waiting.reason), message: words(&waiting.message) };
    }
    match &state.running {
        Some(running) => ContainerState::Running { since: time(running.started_at.as_ref()) },
        None => ContainerState::Unknown,
    }
}

fn wants_gpus(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let resources = containers.filter_map(|container| container.resources.as_ref());
    let mut names = resources.flat_map(|resources| resources.limits.iter().chain(&resources.requests).flatten());
    names.any(|(name, _)| is_gpu_resource(name))
        || spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
}

fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}
