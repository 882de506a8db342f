//! `processes`: reads the `processes` section: NVML's lists joined with `/proc`, and other processes with an open GPU.
//! It also finds GPU memory that no process in these lists uses.
//!
//! Limits: process IDs are only valid in the PID namespace of the host. In other namespaces the section has a problem, and
//! facts that need these IDs are left out.

use std::collections::{BTreeMap, BTreeSet};

use syringe_core::facts::processes::{GpuProcess, GpuUse, Processes, UnaccountedMemory};
use syringe_core::report::{Problem, Section};

use super::ProcContext;
use super::{blocked_threads, open_device_files};
use crate::host::process;
use crate::paths::Paths;
use crate::{bounded, files, paths};

/// Memory that the driver reserves on one GPU: up to about 0.5 GiB on an H100 with ECC.
const OVERHEAD_BYTES: u64 = 600 * 1024 * 1024;

/// An additional tolerance, as a divisor of the memory in use, for rounding in the lists of many processes.
const OVERHEAD_PART: u64 = 100;

/// Maximum number of processes in a report. A user could start tens of thousands of processes that have a GPU open.
const MAX_PROCESSES: usize = 1024;

/// The state of a process that NVML lists but `/proc` does not have: the kernel's letter for "dead".
const GONE: &str = "X";

/// Joins the lists of NVML with `/proc`.
///
/// `uses`: the PIDs and uses in NVML's lists. `memory_used`: bytes in use per GPU index. `gpu_minors`: device minor number
/// per GPU index.
pub(crate) fn processes(
    paths: &Paths,
    uses: Section<Vec<(u32, GpuUse)>>,
    memory_used: &[(u32, u64)],
    gpu_minors: &[(u32, u32)],
) -> Section<Processes> {
    let Section { data: uses, mut problems, .. } = uses;
    let host_pid_namespace = paths::is_initial_pid_namespace(&paths.proc);
    if !host_pid_namespace {
        problems.push(namespace_problem());
    }
    let uses = uses.unwrap_or_default();
    // A GPU whose list could not be read completely is not checked for unaccounted memory.
    let listed = |gpu: u32| !problems.iter().any(|problem| problem.gpu.is_none_or(|of| of == gpu));
    let memory_used: Vec<(u32, u64)> = memory_used.iter().copied().filter(|(gpu, _)| listed(*gpu)).collect();
    let unaccounted_memory = unaccounted(&uses, &memory_used);
    let held = held(paths, &mut problems);
    let context = ProcContext::read(paths);
    let mut by_pid: BTreeMap<u32, Vec<GpuUse>> = BTreeMap::new();
    for (pid, gpu_use) in uses {
        by_pid.entry(pid).or_default().push(gpu_use);
    }
    // Processes that NVML lists come first.
    let others = held.keys().filter(|pid| !by_pid.contains_key(pid));
    let mut pids: Vec<u32> = by_pid.keys().chain(others).copied().collect();
    bounded::cut(&mut pids, MAX_PROCESSES, "processes with an open GPU");
    pids.sort_unstable();
    let mut processes = Vec::new();
    for pid in pids {
        let uses = by_pid.remove(&pid).unwrap_or_default();
        let open_device_files = held.get(&pid).map(|minors| unlisted(minors, &uses, gpu_minors)).unwrap_or_default();
        let found = process::describe(&paths.proc, pid, &context);
        let process = found.unwrap_or_else(|| GpuProcess {
            pid,
            // In another PID namespace, the process may exist without being visible.
            state: host_pid_namespace.then(|| GONE.to_owned()),
            ..GpuProcess::default()
        });
        // A process that exited between the two reads is ignored.
        if !uses.is_empty() || (!open_device_files.is_empty() && process.state.as_deref() != Some(GONE)) {
            processes.push(GpuProcess { uses, open_device_files, ..process });
        }
    }
    blocked_threads::add(&paths.proc, &mut processes);
    problems.extend(processes.iter().filter_map(not_all_threads));
    Section::read(Processes { host_pid_namespace, processes, unaccounted_memory }, problems)
}

/// Returns the problem for a process with so many threads that not all were checked.
fn not_all_threads(process: &GpuProcess) -> Option<Problem> {
    let threads = process.threads.as_ref().filter(|threads| threads.not_checked > 0)?;
    let why = format!("{} threads were checked, and {} were not", threads.checked, threads.not_checked);
    Some(files::problem("threads_capped", format!("threads of pid {}", process.pid), why, ""))
}

fn namespace_problem() -> Problem {
    files::problem(
        "pid_namespace",
        "process ids",
        "the probe is not in the PID namespace of the host: NVML does not list processes that are not visible in the \
            probe's PID namespace",
        "Run the probe with hostPID. On a node that is itself a container (kind, k3d), this problem cannot be avoided.",
    )
}

/// Returns the processes with open device files. If the scan is incomplete, there are problems with the reason.
fn held(paths: &Paths, problems: &mut Vec<Problem>) -> BTreeMap<u32, BTreeSet<u32>> {
    let what = "holders of GPU device files (/proc/*/fd)";
    match open_device_files::scan(paths) {
        Ok(found) => {
            if found.refused > 0 {
                let why = format!("permission denied for {} processes", found.refused);
                problems.push(files::problem("permission", what, why, "Run the probe as root."));
            }
            if found.skipped > 0 {
                let why = format!("{} processes were not read completely", found.skipped);
                problems.push(files::problem("timeout", what, why, "Try again when the node is less busy."));
            }
            found.held
        }
        Err(error) => {
            problems.push(files::problem("procfs", what, error, ""));
            BTreeMap::new()
        }
    }
}

/// Returns the open device files of a process for GPUs where NVML does not list the process.
fn unlisted(minors: &BTreeSet<u32>, uses: &[GpuUse], gpu_minors: &[(u32, u32)]) -> Vec<String> {
    let listed = |minor: u32| {
        let gpu = gpu_minors.iter().find(|(_, of)| *of == minor).map(|(gpu, _)| *gpu);
        gpu.is_some_and(|gpu| uses.iter().any(|gpu_use| gpu_use.gpu == gpu))
    };
    minors.iter().filter(|minor| !listed(**minor)).map(|minor| format!("/dev/nvidia{minor}")).collect()
}

/// Returns the memory that the lists do not explain. A GPU with a process of unknown memory use is skipped.
fn unaccounted(uses: &[(u32, GpuUse)], memory_used: &[(u32, u64)]) -> Vec<UnaccountedMemory> {
    let bytes = |&(gpu, used): &(u32, u64)| {
        // A process with compute and graphics contexts is in two lists with the same memory.
        let mut claimed: BTreeMap<(u32, Option<u32>, Option<u32>), u64> = BTreeMap::new();
        for (pid, gpu_use) in uses.iter().filter(|(_, gpu_use)| gpu_use.gpu == gpu) {
            let place = (*pid, gpu_use.mig_gpu_instance, gpu_use.mig_compute_instance);
            let most = claimed.entry(place).or_default();
            *most = (*most).max(gpu_use.memory_bytes?);
        }
        let bytes = used.saturating_sub(claimed.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)));
        (bytes > OVERHEAD_BYTES && bytes > used / OVERHEAD_PART).then_some(UnaccountedMemory { gpu, bytes })
    };
    memory_used.iter().filter_map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use syringe_core::report::Status;

    use super::*;
    use crate::testing::Tree;

    const GIB: u64 = 1 << 30;

    fn on(gpu: u32, kind: &str, memory_bytes: Option<u64>) -> GpuUse {
        GpuUse { gpu, kind: kind.into(), memory_bytes, ..GpuUse::default() }
    }

    fn node() -> Tree {
        let tree = Tree::new();
        tree.link("proc/self/ns/pid", "pid:[4026531836]");
        for (pid, name, state) in [(100, "python3", "S"), (200, "nv-hostengine", "S"), (300, "python3", "Z")] {
            tree.file(
                &format!("proc/{pid}/stat"),
                format!("{pid} ({name}) {state} 50 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 12345 0"),
            );
            tree.file(&format!("proc/{pid}/comm"), format!("{name}\n"));
        }
        tree
    }

    #[test]
    fn a_monitor_that_nvml_does_not_list_has_the_gpu_open() {
        let tree = node();
        tree.link("proc/100/fd/3", "/dev/nvidia4").link("proc/100/fd/4", "/dev/nvidia5");
        tree.link("proc/200/fd/3", "/dev/nvidia4");
        let uses = Section::read(vec![(100, on(0, "compute", Some(GIB)))], Vec::new());
        let section = processes(&tree.paths(), uses, &[], &[(0, 4), (1, 5)]);
        assert_eq!(section.status, Status::Ok, "{:?}", section.problems);
        let found = section.data.expect("data").processes;
        assert_eq!(found[0].open_device_files, ["/dev/nvidia5"], "NVML lists the process on GPU 0 (minor 4)");
        assert_eq!(
            (found[1].pid, &found[1].uses, &found[1].open_device_files),
            (200, &Vec::new(), &vec!["/dev/nvidia4".to_owned()])
        );
    }

    #[test]
    fn memory_of_a_gpu_whose_list_failed_is_not_unaccounted() {
        let problem = |gpu| Problem { gpu, ..files::problem("unknown", "processes", "NVML: Unknown Error", "") };
        let unaccounted = |problems: Vec<Problem>| {
            let memory = [(0, 40 * GIB), (1, 40 * GIB)];
            let data = processes(&node().paths(), Section::read(Vec::new(), problems), &memory, &[]).data;
            data.expect("data").unaccounted_memory.iter().map(|rest| rest.gpu).collect::<Vec<_>>()
        };
        assert_eq!(unaccounted(Vec::new()), [0, 1]);
        assert_eq!(unaccounted(vec![problem(Some(0))]), [1]);
        assert!(unaccounted(vec![problem(None)]).is_empty());
    }

    #[test]
    fn zombies_and_ended_processes_stay_in_the_list() {
        let uses = vec![(300, on(0, "compute", Some(GIB))), (999, on(0, "compute", Some(GIB)))];
        let section = processes(&node().paths(), Section::read(uses, Vec::new()), &[], &[]);
        let found = section.data.expect("data").processes;
        let states: Vec<_> =
            found.iter().map(|process| (process.pid, process.state.as_deref(), process.parent_pid)).collect();
        assert_eq!(states, [(300, Some("Z"), Some(50)), (999, Some("X"), None)]);
    }

    #[test]
    fn outside_the_hosts_pid_namespace_nothing_is_concluded() {
        let tree = Tree::new();
        tree.link("proc/self/ns/pid", "pid:[4026532201]");
        let uses = Section::read(vec![(999, on(0, "compute", None))], Vec::new());
        let section = processes(&tree.paths(), uses, &[(0, 40 * GIB)], &[]);
        assert_eq!((section.status, section.problems[0].code.as_str()), (Status::Partial, "pid_namespace"));
        let data = section.data.expect("data");
        assert!(!data.host_pid_namespace && data.unaccounted_memory.is_empty());
        assert_eq!(data.processes[0].state, None);
    }

    #[test]
    fn unaccounted_memory_is_found_for_each_gpu() {
        let both = [(1, on(0, "compute", Some(30 * GIB))), (1, on(0, "graphics", Some(30 * GIB)))];
        let uses: Vec<(u32, GpuUse)> = both.into_iter().chain([(2, on(2, "compute", None))]).collect();
        let used = [(0, 40 * GIB), (1, GIB / 2), (2, 40 * GIB), (3, 10 * GIB)];
        let found = unaccounted(&uses, &used);
        let found: Vec<(u32, u64)> = found.iter().map(|memory| (memory.gpu, memory.bytes / GIB)).collect();
        assert_eq!(found, [(0, 10), (3, 10)]);
    }

    #[test]
    fn without_nvml_the_holders_are_still_listed_and_its_problem_stays() {
        let tree = node();
        tree.link("proc/200/fd/3", "/dev/nvidia0");
        let failed = Section::failed(files::problem("driver_not_loaded", "NVML", "NVML: Driver Not Loaded", ""));
        let section = processes(&tree.paths(), failed, &[], &[]);
        assert_eq!((section.status, section.problems[0].code.as_str()), (Status::Partial, "driver_not_loaded"));
        assert_eq!(section.data.expect("data").processes[0].pid, 200);
    }
}
