//! Who holds the GPUs: processes that no pod owns, that nobody can end, and memory that nobody claims.
//!
//! A process in state D is no fault by itself: every call into the driver may show it for a moment. It is stuck when
//! the kernel says so, or when its GPU is gone.

use super::draft::Draft;
use super::node::{Gpu, Node, STALE_AFTER};
use super::rules::{DEBUG_DOC, rules};
use super::timeline::{GSP_CODES, concerns, is_off_bus, is_xid};
use super::{ActionCode, Severity, quote};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use crate::facts::processes::{GpuProcess, Processes};

rules! {
    STUCK: "process-stuck" Critical Driver DEBUG_DOC, "A process hangs in the driver and cannot be killed",
        DrainAndReboot "Drain and power-cycle {node}: no signal reaches a process that waits for the driver, and a plain \
            reboot can wait for it.";
    WAITING: "process-uninterruptible" Info Driver DEBUG_DOC, "A process waits in the kernel at this moment",
        Watch "No signal ends it while it waits. Look again in a minute: if it still waits, the driver hangs on {node}, \
            and only a reboot ends it.";
    ZOMBIE: "process-zombie" Warning Application DEBUG_DOC, "A dead GPU process that its parent does not collect",
        RestartPod "Restart the pod, or end the parent process on {node}; the zombie goes with it.";
    NO_POD: "process-outside-kubernetes" Warning Application None, "GPU memory held by a process of no pod",
        Watch "Find out who started it on {node}; Kubernetes gives the same GPU to pods. End it if nobody owns it.";
    GONE_POD: "process-of-gone-pod" Warning Application None, "GPU memory held by a process whose pod is gone",
        Watch "End the process on {node} if it does not end by itself; its pod no longer exists.";
    UNACCOUNTED: "memory-unaccounted" Warning Driver DEBUG_DOC, "GPU memory in use that no process accounts for",
        DrainAndReset "Look for processes of other PID namespaces and MPS servers on {node}; if there are none, reset \
            {gpu} when drained.";
    PARTIAL: "process-list-partial" Info Driver None, "The process list is not complete",
        Watch "Run the probe in the host's PID namespace (hostPID) on {node}; without it NVML leaves processes out.";
}

/// A context without work takes a few hundred MiB at most; less than this is a monitor looking in.
const MIN_BYTES: u64 = 64 << 20;

/// Programs of the node itself that may hold GPUs (`comm`, 15 bytes at most).
const SERVICES: [&str; 16] = [
    "nvidia-persiste",
    "nv-hostengine",
    "dcgm-exporter",
    "nv-fabricmanage",
    "nvidia-imex",
    "nvidia-cuda-mps",
    "nvidia-device-p",
    "gpu-feature-dis",
    "nvidia-mig-mana",
    "nvidia-smi",
    "node-probe",
    "gpud",
    "Xorg",
    "Xwayland",
    "gnome-shell",
    "nvidia-powerd",
];

/// Findings about processes.
pub(super) fn judge(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    if let Some(section) = node.processes() {
        for process in &section.processes {
            drafts.extend(state(node, process));
            drafts.extend(owner(node, process));
        }
        drafts.extend(memory(node, section));
        if !section.host_pid_namespace {
            drafts.push(Draft::on_node(PARTIAL).with_evidence("the probe does not run in the host's PID namespace"));
        }
    }
    drafts.extend(blocked(node));
    drafts
}

fn who(process: &GpuProcess) -> String {
    let name = process.name.as_deref().map(|name| format!(" '{}'", quote::data(name))).unwrap_or_default();
    format!("pid {}{name}", process.pid)
}

/// `GPU 3: 42.0 GiB`, or which device files it holds.
fn uses(process: &GpuProcess) -> Option<String> {
    let uses = process.uses.iter().map(|usage| match usage.memory_bytes {
        Some(bytes) => format!("GPU {}: {}", usage.gpu, quote::bytes(bytes)),
        None => format!("GPU {}", usage.gpu),
    });
    let holds = process.holds.iter().map(|file| format!("{} open", quote::data(file)));
    let all: Vec<String> = uses.chain(holds).take(8).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn draft(rule: super::rules::Rule, process: &GpuProcess) -> Draft {
    let mut draft = Draft::on_node(rule).with_evidence(who(process)).with_all_evidence(uses(process));
    draft.scope.pid = Some(process.pid);
    draft.scope.pod_uid.clone_from(&process.pod_uid);
    if let [only] = process.uses.as_slice() {
        draft.scope.gpu = Some(only.gpu);
    }
    draft
}

fn state(node: &Node<'_>, process: &GpuProcess) -> Option<Draft> {
    // A process that was killed is a zombie by its first thread while another one still hangs in the driver.
    if process.is_uninterruptible() {
        return Some(uninterruptible(node, process));
    }
    (process.state.as_deref() == Some("Z")).then(|| {
        let parent = process.parent_pid.map(|parent| format!("its parent is pid {parent}"));
        draft(ZOMBIE, process).with_evidence("state Z").with_all_evidence(parent)
    })
}

/// `state D` of the first thread, else which other threads are in it and where they wait.
fn waits(process: &GpuProcess) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    if process.state.as_deref() == Some("D") {
        words.push("state D".to_owned());
    }
    let named = process.waiting_threads().take(3).map(|thread| {
        let name = thread.name.as_deref().map(|name| format!(" '{}'", quote::data(name))).unwrap_or_default();
        let place = thread.waits_in.as_deref().map(|place| format!(", waits in {}", quote::data(place)));
        format!("thread {}{name} in state D{}", thread.tid, place.unwrap_or_default())
    });
    words.extend(named);
    let all = process.threads.as_ref().map_or(0, |threads| threads.uninterruptible);
    if all > 3 {
        words.push(format!("{all} threads in state D"));
    }
    words
}

fn uninterruptible(node: &Node<'_>, process: &GpuProcess) -> Draft {
    let base = |rule| draft(rule, process).with_all_evidence(waits(process));
    match stuck_reason(node, process) {
        Some(StuckReason::KernelEvent(event)) => base(STUCK).with_event(event),
        Some(StuckReason::GpuNotResponding(gpu)) => {
            base(STUCK).with_evidence(format!("it holds {}, which does not answer", gpu.label()))
        }
        None if waits_outside_driver(process) => base(WAITING).with_action(
            ActionCode::Watch,
            "No signal ends it while it waits, which is not in the NVIDIA driver: look at the disk or network of {node} \
             if it still waits in a minute.",
        ),
        None => base(WAITING),
    }
}

/// Whether every place where its threads wait is known, and none is a function of the NVIDIA driver.
fn waits_outside_driver(process: &GpuProcess) -> bool {
    const OF_DRIVER: [&str; 4] = ["_nv", "uvm", "os_", "rm_"];
    let of_driver = |place: &str| is_named_nv(place) || OF_DRIVER.iter().any(|prefix| place.starts_with(prefix));
    let mut places = process.waiting_threads().map(|thread| thread.waits_in.as_deref()).peekable();
    places.peek().is_some() && places.all(|place| place.is_some_and(|place| !of_driver(place)))
}

/// Whether a kernel function or task is NVIDIA's by its name. The kernel has names of its own that begin like it: NVMe
/// disks and non-volatile memory.
fn is_named_nv(name: &str) -> bool {
    const OF_KERNEL: [&str; 4] = ["nvme", "nvmet", "nvdimm", "nvram"];
    name.starts_with("nv") && !OF_KERNEL.iter().any(|prefix| name.starts_with(prefix))
}

/// What proves that a process in state D does not come back.
enum StuckReason<'a> {
    KernelEvent(&'a KernelEvent),
    GpuNotResponding(Gpu),
}

/// One witness decides, for every tool: the kernel's own word, or a GPU of the process that is gone or hangs.
fn stuck_reason<'a>(node: &Node<'a>, process: &GpuProcess) -> Option<StuckReason<'a>> {
    let hung = node.timeline.of_kind(Kind::HungTask).find(|event| event.pid.is_some_and(|task| process.has_task(task)));
    if let Some(event) = hung {
        return Some(StuckReason::KernelEvent(event));
    }
    let held = holds(node, process);
    let used = process.uses.iter().filter_map(|usage| node.gpu(usage.gpu)).cloned();
    let mut gpus: Vec<Gpu> = used.collect();
    gpus.extend(held);
    let fault = gpus.iter().find_map(|gpu| {
        let grave = |event: &&KernelEvent| (is_off_bus(event) || is_xid(event, &GSP_CODES)) && concerns(event, gpu);
        // What the GPU recovered from holds no process.
        node.timeline.current().filter(grave).find(|event| node.recovered(gpu, &[*event]).is_none())
    });
    let gone = || gpus.iter().find(|gpu| !gpu.answers && !gpu.from_log).cloned().map(StuckReason::GpuNotResponding);
    fault.map(StuckReason::KernelEvent).or_else(gone)
}

/// Processes of a GPU that are stuck.
pub(super) fn stuck_on(node: &Node<'_>, gpu: &Gpu) -> Vec<u32> {
    let of_gpu = |process: &&GpuProcess| {
        process.uses.is_empty() || process.uses.iter().any(|usage| Some(usage.gpu) == gpu.index)
    };
    let all = node.processes().into_iter().flat_map(|section| &section.processes).filter(of_gpu);
    let stuck = |process: &&GpuProcess| process.is_uninterruptible() && stuck_reason(node, process).is_some();
    all.filter(stuck).map(|process| process.pid).collect()
}

/// The GPU that does not answer, where the process holds a device file that belongs to none that does. NVML does not list
/// a process on a GPU that is gone.
fn holds(node: &Node<'_>, process: &GpuProcess) -> Option<Gpu> {
    let inventory = node.inventory()?;
    let minor = |file: &String| file.strip_prefix("/dev/nvidia")?.parse::<u32>().ok();
    let foreign = |number: u32| inventory.gpus.iter().all(|gpu| gpu.minor_number.is_some_and(|known| known != number));
    process.holds.iter().filter_map(minor).find(|number| foreign(*number))?;
    let mut silent = node.gpus.iter().filter(|gpu| !gpu.answers);
    silent.next().filter(|_| silent.next().is_none()).cloned()
}

/// What is known of a process that waits in the kernel (state D).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The wait may end by itself: a second reading tells.
    Possible,
    /// The wait does not end: no signal reaches the process, and only a reboot ends it.
    Permanent,
}

/// The one judgement of a process in state D, for every tool. `None`: it is in no such state, or not listed.
pub fn stuck(report: &crate::report::Report, pid: u32) -> Option<Stuck> {
    let cluster = super::ClusterFacts::default();
    let node = Node::new(report, &cluster);
    let process = node.processes()?.processes.iter().find(|process| process.pid == pid)?;
    process
        .is_uninterruptible()
        .then(|| if stuck_reason(&node, process).is_some() { Stuck::Permanent } else { Stuck::Possible })
}

/// Tasks of NVIDIA's own programs that the kernel calls blocked, where the process list does not show them.
fn blocked(node: &Node<'_>) -> Vec<Draft> {
    let listed = |pid: Option<u32>| {
        let has = |process: &GpuProcess| pid.is_some_and(|task| process.has_task(task));
        node.processes().is_some_and(|section| section.processes.iter().any(has))
    };
    let of_driver = |event: &&KernelEvent| {
        event.process.as_deref().is_some_and(|name| is_named_nv(name) || name.starts_with("cuda"))
    };
    let unlisted = || node.timeline.of_kind(Kind::HungTask).filter(|event| !listed(event.pid));
    let events: Vec<&KernelEvent> = unlisted().filter(of_driver).collect();
    // Where nobody listed the processes, any task that is blocked may be one that uses a GPU.
    let others: Vec<&KernelEvent> =
        unlisted().filter(|event| !of_driver(event) && node.processes().is_none()).collect();
    let mut drafts = Vec::new();
    if !events.is_empty() {
        let newest = events.iter().filter_map(|event| event.last).max();
        // A list of all processes of the host does not have it any more. Other lists leave processes out.
        let complete = node.processes().is_some_and(|section| section.host_pid_namespace);
        let over = complete && node.age(newest).is_some_and(|age| age > STALE_AFTER);
        let draft = Draft::on_node(STUCK).with_events(events);
        drafts.push(if over {
            draft
                .with_severity(Severity::Info)
                .with_evidence("the process list of the node does not show it now")
                .with_action(
                    ActionCode::Watch,
                    "Nothing now. Watch whether the kernel of {node} reports blocked tasks again.",
                )
        } else {
            draft.with_severity(Severity::Warning)
        });
    }
    if !others.is_empty() {
        let draft = Draft::on_node(WAITING).with_events(others);
        drafts.push(draft.with_evidence("which processes use GPUs was not read"));
    }
    drafts
}

fn owner(node: &Node<'_>, process: &GpuProcess) -> Option<Draft> {
    let held: u64 = process.uses.iter().filter_map(|usage| usage.memory_bytes).fold(0, u64::saturating_add);
    let service = process.name.as_deref().is_some_and(|name| SERVICES.iter().any(|service| name.starts_with(service)));
    let dead = process.state.as_deref() == Some("Z");
    if held < MIN_BYTES || service || dead {
        return None;
    }
    match (&process.pod_uid, &node.cluster.live_pod_uids) {
        (Some(uid), Some(live)) if !live.contains(uid) => {
            Some(draft(GONE_POD, process).with_evidence(format!("pod {} does not exist on the node", quote::data(uid))))
        }
        (Some(_), _) => None,
        // On a machine without Kubernetes no process has a pod.
        (None, _) => {
            let kubernetes = node.cluster.node.is_some() || node.kubelet().is_some();
            let user = process.user.as_deref().map(|user| format!("user {}", quote::data(user)));
            kubernetes.then(|| draft(NO_POD, process).with_evidence("its cgroup names no pod").with_all_evidence(user))
        }
    }
}

fn memory(node: &Node<'_>, section: &Processes) -> Vec<Draft> {
    let shared = node.host().is_some_and(|host| host.daemons.mps == Some(true));
    let mig_enabled = |index: u32| {
        let mig = node.mig().and_then(|mig| mig.gpus.iter().find(|gpu| gpu.index == index));
        mig.is_some_and(|gpu| gpu.mode.is_some_and(|mode| mode.current))
    };
    // Under MPS the server owns the memory; under MIG the instances do; without hostPID the list is short.
    if shared || !section.host_pid_namespace {
        return Vec::new();
    }
    let rest = section.unaccounted_memory.iter().filter(|rest| !mig_enabled(rest.gpu));
    let drafts = rest.filter_map(|rest| {
        let evidence = format!("{} in use beyond the listed processes", quote::bytes(rest.bytes));
        Some(Draft::on_gpu(UNACCOUNTED, node.gpu(rest.gpu)?).with_evidence(evidence))
    });
    drafts.collect()
}
