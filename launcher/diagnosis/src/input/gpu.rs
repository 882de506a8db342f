//! `Gpu`, `gpus`: the GPUs of a report, each listed once.
//! `POSSIBLE_CELSIUS`, `PLAUSIBLE_CELSIUS`: ranges of temperatures.
//!
//! A GPU can be listed by NVML (index, UUID, address), by the PCI bus only (address), or by a failed call only (index).
//! `gpus` joins these entries.

use crate::finding::Scope;
use std::ops::RangeInclusive;

use crate::evidence;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::nvml_codes as codes;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section};
use syringe_core::text::clean;

/// Temperatures that a GPU can physically have.
pub(crate) const POSSIBLE_CELSIUS: RangeInclusive<i32> = -20..=150;

/// Range of the temperatures and limits that working sensors report. Failed sensors report values outside this range.
pub(crate) const PLAUSIBLE_CELSIUS: RangeInclusive<i32> = 1..=150;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Gpu {
    /// NVML index.
    pub(crate) index: Option<u32>,
    pub(crate) uuid: Option<String>,
    pub(crate) pci: Option<PciAddress>,
    pub(crate) name: Option<String>,
    /// True if NVML responds for this GPU.
    pub(crate) answers: bool,
    /// True if only the kernel log names the GPU: a GPU that fell off the bus, a GPU of a report without other
    /// sections, or a virtual function (SR-IOV). The rules apply to such a GPU, but it is not counted.
    pub(crate) from_log: bool,
}

impl Gpu {
    /// Formats the GPU: `GPU 3 (0000:5d:00.0)`.
    pub(crate) fn label(&self) -> String {
        let Self { index, pci, .. } = self;
        evidence::place(&Scope { gpu: *index, pci: pci.clone(), ..Scope::default() }, "GPU")
    }
}

/// Returns all GPUs of a report: GPUs in NVML by index, then GPUs that only the PCI bus lists, then GPUs that only the
/// kernel log names.
pub(crate) fn gpus(report: &Report) -> Vec<Gpu> {
    let sections = &report.sections;
    let mut gpus: Vec<Gpu> = Vec::new();
    let mut add = |index: u32, uuid: &Option<String>, pci: &Option<PciAddress>, name: &Option<String>| {
        match gpus.iter_mut().find(|gpu| gpu.index == Some(index)) {
            Some(gpu) => {
                gpu.uuid = gpu.uuid.take().or_else(|| uuid.clone());
                gpu.pci = gpu.pci.take().or_else(|| pci.clone());
                gpu.name = gpu.name.take().or_else(|| name.clone());
                gpu.answers |= uuid.is_some();
            }
            None => gpus.push(Gpu {
                index: Some(index),
                uuid: uuid.clone(),
                pci: pci.clone(),
                name: name.as_deref().map(|name| clean(name, 60)),
                // Without NVML, the topology comes from sysfs, in bus order and without UUIDs.
                answers: uuid.is_some(),
                from_log: false,
            }),
        }
    };
    Section::data_of(&sections.inventory)
        .into_iter()
        .flat_map(|section| &section.gpus)
        .for_each(|gpu| add(gpu.index, &gpu.uuid, &gpu.pci_address, &gpu.name));
    let telemetry = Section::data_of(&sections.telemetry).into_iter().flat_map(|section| &section.gpus);
    let ecc = Section::data_of(&sections.ecc).into_iter().flat_map(|section| &section.gpus);
    let topology = Section::data_of(&sections.topology).into_iter().flat_map(|section| &section.gpus);
    telemetry.for_each(|gpu| add(gpu.index, &gpu.uuid, &gpu.pci_address, &None));
    ecc.for_each(|gpu| add(gpu.index, &gpu.uuid, &gpu.pci_address, &None));
    topology.for_each(|gpu| add(gpu.index, &gpu.uuid, &gpu.pci_address, &None));
    let mig = Section::data_of(&sections.mig).into_iter().flat_map(|section| &section.gpus);
    mig.for_each(|gpu| add(gpu.index, &gpu.uuid, &None, &None));
    add_from_problems(report, &mut gpus);
    add_from_pci(report, &mut gpus);
    add_from_log(report, &mut gpus);
    gpus.sort_by_key(|gpu| (gpu.from_log, gpu.index.is_none(), gpu.index, gpu.pci.clone()));
    name_lost(report, &mut gpus);
    gpus
}

/// Codes after which a GPU does not respond.
const GONE: [&str; 3] = [codes::GPU_LOST, codes::GPU_NOT_FOUND, codes::TIMEOUT];

/// Adds GPUs that NVML lists but could not read. They are known by the index of the failed call.
fn add_from_problems(report: &Report, gpus: &mut Vec<Gpu>) {
    for (_, problem) in report.sections.problems() {
        let Some(index) = problem.gpu else { continue };
        let gone = GONE.contains(&problem.code.as_str());
        match gpus.iter_mut().find(|gpu| gpu.index == Some(index)) {
            Some(gpu) => gpu.answers &= !gone,
            None => gpus.push(Gpu { index: Some(index), answers: false, ..Gpu::default() }),
        }
    }
}

/// Adds GPUs that only the PCI bus lists. A GPU with an index and without an address gets the address at the same
/// position, because NVML numbers GPUs in bus order.
fn add_from_pci(report: &Report, gpus: &mut Vec<Gpu>) {
    let Some(host) = Section::data_of(&report.sections.host) else { return };
    let mut addresses: Vec<&PciAddress> = host.pci_gpus.iter().filter_map(|gpu| gpu.pci_address.as_ref()).collect();
    addresses.sort();
    addresses.dedup();
    let unknown: Vec<&PciAddress> =
        addresses.iter().copied().filter(|address| !gpus.iter().any(|gpu| gpu.pci.as_ref() == Some(address))).collect();
    let nameless = gpus.iter().filter(|gpu| gpu.pci.is_none()).count();
    for gpu in gpus.iter_mut().filter(|gpu| gpu.pci.is_none()) {
        let at_place = gpu.index.and_then(|index| addresses.get(usize::try_from(index).ok()?)).copied();
        let only = (nameless == 1 && unknown.len() == 1).then(|| unknown.first().copied()).flatten();
        let address = only.or(at_place.filter(|address| unknown.contains(address)));
        gpu.pci = address.cloned();
    }
    for address in unknown {
        if !gpus.iter().any(|gpu| gpu.pci.as_ref() == Some(address)) {
            gpus.push(Gpu { pci: Some(address.clone()), ..Gpu::default() });
        }
    }
}

/// Kinds of kernel lines in which the driver names a GPU. AER and link lines name ports, and SXids name switches.
const NAMES_A_GPU: [KernelEventKind; 8] = [
    KernelEventKind::Xid,
    KernelEventKind::OffBus,
    KernelEventKind::RmInitFailed,
    KernelEventKind::GspFailed,
    KernelEventKind::GspRateLimit,
    KernelEventKind::NvlinkInitFailed,
    KernelEventKind::NotSupported,
    KernelEventKind::BarUnassigned,
];

/// Adds GPUs that only the kernel log of the running boot names. Earlier boots may name a GPU that has since
/// been replaced.
fn add_from_log(report: &Report, gpus: &mut Vec<Gpu>) {
    let events = Section::data_of(&report.sections.xid).map(|log| log.events.as_slice()).unwrap_or_default();
    let of_running_boot =
        |event: &&KernelEvent| event.boot_id.is_none() || event.boot_id.as_deref() == report.running_boot();
    for event in events.iter().filter(of_running_boot).filter(|event| NAMES_A_GPU.contains(&event.kind)) {
        let Some(address) = &event.pci_address else { continue };
        let known = |gpu: &Gpu| {
            gpu.pci.as_ref() == Some(address)
                || (gpu.uuid.is_some() && gpu.uuid == event.gpu_uuid)
                || (gpu.pci.is_none() && gpu.index.is_some() && gpu.index == event.gpu_index)
        };
        if let Some(gpu) = gpus.iter_mut().find(|gpu| known(gpu)) {
            gpu.pci.get_or_insert_with(|| address.clone());
            continue;
        }
        gpus.push(Gpu {
            index: event.gpu_index,
            uuid: event.gpu_uuid.clone(),
            pci: Some(address.clone()),
            from_log: true,
            ..Gpu::default()
        });
    }
    // If exactly one GPU in NVML has no address, and exactly one GPU is known only from the log, both are the same GPU.
    let nameless: Vec<usize> = (0..gpus.len()).filter(|&at| gpus[at].pci.is_none() && !gpus[at].from_log).collect();
    let unplaced: Vec<usize> = (0..gpus.len()).filter(|&at| gpus[at].from_log).collect();
    if let (&[lost], &[named]) = (nameless.as_slice(), unplaced.as_slice()) {
        let named = gpus.remove(named);
        // GPUs from the log were appended last, so removing one of them does not change the index `lost`.
        gpus[lost].pci = named.pci;
        gpus[lost].uuid = gpus[lost].uuid.take().or(named.uuid);
    }
}

/// Sets the UUID of a lost GPU from the kernel log, which records UUID and address of each GPU.
fn name_lost(report: &Report, gpus: &mut [Gpu]) {
    let events = Section::data_of(&report.sections.xid).map(|log| log.events.as_slice()).unwrap_or_default();
    for gpu in gpus.iter_mut().filter(|gpu| gpu.uuid.is_none() && gpu.pci.is_some()) {
        // Only lines of the running boot count: before it, another GPU may have been at this address.
        let names_uuid = |event: &&KernelEvent| event.gpu_uuid.is_some() && event.boot_id.is_none();
        let event = events.iter().rev().filter(names_uuid).find(|event| event.pci_address == gpu.pci);
        gpu.uuid = event.and_then(|event| event.gpu_uuid.clone());
    }
}
