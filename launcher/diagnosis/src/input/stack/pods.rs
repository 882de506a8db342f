//! `FailingPod`: a pod of NVIDIA's stack that does not become ready, with its container, messages and commands.
//! `failing_pod`, `failing`: find such a pod. `of`: the pods of a component. `last_end`, `is_settled`, `is_older`: the
//! last end of a container, and whether enough time has passed.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use syringe_core::facts::kubernetes::node::{
    Component, ContainerStateKind, NvidiaContainer, NvidiaContainerState, NvidiaPod,
};
use syringe_core::text::{clean, clean_keeping_end};

/// A pod younger than this may still be starting.
const STARTING: SignedDuration = SignedDuration::from_mins(5);
/// Maximum start time of the driver pod. The pod compiles modules, and its startup probe allows 20 minutes.
const DRIVER_STARTING: SignedDuration = SignedDuration::from_mins(30);
/// A node that booted more recently than this may still be starting its pods.
const NODE_STARTING: SignedDuration = SignedDuration::from_mins(10);
/// A node that booted more recently than this may be Ready for the first time.
const JOINING: SignedDuration = SignedDuration::from_hours(1);
/// Maximum length of a message in the evidence. The reason is at the end of the message.
const MESSAGE: usize = 300;
/// Maximum length of a name in the API: commands need complete names.
const NAME: usize = 253;

/// A pod that does not become ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailingPod<'a> {
    pub(crate) pod: &'a NvidiaPod,
    /// The container that prevents the pod from becoming ready, if known.
    pub(crate) container: Option<&'a NvidiaContainer>,
}

/// Returns the time to which ages are relative: the time at which the facts were collected or, if that is not known,
/// the time at which the API was read.
pub(crate) fn now(node: &Node<'_>) -> Option<Timestamp> {
    node.now.or(node.kubernetes.read_at)
}

/// Returns the time at which the API was read. The ages of API objects are relative to this time, because the facts of
/// a replayed report are older.
pub(crate) fn time_of_api(node: &Node<'_>) -> Option<Timestamp> {
    node.kubernetes.read_at.or(node.now)
}

/// Returns whether the node has been Ready for long enough that its pods should have started.
pub(crate) fn is_settled(node: &Node<'_>) -> bool {
    let up = node.host().and_then(|host| host.uptime_seconds);
    let booting = up.is_some_and(|up| up < NODE_STARTING.as_secs().unsigned_abs());
    let ready_for = now(node).zip(node.kubernetes.ready_since).map(|(now, since)| now.duration_since(since));
    // A time in the future comes from a wrong clock and is ignored.
    let patience = if plugin_crashes(node) { STARTING } else { NODE_STARTING };
    // A node that has been running for long has its pods, even if it was not Ready for a moment.
    let is_new = up.is_none_or(|up| up < JOINING.as_secs().unsigned_abs());
    let just_ready = is_new && ready_for.is_some_and(|age| !age.is_negative() && age < patience);
    !booting && !just_ready && node.kubernetes.ready != Some(false)
}

/// After this number of restarts, the kubelet waits for minutes: the container has been failing for longer than a
/// normal start takes.
const MANY_RESTARTS: u32 = 5;

/// Returns whether the device plugin crashes repeatedly, and no component that it waits for is starting.
fn plugin_crashes(node: &Node<'_>) -> bool {
    let crashes = |container: &NvidiaContainer| {
        let code = container.last.as_ref().and_then(|last| last.exit_code);
        container.restarts >= MANY_RESTARTS && fails(container) && code.is_some_and(|code| code != 0)
    };
    let waits_for = [Component::Driver, Component::ContainerToolkit];
    let is_waiting = waits_for.into_iter().flat_map(|component| of(node, component)).any(|pod| !pod.ready);
    !is_waiting && of(node, Component::DevicePlugin).any(|pod| !pod.ready && pod.containers.iter().any(crashes))
}

/// Returns the pods of a component, except deleted and terminated ones.
pub(crate) fn of<'a>(node: &Node<'a>, component: Component) -> impl Iterator<Item = &'a NvidiaPod> {
    let pods = node.kubernetes.nvidia_pods.as_deref().unwrap_or_default();
    pods.iter().filter(move |pod| pod.component == component && !pod.deleting && pod.phase != "Succeeded")
}

/// Returns the first pod of the component that should be ready by now. `None` if a pod of the component is ready.
pub(crate) fn failing_pod<'a>(node: &Node<'a>, component: Component) -> Option<FailingPod<'a>> {
    if of(node, component).any(|pod| pod.ready) {
        return None;
    }
    of(node, component).find_map(|pod| failing(node, pod)).or_else(|| remaining(node, component))
}

/// Returns a deleted pod that still exists, if the component has no other pod. Its DaemonSet creates a new pod only
/// after that.
fn remaining<'a>(node: &Node<'a>, component: Component) -> Option<FailingPod<'a>> {
    if of(node, component).next().is_some() {
        return None;
    }
    let mut pods = node.kubernetes.nvidia_pods.iter().flatten();
    let pod = pods.find(|pod| pod.component == component && pod.deleting && is_older(node, pod.deletion_due))?;
    Some(FailingPod { pod, container: None })
}

/// Returns the pod if it should be ready by now.
pub(crate) fn failing<'a>(node: &Node<'_>, pod: &'a NvidiaPod) -> Option<FailingPod<'a>> {
    let age = |since: Option<Timestamp>| Some(now(node)?.duration_since(since?));
    let older = |since, than| age(since).is_some_and(|age| age >= than);
    let container = pod.containers.iter().find(|container| holds_up(container));
    if pod.phase == "Failed" || container.is_some_and(fails) {
        // A crashing pod counts whatever its start time is, but a new pod may recover.
        let young = age(pod.created).is_some_and(|age| !age.is_negative() && age < STARTING);
        return (!young).then_some(FailingPod { pod, container });
    }
    let patience = if pod.component == Component::Driver { DRIVER_STARTING } else { STARTING };
    let since = container.filter(|container| !restarts_after_errors(container));
    let since = since.and_then(|container| container.state.since).or(pod.created);
    older(since, patience).then_some(FailingPod { pod, container })
}

/// Exit codes of a container that another component ended: SIGKILL, SIGTERM, and 255 for a container that a boot ended.
const NOT_BY_ITSELF: [i32; 4] = [0, 137, 143, 255];

/// Returns whether a container repeatedly ends with its own error. Each restart sets a new start time, so the start
/// time does not show how long the pod has not been ready.
fn restarts_after_errors(container: &NvidiaContainer) -> bool {
    let code = container.last.as_ref().and_then(|last| last.exit_code);
    container.restarts > 1 && code.is_some_and(|code| !NOT_BY_ITSELF.contains(&code))
}

/// Returns whether this container prevents the pod from becoming ready: it is an uncompleted init container, or it is
/// not ready.
fn holds_up(container: &NvidiaContainer) -> bool {
    let state = &container.state;
    match (container.init, state.kind) {
        (true, ContainerStateKind::Terminated) => state.exit_code != Some(0),
        (true, _) => !container.ready,
        (false, _) => !container.ready,
    }
}

/// Returns whether the container failed. A container that is starting has not failed.
fn fails(container: &NvidiaContainer) -> bool {
    const ON_ITS_WAY: [&str; 2] = ["ContainerCreating", "PodInitializing"];
    let state = &container.state;
    match state.kind {
        ContainerStateKind::Waiting => state.reason.as_deref().is_some_and(|reason| !ON_ITS_WAY.contains(&reason)),
        ContainerStateKind::Terminated => state.exit_code.is_some_and(|code| code != 0),
        ContainerStateKind::Running => false,
    }
}

impl FailingPod<'_> {
    /// Returns the name of the container that prevents the pod from becoming ready.
    pub(crate) fn container_name(&self) -> &str {
        self.container.map_or("", |container| container.name.as_str())
    }

    /// Returns the state of the pod in one line.
    pub(crate) fn description(&self) -> String {
        let Self { pod, container } = self;
        let pod_name = format!("pod {}", name(pod));
        if let Some(due) = pod.deletion_due {
            return format!(
                "{pod_name} is being deleted, should be gone since {}, and still exists",
                evidence::time(due)
            );
        }
        // The kubelet or a controller ended the pod as a whole, so the state of its containers contains no reason.
        let ended = pod.phase == "Failed" && pod.reason.is_some();
        let Some(container) = container.filter(|_| !ended) else {
            let reason =
                pod.reason.as_deref().map(|reason| format!(" ({})", evidence::data(reason))).unwrap_or_default();
            let message = pod.message.as_deref().map(|message| format!(": {}", cut(message))).unwrap_or_default();
            return format!("{pod_name} is {}{reason}{message}", evidence::data(&pod.phase));
        };
        let kind = if container.init { "init container" } else { "container" };
        let unplaced = self.scheduling().map(|message| format!("; the pod is not placed: {}", cut(message)));
        let unplaced = unplaced.unwrap_or_default();
        format!("{pod_name}: {kind} {} {}{unplaced}", clean(&container.name, NAME), self.state(container))
    }

    /// Returns the message of the scheduler, if the pod waits for a node.
    pub(crate) fn scheduling(&self) -> Option<&str> {
        let pod = self.pod;
        let warning = pod.warning.as_ref().filter(|warning| warning.reason == "FailedScheduling");
        let messages = pod.message.as_deref().into_iter().chain(warning.map(|warning| warning.message.as_str()));
        let ran = pod.containers.iter().any(|one| one.restarts > 0 || one.state.kind != ContainerStateKind::Waiting);
        messages.into_iter().find(|_| pod.phase == "Pending" && !ran)
    }

    /// Returns whether the container was killed because it used more memory than its limit.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.container.is_some_and(is_out_of_memory)
    }

    /// Returns the termination message of a container that is being restarted.
    pub(crate) fn last_words(&self) -> Option<&str> {
        let container = self.container?;
        let ends = [Some(&container.state), container.last.as_ref()].into_iter().flatten();
        let ended = ends.filter(|state| state.kind == ContainerStateKind::Terminated);
        ended.filter_map(|state| state.message.as_deref()).find(|message| !message.trim().is_empty())
    }

    fn state(&self, container: &NvidiaContainer) -> String {
        let state = &container.state;
        let reason = state.reason.as_deref().map(evidence::data);
        let message = state.message.as_deref().map(|message| format!(": {}", cut(message))).unwrap_or_default();
        match state.kind {
            ContainerStateKind::Waiting => {
                let mut words = match reason {
                    Some(reason) => format!("waits ({reason}{message})"),
                    None => "has not started".to_owned(),
                };
                if words.contains("Image") {
                    words.push_str(&format!(", image {}", clean(&container.image, MESSAGE)));
                }
                if container.restarts > 0 {
                    words.push_str(&format!(", {}{}", restarts(container.restarts), last_end(container)));
                }
                words
            }
            ContainerStateKind::Terminated => {
                let code = state.exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
                format!("ended{code}{}{message}", why(Some(state)))
            }
            ContainerStateKind::Running if container.restarts > 0 => {
                format!("is running but not ready, {}{}", restarts(container.restarts), last_end(container))
            }
            ContainerStateKind::Running if container.init => "is still running".to_owned(),
            ContainerStateKind::Running => "is running but not ready".to_owned(),
        }
    }

    /// Returns the messages of the kubelet and the container runtime about the container, newest first. They come from
    /// its state, from its last termination if its program never ran, and from the newest warning of the pod.
    pub(crate) fn runtime_messages(&self) -> impl Iterator<Item = &str> {
        let state = self.container.map(|container| &container.state);
        let waits = state.filter(|state| state.reason.as_deref() != Some("CrashLoopBackOff"));
        let last = self.container.and_then(|container| container.last.as_ref());
        let never_ran = |state: &&NvidiaContainerState| {
            state.exit_code == Some(128) || matches!(state.reason.as_deref(), Some("StartError" | "ContainerCannotRun"))
        };
        let waits = waits.filter(|state| state.kind == ContainerStateKind::Waiting || never_ran(state));
        let own = waits.into_iter().chain(last.filter(never_ran)).filter_map(|state| state.message.as_deref());
        let warning = self.pod.warning.as_ref().filter(|warning| warning.reason != "BackOff");
        own.chain(warning.map(|warning| warning.message.as_str()))
    }

    /// Returns the newest warning event of the pod.
    pub(crate) fn warning(&self) -> Option<String> {
        let warning = self.pod.warning.as_ref()?;
        Some(format!("event {}: {}", evidence::data(&warning.reason), cut(&warning.message)))
    }

    /// Returns the command that shows the log, if there is a log.
    pub(crate) fn log_command(&self) -> Option<String> {
        let container = self.container?;
        let started = container.restarts > 0 || container.state.kind != ContainerStateKind::Waiting;
        started.then(|| {
            let waits = container.state.kind == ContainerStateKind::Waiting;
            let previous = if waits { " --previous" } else { "" };
            let (namespace, pod) = (clean(&self.pod.namespace, NAME), clean(&self.pod.name, NAME));
            format!("kubectl -n {namespace} logs {pod} -c {}{previous}", clean(&container.name, NAME))
        })
    }
}

/// Returns the command that deletes the pod, so that its controller recreates it.
pub(crate) fn delete_command(pod: &NvidiaPod) -> String {
    format!("kubectl -n {} delete pod {}", clean(&pod.namespace, NAME), clean(&pod.name, NAME))
}

/// Returns `namespace/name` of a pod.
pub(crate) fn name(pod: &NvidiaPod) -> String {
    format!("{}/{}", clean(&pod.namespace, NAME), clean(&pod.name, NAME))
}

/// Returns the termination reason in brackets (` (OOMKilled)`). Empty if the reason only repeats the exit code.
fn why(end: Option<&NvidiaContainerState>) -> String {
    let reason = end.and_then(|end| end.reason.as_deref()).filter(|reason| !["Error", "Completed"].contains(reason));
    reason.map(|reason| format!(" ({})", evidence::data(reason))).unwrap_or_default()
}

/// Returns whether the container was last terminated because of its memory limit.
pub(crate) fn is_out_of_memory(container: &NvidiaContainer) -> bool {
    let ended = |state: &&NvidiaContainerState| state.kind == ContainerStateKind::Terminated;
    let newest = Some(&container.state).filter(ended).or(container.last.as_ref());
    newest.is_some_and(|end| end.reason.as_deref() == Some("OOMKilled"))
}

/// Returns the last exit code of a container, with the reason and the last words.
pub(crate) fn last_end(container: &NvidiaContainer) -> String {
    let Some(last) = &container.last else { return String::new() };
    let code = last.exit_code.map(|code| format!(", last exit code {code}{}", why(Some(last))));
    let words = last.message.as_deref().filter(|words| !words.trim().is_empty());
    let words = words.map(|words| format!(", last words: \"{}\"", cut(words)));
    format!("{}{}", code.unwrap_or_default(), words.unwrap_or_default())
}

fn restarts(count: u32) -> String {
    if count == 1 { "1 restart".to_owned() } else { format!("{count} restarts") }
}

fn cut(message: &str) -> String {
    clean_keeping_end(message, MESSAGE)
}

/// Returns whether something started at least [`STARTING`] ago.
pub(crate) fn is_older(node: &Node<'_>, since: Option<Timestamp>) -> bool {
    let age = now(node).zip(since).map(|(now, since)| now.duration_since(since));
    age.is_some_and(|age| age >= STARTING)
}
