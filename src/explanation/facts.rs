//! What Kubernetes says of a pod, as far as an explanation uses it.

use jiff::Timestamp;

/// One pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Node that it was given to.
    pub node: Option<String>,
    /// Whether that node is Ready; `None` where it was not asked.
    pub node_ready: Option<bool>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    pub phase: String,
    /// The status's own reason (`Evicted`, `OutOfnvidia.com/gpu`, …).
    pub reason: Option<String>,
    /// The status's own message, or that of the `PodScheduled` condition while it waits.
    pub message: Option<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it was given to the node.
    pub scheduled: Option<Timestamp>,
    /// When its deletion was asked for.
    pub deleted: Option<Timestamp>,
    /// Its containers, init containers first.
    pub containers: Vec<ContainerFacts>,
    /// Its events.
    pub events: Vec<PodEvent>,
    /// Whether it asks for GPUs.
    pub wants_gpus: bool,
}

/// One container of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFacts {
    /// Name.
    pub name: String,
    /// What it does now.
    pub state: ContainerState,
    /// How it ended before, when it was started again.
    pub last: Option<ContainerState>,
    /// How often it was started again.
    pub restarts: u32,
}

/// What a container does, or how it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ContainerState {
    /// Not known yet.
    #[default]
    Unknown,
    /// Waits to start.
    Waiting {
        /// `ImagePullBackOff`, `CrashLoopBackOff`, …
        reason: String,
        /// The kubelet's words.
        message: String,
    },
    /// Runs.
    Running {
        /// Since when.
        since: Option<Timestamp>,
    },
    /// Ended.
    Terminated {
        /// Exit code; 128 plus the signal where one ended it.
        exit_code: i32,
        /// `OOMKilled`, `Error`, `Completed`, …
        reason: String,
        /// What it left as a message.
        message: String,
        /// When it started.
        started: Option<Timestamp>,
        /// When it ended.
        finished: Option<Timestamp>,
    },
}

/// One event of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodEvent {
    /// When it happened last.
    pub time: Option<Timestamp>,
    /// `Scheduled`, `Preempted`, `FailedScheduling`, …
    pub reason: String,
    /// In words.
    pub message: String,
    /// How often.
    pub count: u32,
    /// Which part of the pod it is about, as the API names it: `spec.containers{main}`. Empty: the pod as a whole.
    pub field: String,
}

impl PodEvent {
    /// Whether it tells of one of our own probes: looking at a pod is no part of its story.
    pub(super) fn is_ours(&self) -> bool {
        let container = self.field.strip_prefix("spec.ephemeralContainers{");
        container.is_some_and(|name| name.starts_with(crate::PROBE_NAME))
    }
}

impl PodFacts {
    /// The end that matters: of the container that failed, the last one otherwise. With the container's name.
    pub fn end(&self) -> Option<(&str, &ContainerState)> {
        let ended = |state: &ContainerState| matches!(state, ContainerState::Terminated { .. });
        let failed =
            |state: &ContainerState| matches!(state, ContainerState::Terminated { exit_code, .. } if *exit_code != 0);
        let now = || self.containers.iter().map(|container| (container.name.as_str(), &container.state));
        // A container that was started again and ended in order has got over how it ended before.
        let tried_again = self.containers.iter().filter(|container| !ended(&container.state));
        let before = tried_again
            .filter_map(|container| Some((container.name.as_str(), container.last.as_ref()?)))
            .collect::<Vec<_>>();
        let of = |wanted: &dyn Fn(&ContainerState) -> bool| {
            now().chain(before.iter().copied()).find(|(_, state)| wanted(state))
        };
        of(&failed).or_else(|| of(&ended))
    }

    /// From when to when the pod could have used a GPU.
    pub fn lifetime(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let over = matches!(self.phase.as_str(), "Succeeded" | "Failed");
        let ends = self.containers.iter().filter_map(|container| match &container.state {
            ContainerState::Terminated { finished, .. } => *finished,
            _ => None,
        });
        (self.scheduled.or(self.created), if over { ends.max() } else { None })
    }
}
