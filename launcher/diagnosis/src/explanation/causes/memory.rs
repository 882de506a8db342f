//! `of_others`: finds the processes of other pods, or outside of pods, that use memory of a pod's GPUs.

use crate::evidence;
use crate::explanation::causes::Case;
use crate::input::processes::{MIN_BYTES, is_service};
use syringe_core::facts::processes::GpuProcess;
use syringe_core::report::Section;

/// Maximum number of processes that are listed.
const MAX_NAMED: usize = 3;

/// Returns texts about the other users of the memory of the pod's GPUs, the largest first.
pub(super) fn of_others(case: &Case<'_>) -> Vec<String> {
    let section = case.report.and_then(|report| Section::data_of(&report.sections.processes));
    let all = section.filter(|section| section.host_pid_namespace).into_iter().flat_map(|section| &section.processes);
    // A MIG instance has its own memory.
    let held = |process: &GpuProcess| -> u64 {
        let own = process.uses.iter().filter(|one| case.on_node.indices.contains(&one.gpu));
        own.filter(|one| one.mig_gpu_instance.is_none() && case.on_node.mig_instances.is_empty())
            .filter_map(|one| one.memory_bytes)
            .sum()
    };
    let is_other =
        |process: &&GpuProcess| process.pod_uid.as_deref() != Some(case.pod.uid.as_str()) && !is_service(process);
    let mut users: Vec<(u64, &GpuProcess)> = all.filter(is_other).map(|process| (held(process), process)).collect();
    users.retain(|(bytes, process)| *bytes >= MIN_BYTES && case.holds_much_memory(process.pid));
    users.sort_by_key(|(bytes, process)| (std::cmp::Reverse(*bytes), process.pid));
    users.into_iter().take(MAX_NAMED).map(|(bytes, process)| in_words(case, bytes, process)).collect()
}

fn in_words(case: &Case<'_>, bytes: u64, process: &GpuProcess) -> String {
    let name = process.name.as_deref().map(|name| format!(" ({})", evidence::data(name))).unwrap_or_default();
    let whose = match &process.pod_uid {
        Some(uid) => match case.diagnosis.and_then(|diagnosis| diagnosis.pod_names.get(uid)) {
            Some(pod) => format!("of pod {pod}"),
            None => format!("of the pod with UID {}", evidence::data(uid)),
        },
        None => "outside of pods".to_owned(),
    };
    let unallocated = if is_allocated(case, process) { "" } else { " and has no GPU allocated" };
    format!("process {}{name} {whose} uses {} of the GPU's memory{unallocated}", process.pid, evidence::bytes(bytes))
}

/// Returns whether the kubelet has allocated devices to the pod of a process. True if this is not known.
fn is_allocated(case: &Case<'_>, process: &GpuProcess) -> bool {
    let kubelet = case.report.and_then(|report| Section::data_of(&report.sections.kubelet));
    let pod = kubelet.zip(process.pod_uid.as_deref());
    pod.is_none_or(|(kubelet, uid)| kubelet.allocations.iter().any(|allocation| allocation.pod_uid == uid))
}
