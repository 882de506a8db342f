//! `Node`: the report of a scenario's node, created from a healthy base node. Each method changes one kind of fact.
//!
//! A node starts as a healthy node: the first GPUs of a file of `base`, with a different name and different work. Each
//! method makes one change and returns the node.

use jiff::{SignedDuration, Timestamp};
use syringe_core::facts::Mode;
use syringe_core::facts::cuda::CudaStart;
use syringe_core::facts::ecc::{ErrorCounts, GpuEcc, LocationErrors, RecoveryAction, RemappedRows};
use syringe_core::facts::host::Host;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::mig::GpuMig;
use syringe_core::facts::processes::GpuProcess;
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::facts::topology::GpuTopology;
use syringe_core::report::{Report, Section};

use crate::identity::{TAKEN_AT, hash, seconds, serial, text, uuid};
use crate::kernel_log::KernelLog;
use crate::load::Load;
use crate::nvml_section::{NvmlSection, Part};

pub(crate) const NVIDIA_GPU: &str = "nvidia.com/gpu";

/// A node whose report can be changed.
pub(crate) struct Node {
    pub(crate) report: Report,
    pub(crate) loads: Vec<Load>,
    pub(crate) log: KernelLog,
}

impl Node {
    /// Creates a node from the first GPUs of a base node, without work, with another name. `cpus`: CPUs of each NUMA node.
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

        // The daemons have all device files open. They are the only processes that are kept: all other processes are
        // jobs.
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

    // ---- the node as a whole

    /// Returns a base node without changes.
    pub(crate) fn of_base(base: &str) -> Self {
        let report = syringe_core::scenarios::named(base).expect("a base scenario").report();
        Self { report, loads: Vec::new(), log: KernelLog::default() }
    }

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

    /// Sets the uptime. Call this method before other changes, because the values since the boot depend on the uptime.
    pub(crate) fn uptime(mut self, seconds: u64) -> Self {
        self = self.host(|host| host.uptime_seconds = Some(seconds));
        self.write_loads();
        self
    }

    /// Replaces the driver on the whole node with a driver of 2024 or later.
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
        // R570 introduced the recovery action and the health of the fabric.
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

    pub(crate) fn keep_gpus(&mut self, keep: &dyn Fn(u32) -> bool) {
        for part in Part::ALL {
            self.part(part).retain_gpus(keep);
            self.part(part).retain_unsupported(keep);
        }
    }

    // ---- values of the GPUs

    /// Changes the load of all GPUs, and adapts the telemetry.
    pub(crate) fn loads(mut self, change: impl Fn(u32, &mut Load)) -> Self {
        for (load, index) in self.loads.iter_mut().zip(0..) {
            change(index, load);
        }
        self.write_loads();
        self
    }

    /// Changes the load of one GPU, and adapts its telemetry.
    pub(crate) fn load(self, gpu: u32, change: impl Fn(&mut Load)) -> Self {
        self.loads(|index, load| {
            if index == gpu {
                change(load);
            }
        })
    }

    pub(crate) fn write_loads(&mut self) {
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

    /// Adds telemetry fields that the driver does not support on any GPU.
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

    pub(crate) fn host(mut self, change: impl FnOnce(&mut Host)) -> Self {
        change(data(&mut self.report.sections.host));
        self
    }

    pub(crate) fn cuda(self, cuda: CudaStart) -> Self {
        self.host(|host| host.cuda = Some(cuda))
    }

    // ---- the report

    pub(crate) fn report(mut self) -> Report {
        let boot = self.boot();
        for process in &mut data(&mut self.report.sections.processes).processes {
            process.started_at = process.start_ticks.map(|ticks| boot + seconds(ticks as i64 / 100));
        }
        self.report.kernel_log = self.log.records(&self.report, boot);
        self.report
    }
}

/// The daemons of a node with a loaded driver.
const DAEMONS: [&str; 2] = ["nvidia-persiste", "nv-hostengine"];

pub(crate) fn data<T>(section: &mut Option<Section<T>>) -> &mut T {
    section.as_mut().and_then(|section| section.data.as_mut()).expect("a section with data")
}

pub(crate) fn find<T>(entries: &mut [T], id: u32, id_of: impl Fn(&T) -> u32) -> &mut T {
    entries.iter_mut().find(|entry| id_of(entry) == id).expect("an entry of this GPU or process")
}

pub(crate) fn gpu_uuid(node: &str, gpu: u32) -> String {
    format!("GPU-{}", uuid(&[node, &gpu.to_string()]))
}

/// Returns the UID of a pod on a node.
pub(crate) fn pod_uid(node: &str, pod: &str) -> String {
    uuid(&[node, "pod", pod])
}

pub(crate) fn put_in_pod(process: &mut GpuProcess, node: &str, pod: &str) {
    process.pod_uid = text(pod_uid(node, pod));
    process.container_id = text(hash(&[node, "container", pod]));
    process.qos.get_or_insert_with(|| "guaranteed".to_owned());
}

/// Returns error counters with errors in one location.
pub(crate) fn errors(location: &str, corrected: u64, uncorrected: u64) -> ErrorCounts {
    let locations = vec![LocationErrors { location: location.to_owned(), corrected, uncorrected }];
    ErrorCounts { corrected: Some(corrected), uncorrected: Some(uncorrected), locations }
}
