//! Rules about GPU processes that are outside of pods, stuck, blocked or zombies, or whose pod was deleted, and about
//! GPU memory that no process uses.
//!
//! State D alone is not a fault, because a process in a driver call can be in this state for a moment. A process is
//! stuck if the kernel reports it as blocked, or if its GPU is lost.

use std::collections::BTreeSet;

use crate::evidence;
use crate::input::node::{Node, STALE_AFTER};
use crate::input::pods_match::matching_fails;
use crate::input::processes::{
    MIN_BYTES, StuckReason, is_service, is_together, may_wait_for_file_server, stuck_reason, tasks_of_host,
    waits_outside_driver,
};
use crate::rule::{DEBUG_DOC, Draft, Rule, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::facts::processes::{GpuProcess, Processes};
use syringe_core::gpu_names::GpuNames;

rules! {
    STUCK: "process-stuck" Critical Driver DEBUG_DOC, "A process hangs in the driver and cannot be killed",
        DrainAndReboot "Drain and power-cycle {node}: no signal reaches a process that waits for the driver, and a \
            normal reboot can hang because of this process.",
        means "A process waits in the driver and cannot be killed: the kernel reports it as blocked, or its GPU is \
            lost.",
        reads "processes.processes, xid", in_plan UnkillableProcess, depth 1;
    WAITING: "process-uninterruptible" Info Driver DEBUG_DOC, "A process is in uninterruptible sleep at this moment",
        Watch "No signal ends the process in this state. Check again in a minute: if the process is still in this state, the \
            driver hangs on {node}, and only a reboot helps.",
        means "A process waits in the kernel and no signal ends it at this moment. Each call into the driver can look \
            like this.",
        reads "processes.processes";
    OF_HOST: "host-tasks-blocked" Warning Hardware None, "Tasks of the host are blocked",
        Watch "Find the disk or the file server for which these tasks of {node} wait: see the findings about storage, and the lines of the \
            kernel at that time. Programs that use it wait, too. This is not a GPU fault.",
        means "The kernel reported tasks that use no GPU as blocked: threads of a file system, the kubelet, the container runtime. They wait \
            for a disk, a file system or the network.",
        reads "xid: blocked tasks", about Workload, in_plan WorkContinues;
    WAITING_DELETED: "process-of-terminating-pod-waits" Warning Driver DEBUG_DOC,
        "A process of a pod that is being deleted waits in the driver",
        Watch "Check again in a minute. If the process still waits, no signal ends it: the pod stays in Terminating until {node} is drained \
            and rebooted.",
        means "The deletion of a pod was requested, but one of its processes waits in the kernel, where no signal ends it.",
        reads "processes.processes, kubernetes.gpu_pods";
    ZOMBIE: "process-zombie" Warning Application DEBUG_DOC, "GPU process is a zombie",
        RestartPod "Restart the pod, or stop the parent process on {node}: the parent process must reap the zombie.",
        means "A process has ended, but its parent has not collected the exit status. The process can keep device files open.",
        reads "processes.processes";
    ENDED: "process-ended-with-memory" Warning Driver DEBUG_DOC, "GPU memory is used by a process that has ended",
        Watch "Run the diagnosis of {node} again: the process may have ended during the reading. If NVML still lists the process, reset {gpu} when it \
            is drained.",
        means "NVML lists a process with GPU memory, but the process does not exist any more: the driver did not free its memory.",
        reads "processes.processes";
    NO_POD: "process-outside-kubernetes" Warning Application None, "GPU memory is used by a process outside of pods",
        Watch "Find out who started the process on {node}, and whether it is needed: Kubernetes may allocate the same GPU \
            to pods.",
        means "A process that belongs to no pod holds GPU memory. Kubernetes gives the same GPU to pods.",
        reads "processes.processes";
    GONE_POD: "process-of-deleted-pod" Warning Application None, "GPU memory is used by a process whose pod was deleted",
        Watch "The pod of the process no longer exists on {node}, so the process should exit at once. If the process \
            is still there, find out the reason (its state, its parent, or a container that was not removed), and end \
            the process on the host.",
        means "A process holds GPU memory, but its pod no longer exists on the node.",
        reads "processes.processes, kubernetes.live_pod_uids";
    UNACCOUNTED: "memory-unaccounted" Warning Driver DEBUG_DOC, "GPU memory is used, but no process accounts for it",
        DrainAndReset "Look for processes in other PID namespaces and for MPS servers on {node}. If there are none, \
            reset {gpu} when it is drained.",
        means "More GPU memory is in use than the listed processes hold.",
        reads "processes.unaccounted_memory";
    PARTIAL: "process-list-partial" Info Driver None, "The process list is incomplete",
        Watch "Run the probe in the PID namespace of the host (hostPID) on {node}. Without it, NVML omits processes.",
        means "The process list is not complete, because the probe is not running in the host's PID namespace.",
        reads "processes.host_pid_namespace";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    if let Some(section) = node.processes() {
        let unmatched = matching_fails(node).is_some();
        for process in &section.processes {
            drafts.extend(state(node, process));
            drafts.extend(owner(node, process, unmatched));
        }
        drafts = together(drafts);
        drafts.extend(memory(node, section));
        if !section.host_pid_namespace {
            drafts.push(
                Draft::on_node(PARTIAL).with_evidence("the probe is not running in the PID namespace of the host"),
            );
        }
    }
    drafts.extend(blocked(node));
    drafts
}

/// Returns `GPU 3: 42.0 GiB`, or the device files that the process has open.
fn uses(process: &GpuProcess) -> Option<String> {
    let uses = process.uses.iter().map(|usage| match usage.memory_bytes {
        Some(bytes) => format!("GPU {}: {}", usage.gpu, evidence::bytes(bytes)),
        None => format!("GPU {}", usage.gpu),
    });
    let open = process.open_device_files.iter().map(|file| format!("{} open", evidence::data(file)));
    let all: Vec<String> = uses.chain(open).take(8).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn draft(rule: Rule, process: &GpuProcess) -> Draft {
    let mut draft = Draft::on_node(rule).with_evidence(evidence::process(process)).with_all_evidence(uses(process));
    draft.scope.pid = Some(process.pid);
    draft.scope.pod_uid.clone_from(&process.pod_uid);
    if let [only] = process.uses.as_slice() {
        draft.scope.gpu = Some(only.gpu);
    }
    draft
}

fn state(node: &Node<'_>, process: &GpuProcess) -> Option<Draft> {
    // After a kill, the first thread is a zombie, but another thread may still hang in the driver.
    if process.is_uninterruptible() {
        return Some(uninterruptible(node, process));
    }
    (process.state.as_deref() == Some("Z")).then(|| {
        let parent = process.parent_pid.map(|parent| format!("parent: pid {parent}"));
        let draft = draft(ZOMBIE, process).with_evidence("state Z").with_all_evidence(parent);
        // A zombie that never used a GPU holds nothing.
        let has_used_gpu = !process.uses.is_empty() || !process.open_device_files.is_empty();
        if has_used_gpu { draft } else { draft.with_severity(Severity::Info) }
    })
}

/// Maximum number of further processes in the evidence.
const NAMED: usize = 3;

/// Rules whose findings about processes with the same origin become one, each with the start of the evidence line about
/// the origin.
const OF_ONE_ORIGIN: [(Rule, &str); 3] = [(ZOMBIE, "parent: "), (GONE_POD, "pod "), (NO_POD, "user ")];

/// Joins the findings of one rule about the processes of one pod, one parent process or one user, because they have one
/// cause.
fn together(drafts: Vec<Draft>) -> Vec<Draft> {
    let origin = |draft: &Draft| {
        let (rule, start) = OF_ONE_ORIGIN.iter().find(|(rule, _)| *rule == draft.rule)?;
        let line = draft.evidence.iter().find(|line| line.starts_with(start));
        let gpu = draft.scope.gpu.filter(|_| *rule == ZOMBIE);
        Some((rule.id, draft.scope.pod_uid.clone(), gpu, line.cloned()))
    };
    let mut joined: Vec<(Draft, Vec<String>)> = Vec::new();
    for draft in drafts {
        let own = origin(&draft);
        match joined.iter_mut().filter(|_| own.is_some()).find(|(known, _)| origin(known) == own) {
            Some((known, others)) => {
                if known.scope.gpu != draft.scope.gpu {
                    known.scope.gpu = None;
                }
                let mut lines = draft.evidence.into_iter();
                let words = [lines.next(), lines.next().filter(|line| line.starts_with("GPU "))];
                others.push(words.into_iter().flatten().collect::<Vec<_>>().join(": "));
            }
            None => joined.push((draft, Vec::new())),
        }
    }
    joined.into_iter().map(|(draft, others)| draft.with_all_evidence(evidence::lines(others, NAMED))).collect()
}

/// Returns `state D` if the process is in this state. For up to three threads in state D, returns a line with the
/// kernel function in which the thread waits. If there are more such threads, also returns their number.
fn waits(process: &GpuProcess) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    if process.state.as_deref() == Some("D") {
        words.push("state D".to_owned());
    }
    let named = process.waiting_threads().take(3).map(|thread| {
        let name = thread.name.as_deref().map(|name| format!(" '{}'", evidence::data(name))).unwrap_or_default();
        let place = thread.waits_in.as_deref().map(|place| format!(", waiting in {}", evidence::data(place)));
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
            base(STUCK).with_evidence(format!("the process uses {}, which does not respond", gpu.label()))
        }
        None if waits_outside_driver(process) => base(WAITING).with_action(
            ActionCode::Watch,
            "No signal ends the process in this state. The process does not wait in the NVIDIA driver: if it is still in this state \
             in a minute, check disk and network of {node}.",
        ),
        None if is_being_deleted(node, process) => base(WAITING_DELETED).with_evidence("its pod is being deleted"),
        None if may_wait_for_file_server(node, process) => base(WAITING).with_action(
            ActionCode::Watch,
            "No signal ends the process in this state. It may wait for the file server that does not respond (see that finding). If it \
             is still in this state when the server is back, the driver hangs.",
        ),
        None => base(WAITING),
    }
}

/// Returns whether the deletion of the pod of this process was requested.
fn is_being_deleted(node: &Node<'_>, process: &GpuProcess) -> bool {
    let pods = node.kubernetes.gpu_pods.iter().flatten();
    process.pod_uid.as_ref().is_some_and(|uid| pods.filter(|pod| pod.uid == *uid).any(|pod| pod.deleting))
}

/// Returns whether the name belongs to an NVIDIA function or task. Kernel names for NVMe disks and non-volatile memory
/// also begin with `nv`.
fn is_named_nv(name: &str) -> bool {
    const OF_KERNEL: [&str; 4] = ["nvme", "nvmet", "nvdimm", "nvram"];
    name.starts_with("nv") && !OF_KERNEL.iter().any(|prefix| name.starts_with(prefix))
}

/// Finds blocked tasks of NVIDIA programs that are in the kernel log but not in the process list.
fn blocked(node: &Node<'_>) -> Vec<Draft> {
    let listed = |pid: Option<u32>| {
        let has = |process: &GpuProcess| pid.is_some_and(|task| process.has_task(task));
        node.processes().is_some_and(|section| section.processes.iter().any(has))
    };
    let of_driver = |event: &&KernelEvent| {
        event.process.as_deref().is_some_and(|name| is_named_nv(name) || name.starts_with("cuda"))
    };
    let unlisted = || node.timeline.of_kind(Kind::HungTask).filter(|event| !listed(event.pid));
    let of_host: Vec<&KernelEvent> = tasks_of_host(node).collect();
    let alone = |event: &&KernelEvent| !of_host.iter().any(|task| is_together(task, event));
    let events: Vec<&KernelEvent> = unlisted().filter(of_driver).filter(alone).collect();
    // If the processes were not read, any blocked task may use a GPU.
    let others: Vec<&KernelEvent> =
        unlisted().filter(|event| !of_driver(event) && node.processes().is_none()).collect();
    let mut drafts = Vec::new();
    if !of_host.is_empty() {
        let with_them = node.timeline.of_kind(Kind::HungTask).filter(|event| !alone(event));
        drafts.push(Draft::on_node(OF_HOST).with_events(with_them).aged_on_node(node, &of_host));
    }
    if !events.is_empty() {
        let newest = events.iter().filter_map(|event| event.ordered_at()).max();
        // Only a complete process list of the host shows that the task has ended, because other lists omit processes.
        let complete = node.processes().is_some_and(|section| section.host_pid_namespace);
        let over = complete && node.age(newest).is_some_and(|age| age > STALE_AFTER);
        let draft = Draft::on_node(STUCK).with_events(events);
        drafts.push(if over {
            draft
                .with_severity(Severity::Info)
                .with_evidence("the task is no longer in the process list of the node")
                .with_action(
                    ActionCode::Watch,
                    "No action now. Watch whether the kernel of {node} reports blocked tasks again.",
                )
        } else {
            draft.with_severity(Severity::Warning)
        });
    }
    if !others.is_empty() {
        let draft = Draft::on_node(WAITING).with_events(others);
        drafts.push(draft.with_evidence("GPU processes were not read"));
    }
    drafts
}

fn owner(node: &Node<'_>, process: &GpuProcess, unmatched: bool) -> Option<Draft> {
    let held: u64 = process.uses.iter().filter_map(|usage| usage.memory_bytes).fold(0, u64::saturating_add);
    let service = is_service(process);
    let ended = process.state.as_deref() == Some("Z");
    if held < MIN_BYTES || service || ended {
        return None;
    }
    if process.state.as_deref() == Some("X") {
        // Outside the PID namespace of the host, /proc does not contain the processes of other namespaces.
        let sees_all = node.processes().is_some_and(|section| section.host_pid_namespace);
        return sees_all.then(|| draft(ENDED, process).with_evidence("NVML lists the process, but /proc does not"));
    }
    match (&process.pod_uid, &node.kubernetes.live_pod_uids) {
        // If no process matches a pod, a separate finding reports this.
        (Some(_), Some(_)) if unmatched => None,
        (Some(uid), Some(live)) if !live.contains(uid) => Some(
            draft(GONE_POD, process).with_evidence(format!("pod {} does not exist on the node", evidence::data(uid))),
        ),
        (Some(_), _) => None,
        // On a machine without Kubernetes, processes have no pods.
        (None, _) => {
            let kubernetes = node.kubernetes.node.is_some() || node.kubelet().is_some();
            let user = process.user.as_deref().map(|user| format!("user {}", evidence::data(user)));
            kubernetes.then(|| {
                let draft =
                    draft(NO_POD, process).with_evidence("its cgroup belongs to no pod").with_all_evidence(user);
                beside_pods(node, process, draft)
            })
        }
    }
}

/// Start of the evidence about pods to which a GPU of a process outside of pods is allocated.
const SHARES: &str = "the kubelet has allocated the same GPU to ";

/// Adds the effect of a process outside of pods on pods: its GPU is allocated to a pod, or Kubernetes allocates no GPU
/// of the node.
fn beside_pods(node: &Node<'_>, process: &GpuProcess, draft: Draft) -> Draft {
    let allocations = node.kubelet().map(|kubelet| kubelet.allocations.as_slice()).unwrap_or_default();
    let holders = process.uses.iter().flat_map(|usage| {
        let names = GpuNames::from_report(node.report, Some(usage.gpu), None);
        allocations.iter().filter(move |allocation| names.match_allocation(allocation))
    });
    let holders: BTreeSet<String> = holders
        .map(|allocation| node.pod_name(&allocation.pod_uid).unwrap_or_else(|| evidence::data(&allocation.holder())))
        .collect();
    if !holders.is_empty() {
        let pods = holders.into_iter().collect::<Vec<_>>().join(", ");
        return draft.with_evidence(format!("{SHARES}{pods}")).with_action(ActionCode::Watch, SHARED_WITH_POD);
    }
    if node.kubernetes.advertises_no_gpus() && node.kubernetes.gpu_plugin_in_cluster == Some(false) {
        return draft.with_severity(Severity::Info).with_action(ActionCode::None, USED_OUTSIDE);
    }
    draft
}

const SHARED_WITH_POD: &str = "End the process on {node}, or move the pod in the evidence to another node: both use the same GPU, and the pod does not \
     have the memory that Kubernetes gave it.";
const USED_OUTSIDE: &str =
    "No action if the GPUs of {node} are used outside of Kubernetes: no node of the cluster offers GPUs to pods.";

/// Names the zombies of the node, because a zombie that was not reaped can hold GPU memory.
fn of_zombie(section: &Processes, draft: Draft) -> Draft {
    let zombies = section.processes.iter().filter(|process| process.state.as_deref() == Some("Z"));
    let lines = zombies.filter_map(|process| {
        Some(format!("{} is a zombie of parent pid {}", evidence::process(process), process.parent_pid?))
    });
    let lines: Vec<String> = lines.take(NAMED).collect();
    if lines.is_empty() {
        return draft;
    }
    let action = draft.action;
    draft.with_all_evidence(lines).with_action(
        action,
        "Stop the parent process in the evidence on {node}, so that the zombie ends and frees its memory. If the memory stays in use, reset \
         {gpu} when it is drained.",
    )
}

fn memory(node: &Node<'_>, section: &Processes) -> Vec<Draft> {
    let shared = node.host().is_some_and(|host| host.daemons.mps == Some(true));
    let mig_enabled = |index: u32| {
        let mig = node.mig().and_then(|mig| mig.gpus.iter().find(|gpu| gpu.index == index));
        mig.is_some_and(|gpu| gpu.mode.is_some_and(|mode| mode.current))
    };
    // With MPS, the server owns the memory. With MIG, the instances own it. Without hostPID, the list is incomplete.
    if shared || !section.host_pid_namespace {
        return Vec::new();
    }
    let rest = section.unaccounted_memory.iter().filter(|rest| !mig_enabled(rest.gpu));
    let drafts = rest.filter_map(|rest| {
        let evidence = format!("{} used in addition to the listed processes", evidence::bytes(rest.bytes));
        let draft = Draft::on_gpu(UNACCOUNTED, node.gpu(rest.gpu)?).with_evidence(evidence);
        Some(of_zombie(section, draft))
    });
    drafts.collect()
}
