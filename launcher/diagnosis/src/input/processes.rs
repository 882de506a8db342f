//! `is_service`, `is_name_of_service`: whether a process or a name is a service of the node. `uses`: whether a process uses a GPU. `work`: the pods and
//! processes that compute on the GPUs. `stuck`, `stuck_on`, `stuck_reason`, `waits_outside_driver`: GPU processes in
//! state D, and why they wait. `tasks_of_host`: blocked threads of disks and file systems.

use jiff::{SignedDuration, Timestamp};

use crate::input::driver::Driver;
use crate::input::node::{Gpu, Node, STALE_AFTER};
use crate::input::recovery::Recovery;
use crate::input::timeline::{concerns, is_off_bus, is_xid};
use crate::input::xids;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::processes::GpuProcess;
use syringe_core::kernel_log::host_lines;
use syringe_core::report::{Report, Status};
use syringe_core::section_name::SectionName;

/// Processes with less GPU memory than this are treated as monitors.
pub(crate) const MIN_BYTES: u64 = 64 << 20;

/// Services of the node that may use GPUs (`comm`, at most 15 bytes).
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

/// Returns whether the process is a service of the node.
pub(crate) fn is_service(process: &GpuProcess) -> bool {
    process.name.as_deref().is_some_and(is_name_of_service)
}

/// Returns whether this is the name of a service of the node.
pub(crate) fn is_name_of_service(name: &str) -> bool {
    SERVICES.iter().any(|service| name.starts_with(service))
}

/// Returns the pods and processes that compute on the GPUs of the node, without services. If NVML is unusable, these are
/// the programs that have device files of GPUs open.
pub(crate) fn work(node: &Node<'_>) -> Vec<String> {
    let all = node.processes().map(|section| section.processes.as_slice()).unwrap_or_default();
    let lists_uses = matches!(node.driver, Driver::Usable);
    let computes = |process: &GpuProcess| match lists_uses {
        true => process.uses.iter().any(|one| one.kind == "compute"),
        false => process.open_device_files.iter().any(|file| minor_number(file).is_some()),
    };
    let mut names = Vec::new();
    for process in all.iter().filter(|process| !is_service(process) && computes(process)) {
        let name = match process.pod_uid.as_deref() {
            Some(uid) => format!("pod {}", node.name_of_pod(uid)),
            None => crate::evidence::process(process),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Returns whether NVML listed the processes of all GPUs. Only then, a GPU without a process is not in use.
pub(crate) fn are_all_listed(node: &Node<'_>) -> bool {
    let status = node.report.sections.get(SectionName::Processes).status();
    matches!(node.driver, Driver::Usable) && status == Some(Status::Ok)
}

/// Returns a line with this work, if there is any.
pub(crate) fn in_use_by_work(node: &Node<'_>) -> Option<String> {
    let work = work(node);
    (!work.is_empty()).then(|| format!("the GPUs are in use by {}", crate::evidence::some(&work, NAMED)))
}

/// Maximum number of programs in a line.
const NAMED: usize = 3;

/// The reason why a process in state D is stuck.
pub(crate) enum StuckReason<'a> {
    KernelEvent(&'a KernelEvent),
    GpuNotResponding(Gpu),
}

/// Returns why the process is stuck: the kernel reports its task as blocked, or a GPU of the process is lost or hangs.
pub(crate) fn stuck_reason<'a>(node: &Node<'a>, process: &GpuProcess) -> Option<StuckReason<'a>> {
    // The kernel line shows how long a task has waited. Only the wait channel shows where the task waits.
    let hung = node.timeline.of_kind(Kind::HungTask).find(|event| is_blocked(node, process, event));
    let of_host = |event: &KernelEvent| {
        tasks_of_host(node).any(|task| is_together(task, event))
            || has_unknown_place(process) && waits_for_file_server(node, event)
    };
    if let Some(event) = hung.filter(|event| !waits_outside_driver(process) && !of_host(event)) {
        return Some(StuckReason::KernelEvent(event));
    }
    let held = open_unresponsive_gpu(node, process);
    let used = process.uses.iter().filter_map(|usage| node.gpu(usage.gpu)).cloned();
    let mut gpus: Vec<Gpu> = used.collect();
    gpus.extend(held);
    gpus.extend(open_gpus(node, process));
    let fault = gpus.iter().find_map(|gpu| {
        let blocks = |event: &&KernelEvent| (is_off_bus(event) || is_xid(event, &xids::GSP)) && concerns(event, gpu);
        // An error does not block a process if the GPU has recovered, or if the GPU still responds a day after the
        // error.
        let blocked = |recovery| matches!(recovery, Recovery::Current | Recovery::Unproven { recent: true, .. });
        node.timeline.current().filter(blocks).find(|event| blocked(node.recovery(gpu, &[*event])))
    });
    let gone = || gpus.iter().find(|gpu| !gpu.answers && !gpu.from_log).cloned().map(StuckReason::GpuNotResponding);
    fault.map(StuckReason::KernelEvent).or_else(gone)
}

/// Returns whether it is not known in which kernel function a thread of the process waits.
pub(crate) fn has_unknown_place(process: &GpuProcess) -> bool {
    process.waiting_threads().all(|thread| thread.waits_in.is_none())
}

/// Kernel lines about file servers that do not respond (`host_lines.tsv`).
const FILE_SERVER_LOST: [&str; 4] = ["nfs_lost", "lustre_lost", "ceph_lost", "cifs_lost"];

/// Returns whether a file server stopped responding before the kernel reported a blocked task, and still does not respond.
fn waits_for_file_server(node: &Node<'_>, task: &KernelEvent) -> bool {
    let Some(hung) = task.ordered_at() else { return false };
    let lost_before = |event: &KernelEvent| {
        let times = event.occurred_at().into_iter().filter(|at| *at <= hung && hung.duration_since(*at) < STALE_AFTER);
        times.max().is_some_and(|lost| !responds_again(node, event, lost, hung))
    };
    node.timeline.current().any(|event| is_about_file_server(event) && lost_before(event))
}

fn is_about_file_server(event: &KernelEvent) -> bool {
    host_lines::row_of(event).is_some_and(|row| FILE_SERVER_LOST.contains(&row.name))
}

/// Returns whether a file server responded again between two times.
fn responds_again(node: &Node<'_>, event: &KernelEvent, from: Timestamp, to: Timestamp) -> bool {
    let is_between = |end: &KernelEvent| end.occurred_at().iter().any(|at| (from..=to).contains(at));
    node.timeline.events.iter().any(|end| host_lines::ends(end.fact, event) && is_between(end.fact))
}

/// Returns whether a process in state D can wait for a file server that does not respond now: the place where it waits
/// is not known.
pub(crate) fn may_wait_for_file_server(node: &Node<'_>, process: &GpuProcess) -> bool {
    let is_silent = |event: &KernelEvent| {
        let lost = event.ordered_at().filter(|lost| node.age(Some(*lost)).is_some_and(|age| age < STALE_AFTER));
        lost.zip(node.now).is_some_and(|(lost, now)| !responds_again(node, event, lost, now))
    };
    has_unknown_place(process) && node.timeline.current().any(|event| is_about_file_server(event) && is_silent(event))
}

/// Beginnings of the names of threads of file systems and disks.
const OF_STORAGE: [&str; 13] = [
    "jbd2",
    "xfsaild",
    "xfs-",
    "btrfs-",
    "md0",
    "md1",
    "dmcrypt",
    "kdmflush",
    "dm_",
    "containerd",
    "kubelet",
    "crio",
    "dockerd",
];

/// Tasks that the kernel reports as blocked within this time wait for the same thing.
const TOGETHER: SignedDuration = SignedDuration::from_mins(2);

/// Returns the lines about blocked threads of file systems and disks. Returns nothing if the driver hangs at the
/// same time, because other tasks can wait for the driver.
pub(crate) fn tasks_of_host<'n>(node: &'n Node<'_>) -> impl Iterator<Item = &'n KernelEvent> {
    let starts = |event: &KernelEvent, names: &[&str]| {
        event.process.as_deref().is_some_and(|name| names.iter().any(|start| name.starts_with(start)))
    };
    let of_driver = |event: &&KernelEvent| starts(event, &OF_DRIVER);
    let hangs: Vec<&KernelEvent> = node.timeline.of_kind(Kind::HungTask).filter(of_driver).collect();
    let is_alone = move |event: &&KernelEvent| !hangs.iter().any(|hung| is_together(hung, event));
    node.timeline.of_kind(Kind::HungTask).filter(move |event| starts(event, &OF_STORAGE)).filter(is_alone)
}

/// Beginnings of the names of kernel threads of the driver.
const OF_DRIVER: [&str; 3] = ["nv_queue", "nvidia-modeset", "UVM"];

/// Returns whether the kernel reported two tasks as blocked at the same time.
pub(crate) fn is_together(left: &KernelEvent, right: &KernelEvent) -> bool {
    left.ordered_at().zip(right.ordered_at()).is_some_and(|(left, right)| left.duration_since(right).abs() <= TOGETHER)
}

/// Prefixes of kernel functions that wait for a disk, a file system or the network.
const DISK_OR_NETWORK: [&str; 49] = [
    "io_schedule",
    "folio_",
    "wait_on_",
    "__wait_on_",
    "blk",
    "bio_",
    "submit_bio",
    "jbd2",
    "ext4_",
    "xfs_",
    "xlog_",
    "btrfs_",
    "nfs",
    "rpc_",
    "request_wait_answer",
    "fuse_",
    "ceph_",
    "cifs_",
    "smb",
    "ptlrpc",
    "ll_",
    "osc_",
    "ldlm_",
    "cl_",
    "lov_",
    "obd_",
    "cxi",
    "gpfs",
    "cfs_",
    "beegfs",
    "nvme",
    "nvmet",
    "nvdimm",
    "nvram",
    "balance_dirty",
    "filemap_",
    "dm_",
    "md_",
    "raid",
    "vfs_",
    "iomap_",
    "squashfs",
    "ovl_",
    "sync_",
    "__lock_page",
    "lock_page",
    "tcp_",
    "sk_",
    "virtio",
];

/// Returns whether all threads of the process wait in a kernel function of a disk or of the network. Any other kernel
/// function may belong to the NVIDIA driver.
pub(crate) fn waits_outside_driver(process: &GpuProcess) -> bool {
    let of_driver = |place: &str| !DISK_OR_NETWORK.iter().any(|prefix| place.starts_with(prefix));
    let mut places = process.waiting_threads().map(|thread| thread.waits_in.as_deref()).peekable();
    places.peek().is_some() && places.all(|place| place.is_some_and(|place| !of_driver(place)))
}

/// Maximum difference between the times of one event in the kernel log and in the process list.
const CLOCKS: SignedDuration = SignedDuration::from_secs(5);

/// Returns whether the kernel reported a task of this process as blocked. If the process started after the log line,
/// the line is about an earlier task with the same id. After a day, the line counts only if two readings show that the
/// same process is still waiting.
fn is_blocked(node: &Node<'_>, process: &GpuProcess, event: &KernelEvent) -> bool {
    if !event.pid.is_some_and(|task| process.has_task(task)) {
        return false;
    }
    let started = process.started_at.zip(event.last).map(|(started, last)| started <= last + CLOCKS);
    let old = node.age(event.last).is_some_and(|age| age > STALE_AFTER);
    let waits = process.threads.as_ref().is_some_and(|threads| threads.uninterruptible > 0);
    started != Some(false) && (!old || started == Some(true) && waits)
}

/// Returns whether NVML lists the process on the GPU.
pub(crate) fn uses(process: &GpuProcess, gpu: &Gpu) -> bool {
    process.uses.iter().any(|usage| Some(usage.gpu) == gpu.index)
}

/// Returns the stuck processes of a GPU.
pub(crate) fn stuck_on(node: &Node<'_>, gpu: &Gpu) -> Vec<u32> {
    let of_gpu = |process: &&GpuProcess| process.uses.is_empty() || uses(process, gpu);
    let all = node.processes().into_iter().flat_map(|section| &section.processes).filter(of_gpu);
    let stuck = |process: &&GpuProcess| process.is_uninterruptible() && stuck_reason(node, process).is_some();
    all.filter(stuck).map(|process| process.pid).collect()
}

/// Returns the GPUs whose device files the process has open.
fn open_gpus(node: &Node<'_>, process: &GpuProcess) -> Vec<Gpu> {
    let listed = node.inventory().map(|inventory| inventory.gpus.as_slice()).unwrap_or_default();
    let is_open = |number: u32| process.open_device_files.iter().any(|file| *file == format!("/dev/nvidia{number}"));
    let open = listed.iter().filter(|gpu| gpu.minor_number.is_some_and(is_open));
    open.filter_map(|gpu| node.gpu(gpu.index)).cloned().collect()
}

/// Returns the number of the GPU's device file.
fn minor_number(file: &str) -> Option<u32> {
    file.strip_prefix("/dev/nvidia")?.parse().ok()
}

/// Returns an unresponsive GPU if the process has opened a device file that belongs to no responding GPU. NVML does not
/// list the processes of a lost GPU.
fn open_unresponsive_gpu(node: &Node<'_>, process: &GpuProcess) -> Option<Gpu> {
    let inventory = node.inventory()?;
    let foreign = |number: u32| inventory.gpus.iter().all(|gpu| gpu.minor_number.is_some_and(|known| known != number));
    process.open_device_files.iter().filter_map(|file| minor_number(file)).find(|number| foreign(*number))?;
    let mut silent = node.gpus.iter().filter(|gpu| !gpu.answers);
    silent.next().filter(|_| silent.next().is_none()).cloned()
}

/// Whether a process in state D can continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The process may continue. A second reading shows whether it does.
    Possible,
    /// The process is stuck: it cannot be killed, and only a reboot removes it.
    Permanent,
}

/// Returns whether a process in state D is stuck. `None` if the process is not in this state or is not listed.
pub fn stuck(report: &Report, pid: u32) -> Option<Stuck> {
    let cluster = KubernetesFacts::default();
    let node = Node::new(report, &cluster);
    let process = node.processes()?.processes.iter().find(|process| process.pid == pid)?;
    process
        .is_uninterruptible()
        .then(|| if stuck_reason(&node, process).is_some() { Stuck::Permanent } else { Stuck::Possible })
}
