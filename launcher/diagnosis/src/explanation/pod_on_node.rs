//! `PodOnNode`: the GPUs and processes of a pod on its node, and the kernel events about them before, during and after
//! its run. `is_fault_of_switch`, `affects_one_process`: classify such an event.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::input::timeline::precedes as precedes_bus_loss;
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::kubelet::Allocation;
use syringe_core::facts::kubernetes::pod::PodFacts;
use syringe_core::facts::processes::GpuProcess;
use syringe_core::gpu_names::GpuNames;
use syringe_core::kernel_log::{catalogue, event_meaning};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section};

/// Tolerance for times, because a kernel line can be logged shortly after an exit, and the kubelet rounds times to
/// seconds.
const SLACK: SignedDuration = SignedDuration::from_secs(30);

/// Time before the end of a pod in which a fault of a GPU can be its reason.
const BEFORE_END: SignedDuration = SignedDuration::from_mins(1);

/// The data of the node about a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodOnNode {
    /// Devices that the kubelet allocated to the containers of the pod.
    pub(crate) allocations: Vec<Allocation>,
    /// UUIDs of the pod's GPUs or MIG devices, or their ids in the device plugin.
    pub(crate) devices: Vec<String>,
    /// GPU instances of the pod's MIG devices.
    pub(crate) mig_instances: BTreeSet<u32>,
    /// True if other pods may share the pod's GPUs through time-slicing or MPS.
    pub(crate) shares: bool,
    /// PCI addresses of the pod's GPUs.
    pub(crate) addresses: BTreeSet<PciAddress>,
    /// True if the pod's GPU is inferred: it failed when the pod ended, and no other pod has it.
    pub(crate) is_inferred: bool,
    /// NVML indices of the pod's GPUs.
    pub(crate) indices: BTreeSet<u32>,
    /// Ids of the pod's GPU processes that still exist.
    pub(crate) pids: Vec<u32>,
    /// The pod's GPU processes that still exist.
    pub(crate) processes: Vec<GpuProcess>,
    /// Kernel events during the pod's run about its GPUs or processes, or about the NVSwitches of its node.
    pub(crate) own_events: Vec<KernelEvent>,
    /// Kernel events during the pod's run about any GPU of the node, if the pod's own GPUs are not known.
    pub(crate) node_events: Vec<KernelEvent>,
    /// Kernel events about the pod's GPUs before the pod's run. These events cannot have affected the pod.
    pub(crate) earlier_events: Vec<KernelEvent>,
    /// Kernel events about the pod's GPUs after the pod's end. These events cannot be the cause of this end.
    pub(crate) later_events: Vec<KernelEvent>,
    /// PCIe errors and lost links (often of the port above the GPU) shortly before a GPU of the pod fell off the bus.
    pub(crate) bus_events: Vec<KernelEvent>,
    /// True if the device allocations of the kubelet were read.
    pub(crate) allocations_read: bool,
    /// Names of the containers that use the pod's devices; empty if not known.
    pub(crate) holders: BTreeSet<String>,
    /// True if the kernel log covers the pod's lifetime.
    pub(crate) log_covers: bool,
}

impl PodOnNode {
    /// Reads the data of a pod.
    pub(crate) fn of(pod: &PodFacts, report: &Report) -> Self {
        let mut on_node = Self::with_gpus(pod, report);
        on_node.find_events(pod, report);
        on_node
    }

    /// Reads the data of a pod, and infers its GPUs if they are not known. This is valid for one pod only: several pods
    /// of a job can have ended at the same time.
    pub(crate) fn of_one(pod: &PodFacts, report: &Report) -> Self {
        let mut on_node = Self::with_gpus(pod, report);
        on_node.infer_addresses(pod, report);
        on_node.find_events(pod, report);
        on_node
    }

    /// Reads the GPUs and processes of a pod, without the events.
    fn with_gpus(pod: &PodFacts, report: &Report) -> Self {
        let sections = &report.sections;
        let mut on_node = Self::default();
        if let Some(kubelet) = Section::data_of(&sections.kubelet) {
            let own =
                kubelet.allocations.iter().filter(|allocation| allocation.is_of(&pod.uid, &pod.namespace, &pod.name));
            on_node.allocations = own.cloned().collect();
            on_node.devices = on_node.allocations.iter().flat_map(|allocation| allocation.devices.clone()).collect();
            on_node.allocations_read = matches!(kubelet.source.as_str(), "checkpoint" | "pod_resources");
            let of_containers = on_node.allocations.iter().all(|allocation| !allocation.container.is_empty());
            let holders = on_node.allocations.iter().filter(|_| of_containers);
            on_node.holders = holders.map(|allocation| allocation.container.clone()).collect();
        }
        if let Some(processes) = Section::data_of(&sections.processes) {
            let own = processes.processes.iter().filter(|process| process.pod_uid.as_deref() == Some(&pod.uid));
            on_node.processes = own.cloned().collect();
            on_node.pids = on_node.processes.iter().map(|process| process.pid).collect();
        }
        on_node.find_instances(report);
        on_node.find_addresses(pod, report);
        on_node.devices.sort();
        on_node.devices.dedup();
        on_node
    }

    fn find_instances(&mut self, report: &Report) {
        let mig = Section::data_of(&report.sections.mig).into_iter().flat_map(|mig| &mig.gpus);
        let own = mig
            .flat_map(|gpu| &gpu.devices)
            .filter(|device| device.uuid.as_ref().is_some_and(|uuid| self.devices.contains(uuid)));
        self.mig_instances = own.filter_map(|device| device.gpu_instance).collect();
        self.shares = self
            .allocations
            .iter()
            .any(|held| held.replicas.is_some() || held.devices.iter().any(|device| device.contains("/vgpu")));
    }

    fn find_addresses(&mut self, pod: &PodFacts, report: &Report) {
        let sections = &report.sections;
        let had_all = self.had_all(pod, report);
        let used: BTreeSet<u32> =
            self.processes.iter().flat_map(|process| &process.uses).map(|gpu_use| gpu_use.gpu).collect();
        let inventory = Section::data_of(&sections.inventory);
        for gpu in inventory.iter().flat_map(|inventory| &inventory.gpus) {
            let names = GpuNames::from_report(report, Some(gpu.index), gpu.uuid.as_deref());
            let held = self.allocations.iter().any(|allocation| names.match_allocation(allocation));
            if let (true, Some(address)) = (had_all || held || used.contains(&gpu.index), &gpu.pci_address) {
                self.addresses.insert(address.clone());
                self.indices.insert(gpu.index);
            }
        }
        for gpu in inventory.iter().flat_map(|inventory| &inventory.lost) {
            let names = GpuNames::from_report(report, gpu.index, gpu.uuid.as_deref());
            let held = self.allocations.iter().any(|allocation| names.match_allocation(allocation));
            self.addresses.extend(gpu.pci_address.clone().filter(|_| had_all || held));
        }
        // The probe may not know the UUID of a lost GPU, but the kernel log may contain it.
        let log = Section::data_of(&sections.xid);
        // In an earlier boot, the GPU may have been at another address.
        for event in log.iter().flat_map(|log| &log.events).filter(|event| event.boot_id.is_none()) {
            let named = event.gpu_uuid.as_ref().is_some_and(|uuid| self.devices.contains(uuid));
            if let (true, Some(address)) = (named, &event.pci_address) {
                self.addresses.insert(address.clone());
            }
        }
    }

    /// Infers the GPUs of a pod that has ended from faults at the time of its end. A GPU that another pod has is not
    /// considered.
    fn infer_addresses(&mut self, pod: &PodFacts, report: &Report) {
        let (Some(inventory), Some(log), (_, Some(end))) =
            (Section::data_of(&report.sections.inventory), Section::data_of(&report.sections.xid), pod.run())
        else {
            return;
        };
        if !self.allocations_read || !self.addresses.is_empty() || pod.phase != "Failed" {
            return;
        }
        let is_near = |event: &&KernelEvent| {
            let from = end.saturating_sub(BEFORE_END).unwrap_or(end);
            let to = end.saturating_add(SLACK).unwrap_or(end);
            event.boot_id.is_none() && event.first.or(event.last).is_some_and(|at| from <= at && at <= to)
        };
        let is_grave = |event: &&KernelEvent| {
            event_meaning::of(event).is_some_and(|meaning| meaning.severity >= Severity::Critical)
        };
        let allocations =
            Section::data_of(&report.sections.kubelet).into_iter().flat_map(|kubelet| &kubelet.allocations);
        let allocations: Vec<&Allocation> = allocations.collect();
        let is_held = |index: Option<u32>, uuid: Option<&str>| {
            let names = GpuNames::from_report(report, index, uuid);
            allocations.iter().any(|allocation| names.match_allocation(allocation))
        };
        let is_free = |address: &&PciAddress| {
            let listed = inventory.gpus.iter().find(|gpu| gpu.pci_address.as_ref() == Some(*address));
            let lost = inventory.lost.iter().find(|gpu| gpu.pci_address.as_ref() == Some(*address));
            match (listed, lost) {
                (Some(gpu), _) => !is_held(Some(gpu.index), gpu.uuid.as_deref()),
                (None, Some(gpu)) => !is_held(gpu.index, gpu.uuid.as_deref()),
                (None, None) => false,
            }
        };
        let faults = log.events.iter().filter(is_near).filter(is_grave).filter_map(|event| event.pci_address.as_ref());
        let found: BTreeSet<PciAddress> = faults.filter(is_free).cloned().collect();
        if !found.is_empty() && found.len() == pod.gpus_requested as usize {
            let is_found = |address: &Option<PciAddress>| address.as_ref().is_some_and(|one| found.contains(one));
            self.indices =
                inventory.gpus.iter().filter(|gpu| is_found(&gpu.pci_address)).map(|gpu| gpu.index).collect();
            (self.addresses, self.is_inferred) = (found, true);
        }
    }

    /// Returns whether a pod that has ended had all GPUs of the node: it requested as many GPUs as the node has. The
    /// kubelet deletes the allocations of a pod that has ended.
    fn had_all(&self, pod: &PodFacts, report: &Report) -> bool {
        let Some(inventory) = Section::data_of(&report.sections.inventory) else { return false };
        let kubelet = Section::data_of(&report.sections.kubelet);
        let registered = kubelet.into_iter().flat_map(|kubelet| &kubelet.registered);
        let all = inventory.gpus.len() + inventory.lost.len();
        // A node that shares its GPUs registers more devices than it has GPUs.
        let is_shared = registered.filter(|one| one.resource == "nvidia.com/gpu").any(|one| one.devices.len() > all);
        let has_ended = matches!(pod.phase.as_str(), "Failed" | "Succeeded");
        has_ended && self.allocations.is_empty() && all > 0 && !is_shared && pod.gpus_requested as usize == all
    }

    /// Returns whether an event about a GPU of the pod belongs to another pod, because it is about another MIG instance
    /// or another pod's process.
    fn is_of_another(&self, event: &KernelEvent, report: &Report) -> bool {
        let elsewhere = event
            .mig_gpu_instance
            .is_some_and(|instance| !self.mig_instances.is_empty() && !self.mig_instances.contains(&instance));
        let processes = Section::data_of(&report.sections.processes).into_iter().flat_map(|all| &all.processes);
        let mut others = processes.filter(|process| !self.pids.contains(&process.pid));
        elsewhere || (affects_one_process(event) && others.any(|process| Some(process.pid) == event.pid))
    }

    /// Returns whether the event names a running process of the pod that started before the event.
    pub(crate) fn names_own_process(&self, event: &KernelEvent) -> bool {
        let started_by = |started: Option<Timestamp>| started.zip(event.last).is_none_or(|(start, last)| start <= last);
        self.processes.iter().any(|process| Some(process.pid) == event.pid && started_by(process.started_at))
    }

    fn find_events(&mut self, pod: &PodFacts, report: &Report) {
        let Some(log) = Section::data_of(&report.sections.xid) else { return };
        let (from, to) = pod.run();
        let now = report.taken_at;
        self.log_covers = from
            .zip(to.or(now))
            .zip(now)
            .is_some_and(|((from, to), now)| syringe_core::kernel_log::window::covers(&log.coverage, from, to, now));
        for event in &log.events {
            let of_gpu = event.pci_address.as_ref().is_some_and(|address| self.addresses.contains(address));
            // Every GPU of a board is connected to all of its switches.
            let own_gpu = of_gpu || (!self.addresses.is_empty() && is_fault_of_switch(event));
            let own = match event.killed_cgroup() {
                // The process has ended and its pid may be reused, so the cgroup is compared.
                Some(_) => event.is_kill_of_pod(&pod.uid),
                None => self.names_own_process(event) || (own_gpu && !self.is_of_another(event, report)),
            };
            match when(event, from, to) {
                Some(Position::During) if own => self.own_events.push(event.clone()),
                Some(Position::During) if self.addresses.is_empty() && speaks_of_gpus(event) => {
                    self.node_events.push(event.clone());
                }
                // In an earlier boot, another GPU may have been at this address.
                Some(Position::Before) if own_gpu && event.boot_id.is_none() => self.earlier_events.push(event.clone()),
                Some(Position::After) if own_gpu => self.later_events.push(event.clone()),
                _ => {}
            }
        }
        self.find_bus_events(log.events.as_slice(), report);
    }

    /// Finds PCIe errors shortly before one of the pod's GPUs fell off the bus. A lost GPU has no PCI path, so the port
    /// above it is recognized only by the time of its errors. Errors of a port that is above another GPU only belong to
    /// that GPU.
    fn find_bus_events(&mut self, events: &[KernelEvent], report: &Report) {
        let falls: Vec<&KernelEvent> = self.own_events.iter().filter(|event| event.is_off_bus()).collect();
        let topology = Section::data_of(&report.sections.topology).into_iter().flat_map(|topology| &topology.gpus);
        let elsewhere: BTreeSet<&PciAddress> = topology
            .filter(|gpu| gpu.pci_address.as_ref().is_some_and(|address| !self.addresses.contains(address)))
            .flat_map(|gpu| gpu.pcie_path.iter().filter_map(|hop| hop.pci_address.as_ref()).chain(&gpu.pci_address))
            .collect();
        // Without a time, it is not known whether the GPU was lost during the run.
        let precedes = |event: &KernelEvent| {
            falls.iter().filter(|fall| fall.first.is_some()).any(|fall| precedes_bus_loss(event, fall))
        };
        let near = events.iter().filter(|event| precedes(event) && !self.own_events.contains(event));
        let near = near.filter(|event| event.pci_address.as_ref().is_none_or(|address| !elsewhere.contains(address)));
        self.bus_events = near.cloned().collect();
    }
}

/// Returns whether an NVSwitch reported an error that has consequences.
pub(crate) fn is_fault_of_switch(event: &KernelEvent) -> bool {
    let grave = event_meaning::of(event).is_some_and(|meaning| meaning.severity > Severity::Info);
    event.kind == KernelEventKind::Sxid && grave
}

/// Returns whether an Xid affects only the process that it names: an application error, or a contained memory error.
pub(crate) fn affects_one_process(event: &KernelEvent) -> bool {
    let entry = event.code.filter(|_| event.kind == KernelEventKind::Xid).and_then(catalogue::xid);
    event.code == Some(94) || entry.is_some_and(|entry| entry.class == Some(Class::Application))
}

/// The position of an event in time relative to the run of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Before,
    During,
    After,
}

/// Returns the position of an event. `None` if the event has no times.
fn when(event: &KernelEvent, from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Position> {
    let (first, last) = event.first.zip(event.last)?;
    if from.is_some_and(|from| last < from) {
        return Some(Position::Before);
    }
    let before_end = to.is_none_or(|to| to.checked_add(SLACK).is_ok_and(|to| first <= to));
    Some(if before_end { Position::During } else { Position::After })
}

fn speaks_of_gpus(event: &KernelEvent) -> bool {
    matches!(
        event.kind,
        KernelEventKind::Xid | KernelEventKind::OffBus | KernelEventKind::Sxid | KernelEventKind::RmInitFailed
    )
}
