//! `PodFacts`: facts from the Kubernetes API about one pod, its containers, events and logs.
//! Types of its fields, e.g. `ContainerFacts`, `ContainerSpec`, `PodEvent`, `GpuHolder`, `CapacityShortage`.
//! `Termination`: how a container ended, and when the pod ran. `JOB_REASONS`: events of a Job that has no pods.

use std::fmt;

use jiff::Timestamp;

use crate::facts::kubernetes::linked_pod::LinkedPod;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    pub namespace: String,
    pub name: String,
    /// UID of the pod as its node uses it.
    pub uid: String,
    /// Node to which the pod was scheduled.
    pub node: Option<String>,
    /// Whether the node of the pod is Ready; `None` if the node was not read.
    pub node_ready: Option<bool>,
    /// The reason, message and time of the condition `Ready` of the pod's node, if the node is not Ready.
    pub node_not_ready: Option<String>,
    /// The pressure conditions of the pod's node: name (`DiskPressure`, `MemoryPressure`, `PIDPressure`) and status.
    pub node_pressure: Vec<(String, String)>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    pub phase: String,
    /// `status.reason` (`Evicted`, `OutOfnvidia.com/gpu`, …).
    pub reason: Option<String>,
    /// `status.message`, or, while the pod is Pending, the message of the `PodScheduled` condition.
    pub message: Option<String>,
    /// Creation time of the pod.
    pub created: Option<Timestamp>,
    /// Time at which the pod was scheduled.
    pub scheduled: Option<Timestamp>,
    /// Time at which the deletion of the pod was requested.
    pub deleted: Option<Timestamp>,
    /// Finalizers. They delay the removal of a deleted pod.
    pub finalizers: Vec<String>,
    /// The grace period for the deletion of the pod, in seconds.
    pub grace_seconds: Option<i64>,
    /// Reason and message of the condition `DisruptionTarget`, if it is `True`: Kubernetes terminates the pod for this
    /// reason.
    pub disruption: Option<String>,
    /// Containers of the pod, init containers first.
    pub containers: Vec<ContainerFacts>,
    pub events: Vec<PodEvent>,
    /// Warnings about other objects, oldest first: objects that own the pod (a virtual machine, a job, a group of pods,
    /// a claim), or whose message names the pod. Each message begins with the kind and name of the object.
    pub related_warnings: Vec<PodEvent>,
    /// Other pods of the same controller that do not run, each with its phase: `train-worker-3 (Pending)`.
    pub siblings_not_running: Vec<String>,
    /// Other pods that may explain the problem: pods that a message names, pods of the same job, and pods that provide
    /// a missing resource.
    pub linked_pods: Vec<LinkedPod>,
    /// The DaemonSet that would provide what a message of the pod misses, and why it has no pod on the node.
    pub absent_provider: Option<String>,
    /// Name of the queue that admits the pod (label `kueue.x-k8s.io/queue-name`).
    pub queue: Option<String>,
    /// The last lines of the log of the container that failed, oldest first; empty if it was not read.
    pub log_lines: Vec<String>,
    /// The last lines of the logs of other containers.
    pub other_logs: Vec<ContainerLog>,
    /// Whether the pod is Ready; `None` if the pod has no such condition.
    pub ready: Option<bool>,
    /// Time at which the condition `Ready` got its current status.
    pub ready_since: Option<Timestamp>,
    /// Conditions other than `Ready` and `PodScheduled` that are `False` or `Unknown`: `type is status: reason: message`.
    pub other_conditions: Vec<String>,
    /// Reason and message of the condition `Ready`, if the pod is not Ready.
    pub not_ready: Option<String>,
    /// Scheduling gates that are not removed yet.
    pub scheduling_gates: Vec<String>,
    /// Whether the pod requests GPUs.
    pub wants_gpus: bool,
    /// Containers that request GPUs of a device plugin, without init containers.
    pub gpu_containers: Vec<String>,
    /// Whether the pod belongs to NVIDIA's software on the node (driver, toolkit, device plugin, validator). Such a pod
    /// requests no GPU but needs the driver.
    pub is_gpu_stack: bool,
    /// Whether the pod runs NVIDIA's device plugin, which registers the GPUs with the kubelet.
    pub is_device_plugin: bool,
    /// Number of GPUs that the pod requests, of all GPU resources together.
    pub gpus_requested: u64,
    /// The resources of device plugins that the pod requests in addition to NVIDIA's GPUs: shares of GPUs, GPUs of
    /// other vendors, network devices.
    pub other_resources: Vec<String>,
    /// Device files of the host, or folders with such files, that containers mount: `/dev/infiniband`.
    pub host_devices: Vec<String>,
    /// The specifications of the containers. Init containers come first.
    pub specs: Vec<ContainerSpec>,
    /// `spec.hostUsers`. If it is `false`, the containers are in a user namespace.
    pub host_users: Option<bool>,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<String>,
    /// Handler of the RuntimeClass; `None` if the RuntimeClass was not read.
    pub runtime_handler: Option<String>,
    /// Priority and preemption policy of the pod.
    pub preemption: Preemption,
    /// The free resources of the GPU nodes compared with the requests of the pod, while the pod is Pending.
    pub capacity_shortage: Option<CapacityShortage>,
    /// Pods that hold GPUs for which the pod may wait: pods of the same rollout or controller, and pods that are being
    /// deleted.
    pub gpu_holders: Vec<GpuHolder>,
    /// Claims that hold devices for which the pod may wait, in words.
    pub claim_holders: Vec<String>,
    /// Devices whose UUIDs are in annotations of the pod, each with the node that has the device.
    pub bound_devices: Vec<BoundDevice>,
    /// Resources that the pod requests without a second resource that the device plugin requires: (requested, missing).
    pub half_requests: Vec<(String, String)>,
    /// Names of the ResourceClaims of the pod. For a claim that is not created yet: the name of the template.
    pub pending_resource_claims: Vec<String>,
    /// `spec.schedulerName`, if it is not the default scheduler.
    pub scheduler: Option<String>,
    /// Devices of the containers that the pod status (`allocatedResourcesStatus`) reports as unhealthy.
    pub unhealthy_devices: Vec<String>,
    /// UIDs of the pods on the same node that are not deleted and not finished; `None` if the pods were not listed.
    pub live_pod_uids: Option<Vec<String>>,
    /// The controller that could not create the pod, or that has no pods, e.g. `Job train`. The pod does not exist; the
    /// other fields are empty.
    pub not_created_by: Option<String>,
}

/// Reasons of events of a Job that has no pods, and gets no pods until a user changes something. Other controllers put
/// the kind of their job before the reason: `PyTorchJobSuspended`.
pub const JOB_REASONS: [&str; 8] = [
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "Suspended",
    "PodFailurePolicy",
    "MaxFailedIndexesExceeded",
    "FailedIndexes",
    "JobCompleted",
    "Completed",
];

/// Priority and preemption of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preemption {
    /// `spec.priority`.
    pub priority: Option<i32>,
    /// `spec.priorityClassName`.
    pub class: Option<String>,
    /// Whether `spec.preemptionPolicy` is `Never`.
    pub never: bool,
    /// `status.nominatedNodeName`: the node on which other pods are being preempted in favor of this pod.
    pub nominated_node: Option<String>,
}

/// A change that a pending pod needs, e.g. `free 2 nvidia.com/gpu on gpu-7`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    pub text: String,
    /// The check on the node before the change is recommended; `None` if no check is needed.
    pub check: Option<CheckBefore>,
}

/// A check on a node before a change of this node is recommended.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckBefore {
    /// Before this node is uncordoned: checks whether the node has a fault, and whether a controller cordoned it.
    Uncordon(String),
    /// Before GPUs of this node that are not allocatable are repaired: checks which fault the GPUs have.
    Repair(String),
    /// Before the label in the nodeSelector is replaced with the label of the node: checks whether the label of the
    /// node is correct.
    Relabel { node: String, label: String },
    /// Before the pod tolerates a taint of this node: checks whether the taint shows that the node cannot take pods now.
    Tolerate { node: String, taint: String },
}

impl<T: Into<String>> From<T> for Change {
    fn from(text: T) -> Self {
        Self { text: text.into(), check: None }
    }
}

impl Change {
    pub fn after(self, check: CheckBefore) -> Self {
        Self { check: Some(check), ..self }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The resources of GPU nodes compared with the requests of a pending pod, as texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CapacityShortage {
    /// A problem that the message of the scheduler does not contain, e.g. `no GPU node advertises nvidia.com/gpu`.
    pub problem: Option<String>,
    /// The shortage, e.g. `requests 4 nvidia.com/gpu on one node; the GPU node with most free, gpu-7, has 2`.
    pub shortage: String,
    /// The required changes.
    pub changes: Vec<Change>,
    /// Whether all changes are needed. If `false`, one of them is sufficient.
    pub needs_all: bool,
    /// Whether no node is large enough, or no node has the resource at all. In both cases, waiting does not help.
    pub never_fits: bool,
    /// The largest request that would start now, e.g.
    /// `fits now: at most 2 nvidia.com/gpu in one pod: 2 on gpu-7, 1 on gpu-8`.
    pub fits_now: Option<String>,
    /// An eligible node with enough of every resource. The scheduler excludes it for a reason that is not checked here.
    pub has_room: Option<String>,
    /// The node that has enough of every resource and is excluded for the fewest reasons, with these reasons: `gpu-8
    /// has 4 nvidia.com/gpu free and is excluded: cordoned`. Only some reasons are checked.
    pub excluded: Option<String>,
    /// This node, if it is cordoned, not Ready or has a taint.
    pub excluded_node: Option<String>,
    /// Requested GPUs that a node has but does not offer: `1 of 4 nvidia.com/gpu of gpu-7 not allocatable`.
    pub unhealthy: Option<String>,
    /// The node of the first of these GPUs.
    pub unhealthy_node: Option<String>,
    /// Whether each GPU node is excluded for a reason other than its free resources.
    pub all_excluded: bool,
    /// Whether each GPU node that the pod can use has enough GPUs free, and lacks another resource.
    pub has_enough_gpus: bool,
    /// The largest free amount of the first insufficient resource: `no node that the pod can use has 8 nvidia.com/gpu
    /// free (most: 2 on gpu-7)`.
    pub too_few: Option<String>,
    /// Number of requested GPUs that all GPU nodes have together.
    pub gpus_of_cluster: Option<u64>,
}

/// A pod that holds GPUs for which a pending pod may wait.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuHolder {
    /// `namespace/name`.
    pub name: String,
    pub node: String,
    /// The number and resource of the GPUs: `1 nvidia.com/gpu`.
    pub amount: String,
    pub relation: Option<HolderRelation>,
    /// The end of the grace period of the pod, if its deletion was requested.
    pub deleted: Option<Timestamp>,
    /// Whether the grace period is over.
    pub is_overdue: bool,
    /// Finalizers. They delay the removal of a deleted pod.
    pub finalizers: Vec<String>,
}

/// How a pod that holds GPUs is related to the pod that waits for them.
#[derive(Clone, Debug, PartialEq)]
pub enum HolderRelation {
    /// An older ReplicaSet of the same Deployment (or Rollout) owns the pod. Contains the name of the Deployment.
    EarlierOfRollout(String),
    /// The same controller owns the pod, e.g. `Job train`.
    SameController(String),
}

/// A device whose UUID is in an annotation of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoundDevice {
    pub annotation: String,
    pub uuid: String,
    /// The node whose annotations contain the UUID.
    pub node: String,
    /// Why the pod cannot use that node now.
    pub reasons_against: Vec<String>,
}

/// The last lines of the log of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerLog {
    pub container: String,
    /// Whether this is the log from before the last restart.
    pub previous: bool,
    /// Oldest first.
    pub lines: Vec<String>,
}

/// The fields of a container specification that error messages can be about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    pub name: String,
    pub image: String,
    /// `command`, followed by `args`.
    pub arguments: Vec<String>,
    /// Environment variables with plain values. A value can be a secret: it is only compared with messages, and shown
    /// only if a message already contains it.
    pub environment: Vec<(String, String)>,
    /// Mount paths of volumes, each with a description of the volume: `hostPath /dev (volume dev)`.
    pub mounts: Vec<(String, String)>,
    pub privileged: bool,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `runAsUser` of the container or the pod.
    pub user: Option<i64>,
    /// Dropped capabilities.
    pub dropped: Vec<String>,
    /// Whether the container requests GPUs from a device plugin or with a claim.
    pub requests_gpus: bool,
    /// The memory limit as in the specification: `64Gi`. Without a limit of the container, this is the limit of the
    /// pod.
    pub memory_limit: Option<String>,
}

/// One container of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFacts {
    pub name: String,
    pub state: ContainerState,
    /// State of the container before the last restart.
    pub last: Option<ContainerState>,
    pub restarts: u32,
}

/// State of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ContainerState {
    /// Not known yet.
    #[default]
    Unknown,
    /// Waiting to start.
    Waiting {
        /// `ImagePullBackOff`, `CrashLoopBackOff`, …
        reason: String,
        /// The kubelet's message.
        message: String,
    },
    Running {
        since: Option<Timestamp>,
    },
    Terminated {
        /// Exit code. If a signal terminated the container: 128 plus the number of the signal.
        exit_code: i32,
        /// `OOMKilled`, `Error`, `Completed`, …
        reason: String,
        /// Termination message.
        message: String,
        started: Option<Timestamp>,
        finished: Option<Timestamp>,
    },
}

/// One event of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodEvent {
    /// Time of the last occurrence.
    pub time: Option<Timestamp>,
    /// `Scheduled`, `Preempted`, `FailedScheduling`, …
    pub reason: String,
    pub message: String,
    pub count: u32,
    /// `involvedObject.fieldPath`: the part of the pod, e.g. `spec.containers{main}`. Empty for the whole pod.
    pub field: String,
    /// Whether its type is `Warning`.
    pub warning: bool,
}

impl PodEvent {
    /// Returns the container that the event is about; `None` for an event about the whole pod.
    pub fn container(&self) -> Option<&str> {
        let fields = ["spec.containers{", "spec.initContainers{", "spec.ephemeralContainers{"];
        fields.iter().find_map(|field| self.field.strip_prefix(field)?.strip_suffix('}'))
    }

    /// Returns whether the event is about a probe container of gpu-syringe. The explanation omits such events.
    pub fn is_ours(&self) -> bool {
        let container = self.field.strip_prefix("spec.ephemeralContainers{");
        container.is_some_and(|name| name.starts_with(crate::PROBE_NAME_PREFIX))
    }
}

/// Termination of a container.
#[derive(Clone, Copy, Debug)]
pub struct Termination<'a> {
    /// Name of the container.
    pub container: &'a str,
    pub exit_code: i32,
    /// `OOMKilled`, `Error`, `Completed`, …
    pub reason: &'a str,
    /// Termination message of the program or of the runtime.
    pub message: &'a str,
    /// Start time of the container; `None` if the container never started.
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    /// Whether the container was restarted. If so, `kubectl logs --previous` shows the log of this termination.
    pub was_restarted: bool,
}

impl<'a> Termination<'a> {
    pub fn of(container: &'a ContainerFacts, state: &'a ContainerState, was_restarted: bool) -> Option<Self> {
        let ContainerState::Terminated { exit_code, reason, message, started, finished } = state else { return None };
        let container = container.name.as_str();
        let (started, finished) = (known(*started), known(*finished));
        Some(Self { container, exit_code: *exit_code, reason, message, started, finished, was_restarted })
    }

    /// Returns whether the container runtime could not start the container. Such a container has no log.
    ///
    /// The message of such a container is from the runtime, otherwise it is from the program. The kubelet sets exit code
    /// 128 in this case. A program can also exit with 128, but then the container has a start time.
    pub fn never_ran(&self) -> bool {
        let start_failed = matches!(self.reason, "StartError" | "ContainerCannotRun");
        start_failed || (self.exit_code == 128 && self.started.is_none())
    }

    /// Returns the command that shows the log of the terminated container.
    pub fn log_command(&self, pod: &PodFacts) -> String {
        let previous = if self.was_restarted { " --previous" } else { "" };
        format!("kubectl logs -n {} {} -c {}{previous}", pod.namespace, pod.name, self.container)
    }
}

/// Removes the time 0 (year 1970), which the API returns for containers that never started.
pub fn known(time: Option<Timestamp>) -> Option<Timestamp> {
    time.filter(|time| time.as_second() > 0)
}

impl PodFacts {
    /// Returns the relevant termination: the termination of a failed container, otherwise the first termination.
    pub fn end(&self) -> Option<Termination<'_>> {
        let ended = |state: &ContainerState| matches!(state, ContainerState::Terminated { .. });
        let now = self.containers.iter().filter_map(|container| Termination::of(container, &container.state, false));
        // An earlier failure is irrelevant if the container completed after a restart.
        let tried_again = self.containers.iter().filter(|container| !ended(&container.state));
        let before = tried_again.filter_map(|container| Termination::of(container, container.last.as_ref()?, true));
        let ends: Vec<Termination<'_>> = now.chain(before).collect();
        // If several containers failed, the container with the GPU is relevant.
        let failed = || ends.iter().filter(|end| end.exit_code != 0 || end.never_ran());
        let with_gpu = failed().find(|end| self.gpu_containers.iter().any(|name| name == end.container));
        with_gpu.or_else(|| failed().next()).or(ends.first()).copied()
    }

    pub fn running(&self) -> impl Iterator<Item = (&str, Option<Timestamp>)> {
        self.containers.iter().filter_map(|container| match &container.state {
            ContainerState::Running { since } => Some((container.name.as_str(), known(*since))),
            _ => None,
        })
    }

    /// Returns whether any container of the pod ever started.
    pub fn has_run(&self) -> bool {
        self.containers.iter().any(|container| {
            std::iter::once(&container.state).chain(&container.last).any(|state| match state {
                ContainerState::Running { .. } => true,
                ContainerState::Terminated { started, .. } => known(*started).is_some(),
                ContainerState::Waiting { .. } | ContainerState::Unknown => false,
            })
        })
    }

    /// Returns the start and end of the time in which the pod could have used a GPU.
    pub fn lifetime(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let over = matches!(self.phase.as_str(), "Succeeded" | "Failed");
        let ends = self.containers.iter().filter_map(|container| match &container.state {
            ContainerState::Terminated { finished, .. } => known(*finished),
            _ => None,
        });
        (known(self.scheduled).or(known(self.created)), if over { ends.max() } else { None })
    }

    /// Returns the start and end of the time in which the cause of the pod's state must have occurred. For a terminated
    /// container, this is the last run. For a running pod, it is the whole lifetime, including earlier runs.
    pub fn run(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let (from, to) = self.lifetime();
        let runs_now = self.running().next().is_some();
        match self.end().filter(|end| end.exit_code != 0) {
            Some(end) => (end.started.or(from), if runs_now { to } else { end.finished.or(to) }),
            None => (self.running().filter_map(|(_, since)| since).min().or(from), to),
        }
    }
}
