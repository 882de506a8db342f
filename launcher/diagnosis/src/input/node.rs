//! `Node`: a report and the Kubernetes data of a node, with functions that find sections, facts of a GPU, problems and
//! pods for the rules. `SETTLE_TIME`, `STALE_AFTER`: limits for the age of an event.

use std::cell::OnceCell;

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::absent;
use crate::input::driver::Driver;
use crate::input::fields::{self, Fields};
pub(crate) use crate::input::gpu::Gpu;
use crate::input::gpu::gpus;
use crate::input::instance_types;
use crate::input::stack::Stack;
use crate::input::timeline::Timeline;
use syringe_core::facts::Availability;
use syringe_core::facts::Mode;
use syringe_core::facts::ecc::{Ecc, GpuEcc, RecoveryAction};
use syringe_core::facts::host::{Host, PciGpu};
use syringe_core::facts::inventory::{GpuInventory, Inventory};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind, KernelLog};
use syringe_core::facts::kubelet::{Allocation, Kubelet};
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::facts::mig::{GpuMig, Mig};
use syringe_core::facts::processes::Processes;
use syringe_core::facts::telemetry::{GpuTelemetry, Telemetry};
use syringe_core::facts::topology::{GpuTopology, Topology};
use syringe_core::gpu_names::{GpuNames, without_share};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Extent, Problem, Report, Section, Source, Status};
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;

/// Name for a node in messages if its name is not known.
pub(crate) const UNKNOWN_NODE_NAME: &str = "the node";

/// Sections that are read from NVML.
pub(crate) const OF_NVML: [SectionName; 5] =
    [SectionName::Inventory, SectionName::Telemetry, SectionName::Topology, SectionName::Ecc, SectionName::Mig];

/// Minimum age of an event at which the values that were read are treated as newer than the event.
pub(crate) const SETTLE_TIME: SignedDuration = SignedDuration::from_mins(10);

/// After this time without a reset, a warning is ignored, because the fault that it announced would have occurred.
pub(crate) const STALE_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// A node starts its services and devices within this time after a boot.
const BOOTING_SECONDS: u64 = 600;

/// A report and the data from the Kubernetes API, prepared for the rules.
pub(crate) struct Node<'a> {
    pub(crate) report: &'a Report,
    pub(crate) kubernetes: &'a KubernetesFacts,
    /// The node's name, or `the node`.
    pub(crate) name: String,
    /// Time at which the facts were collected. All ages are relative to this time.
    pub(crate) now: Option<Timestamp>,
    /// GPUs in NVML by index, then GPUs that only the PCI bus lists, then GPUs that only the kernel log names.
    pub(crate) gpus: Vec<Gpu>,
    /// Kernel events with their causes.
    pub(crate) timeline: Timeline<'a>,
    pub(crate) driver: Driver<'a>,
    pub(crate) stack: Stack<'a>,
    /// The fields of each GPU in `gpus`. Several comparisons use them.
    fields: OnceCell<Vec<Fields>>,
}

impl<'a> Node<'a> {
    pub(crate) fn new(report: &'a Report, kubernetes: &'a KubernetesFacts) -> Self {
        let name = kubernetes.node.as_deref().or(report.hostname.as_deref()).unwrap_or(UNKNOWN_NODE_NAME);
        let gpus = gpus(report);
        let mut node = Self {
            report,
            kubernetes,
            name: clean(name, 63),
            now: report.taken_at,
            gpus,
            timeline: Timeline::default(),
            driver: Driver::Usable,
            stack: Stack::default(),
            fields: OnceCell::new(),
        };
        let absent = absent::addresses(&node);
        node.gpus.retain(|gpu| !gpu.from_log || gpu.pci.as_ref().is_none_or(|pci| !absent.contains(pci)));
        let working: Vec<Gpu> = node.gpus.iter().filter(|gpu| node.is_readable(gpu)).cloned().collect();
        node.timeline = Timeline::new(report, &working, &absent);
        node.driver = Driver::new(&node);
        node.stack = Stack::new(&node);
        node
    }

    /// Returns the fields of a GPU in all sections.
    pub(crate) fn fields_of(&self, gpu: &Gpu) -> &Fields {
        static NONE: Fields = Fields::new();
        let all = self.fields.get_or_init(|| self.gpus.iter().map(|gpu| fields::of_gpu(self, gpu)).collect());
        self.gpus.iter().position(|one| one == gpu).and_then(|at| all.get(at)).unwrap_or(&NONE)
    }

    pub(crate) fn inventory(&self) -> Option<&'a Inventory> {
        Section::data_of(&self.report.sections.inventory)
    }

    pub(crate) fn telemetry(&self) -> Option<&'a Telemetry> {
        Section::data_of(&self.report.sections.telemetry)
    }

    pub(crate) fn topology(&self) -> Option<&'a Topology> {
        Section::data_of(&self.report.sections.topology)
    }

    pub(crate) fn ecc(&self) -> Option<&'a Ecc> {
        Section::data_of(&self.report.sections.ecc)
    }

    pub(crate) fn mig(&self) -> Option<&'a Mig> {
        Section::data_of(&self.report.sections.mig)
    }

    pub(crate) fn processes(&self) -> Option<&'a Processes> {
        Section::data_of(&self.report.sections.processes)
    }

    pub(crate) fn kubelet(&self) -> Option<&'a Kubelet> {
        Section::data_of(&self.report.sections.kubelet)
    }

    /// Returns the allocations of the kubelet that contain the GPU or a part of it.
    pub(crate) fn allocations_of<'g>(&'g self, gpu: &'g Gpu) -> impl Iterator<Item = &'a Allocation> + use<'a, 'g> {
        let names = GpuNames::from_report(self.report, gpu.index, gpu.uuid.as_deref());
        let all = self.kubelet().into_iter().flat_map(|kubelet| &kubelet.allocations);
        all.filter(move |allocation| names.match_allocation(allocation))
    }

    pub(crate) fn host(&self) -> Option<&'a Host> {
        Section::data_of(&self.report.sections.host)
    }

    /// Returns whether only Kubernetes data was read, and nothing in it indicates a GPU: no resource, label, instance
    /// type or pod of NVIDIA's software.
    pub(crate) fn shows_no_gpu(&self) -> bool {
        let cluster = self.kubernetes;
        let is_labelled = cluster.gpu_label_count.is_some_and(|count| count > 0)
            || cluster.labels.pci_present
            || cluster.labels.deploy.values().any(|value| value != "false");
        let of_type = cluster.instance_type.as_deref().and_then(instance_types::of);
        cluster.node.is_some()
            && self.report.source == Source::Api
            && cluster.advertises_no_gpus()
            && !is_labelled
            && of_type.is_none()
            && cluster.nvidia_pods.as_ref().is_some_and(Vec::is_empty)
            && cluster.gpu_conditions.is_empty()
    }

    /// Returns whether the node advertises GPUs under names other than those of NVIDIA: a known name, or a resource
    /// whose devices in the kubelet are GPUs that NVML lists.
    pub(crate) fn offers_other_resources(&self) -> bool {
        let is_listed = |device: &String| {
            let name = without_share(device);
            self.answering().any(|gpu| gpu.uuid.as_deref() == Some(name))
        };
        let registered = self.kubelet().into_iter().flat_map(|kubelet| &kubelet.registered);
        let mut others = registered.filter(|one| !one.resource.starts_with("nvidia.com/"));
        self.kubernetes.other_gpus_withheld.is_empty()
            && (self.kubernetes.other_gpu_resources || others.any(|one| one.devices.iter().any(is_listed)))
    }

    /// Returns whether Kubernetes has read the node, and the node advertises no GPU.
    pub(crate) fn advertises_no_gpus(&self) -> bool {
        self.kubernetes.advertises_no_gpus() && !self.offers_other_resources()
    }

    pub(crate) fn kernel_log(&self) -> Option<&'a KernelLog> {
        Section::data_of(&self.report.sections.xid)
    }

    /// Returns whether a section was read, at least in part.
    pub(crate) fn has(&self, section: SectionName) -> bool {
        self.checked().contains(&section)
    }

    /// Returns the sections that were read, at least in part.
    pub(crate) fn checked(&self) -> Vec<SectionName> {
        let sections = &self.report.sections;
        let read = sections.statuses().into_iter().filter(|(_, status)| *status != Status::Error);
        read.map(|(name, _)| name).filter(|name| sections.get(*name).has_data()).collect()
    }

    /// Returns whether the probe read the files of the node, not the files of a container.
    pub(crate) fn shows_files_of_node(&self) -> bool {
        self.report.scope.is_none_or(|scope| scope.files == Extent::Node)
    }

    /// Returns whether the probe could access the GPUs of the node, not only those of a container.
    pub(crate) fn shows_gpus_of_node(&self) -> bool {
        self.report.scope.is_none_or(|scope| scope.gpus == Extent::Node)
    }

    /// Returns whether the probe had access to the files and GPUs of the node.
    pub(crate) fn shows_whole_node(&self) -> bool {
        self.shows_files_of_node() && self.shows_gpus_of_node()
    }

    /// Returns the sections that were read in part.
    pub(crate) fn partly_checked(&self) -> Vec<SectionName> {
        let checked = self.checked();
        let statuses = self.report.sections.statuses().into_iter();
        statuses
            .filter(|(name, status)| *status == Status::Partial && checked.contains(name))
            .map(|(name, _)| name)
            .collect()
    }

    /// Returns whether a field of the GPU with this NVML index is available, and if not, why.
    pub(crate) fn availability(&self, section: SectionName, gpu: u32, field: &str) -> Availability {
        let state = match section {
            SectionName::Inventory => self.inventory().map(|section| section.availability(gpu, field)),
            SectionName::Telemetry => self.telemetry().map(|section| section.availability(gpu, field)),
            SectionName::Topology => self.topology().map(|section| section.availability(gpu, field)),
            SectionName::Ecc => self.ecc().map(|section| section.availability(gpu, field)),
            _ => None,
        };
        state.unwrap_or(Availability::Unread)
    }

    /// Returns all problems of all sections.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &'a Problem> {
        self.report.sections.problems().into_iter().map(|(_, problem)| problem)
    }

    /// Returns the first problem with one of these codes that is about NVML as a whole.
    pub(crate) fn nvml_problem(&self, codes: &[&str]) -> Option<&'a Problem> {
        let problems = self.report.sections.problems().into_iter();
        problems
            .filter(|(section, problem)| OF_NVML.contains(section) && problem.gpu.is_none())
            .map(|(_, problem)| problem)
            .find(|problem| codes.contains(&problem.code.as_str()))
    }

    /// Returns the first problem with one of these codes that is about this GPU.
    pub(crate) fn gpu_problem(&self, gpu: &Gpu, codes: &[&str]) -> Option<&'a Problem> {
        self.problems()
            .find(|problem| problem.gpu.is_some() && problem.gpu == gpu.index && codes.contains(&problem.code.as_str()))
    }

    /// Returns the GPU with this NVML index.
    pub(crate) fn gpu(&self, index: u32) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.index == Some(index))
    }

    /// Returns whether the devices on the PCI bus could not be listed. An empty list then does not show that there is
    /// no GPU.
    pub(crate) fn is_pci_unread(&self) -> bool {
        let problems = self.report.sections.get(SectionName::Host).problems();
        problems.iter().any(|problem| problem.what == "/sys/bus/pci/devices")
    }

    /// Returns the entry of a GPU in `inventory`.
    pub(crate) fn inventory_of(&self, gpu: &Gpu) -> Option<&'a GpuInventory> {
        self.inventory()?.gpus.iter().find(|entry| Some(entry.index) == gpu.index)
    }

    /// Returns the entry of a GPU in `telemetry`.
    pub(crate) fn telemetry_of(&self, gpu: &Gpu) -> Option<&'a GpuTelemetry> {
        self.telemetry()?.gpus.iter().find(|entry| Some(entry.index) == gpu.index)
    }

    /// Returns the entry of a GPU in `ecc`.
    pub(crate) fn ecc_of(&self, gpu: &Gpu) -> Option<&'a GpuEcc> {
        self.ecc()?.gpus.iter().find(|entry| Some(entry.index) == gpu.index)
    }

    /// Returns the entry of a GPU in `topology`.
    pub(crate) fn topology_of(&self, gpu: &Gpu) -> Option<&'a GpuTopology> {
        self.topology()?.gpus.iter().find(|entry| Some(entry.index) == gpu.index)
    }

    /// Returns the MIG mode of a GPU, from `mig` or `inventory`.
    pub(crate) fn mig_mode(&self, gpu: &Gpu) -> Option<Mode> {
        let of_section = self.mig_of(gpu).and_then(|entry| entry.mode);
        of_section.or_else(|| self.inventory_of(gpu)?.mig_mode)
    }

    /// Returns the entry of a GPU in `mig`.
    pub(crate) fn mig_of(&self, gpu: &Gpu) -> Option<&'a GpuMig> {
        self.mig()?.gpus.iter().find(|entry| Some(entry.index) == gpu.index)
    }

    /// Returns the entry of a GPU on the PCI bus.
    pub(crate) fn pci_of(&self, gpu: &Gpu) -> Option<&'a PciGpu> {
        self.host()?.pci_gpus.iter().find(|entry| entry.pci_address.is_some() && entry.pci_address == gpu.pci)
    }

    /// Returns the GPUs in NVML or on the PCI bus. Only these are counted.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(|gpu| !gpu.from_log)
    }

    /// Returns whether an administrator excluded the GPU at this address from the driver.
    pub(crate) fn is_excluded(&self, address: Option<&PciAddress>) -> bool {
        self.inventory().zip(address).is_some_and(|(inventory, address)| inventory.excluded.contains(address))
    }

    /// Returns whether the GPUs are for virtual machines: every GPU is bound to vfio-pci, or some GPUs are bound to
    /// vfio-pci, the other GPUs to no driver, and the NVIDIA driver is not loaded. A label can give the GPUs to containers.
    pub(crate) fn is_passed_through(&self) -> bool {
        let Some(host) = self.host() else { return false };
        if self.kubernetes.labels.workload_config.as_deref() == Some("container") {
            return false;
        }
        let is_bound = |gpu: &PciGpu| gpu.driver.as_deref() == Some("vfio-pci");
        let is_for_machines = |gpu: &PciGpu| is_bound(gpu) || gpu.driver.is_none() && host.driver.loaded.is_none();
        host.pci_gpus.iter().any(is_bound) && host.pci_gpus.iter().all(is_for_machines)
    }

    /// Returns the time of the last driver load, if the log contains it. The volatile counters start at this time.
    pub(crate) fn driver_loaded(&self) -> Option<Timestamp> {
        self.timeline.of_kind(KernelEventKind::DriverLoaded).filter_map(|event| event.ordered_at()).max()
    }

    /// Returns how many seconds the volatile counters cover: the time since the driver load, or since boot at most.
    pub(crate) fn counted_seconds(&self) -> Option<u64> {
        let uptime = self.host().and_then(|host| host.uptime_seconds);
        let loaded = self.age(self.driver_loaded()).and_then(|age| u64::try_from(age.as_secs()).ok());
        match (loaded, uptime) {
            (Some(loaded), Some(uptime)) => Some(loaded.min(uptime)),
            (loaded, uptime) => loaded.or(uptime),
        }
    }

    /// Returns the GPUs that respond to NVML.
    pub(crate) fn answering(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(|gpu| gpu.answers)
    }

    /// Returns the GPU at this PCIe address, or the GPU whose path contains the port at this address.
    pub(crate) fn gpu_below(&self, address: &PciAddress) -> Option<&Gpu> {
        let on_path = |gpu: &&Gpu| {
            let path = self.topology_of(gpu).map(|topology| topology.pcie_path.as_slice()).unwrap_or_default();
            path.iter().any(|hop| hop.pci_address.as_ref() == Some(address))
        };
        self.gpus.iter().find(|gpu| gpu.pci.as_ref() == Some(address)).or_else(|| {
            // A port above several GPUs belongs to none of them.
            let mut below = self.gpus.iter().filter(on_path);
            below.next().filter(|_| below.next().is_none())
        })
    }

    /// Returns whether NVML can read the GPU now.
    pub(crate) fn is_readable(&self, gpu: &Gpu) -> bool {
        gpu.answers && self.telemetry_of(gpu).is_some_and(|now| now.temperature.gpu_celsius.is_some())
    }

    /// Returns whether the sections that show the recovery of a GPU were requested.
    pub(crate) fn shows_recovery(&self) -> bool {
        let needed = [SectionName::Telemetry, SectionName::Ecc];
        needed.iter().all(|section| self.report.sections.get(*section).status().is_some())
    }

    /// Returns the recovery action from NVML, or else from the last Xid 154.
    pub(crate) fn recovery_action(&self, gpu: &Gpu) -> Option<(RecoveryAction, Option<&'a KernelEvent>)> {
        if let Some(action) = self.ecc_of(gpu).and_then(|ecc| ecc.recovery_action) {
            return Some((action, None));
        }
        let last = self.timeline.xids(gpu, &[154]).last()?;
        // An unknown recovery action is still a recovery action.
        let value = last.details.get("recovery_to").and_then(|value| value.parse::<u32>().ok());
        Some((value.map_or(RecoveryAction::Unknown, RecoveryAction::from), Some(last)))
    }

    /// Returns whether the driver recommends a recovery action for a GPU.
    pub(crate) fn has_recovery_action(&self, gpu: &Gpu) -> bool {
        self.recovery_action(gpu).is_some_and(|(action, _)| action != RecoveryAction::None)
    }

    /// Returns the boot time of the node.
    pub(crate) fn booted(&self) -> Option<Timestamp> {
        let uptime = SignedDuration::from_secs(i64::try_from(self.host()?.uptime_seconds?).ok()?);
        // An impossible uptime can lead to a time outside the supported range.
        self.now.or(self.kubernetes.read_at)?.checked_sub(uptime).ok()
    }

    /// Returns whether the node booted recently, so that its services, devices and ports may still be starting.
    pub(crate) fn is_booting(&self) -> bool {
        self.host().and_then(|host| host.uptime_seconds).is_some_and(|uptime| uptime < BOOTING_SECONDS)
    }

    /// Returns `namespace/name` of the pod with this UID, if the API or the kubelet names it.
    pub(crate) fn pod_name(&self, uid: &str) -> Option<String> {
        let in_api = self.kubernetes.gpu_pods.iter().flatten().find(|pod| pod.uid == uid).map(GpuPod::full_name);
        let in_kubelet = || {
            let mut allocations = self.kubelet()?.allocations.iter().filter(|allocation| allocation.pod_uid == uid);
            allocations.find(|allocation| allocation.pod.is_some()).map(Allocation::holder)
        };
        in_api.or_else(in_kubelet).map(|name| evidence::name(&name))
    }

    /// Returns `namespace/name` of a pod, or its UID if the name is not known.
    pub(crate) fn name_of_pod(&self, uid: &str) -> String {
        self.pod_name(uid).unwrap_or_else(|| evidence::data(uid))
    }

    /// Returns the time between `then` and the report.
    pub(crate) fn age(&self, then: Option<Timestamp>) -> Option<SignedDuration> {
        Some(self.now?.duration_since(then?))
    }
}
