//! Rules about full or read-only file systems, degraded arrays, limits that are almost reached, pressure, low memory,
//! OOM kills.

use std::collections::BTreeSet;

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{Draft, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host_levels::{DegradedArray, FileSystem, HostLevels, Level};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::host_lines;

rules! {
    FULL: "host-file-system-full" Critical Application None, "A file system of the node is almost full",
        FixLimits "Free space in the file system of the evidence on {node} (images, logs, files of users; for inodes: \
            many small files), or enlarge the file system.",
        means "A local file system of the node has almost no space or no inodes left. Images cannot be pulled, programs cannot write, and the \
            kubelet evicts pods.",
        reads "host.levels.file_systems", in_plan WorkContinues;
    READ_ONLY: "host-file-system-read-only" Critical Hardware None, "A file system that the node must write to is read-only",
        DrainAndReboot "Find out why the file system in the evidence is read-only (kernel log, SMART data of the disk), then \
            drain and reboot {node}. The boot checks the file system. If it becomes read-only again, replace the disk.",
        means "The file system of the kubelet, the container runtime, the logs or the temporary files is read-only. The kernel makes a file \
            system read-only after errors of the disk. A read-only `/` alone is normal on immutable systems.",
        reads "host.levels.file_systems", in_plan WorkContinues, depth 1, fault Disk;
    DEGRADED: "raid-array-degraded" Warning Hardware None, "A software RAID array lacks a disk",
        Watch "Find the missing disk of the array of {node} (mdadm --detail, SMART), and replace it. Until then, the next failure can lose the data.",
        means "A software RAID array of the node has fewer working devices than it should have.",
        reads "host.levels.degraded_arrays", in_plan WorkContinues;
    NEAR: "host-limit-near" Warning Application None, "A limit of the host is almost reached",
        Watch "Raise the limit of {node} in the evidence, or find the program that uses it up. When the limit is \
            reached, programs cannot start, open files or connect.",
        means "More than 90 % of a limit of the kernel are in use: threads, open files, tracked connections or inotify instances.",
        reads "host.levels.limits, host.nvidia_stack.inotify", in_plan WorkContinues, depth 1, fault HostLimit;
    PRESSURE: "host-under-pressure" Warning Application None, "All programs of the host wait for memory or disks much of the time",
        FixLimits "Find the programs that use the memory or the disks of {node} most (top, iotop), and reduce their \
            use. Jobs on {node} wait while their GPUs are idle.",
        means "The kernel's pressure information (PSI) shows that in the last five minutes all running programs waited for memory or for disks at \
            the same time, for a large part of the time.",
        reads "host.levels.pressure", in_plan WorkContinues, depth 2, fault OutOfMemory;
    NO_MEMORY: "host-memory-low" Warning Application None, "The node has almost no free memory",
        FixLimits "Find what uses the memory of {node} (top, page cache of a tmpfs, processes outside of pods), and set memory limits: the kernel kills \
            processes next.",
        means "Less than one percent of the memory of the node is available.",
        reads "host.memory_available_bytes, host.memory_total_bytes", in_plan WorkContinues, depth 1, fault OutOfMemory;
    HUGE_PAGES: "hugepages-reserve-memory" Warning Application None, "Unused huge pages reserve much of the memory of the node",
        FixLimits "Reduce the number of huge pages of {node} (vm.nr_hugepages, or hugepages= on the kernel command line), or use them: other programs \
            cannot use this memory.",
        means "Huge pages that no program uses reserve at least a quarter of the memory, and at most a tenth of the memory is available.",
        reads "host.hugepages, host.memory_available_bytes, host.memory_total_bytes", in_plan WorkContinues;
    SERVICE_KILLED: "node-service-killed" Warning Application None, "The kernel killed a service of the node because memory ran out",
        FixLimits "Check that the service in the evidence runs on {node}, find what used up the memory, and reserve memory for the services of the node \
            (systemReserved and kubeReserved of the kubelet).",
        means "The memory of the whole node ran out, and the kernel killed a process of a service of the node instead of a pod.",
        reads "xid: OOM lines", in_plan WorkContinues;
    OUT_OF_MEMORY: "node-out-of-memory" Warning Application None, "The memory of the whole node ran out",
        FixLimits "Find what used up the memory of {node}, and give pods memory requests and limits that fit into the node: the kernel ended processes that may \
            have been within their own limit.",
        means "The kernel killed processes because the node had no memory left, not because a container reached its limit.",
        reads "xid: OOM lines", in_plan WorkContinues, fault OutOfMemory;
    POD_KILLED: "pod-process-killed" Info Application None, "The kernel killed a process of a pod with GPUs at a memory limit",
        FixLimits "If the pod still runs, its other processes may wait for the killed process: explain the pod. Raise its memory limit, or reduce what it \
            keeps in memory (files in /dev/shm and in memory volumes count, too).",
        means "A container with GPUs reached its memory limit, and the kernel killed one of its processes. The node has no fault.",
        reads "xid: OOM lines, kubelet.allocations", about Workload, in_plan WorkContinues;
}

const GIB: u64 = 1 << 30;

/// A limit is almost reached from this percentage on.
const NEAR_PERCENT: u64 = 90;

/// Percentage of five minutes. If waiting for memory takes at least this long, the node is thrashing.
const MEMORY_PERCENT: u32 = 20;

/// Percentage of five minutes. Waiting for disks is reported from this value on, because reading a data set or writing
/// a checkpoint also keeps disks busy.
const IO_PERCENT: u32 = 80;

/// Services that start the containers of a node.
const SERVICES: [&str; 4] = ["kubelet", "containerd", "crio", "dockerd"];

/// Groups of processes of the services of a node.
const OF_SERVICES: [&str; 3] = ["/system.slice/", "/init.scope", "/runtime.slice/"];

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = memory(node)
        .into_iter()
        .chain(huge_pages(node))
        .chain(service_killed(node))
        .chain(out_of_memory(node))
        .chain(pods_killed(node))
        .collect();
    let Some(levels) = super::levels_of(node) else { return drafts };
    let file_systems = &levels.file_systems;
    drafts.extend(file_systems.iter().filter_map(full));
    drafts.extend(file_systems.iter().filter_map(|of| read_only(node, of)));
    drafts.extend(levels.degraded_arrays.iter().map(degraded));
    drafts.extend(near(node, levels));
    drafts.extend(pressure(levels));
    drafts
}

fn memory(node: &Node<'_>) -> Option<Draft> {
    let host = node.host()?;
    let (all, left) = (host.memory_total_bytes?, host.memory_available_bytes?);
    let line = || format!("{} of {} are available", evidence::bytes(left), evidence::bytes(all));
    (left < all / 100).then(|| Draft::on_node(NO_MEMORY).with_evidence(line()))
}

/// Finds huge pages that are reserved and not used, while other programs lack memory.
fn huge_pages(node: &Node<'_>) -> Option<Draft> {
    let host = node.host()?;
    let (all, left) = (host.memory_total_bytes?, host.memory_available_bytes?);
    let unused = host.hugepages.iter().map(|pages| pages.free.saturating_mul(pages.size_kib).saturating_mul(1024));
    let unused = unused.fold(0, u64::saturating_add);
    let line = || {
        format!(
            "unused huge pages: {} of {}; {} are available to other programs",
            evidence::bytes(unused),
            evidence::bytes(all),
            evidence::bytes(left)
        )
    };
    (unused >= all / 4 && left <= all / 10).then(|| Draft::on_node(HUGE_PAGES).with_evidence(line()))
}

/// Returns whether the kernel killed a process of a service of the node.
fn is_of_service(event: &KernelEvent) -> bool {
    let group = event.killed_cgroup().unwrap_or_default();
    let is_named = event.process.as_deref().is_some_and(|name| SERVICES.contains(&name)) && !group.contains("kubepods");
    is_named || OF_SERVICES.iter().any(|start| group.starts_with(start))
}

/// Returns a line with the control groups of the processes that the kernel killed.
fn groups(kills: &[&KernelEvent]) -> Option<String> {
    let groups: BTreeSet<String> = kills.iter().filter_map(|event| event.killed_cgroup()).map(evidence::data).collect();
    let groups: Vec<String> = groups.into_iter().collect();
    (!groups.is_empty()).then(|| format!("control group: {}", evidence::some(&groups, NAMED)))
}

/// Maximum number of control groups in the evidence.
const NAMED: usize = 4;

fn service_killed(node: &Node<'_>) -> Option<Draft> {
    let kills: Vec<&KernelEvent> = node.timeline.of_kind(Kind::OomKill).filter(|event| is_of_service(event)).collect();
    let draft = Draft::on_node(SERVICE_KILLED).with_events(kills.iter().copied()).with_all_evidence(groups(&kills));
    (!kills.is_empty()).then(|| draft.aged_on_node(node, &kills))
}

/// Finds processes that the kernel killed because the node had no memory left. A service that was killed has its own
/// finding.
fn out_of_memory(node: &Node<'_>) -> Option<Draft> {
    let of_node = |event: &&KernelEvent| event.is_kill_of_whole_node() && !is_of_service(event);
    let kills: Vec<&KernelEvent> = node.timeline.of_kind(Kind::OomKill).filter(of_node).collect();
    let largest =
        kills.iter().filter_map(|event| Some((event.resident_bytes()?, event))).max_by_key(|(bytes, _)| *bytes);
    let largest = largest.map(|(bytes, event)| {
        let name = event.process.as_deref().map(evidence::data).unwrap_or_default();
        format!("largest killed process: '{name}' with {}", evidence::bytes(bytes))
    });
    let draft = Draft::on_node(OUT_OF_MEMORY).with_all_evidence(largest).with_events(kills.iter().copied());
    let draft = draft.with_all_evidence(groups(&kills));
    (!kills.is_empty()).then(|| draft.aged_on_node(node, &kills))
}

/// Finds processes of pods with GPUs that the kernel killed at a memory limit.
fn pods_killed(node: &Node<'_>) -> Vec<Draft> {
    let allocations = node.kubelet().into_iter().flat_map(|kubelet| &kubelet.allocations);
    let uids: BTreeSet<&String> = allocations.map(|held| &held.pod_uid).filter(|uid| !uid.is_empty()).collect();
    let of_pod = |uid: &String| {
        let is_of_it = |event: &&KernelEvent| {
            event.is_kill_of_pod(uid) && !event.is_kill_of_whole_node() && event.boot_id.is_none()
        };
        let kills: Vec<&KernelEvent> = node.timeline.of_kind(Kind::OomKill).filter(is_of_it).collect();
        let mut draft = Draft::on_node(POD_KILLED).with_events(kills.iter().copied());
        draft.scope.pod_uid = Some(uid.clone());
        (!kills.is_empty()).then_some(draft)
    };
    uids.into_iter().filter_map(of_pod).collect()
}

/// Checks the percentage and the amount of free space, because five percent of a large disk are much space.
fn full(of: &FileSystem) -> Option<Draft> {
    if of.read_only || of.total_bytes == 0 {
        return None;
    }
    let share = |left: u64, all: u64| u128::from(left) * 100 / u128::from(all.max(1));
    let (left, all) = (of.available_bytes, of.total_bytes);
    let space = match share(left, all) {
        0 if left < GIB => Some(Severity::Critical),
        0..5 if left < 20 * GIB => Some(Severity::Warning),
        _ => None,
    };
    let inodes = of.inodes.zip(of.inodes_free).filter(|(inodes, _)| *inodes > 0);
    let by_inodes = inodes.and_then(|(all, left)| match share(left, all) {
        _ if left == 0 => Some(Severity::Critical),
        0..2 if left < 20_000 => Some(Severity::Warning),
        _ => None,
    });
    let severity = space.max(by_inodes)?;
    let only_temporary = of.paths.iter().all(|path| path == "/tmp");
    let line = match space {
        Some(_) => format!("{} of {} are free", evidence::bytes(left), evidence::bytes(all)),
        None => inodes.map(|(all, left)| format!("{left} of {all} inodes are free")).unwrap_or_default(),
    };
    Some(
        Draft::on_node(FULL)
            .with_severity(if only_temporary { Severity::Warning } else { severity })
            .with_evidence(format!("{}: {line}", name(of))),
    )
}

/// Paths that are read-only by design on immutable systems.
const IMMUTABLE: [&str; 4] = ["/", "/usr", "/sysroot", "/boot"];

fn read_only(node: &Node<'_>, of: &FileSystem) -> Option<Draft> {
    let written: Vec<&String> = of.paths.iter().filter(|path| !IMMUTABLE.contains(&path.as_str())).collect();
    if !of.read_only || written.is_empty() {
        return None;
    }
    let only_files = written.iter().all(|path| ["/tmp", "/var/log"].contains(&path.as_str()));
    let draft = Draft::on_node(READ_ONLY).with_evidence(format!("{}: mounted read-only", name(of)));
    let draft = match failing_disk(node) {
        Some(event) => draft
            .with_evidence(evidence::kernel_line(event))
            .with_action(READ_ONLY.action, REPLACE_DISK)
            .with_step_before("Replace the disk of {node} that failed."),
        None => draft,
    };
    Some(if only_files { draft.with_severity(Severity::Warning) } else { draft })
}

/// Action for a file system whose disk failed.
const REPLACE_DISK: &str = "Drain {node} and replace the disk in the evidence, which failed; then reboot. A reboot alone can fail, or repair the file \
     system only for a short time.";

/// Kinds of kernel lines about a disk that does not work.
const DISK_FAILS: [&str; 4] = ["disk_lost", "disk_timeout", "medium_error", "io_error"];

/// Returns the first line about a disk that does not work.
fn failing_disk<'n>(node: &Node<'n>) -> Option<&'n KernelEvent> {
    let fails = |event: &&KernelEvent| host_lines::row_of(event).is_some_and(|row| DISK_FAILS.contains(&row.name));
    node.timeline.current().find(fails)
}

/// Formats a file system: `/ and /var/log (ext4)`.
fn name(of: &FileSystem) -> String {
    let paths: Vec<String> = of.paths.iter().take(5).map(|path| evidence::path(path)).collect();
    format!("{} ({})", paths.join(", "), evidence::data(&of.kind))
}

fn degraded(array: &DegradedArray) -> Draft {
    let DegradedArray { name, level, devices, working, is_rebuilding } = array;
    let level = level.as_deref().map(|level| format!(" ({})", evidence::data(level))).unwrap_or_default();
    let line = format!("{}{level}: {working} of {devices} devices work", evidence::data(name));
    let draft = Draft::on_node(DEGRADED);
    if *is_rebuilding {
        let wait = "Wait until the array of {node} is complete (/proc/mdstat).";
        let line = format!("{line}; a new device is being filled");
        return draft.with_severity(Severity::Info).with_evidence(line).with_action(ActionCode::Watch, wait);
    }
    draft.with_evidence(line)
}

fn near(node: &Node<'_>, levels: &HostLevels) -> Option<Draft> {
    let limits = levels.limits.clone().unwrap_or_default();
    let inotify = node.host().and_then(|host| host.nvidia_stack.as_ref()?.inotify.as_ref());
    let instances = inotify.and_then(|inotify| inotify.max_user_instances.zip(inotify.instances_of_root));
    let named = [
        ("threads", "kernel.pid_max, kernel.threads-max", limits.threads),
        ("open files", "fs.file-max", limits.open_files),
        ("tracked connections", "net.netfilter.nf_conntrack_max", limits.connections),
        (
            "inotify instances of root",
            "fs.inotify.max_user_instances",
            // If the limit is reached, the finding about the device plugin reports it.
            instances.filter(|(limit, used)| used < limit).map(|(limit, used)| Level { used, limit }),
        ),
    ];
    let lines = named.into_iter().filter_map(|(noun, setting, level)| {
        let Level { used, limit } = level?;
        let is_near = limit > 0 && u128::from(used) * 100 >= u128::from(limit) * u128::from(NEAR_PERCENT);
        is_near.then(|| format!("{used} of {limit} {noun} ({setting})"))
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| Draft::on_node(NEAR).with_all_evidence(lines))
}

fn pressure(levels: &HostLevels) -> Option<Draft> {
    let pressure = levels.pressure.as_ref()?;
    let memory = pressure.memory_percent.filter(|percent| *percent >= MEMORY_PERCENT);
    let io = pressure.io_percent.filter(|percent| *percent >= IO_PERCENT);
    let line = |percent: Option<u32>, noun: &str| {
        percent.map(|percent| format!("all running programs waited for {noun} in {percent} % of the last five minutes"))
    };
    let lines: Vec<String> = line(memory, "memory").into_iter().chain(line(io, "disks")).collect();
    let severity = if memory.is_some() { Severity::Warning } else { Severity::Info };
    (!lines.is_empty()).then(|| Draft::on_node(PRESSURE).with_severity(severity).with_all_evidence(lines))
}
