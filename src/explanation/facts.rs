//! What Kubernetes says of a pod, as far as an explanation uses it.

use jiff::Timestamp;

/// One pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID by which its node knows it.
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
    /// Whether it is Ready; `None` where its conditions do not say.
    pub ready: Option<bool>,
    /// Why it is not Ready, in the kubelet's words.
    pub not_ready: Option<String>,
    /// Scheduling gates that are not removed yet.
    pub scheduling_gates: Vec<String>,
    /// Whether it asks for GPUs.
    pub wants_gpus: bool,
    /// Its containers that ask a device plugin for GPUs and run as long as the pod.
    pub gpu_containers: Vec<String>,
    /// Whether it belongs to NVIDIA's software on the node (driver, toolkit, device plugin, validator): it asks for no GPU
    /// and needs the driver all the same.
    pub is_gpu_stack: bool,
    /// Whether it is NVIDIA's device plugin, which offers the GPUs to the kubelet.
    pub is_device_plugin: bool,
    /// GPUs that the scheduler reserves for it, of all GPU resources together.
    pub gpus_requested: u64,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<String>,
    /// The handler of that RuntimeClass; `None` where it was not read.
    pub runtime_handler: Option<String>,
    /// How the scheduler may make room for it.
    pub preemption: Preemption,
    /// What the GPU nodes have of what it requests, where it waits for one.
    pub room: Option<Room>,
    /// Resource claims that it names, and templates of those that are not created yet.
    pub claims_awaited: Vec<String>,
    /// `spec.schedulerName`, where it is not the default scheduler.
    pub scheduler: Option<String>,
    /// Devices of its containers that their device plugin calls unhealthy, as its status has it.
    pub unhealthy_devices: Vec<String>,
    /// The controller that could not create it, as `Job train`: then there is no such pod, and the rest says only its name.
    pub not_created_by: Option<String>,
}

/// What a pod's priority means for the scheduler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preemption {
    /// `spec.priority`.
    pub priority: Option<i32>,
    /// `spec.priorityClassName`.
    pub class: Option<String>,
    /// Whether `spec.preemptionPolicy` is `Never`.
    pub never: bool,
    /// `status.nominatedNodeName`: the node on which pods are being ended for it.
    pub nominated_node: Option<String>,
}

/// What GPU nodes have of what a pending pod requests, in words with numbers and names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Room {
    /// What is wrong, where the scheduler's words do not say it: `no GPU node offers nvidia.com/gpu`.
    pub problem: Option<String>,
    /// `asks for 4 nvidia.com/gpu on one node; the most that any GPU node has free is 2, on gpu-7`.
    pub shortage: String,
    /// What would have to change: `free 2 nvidia.com/gpu on gpu-7`.
    pub changes: Vec<String>,
    /// Whether all of the changes are needed, instead of one of them.
    pub needs_all: bool,
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
    /// The container that it is about; `None` for the pod as a whole.
    pub(super) fn container(&self) -> Option<&str> {
        let fields = ["spec.containers{", "spec.initContainers{", "spec.ephemeralContainers{"];
        fields.iter().find_map(|field| self.field.strip_prefix(field)?.strip_suffix('}'))
    }

    /// Whether it tells of one of our own probes: looking at a pod is no part of its story.
    pub(super) fn is_ours(&self) -> bool {
        let container = self.field.strip_prefix("spec.ephemeralContainers{");
        container.is_some_and(|name| name.starts_with(crate::PROBE_NAME))
    }
}

/// How a container ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Name of the container.
    pub container: &'a str,
    /// Exit code.
    pub exit_code: i32,
    /// `OOMKilled`, `Error`, `Completed`, …
    pub reason: &'a str,
    /// What it, or the runtime, left as a message.
    pub message: &'a str,
    /// When it started; `None` where it never did.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Whether the container was started again, so that its log of that time is the previous one.
    pub was_restarted: bool,
}

impl<'a> End<'a> {
    pub(super) fn of(container: &'a ContainerFacts, state: &'a ContainerState, was_restarted: bool) -> Option<Self> {
        let ContainerState::Terminated { exit_code, reason, message, started, finished } = state else { return None };
        let container = container.name.as_str();
        let (started, finished) = (known(*started), known(*finished));
        Some(Self { container, exit_code: *exit_code, reason, message, started, finished, was_restarted })
    }

    /// Whether the container runtime could not start it: then nothing of it ran, and it has no log.
    ///
    /// Only then is its message the runtime's: that of a program which ran is the program's. The kubelet gives such an end
    /// the exit code 128, which a program may also choose; a program has started.
    pub fn never_ran(&self) -> bool {
        let start_failed = matches!(self.reason, "StartError" | "ContainerCannotRun");
        start_failed || (self.exit_code == 128 && self.started.is_none())
    }

    /// The command that shows the log of what ended.
    pub(super) fn log_command(&self, pod: &PodFacts) -> String {
        let previous = if self.was_restarted { " --previous" } else { "" };
        format!("kubectl logs -n {} {} -c {}{previous}", pod.namespace, pod.name, self.container)
    }
}

/// A time that was set: the API gives 1970 to what never began.
pub(super) fn known(time: Option<Timestamp>) -> Option<Timestamp> {
    time.filter(|time| time.as_second() > 0)
}

impl PodFacts {
    /// The end that matters: of the container that failed, the last one otherwise.
    pub fn end(&self) -> Option<End<'_>> {
        let ended = |state: &ContainerState| matches!(state, ContainerState::Terminated { .. });
        let now = self.containers.iter().filter_map(|container| End::of(container, &container.state, false));
        // A container that was started again and ended in order has got over how it ended before.
        let tried_again = self.containers.iter().filter(|container| !ended(&container.state));
        let before = tried_again.filter_map(|container| End::of(container, container.last.as_ref()?, true));
        let ends: Vec<End<'_>> = now.chain(before).collect();
        // Of several that failed, the one with the GPU is asked about.
        let failed = || ends.iter().filter(|end| end.exit_code != 0 || end.never_ran());
        let with_gpu = failed().find(|end| self.gpu_containers.iter().any(|name| name == end.container));
        with_gpu.or_else(|| failed().next()).or(ends.first()).copied()
    }

    /// Containers that run now.
    pub(super) fn running(&self) -> impl Iterator<Item = (&str, Option<Timestamp>)> {
        self.containers.iter().filter_map(|container| match &container.state {
            ContainerState::Running { since } => Some((container.name.as_str(), known(*since))),
            _ => None,
        })
    }

    /// Whether any of its containers ever started.
    pub(super) fn has_run(&self) -> bool {
        self.containers.iter().any(|container| {
            std::iter::once(&container.state).chain(&container.last).any(|state| match state {
                ContainerState::Running { .. } => true,
                ContainerState::Terminated { started, .. } => known(*started).is_some(),
                ContainerState::Waiting { .. } | ContainerState::Unknown => false,
            })
        })
    }

    /// From when to when the pod could have used a GPU.
    pub fn lifetime(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let over = matches!(self.phase.as_str(), "Succeeded" | "Failed");
        let ends = self.containers.iter().filter_map(|container| match &container.state {
            ContainerState::Terminated { finished, .. } => known(*finished),
            _ => None,
        });
        (known(self.scheduled).or(known(self.created)), if over { ends.max() } else { None })
    }

    /// From when to when something must have happened to be the cause of how the pod is now. What ended has one run, from its
    /// start to its end; what runs has all of its time, its earlier runs among it.
    pub(super) fn run(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let (from, to) = self.lifetime();
        let runs_now = self.running().next().is_some();
        match self.end().filter(|end| end.exit_code != 0) {
            Some(end) => (end.started.or(from), if runs_now { to } else { end.finished.or(to) }),
            None => (self.running().filter_map(|(_, since)| since).min().or(from), to),
        }
    }
}
