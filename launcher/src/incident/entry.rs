//! `Entry`, `Gap`, `Lane`, `Run`: the parts of a timeline: events, periods without data, objects with entries, and the
//! times in which a container ran. `EntryKind`, `GapKind`: their kinds.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::classification::Severity;
use syringe_macros::omit;

/// Name of the lane of the node itself.
pub(crate) const NODE_LANE: &str = "node";

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EntryKind {
    /// The node booted.
    Boot,
    /// The NVIDIA driver was loaded.
    DriverLoad,
    /// A GPU was reset.
    GpuReset,
    /// An Xid, an SXid or another line of the kernel log.
    Kernel,
    /// An event or a condition of the node in Kubernetes.
    NodeEvent,
    /// An event of a pod in Kubernetes.
    PodEvent,
    /// A pod was created.
    PodCreated,
    /// A container of a pod was started.
    PodStarted,
    /// A container of a pod ended.
    PodEnded,
}

/// An event of the timeline.
#[omit(Option, bool)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Entry {
    pub(crate) at: Timestamp,
    pub(crate) node: String,
    /// The object: `node`, `GPU 3`, `NVSwitch 0000:c1:00.0`, `pod NAMESPACE/NAME`.
    pub(crate) lane: String,
    pub(crate) kind: EntryKind,
    pub(crate) severity: Severity,
    /// What happened, in one line.
    pub(crate) what: String,
    /// The line of the kernel or the message of Kubernetes: data, not advice.
    pub(crate) text: Option<String>,
    /// Number of occurrences up to this time, if there were more occurrences than entries.
    pub(crate) count: Option<u64>,
    /// Whether `count` is a lower bound.
    pub(crate) count_is_lower_bound: bool,
}

impl Entry {
    pub(crate) fn new(
        at: Timestamp,
        node: &str,
        lane: &str,
        kind: EntryKind,
        severity: Severity,
        what: impl Into<String>,
    ) -> Self {
        let (node, lane, what) = (node.to_owned(), lane.to_owned(), what.into());
        Self { at, node, lane, kind, severity, what, text: None, count: None, count_is_lower_bound: false }
    }
}

/// The kind of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GapKind {
    /// The node was not read.
    NodeNotRead,
    /// The kernel log begins later than the period.
    LogBeginsLater,
    /// No log covers this time, although older logs exist.
    LogMissing,
    /// The time between the last line before a boot and the boot.
    BeforeBoot,
    /// Lines were lost or left out: counts are lower bounds.
    LinesLost,
    /// Events have no time, so they are not in the timeline.
    WithoutTime,
    /// The events of Kubernetes begin later than the period, or were not read.
    EventsMissing,
    /// The pods of the node were not read.
    PodsNotRead,
}

/// A period for which data is missing.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Gap {
    /// The node. Absent for the events of the cluster.
    pub(crate) node: Option<String>,
    pub(crate) kind: GapKind,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
    /// Which data is missing, and why.
    pub(crate) why: String,
}

impl Gap {
    pub(crate) fn new(
        node: &str,
        kind: GapKind,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        why: impl Into<String>,
    ) -> Self {
        Self { node: Some(node.to_owned()), kind, from, to, why: why.into() }
    }
}

/// An object with entries.
#[omit(Vec)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Lane {
    /// The name, as in the entries.
    pub(crate) name: String,
    /// NVML indices of the GPUs that the kubelet allocated to the pod.
    pub(crate) gpus: Vec<u32>,
    /// When containers of the pod ran.
    pub(crate) runs: Vec<Run>,
}

/// The time in which a container ran.
#[omit(Option)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Run {
    pub(crate) from: Timestamp,
    /// The end. Absent if the container runs.
    pub(crate) to: Option<Timestamp>,
}
