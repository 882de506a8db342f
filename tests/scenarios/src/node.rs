//! A node that a scenario changes.
//!
//! It starts as a healthy node: the first GPUs of a file of `base`, with another name and other work. Each method makes
//! one change and returns the node.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use syringe_core::facts::ecc::{ErrorCounts, GpuEcc, LocationErrors, RecoveryAction, RemappedRows};
use syringe_core::facts::host::Host;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::kubelet::{Allocation, Kubelet, RegisteredDevices};
use syringe_core::facts::mig::GpuMig;
use syringe_core::facts::processes::{GpuProcess, GpuUse, Processes};
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::facts::topology::GpuTopology;
use syringe_core::facts::{LostGpu, Mode, Unread};
use syringe_core::report::{Problem, Report, Section};

use crate::identity::{TAKEN_AT, hash, seconds, serial, text, uuid};
use crate::kernel_log::KernelLog;
use crate::load::{Load, idle, serving, training};
use crate::nvml_section::{NvmlSection, Part};

pub(crate) const MIB: u64 = 1 << 20;

/// The process of an Xid, if the driver does not name it.
pub(crate) const UNKNOWN: &str = "pid='<unknown>', name=<unknown>";

/// Pid of the job on GPU 0; the others follow.
const FIRST_JOB: u32 = 41_210;

const NVIDIA_GPU: &str = "nvidia.com/gpu";

/// A node whose report can be changed.
pub(crate) struct Node {
    report: Report,
    loads: Vec<Load>,
    log: KernelLog,
}

/// An HGX board with this number of H100s, which all train.
pub(crate) fn h100(count: u32) -> Node {
    Node::like("healthy-h100-8", "gpu-h100-9", count, &TWO_SOCKETS).working(training)
}

/// An HGX board with this number of A100s, which all serve a model.
pub(crate) fn a100(count: u32) -> Node {
    Node::like("ecc-remap-pending", "gpu-a100-9", count, &TWO_SOCKETS).working(serving).uptime(UPTIME)
}

/// PCIe cards without NVLink, which all serve a model.
pub(crate) fn l40s(count: u32) -> Node {
    Node::like("l40s-4-idle", "gpu-l40s-9", count, &TWO_SOCKETS)
        .system("Ubuntu 22.04.5 LTS", "5.15.0-131-generic")
        .driver("570.124.06", "12.8")
        .working(|index| Load { mhz: Some(2490), watts: 251 + index, ..serving(index) })
        .uptime(UPTIME)
}

/// A virtual machine with one T4.
pub(crate) fn t4() -> Node {
    let load = Load { gpu: 43, memory: 21, used: 0.41, watts: 52, degrees: 61, mhz: Some(1455), ..Load::default() };
    Node::like("healthy-t4-1", "gpu-t4-9", 1, &["0-3"])
        .system("Ubuntu 22.04.5 LTS", "6.1.141-155.222.amzn2023.x86_64")
        .working(|_| load.clone())
        .uptime(UPTIME)
}

/// An idle part of a compute tray of a GB200 NVL72 rack.
pub(crate) fn gb200(count: u32) -> Node {
    Node::like("gb200-4", "gb200-a07-t09", count, &["0-71", "72-143"]).idle().uptime(UPTIME)
}

/// The uptime of most nodes: twelve days.
pub(crate) const UPTIME: u64 = 1_036_815;

/// The CPUs of most nodes.
const TWO_SOCKETS: [&str; 2] = ["0-55,112-167", "56-111,168-223"];

impl Node {
    /// The first GPUs of a base node, without work, as a node with another name. `cpus` are those of each NUMA node.
    pub(crate) fn like(base: &str, name: &str, count: u32, cpus: &[&str]) -> Self {
        let mut report = syringe_core::scenarios::named(base).expect("a base scenario").report();
        report.hostname = text(name);
        report.boot_id = text(uuid(&[name, "boot"]));
        let mut node = Self { report, loads: vec![Load::default(); count as usize], log: KernelLog::default() };
        node.keep_gpus(&|index| index < count);
        for part in Part::ALL {
            for (index, uuid) in node.part(part).identities() {
                *uuid = uuid.as_ref().map(|_| gpu_uuid(name, *index));
            }
        }
        let inventory = node.report.sections.inventory.iter_mut().flat_map(|section| &mut section.data);
        for gpu in inventory.flat_map(|inventory| &mut inventory.gpus) {
            let is_board_of_two = gpu.name.as_deref() == Some("NVIDIA GB200");
            gpu.serial = text(serial(name, if is_board_of_two { gpu.index / 2 } else { gpu.index }));
        }

        let numa_of = |index: u32| (index as usize * cpus.len() / count as usize) as u32;
        let topology = data(&mut node.report.sections.topology);
        for gpu in &mut topology.gpus {
            gpu.numa_node = Some(numa_of(gpu.index));
            gpu.cpu_affinity = text(cpus[numa_of(gpu.index) as usize]);
        }
        topology.nics.clear();
        topology.matrix.truncate(count as usize);
        for (row, cells) in topology.matrix.iter_mut().enumerate() {
            cells.truncate(count as usize);
            for (column, cell) in
                cells.iter_mut().enumerate().filter(|(_, cell)| ["NODE", "SYS"].contains(&cell.as_str()))
            {
                let is_same_node = numa_of(row as u32) == numa_of(column as u32);
                *cell = if is_same_node { "NODE" } else { "SYS" }.to_owned();
            }
        }
        topology.p2p_lacking.iter_mut().for_each(|lack| lack.pairs.retain(|pair| pair.iter().all(|gpu| *gpu < count)));
        topology.p2p_lacking.retain(|lack| !lack.pairs.is_empty());
        if count == 1 {
            topology.p2p_all_ok.clear();
        }

        let device_files: Vec<String> = (0..count).map(|index| format!("/dev/nvidia{index}")).collect();
        let removed = |file: &String| {
            let number = file.strip_prefix("nvidia").and_then(|number| number.parse::<u32>().ok());
            number.is_some_and(|number| number >= count)
        };
        let host = data(&mut node.report.sections.host);
        host.device_nodes.retain(|file| !removed(file));
        host.pci_gpus.truncate(count as usize);
        host.numa_nodes = Some(cpus.len() as u32);
        for (gpu, index) in host.pci_gpus.iter_mut().zip(0..) {
            gpu.numa_node = Some(numa_of(index));
        }

        // The daemons have all device files open; all other processes are jobs.
        let processes = &mut data(&mut node.report.sections.processes).processes;
        processes.retain(|process| DAEMONS.contains(&process.name.as_deref().unwrap_or_default()));
        for process in processes {
            process.open_device_files.clone_from(&device_files);
            if process.pod_uid.is_some() {
                put_in_pod(process, name, "dcgm");
            }
        }
        let uuids = node.gpu_uuids();
        node.allocations([]).registered(NVIDIA_GPU, uuids)
    }

    /// Gives all GPUs work: a process and a pod for each.
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

    // ---- the node as a whole

    pub(crate) fn name(&self) -> &str {
        self.report.hostname.as_deref().unwrap_or_default()
    }

    /// Returns the number of GPUs on PCI.
    pub(crate) fn gpu_count(&self) -> u32 {
        self.loads.len() as u32
    }

    /// Returns the UUIDs of all GPUs, including those that NVML does not list.
    pub(crate) fn gpu_uuids(&self) -> Vec<String> {
        (0..self.gpu_count()).map(|index| gpu_uuid(self.name(), index)).collect()
    }

    pub(crate) fn boot(&self) -> Timestamp {
        let uptime = Section::data_of(&self.report.sections.host).and_then(|host| host.uptime_seconds);
        TAKEN_AT - SignedDuration::from_secs(uptime.unwrap_or_default() as i64)
    }

    pub(crate) fn system(mut self, operating_system: &str, kernel: &str) -> Self {
        self.report.kernel = text(kernel);
        self.host(|host| host.operating_system = text(operating_system))
    }

    pub(crate) fn operating_system(self, name: &str) -> Self {
        self.host(|host| host.operating_system = text(name))
    }

    /// Sets the uptime. To be called before other changes, because the values since the boot follow from it.
    pub(crate) fn uptime(mut self, seconds: u64) -> Self {
        self = self.host(|host| host.uptime_seconds = Some(seconds));
        self.write_loads();
        self
    }

    /// Replaces the driver on the whole node, by one of 2024 or later.
    pub(crate) fn driver(mut self, version: &str, cuda: &str) -> Self {
        let release: u32 = version.split('.').next().and_then(|release| release.parse().ok()).expect("a release");
        let path = |path: &mut Option<String>| {
            let (folder, _) = path.as_deref().and_then(|path| path.split_once(".so.")).expect("a library");
            *path = text(format!("{folder}.so.{version}"));
        };
        let inventory = data(&mut self.report.sections.inventory);
        let nvml = cuda.split('.').next().unwrap_or_default();
        (inventory.driver_version, inventory.cuda_version) = (text(version), text(cuda));
        inventory.nvml_version = text(format!("{nvml}.{version}"));
        path(&mut inventory.nvml_library);
        inventory.gpus.iter_mut().for_each(|gpu| gpu.gsp_firmware_version = text(version));
        // R570 brought the recovery action and the health of the fabric.
        if release < 570 {
            let ecc = data(&mut self.report.sections.ecc);
            ecc.gpus.iter_mut().for_each(|gpu| gpu.recovery_action = None);
            let field = "recovery_action".to_owned();
            let lists = ecc.unsupported.iter_mut().filter(|list| !list.fields.contains(&field));
            lists.for_each(|list| list.fields.insert(1, field.clone()));
            let fabrics = data(&mut self.report.sections.topology).gpus.iter_mut().flat_map(|gpu| &mut gpu.fabric);
            fabrics.for_each(|fabric| fabric.health = None);
        }
        self.host(|host| {
            let driver = &mut host.driver;
            (driver.loaded, driver.module_on_disk, driver.library) = (text(version), text(version), text(version));
            path(&mut driver.library_path);
            host.gsp_firmware_versions = vec![version.to_owned()];
        })
    }

    /// Ends all work: the GPUs are idle, and no pod has one.
    pub(crate) fn idle(self) -> Self {
        self.loads(|index, load| *load = idle(index)).without_jobs()
    }

    /// Removes the processes and the allocations of the jobs. The telemetry stays.
    pub(crate) fn without_jobs(self) -> Self {
        self.without_processes().allocations([])
    }

    // ---- values of the GPUs

    /// Changes the load of all GPUs, and the telemetry with it.
    pub(crate) fn loads(mut self, change: impl Fn(u32, &mut Load)) -> Self {
        for (load, index) in self.loads.iter_mut().zip(0..) {
            change(index, load);
        }
        self.write_loads();
        self
    }

    /// Changes the load of one GPU, and its telemetry with it.
    pub(crate) fn load(self, gpu: u32, change: impl Fn(&mut Load)) -> Self {
        self.loads(|index, load| {
            if index == gpu {
                change(load);
            }
        })
    }

    fn write_loads(&mut self) {
        let uptime =
            Section::data_of(&self.report.sections.host).and_then(|host| host.uptime_seconds).unwrap_or_default();
        let inventory = Section::data_of(&self.report.sections.inventory);
        let product = inventory.and_then(|inventory| inventory.gpus.first()?.name.clone()).unwrap_or_default();
        let gpus = self.report.sections.telemetry.iter_mut().flat_map(|section| &mut section.data);
        for (gpu, load) in gpus.flat_map(|telemetry| &mut telemetry.gpus).zip(&self.loads) {
            load.write(gpu, &product, uptime);
        }
    }

    pub(crate) fn inventory(mut self, gpu: u32, change: impl FnOnce(&mut GpuInventory)) -> Self {
        change(find(&mut data(&mut self.report.sections.inventory).gpus, gpu, |entry| entry.index));
        self
    }

    pub(crate) fn telemetry(mut self, gpu: u32, change: impl FnOnce(&mut GpuTelemetry)) -> Self {
        change(find(&mut data(&mut self.report.sections.telemetry).gpus, gpu, |entry| entry.index));
        self
    }

    /// Adds fields of the telemetry that the driver does not support on any GPU.
    pub(crate) fn unsupported_telemetry<const N: usize>(mut self, fields: [String; N]) -> Self {
        let lists = &mut data(&mut self.report.sections.telemetry).unsupported;
        lists.iter_mut().for_each(|list| list.fields.extend(fields.clone()));
        self
    }

    pub(crate) fn topology(mut self, gpu: u32, change: impl FnOnce(&mut GpuTopology)) -> Self {
        change(find(&mut data(&mut self.report.sections.topology).gpus, gpu, |entry| entry.index));
        self
    }

    pub(crate) fn ecc(mut self, gpu: u32, change: impl FnOnce(&mut GpuEcc)) -> Self {
        change(find(&mut data(&mut self.report.sections.ecc).gpus, gpu, |entry| entry.index));
        self
    }

    pub(crate) fn remapped_rows(self, gpu: u32, change: impl FnOnce(&mut RemappedRows)) -> Self {
        self.ecc(gpu, |gpu| change(gpu.remapped_rows.as_mut().expect("row remapping")))
    }

    pub(crate) fn recovery_action(self, gpu: u32, action: RecoveryAction) -> Self {
        self.ecc(gpu, |gpu| gpu.recovery_action = Some(action))
    }

    pub(crate) fn mig(mut self, gpu: u32, change: impl FnOnce(&mut GpuMig)) -> Self {
        change(find(&mut data(&mut self.report.sections.mig).gpus, gpu, |entry| entry.index));
        self
    }

    pub(crate) fn ecc_off(self, gpu: u32) -> Self {
        let off = Some(Mode { current: false, pending: false });
        self.inventory(gpu, |gpu| gpu.ecc_mode = off).ecc(gpu, |gpu| gpu.mode = off)
    }

    // ---- GPUs that NVML does not read

    pub(crate) fn part(&mut self, part: Part) -> &mut dyn NvmlSection {
        fn present<T>(section: &mut Option<Section<T>>) -> &mut Section<T> {
            section.as_mut().expect("a section")
        }
        let sections = &mut self.report.sections;
        match part {
            Part::Inventory => present(&mut sections.inventory),
            Part::Telemetry => present(&mut sections.telemetry),
            Part::Topology => present(&mut sections.topology),
            Part::Ecc => present(&mut sections.ecc),
            Part::Mig => present(&mut sections.mig),
        }
    }

    fn keep_gpus(&mut self, keep: &dyn Fn(u32) -> bool) {
        for part in Part::ALL {
            self.part(part).retain_gpus(keep);
            self.part(part).retain_unsupported(keep);
        }
    }

    /// Replaces sections by ones that could not be read, because of this problem.
    pub(crate) fn unreadable<const N: usize>(mut self, parts: [Part; N], problem: Problem) -> Self {
        for part in parts {
            self.part(part).fail(Problem { what: part.name().to_owned(), ..problem.clone() });
        }
        self
    }

    /// Changes the problems of the sections that NVML fills, and of the processes.
    pub(crate) fn change_problems(mut self, change: impl Fn(&mut Problem)) -> Self {
        Part::ALL.into_iter().for_each(|part| self.part(part).problems().iter_mut().for_each(&change));
        let processes = self.report.sections.processes.iter_mut();
        processes.flat_map(|section| &mut section.problems).for_each(change);
        self
    }

    /// Removes a GPU from sections in which it could not be read, because of this problem.
    pub(crate) fn unreadable_gpu<const N: usize>(mut self, parts: [Part; N], gpu: u32, problem: Problem) -> Self {
        for part in parts {
            self.part(part).retain_gpus(&|index| index != gpu);
            self.part(part).add_problem(Problem { what: format!("GPU {gpu}"), gpu: Some(gpu), ..problem.clone() });
        }
        self
    }

    /// Fields of one GPU for which an NVML function returned an error.
    pub(crate) fn unread(mut self, part: Part, gpu: u32, function: &str, fields: &[&str]) -> Self {
        let next_step = "Look at the kernel log (xid section) for what the driver says about this GPU.";
        let what = format!("{} ({function})", fields.join(", "));
        let problem = Problem { what, gpu: Some(gpu), ..problem("NVML: Unknown Error", "unknown", next_step) };
        self.part(part)
            .add_unread(Unread { gpus: vec![gpu], fields: fields.iter().map(|&field| field.into()).collect() });
        self.part(part).add_problem(problem);
        self
    }

    /// NVML lists the GPU and says that it is lost. The device does not respond on PCI.
    pub(crate) fn lost(mut self, gpu: u32) -> Self {
        let next_step =
            "Drain the node and power-cycle it; a GPU reset cannot bring it back. If it happens again, return the GPU.";
        let what = format!("GPU {gpu}");
        let problem = Problem { what, gpu: Some(gpu), ..problem("NVML: GPU is lost", "gpu_lost", next_step) };
        let row =
            LostGpu { index: Some(gpu), uuid: text(gpu_uuid(self.name(), gpu)), ..self.lost_row(gpu, "gpu_lost") };
        self.keep_gpus(&|index| index != gpu);
        for part in Part::ALL {
            self.part(part).add_lost(row.clone());
            self.part(part).add_problem(problem.clone());
        }
        let topology = data(&mut self.report.sections.topology);
        topology.matrix.remove(gpu as usize);
        topology.matrix.iter_mut().for_each(|cells| drop(cells.remove(gpu as usize)));
        if topology.matrix.len() == 1 {
            topology.p2p_all_ok.clear();
        }
        self.report.sections.processes.iter_mut().for_each(|section| section.add_problems([problem.clone()]));
        self.host(|host| {
            let pci = &mut host.pci_gpus[gpu as usize];
            (pci.in_nvml, pci.answers) = (Some(false), Some(false));
        })
    }

    /// The GPU is on PCI, and NVML does not list it: the GPUs after it have other indices. Nothing uses it.
    pub(crate) fn not_in_nvml(mut self, gpu: u32) -> Self {
        let row = self.lost_row(gpu, "not_in_nvml");
        for part in Part::ALL {
            let section = self.part(part);
            section.retain_gpus(&|index| index != gpu);
            section.add_lost(row.clone());
            section.identities().into_iter().for_each(|(index, _)| *index -= u32::from(*index > gpu));
        }
        let processes = &mut data(&mut self.report.sections.processes).processes;
        processes.retain(|process| process.uses.iter().all(|used| used.gpu != gpu));
        let uses = processes.iter_mut().flat_map(|process| &mut process.uses);
        uses.for_each(|used| used.gpu -= u32::from(used.gpu > gpu));
        let mut others = self.gpu_uuids();
        others.remove(gpu as usize);
        self.allocations([])
            .registered(NVIDIA_GPU, others)
            .host(|host| host.pci_gpus[gpu as usize].in_nvml = Some(false))
    }

    /// As [`not_in_nvml`](Self::not_in_nvml), and no driver is bound to it. NVML can miss only a GPU that has a driver.
    pub(crate) fn not_bound(self, gpu: u32) -> Self {
        self.not_in_nvml(gpu).host(|host| host.pci_gpus[gpu as usize].driver = None)
    }

    /// No section lists a GPU that does not respond.
    pub(crate) fn no_gpu_lost(mut self) -> Self {
        Part::ALL.into_iter().for_each(|part| self.part(part).remove_lost());
        self
    }

    /// Whether NVML lists a GPU of PCI is not known.
    pub(crate) fn nvml_not_available(self) -> Self {
        self.host(|host| host.pci_gpus.iter_mut().for_each(|gpu| gpu.in_nvml = None))
    }

    /// Returns the address of a GPU, for the list of GPUs that do not respond.
    pub(crate) fn lost_row(&self, gpu: u32, code: &str) -> LostGpu {
        let host = Section::data_of(&self.report.sections.host).expect("the host section");
        let pci_address = host.pci_gpus[gpu as usize].pci_address.clone();
        LostGpu { pci_address, code: code.to_owned(), ..LostGpu::default() }
    }

    // ---- processes, pods, host

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

    /// Removes the process of the job on a GPU. Its allocation stays.
    pub(crate) fn without_job(self, gpu: u32) -> Self {
        self.processes(|section| section.processes.retain(|process| process.pid != FIRST_JOB + gpu))
    }

    /// Removes all processes but the daemons.
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

    /// Replaces the devices that device plugins registered.
    pub(crate) fn registered(self, resource: &str, devices: Vec<String>) -> Self {
        self.kubelet(|kubelet| kubelet.registered = vec![RegisteredDevices { resource: resource.to_owned(), devices }])
    }

    /// No device plugin registered a device.
    pub(crate) fn nothing_registered(self) -> Self {
        self.kubelet(|kubelet| kubelet.registered.clear())
    }

    pub(crate) fn host(mut self, change: impl FnOnce(&mut Host)) -> Self {
        change(data(&mut self.report.sections.host));
        self
    }

    // ---- kernel log

    /// Adds a line of the kernel with the level `err`.
    pub(crate) fn kernel_line(self, when: Timestamp, line: impl Into<String>) -> Self {
        self.kernel_line_of_level(3, when, line)
    }

    pub(crate) fn kernel_line_of_level(mut self, level: u8, when: Timestamp, line: impl Into<String>) -> Self {
        self.log.incidents.push((when, level, line.into()));
        self
    }

    /// Returns the time at which the driver probes the GPUs.
    pub(crate) fn driver_start(&self) -> Timestamp {
        self.boot() + SignedDuration::from_millis(14_500)
    }

    /// Adds a line of the kernel from the time at which the driver probes the GPUs.
    pub(crate) fn driver_start_line(self, line: impl Into<String>) -> Self {
        let when = self.driver_start();
        self.kernel_line(when, line)
    }

    /// Adds an Xid. `process` is [`UNKNOWN`] or `pid=…, name=…`.
    pub(crate) fn xid(self, when: Timestamp, gpu: u32, code: u32, process: &str, message: &str) -> Self {
        let host = Section::data_of(&self.report.sections.host).expect("the host section");
        let address = host.pci_gpus[gpu as usize].pci_address.as_ref().expect("a PCI address").sysfs();
        // An Xid has the address without the function.
        let (device, _) = address.split_once('.').unwrap_or((address, ""));
        let line = format!("NVRM: Xid (PCI:{device}): {code}, {process}, {message}");
        self.kernel_line(when, line)
    }

    /// Adds the Xid of a GSP that does not respond to a process `python3`.
    pub(crate) fn gsp_timeout(self, when: Timestamp, gpu: u32, pid: u32) -> Self {
        let message = format!(
            "Timeout after 6s of waiting for RPC response from GPU{gpu} GSP! Expected function 76 (GSP_RM_CONTROL) \
             (0x20801702 0x4)."
        );
        self.xid(when, gpu, 119, &format!("pid={pid}, name=python3"), &message)
    }

    /// Adds the Xid of a change of the recovery action that the driver recommends.
    pub(crate) fn recovery_changed(self, when: Timestamp, gpu: u32, change: &str) -> Self {
        self.xid(when, gpu, 154, UNKNOWN, &format!("GPU recovery action changed from {change}"))
    }

    /// Adds a line of the journal of an earlier boot.
    pub(crate) fn journal_line_of_earlier_boot(mut self, when: Timestamp, message: &str) -> Self {
        let line = json!({
            "__REALTIME_TIMESTAMP": when.as_microsecond().to_string(),
            "_BOOT_ID": "0e".repeat(16),
            "_TRANSPORT": "kernel",
            "SYSLOG_FACILITY": "0",
            "PRIORITY": "3",
            "SYSLOG_IDENTIFIER": "kernel",
            "MESSAGE": message,
        });
        self.log.earlier.push(line.to_string());
        self
    }

    /// Adds a line that a program wrote to /dev/kmsg, after all lines of the kernel.
    pub(crate) fn line_of_program(mut self, line: &str) -> Self {
        // Facility 1 (user), level 4.
        self.log.appended.push((12, line.to_owned()));
        self
    }

    /// Removes the lines of the kernel log before this time.
    pub(crate) fn kernel_log_only_since(mut self, oldest: Timestamp) -> Self {
        self.log.only_since = Some(oldest);
        self
    }

    // ---- the report

    pub(crate) fn report(mut self) -> Report {
        let boot = self.boot();
        for process in &mut data(&mut self.report.sections.processes).processes {
            process.started_at = process.start_ticks.map(|ticks| boot + seconds(ticks as i64 / 100));
        }
        self.report.kernel_log = self.log.records(&self.report, boot);
        let sections = &self.report.sections;
        let durations = [
            sections.inventory.as_ref().map(|section| section.duration_ms),
            sections.telemetry.as_ref().map(|section| section.duration_ms),
            sections.topology.as_ref().map(|section| section.duration_ms),
            sections.ecc.as_ref().map(|section| section.duration_ms),
            sections.processes.as_ref().map(|section| section.duration_ms),
            sections.mig.as_ref().map(|section| section.duration_ms),
            sections.kubelet.as_ref().map(|section| section.duration_ms),
            sections.host.as_ref().map(|section| section.duration_ms),
        ];
        self.report.duration_ms = 40 + durations.into_iter().flatten().sum::<u64>();
        self.report
    }
}

/// The daemons of a node with a driver.
const DAEMONS: [&str; 2] = ["nvidia-persiste", "nv-hostengine"];

fn data<T>(section: &mut Option<Section<T>>) -> &mut T {
    section.as_mut().and_then(|section| section.data.as_mut()).expect("a section with data")
}

fn find<T>(entries: &mut [T], id: u32, id_of: impl Fn(&T) -> u32) -> &mut T {
    entries.iter_mut().find(|entry| id_of(entry) == id).expect("an entry of this GPU or process")
}

fn gpu_uuid(node: &str, gpu: u32) -> String {
    format!("GPU-{}", uuid(&[node, &gpu.to_string()]))
}

/// Returns the UID of a pod of a node.
pub(crate) fn pod_uid(node: &str, pod: &str) -> String {
    uuid(&[node, "pod", pod])
}

fn put_in_pod(process: &mut GpuProcess, node: &str, pod: &str) {
    process.pod_uid = text(pod_uid(node, pod));
    process.container_id = text(hash(&[node, "container", pod]));
    process.qos.get_or_insert_with(|| "guaranteed".to_owned());
}

/// Returns a process of root that sleeps. `started` is in seconds after the boot.
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

/// The use of a GPU by a process that computes.
pub(crate) fn on_gpu(gpu: u32, bytes: u64) -> Vec<GpuUse> {
    vec![GpuUse { gpu, kind: "compute".to_owned(), memory_bytes: Some(bytes), ..GpuUse::default() }]
}

/// The process of a job. It has all used memory of its GPU but the overhead of the driver.
fn job(gpu: &GpuTelemetry, load: &Load) -> GpuProcess {
    let memory = load.used_bytes(gpu).saturating_sub(523 * MIB).max(MIB);
    process(FIRST_JOB + gpu.index, "python3", "python3 train.py", 4180, on_gpu(gpu.index, memory))
}

/// Returns a problem. What could not be read is set later.
pub(crate) fn problem(why: &str, code: &str, next_step: &str) -> Problem {
    Problem { why: why.to_owned(), code: code.to_owned(), next_step: next_step.to_owned(), ..Problem::default() }
}

/// Returns error counters with errors in one location.
pub(crate) fn errors(location: &str, corrected: u64, uncorrected: u64) -> ErrorCounts {
    let locations = vec![LocationErrors { location: location.to_owned(), corrected, uncorrected }];
    ErrorCounts { corrected: Some(corrected), uncorrected: Some(uncorrected), locations }
}
