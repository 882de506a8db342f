//! `read`: reads the processes that use the GPUs from NVML: process IDs, type and memory.
//!
//! The names and owners of processes come from `/proc` (`host::process`).

use nvml_wrapper::Device;
use syringe_core::facts::processes::GpuUse;
use syringe_core::section_name::SectionName;

use super::cache::Function;
use super::device_reader::DeviceReader;
use super::mig;
use super::raw;
use super::raw::{Process, ProcessList};
use crate::nvml::answer::GpuUses;
use crate::nvml::errors::{Kind, NvmlError};

/// The process lists of NVML, in the order of the report.
const LISTS: [(ProcessList, &str, &str); 3] = [
    (ProcessList::Compute, "compute", "nvmlDeviceGetComputeRunningProcesses_v3"),
    (ProcessList::Graphics, "graphics", "nvmlDeviceGetGraphicsRunningProcesses_v3"),
    (ProcessList::Mps, "mps", "nvmlDeviceGetMPSComputeRunningProcesses_v3"),
];
/// Name of the field of a missing list.
const WHAT: &str = SectionName::Processes.as_str();
/// The value of `NVML_VALUE_NOT_AVAILABLE` in a field that counts bytes.
const NO_BYTES: u64 = u64::MAX;
/// Maximum number of uses of one GPU. If a list is full, the section has a problem.
const MAX_USES: usize = 1024;
/// The instance number of a process without a MIG instance.
const NO_INSTANCE: u32 = u32::MAX;

/// Reads every use of a GPU by a process: the compute, graphics and MPS lists, also of MIG instances. A process
/// that is in several lists has a use for each list, with the same memory. Process IDs are from the probe's PID namespace,
/// and NVML leaves out processes that are not visible in this namespace.
pub(in crate::nvml) fn read(device: &'static Device<'static>, reader: &mut DeviceReader<'_>, gpu: &mut GpuUses) {
    lists(device, reader, &mut gpu.uses);
    if gpu.uses.len() >= MAX_USES {
        let error =
            NvmlError::Unreadable(format!("there are more than {} uses, and some may not be listed", MAX_USES - 1));
        reader.note_failure(LISTS[0].2, &error, &[WHAT]);
    }
    gpu.memory_used = reader
        .call_ignoring_errors(Function::of_gpu("nvmlDeviceGetMemoryInfo_v2"), || raw::memory(device))
        .map(|memory| memory.used);
    gpu.minor = reader.call_ignoring_errors(Function::of_gpu("nvmlDeviceGetMinorNumber"), || device.minor_number());
}

fn lists(device: &'static Device<'static>, reader: &mut DeviceReader<'_>, uses: &mut Vec<(u32, GpuUse)>) {
    let mode = reader.call_if_supported(Function::of_gpu("nvmlDeviceGetMigMode"), &[WHAT], || device.mig_mode());
    let is_mig = mode.is_ok_and(|mode| mode.current != 0);
    for (list, kind, function) in LISTS {
        match reader.try_call(function, || raw::processes(device, list)) {
            Ok(processes) => add(uses, reader.gpu(), kind, &processes, is_mig),
            // Without the compute list, an empty answer would look like an idle GPU.
            Err(error) if list == ProcessList::Compute && error.kind() == Kind::Absent && !is_mig => {
                reader.note_failure(function, &error, &[WHAT]);
            }
            Err(error) if error.kind() == Kind::Failed => reader.note_failure(function, &error, &[WHAT]),
            Err(_) => {}
        }
    }
    // NVML lists the processes of MIG devices under the GPU only for privileged callers.
    if is_mig && uses.is_empty() {
        let most = reader.call_ignoring_errors("nvmlDeviceGetMaxMigDeviceCount", || device.mig_device_count());
        for instance in mig::devices(device, reader, most) {
            for (list, kind, function) in LISTS {
                let processes =
                    reader.call_ignoring_errors(function, || raw::processes(instance, list)).unwrap_or_default();
                add(uses, reader.gpu(), kind, &processes, is_mig);
            }
        }
    }
}

/// Adds the processes of one list, up to [`MAX_USES`]. A GPU without MIG has no instances, although some drivers return 0.
fn add(uses: &mut Vec<(u32, GpuUse)>, gpu: u32, kind: &str, processes: &[Process], is_mig: bool) {
    for process in processes.iter().filter(|process| process.pid != 0) {
        let instance = |id: u32| Some(id).filter(|id| is_mig && *id != NO_INSTANCE);
        let entry = GpuUse {
            gpu,
            kind: kind.to_owned(),
            memory_bytes: Some(process.usedGpuMemory).filter(|bytes| *bytes != NO_BYTES),
            mig_gpu_instance: instance(process.gpuInstanceId),
            mig_compute_instance: instance(process.computeInstanceId),
        };
        let entry = (process.pid, entry);
        if uses.len() < MAX_USES && !uses.contains(&entry) {
            uses.push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_USES, NO_BYTES, NO_INSTANCE, Process, add};

    #[test]
    fn unknown_memory_is_absent_and_not_a_huge_number() {
        let mut uses = Vec::new();
        let process =
            Process { pid: 7, usedGpuMemory: NO_BYTES, gpuInstanceId: NO_INSTANCE, computeInstanceId: NO_INSTANCE };
        add(&mut uses, 2, "compute", &[process, process], true);
        add(&mut uses, 2, "compute", &[Process { pid: 8, usedGpuMemory: 1024, gpuInstanceId: 3, ..process }], true);
        assert_eq!(uses.len(), 2);
        let (pid, entry) = &uses[0];
        assert_eq!((*pid, entry.gpu, entry.memory_bytes, entry.mig_gpu_instance), (7, 2, None, None));
        assert_eq!((uses[1].1.memory_bytes, uses[1].1.mig_gpu_instance), (Some(1024), Some(3)));
    }

    #[test]
    fn the_list_of_one_gpu_is_bounded() {
        let mut uses = Vec::new();
        let process = |pid| Process { pid, usedGpuMemory: 1024, gpuInstanceId: 0, computeInstanceId: 0 };
        let all: Vec<_> = (1..=5_000).map(process).collect();
        add(&mut uses, 2, "compute", &all, false);
        assert_eq!(uses.len(), MAX_USES);
    }

    #[test]
    fn a_gpu_without_mig_has_no_instances() {
        let mut uses = Vec::new();
        let process = Process { pid: 7, usedGpuMemory: 1024, gpuInstanceId: 0, computeInstanceId: 0 };
        add(&mut uses, 2, "compute", &[process], false);
        let (_, entry) = &uses[0];
        assert_eq!((entry.mig_gpu_instance, entry.mig_compute_instance), (None, None));
    }
}
