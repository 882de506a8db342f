//! Methods of `Node` for the work on a node: processes, pods, and the devices that the kubelet allocated to them.
//! `process`, `on_gpu`: create a process and its use of a GPU.

use jiff::Timestamp;
use syringe_core::facts::kubelet::{Allocation, Kubelet, RegisteredDevices};
use syringe_core::facts::processes::{GpuProcess, GpuUse, Processes};
use syringe_core::facts::telemetry::GpuTelemetry;

use crate::identity::text;
use crate::load::{Load, MIB, idle};
use crate::node::{NVIDIA_GPU, Node, data, find, gpu_uuid, pod_uid, put_in_pod};

/// PID of the job on GPU 0; the other jobs have the following PIDs.
const FIRST_JOB: u32 = 41_210;

impl Node {
    /// Adds work to all GPUs: one process and one pod for each GPU.
    pub(crate) fn working(mut self, load: impl Fn(u32) -> Load) -> Self {
        for (own, index) in self.loads.iter_mut().zip(0..) {
            *own = load(index);
        }
        self.write_loads();
        let telemetry = data(&mut self.report.sections.telemetry);
        let jobs: Vec<_> = telemetry.gpus.iter().zip(&self.loads).map(|(gpu, load)| job(gpu, load)).collect();
        let allocations: Vec<_> =
            (0..jobs.len() as u32).map(|index| self.allocation(&format!("job-{index}"), index)).collect();
        for (process, index) in jobs.into_iter().zip(0..) {
            self = self.running(Some(&format!("job-{index}")), process);
        }
        self.allocations(allocations)
    }

    /// Removes all work: the GPUs are idle, and no pod has a GPU.
    pub(crate) fn idle(self) -> Self {
        self.loads(|index, load| *load = idle(index)).without_jobs()
    }

    /// Removes the processes and the allocations of the jobs, but keeps the telemetry.
    pub(crate) fn without_jobs(self) -> Self {
        self.without_processes().allocations([])
    }

    pub(crate) fn processes(mut self, change: impl FnOnce(&mut Processes)) -> Self {
        change(data(&mut self.report.sections.processes));
        self
    }

    /// Adds a process to the list. `pod` is the name of its pod.
    pub(crate) fn running(self, pod: Option<&str>, mut process: GpuProcess) -> Self {
        if let Some(pod) = pod {
            put_in_pod(&mut process, self.name(), pod);
        }
        self.processes(|section| section.processes.push(process))
    }

    /// Changes the process of the job on a GPU.
    pub(crate) fn job(self, gpu: u32, change: impl FnOnce(&mut GpuProcess)) -> Self {
        self.processes(|section| change(find(&mut section.processes, FIRST_JOB + gpu, |process| process.pid)))
    }

    /// Sets the start of the job on a GPU.
    pub(crate) fn job_started(self, gpu: u32, when: Timestamp) -> Self {
        let seconds = u64::try_from(when.duration_since(self.boot()).as_secs()).unwrap_or_default();
        self.job(gpu, |process| process.start_ticks = Some(seconds * 100))
    }

    /// Removes the process of the job on a GPU, but keeps the allocation.
    pub(crate) fn without_job(self, gpu: u32) -> Self {
        self.processes(|section| section.processes.retain(|process| process.pid != FIRST_JOB + gpu))
    }

    /// Removes all processes except the daemons.
    pub(crate) fn without_processes(self) -> Self {
        self.processes(|section| section.processes.retain(|process| !process.open_device_files.is_empty()))
    }

    pub(crate) fn kubelet(mut self, change: impl FnOnce(&mut Kubelet)) -> Self {
        change(data(&mut self.report.sections.kubelet));
        self
    }

    /// Returns the UID of a pod of this node.
    pub(crate) fn pod_uid(&self, pod: &str) -> String {
        pod_uid(self.name(), pod)
    }

    /// Returns an allocation of one GPU to the container `main` of a pod.
    pub(crate) fn allocation(&self, pod: &str, gpu: u32) -> Allocation {
        Allocation {
            pod_uid: self.pod_uid(pod),
            container: "main".to_owned(),
            resource: NVIDIA_GPU.to_owned(),
            devices: vec![gpu_uuid(self.name(), gpu)],
            ..Allocation::default()
        }
    }

    /// Replaces all allocations.
    pub(crate) fn allocations(self, allocations: impl IntoIterator<Item = Allocation>) -> Self {
        self.kubelet(|kubelet| kubelet.allocations = allocations.into_iter().collect())
    }

    /// Sets the devices that device plugins registered for a resource.
    pub(crate) fn registered(self, resource: &str, devices: Vec<String>) -> Self {
        self.kubelet(|kubelet| kubelet.registered = vec![RegisteredDevices { resource: resource.to_owned(), devices }])
    }

    /// Removes all registered devices.
    pub(crate) fn nothing_registered(self) -> Self {
        self.kubelet(|kubelet| kubelet.registered.clear())
    }
}

/// Returns a sleeping process of root. `started` is in seconds after the boot.
pub(crate) fn process(pid: u32, name: &str, command: &str, started: u64, uses: Vec<GpuUse>) -> GpuProcess {
    GpuProcess {
        pid,
        name: text(name),
        command: text(command),
        uid: Some(0),
        user: text("root"),
        start_ticks: Some(started * 100),
        state: text("S"),
        uses,
        ..GpuProcess::default()
    }
}

/// Returns the use of a GPU by a compute process.
pub(crate) fn on_gpu(gpu: u32, bytes: u64) -> Vec<GpuUse> {
    vec![GpuUse { gpu, kind: "compute".to_owned(), memory_bytes: Some(bytes), ..GpuUse::default() }]
}

/// Returns the process of a job. The process uses all used memory of its GPU, except for the memory that the driver
/// needs.
fn job(gpu: &GpuTelemetry, load: &Load) -> GpuProcess {
    let memory = load.used_bytes(gpu).saturating_sub(523 * MIB).max(MIB);
    process(FIRST_JOB + gpu.index, "python3", "python3 train.py", 4180, on_gpu(gpu.index, memory))
}
