//! `Gpu`: the GPU of a return report, with its identity, versions, kernel lines and files. The driver may have lost the
//! GPU.

use diagnosis::Finding;
use kube_read::Failure;
use syringe_core::facts::inventory::{GpuInventory, Platform};
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::pci::PciAddress;
use syringe_core::raw_file::RawFile;
use syringe_core::report::{Report, Section};
use syringe_core::text::clean;

use super::{Fact, MAX_FILE_LINES, MAX_FILES, MAX_LINE};

/// The identity of a GPU, from all sections of the report.
#[derive(Clone, Debug, Default)]
pub(super) struct Gpu {
    /// NVML index, if NVML lists the GPU.
    pub(super) index: Option<u32>,
    pub(super) uuid: Option<String>,
    pub(super) pci: Option<PciAddress>,
    /// Serial number, with its source.
    serial: Option<(String, &'static str)>,
    slot: Option<String>,
    /// The reason why NVML cannot read the GPU.
    pub(super) lost: Option<String>,
}

impl Gpu {
    /// Returns the GPU with this UUID, PCI address or index.
    pub(super) fn find(node: &str, text: &str, report: &Report) -> Result<Self, Failure> {
        let all = Self::all(report);
        let text = text.trim();
        let (index, pci) = (text.parse::<u32>().ok(), PciAddress::parse(text).filter(|_| text.contains(':')));
        let is_named = |gpu: &&Self| {
            index.is_some() && gpu.index == index
                || pci.is_some() && gpu.pci == pci
                || gpu.uuid.as_ref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(text))
        };
        let named: Vec<&Self> = all.iter().filter(is_named).collect();
        let why = match named[..] {
            // If a GPU is lost, the driver may number the other GPUs without it.
            _ if index.is_some() && all.iter().any(|gpu| gpu.lost.is_some()) => {
                format!("an index is ambiguous, because {node} has a GPU that NVML cannot read")
            }
            [one] => return Ok(one.clone()),
            [] => format!("{node} has no GPU '{}'", clean(text, 80)),
            _ => format!("'{}' names several GPUs", clean(text, 80)),
        };
        let known = all.iter().map(|gpu| {
            let pci = gpu.pci.as_ref().map(|pci| pci.sysfs().to_owned());
            let name = gpu.uuid.clone().or(pci.clone()).unwrap_or_else(|| gpu.label());
            let place = pci.filter(|pci| *pci != name).map(|pci| format!(" ({pci})")).unwrap_or_default();
            format!("{name}{place}{}", if gpu.lost.is_some() { " (lost)" } else { "" })
        });
        let known: Vec<_> = known.take(16).collect();
        Err(Failure::usage("Choosing the GPU", why, format!("Name one of: {}.", known.join(", "))))
    }

    /// Returns the GPUs that NVML lists, the GPUs that NVML lost, and the GPUs that are only on the PCI bus.
    fn all(report: &Report) -> Vec<Self> {
        let sections = &report.sections;
        let mut all: Vec<Self> = Vec::new();
        let mut add = |new: Self| match all
            .iter_mut()
            .find(|gpu| gpu.is_same(new.uuid.as_deref(), new.pci.as_ref().map(PciAddress::as_str)))
        {
            Some(known) => {
                known.uuid = known.uuid.take().or(new.uuid);
                known.serial = known.serial.take().or(new.serial);
                known.slot = known.slot.take().or(new.slot);
                known.lost = known.lost.take().or(new.lost);
            }
            None => all.push(new),
        };
        let inventory = Section::data_of(&sections.inventory);
        for GpuInventory { index, uuid, pci_address, serial, .. } in inventory.iter().flat_map(|all| &all.gpus) {
            let serial = serial.clone().map(|serial| (serial, "NVML"));
            add(Self { index: Some(*index), uuid: uuid.clone(), pci: pci_address.clone(), serial, ..Self::default() });
        }
        for lost in inventory.iter().flat_map(|all| &all.lost) {
            let serial = lost.serial.clone().map(|serial| (serial, "kernel log"));
            let (uuid, pci, slot) = (lost.uuid.clone(), lost.pci_address.clone(), lost.slot.clone());
            add(Self { index: None, uuid, pci, serial, slot, lost: Some(lost.code.clone()) });
        }
        let on_bus = Section::data_of(&sections.host).into_iter().flat_map(|host| &host.pci_gpus);
        for gpu in on_bus {
            let lost = (gpu.in_nvml == Some(false)).then(|| "not_in_nvml".to_owned());
            add(Self { pci: gpu.pci_address.clone(), lost, ..Self::default() });
        }
        let events = Section::data_of(&sections.xid).into_iter().flat_map(|log| &log.events);
        for event in events.filter(|event| event.boot_id.is_none() && event.gpu_uuid.is_some()) {
            let serial = event.details.get("board_serial").map(|serial| (serial.clone(), "kernel log"));
            add(Self { uuid: event.gpu_uuid.clone(), pci: event.pci_address.clone(), serial, ..Self::default() });
        }
        all
    }

    /// Returns whether these identifiers belong to the GPU. UUIDs are compared if both are known, otherwise PCI
    /// addresses.
    pub(super) fn is_same(&self, uuid: Option<&str>, pci: Option<&str>) -> bool {
        match (self.uuid.as_deref(), uuid) {
            (Some(own), Some(other)) => own == other,
            _ => pci.is_some() && self.pci.as_ref().map(PciAddress::as_str) == pci,
        }
    }

    /// Returns whether a kernel event is about the GPU.
    pub(super) fn has(&self, event: &KernelEvent) -> bool {
        match &event.pci_address {
            Some(pci) => self.is_same(event.gpu_uuid.as_deref(), Some(pci.as_str())),
            None => event.gpu_index.is_some() && event.gpu_index == self.index,
        }
    }

    /// Returns whether a finding is about the GPU.
    pub(super) fn is_of(&self, finding: &Finding) -> bool {
        let scope = &finding.scope;
        let by_name = self.is_same(scope.uuid.as_deref(), scope.pci.as_ref().map(PciAddress::as_str));
        by_name
            || scope.gpu.is_some() && scope.gpu == self.index
            || self.pci.as_ref().is_some_and(|pci| finding.addresses.contains(pci))
    }

    /// Returns the name of the GPU for a sentence.
    pub(super) fn label(&self) -> String {
        match (self.index, &self.pci) {
            (Some(index), Some(pci)) => format!("GPU {index} ({})", pci.sysfs()),
            (Some(index), None) => format!("GPU {index}"),
            (None, Some(pci)) => format!("the GPU at {}", pci.sysfs()),
            (None, None) => "the GPU".to_owned(),
        }
    }

    /// Returns the raw records of the kernel log that contain the address or the UUID of the GPU.
    pub(super) fn lines(&self, report: &Report) -> Vec<String> {
        // The address in an Xid line has no function number.
        let device =
            self.pci.as_ref().map(|pci| pci.sysfs().rsplit_once('.').map_or(pci.sysfs(), |(device, _)| device));
        let names = [device, self.uuid.as_deref()];
        let is_of = |line: &&String| {
            names.iter().flatten().any(|name| line.to_ascii_lowercase().contains(&name.to_ascii_lowercase()))
        };
        report.kernel_log.iter().filter(is_of).map(|line| clean(line, MAX_LINE)).collect()
    }

    /// Returns the first lines of each file in a folder that is named after the address of the GPU.
    pub(super) fn files(&self, report: &Report) -> Vec<RawFile> {
        let Some(pci) = &self.pci else { return Vec::new() };
        let is_of = |file: &&RawFile| file.path.split('/').any(|part| part.eq_ignore_ascii_case(pci.sysfs()));
        let start = |file: &RawFile| RawFile {
            path: clean(&file.path, MAX_LINE),
            lines: file.lines.iter().take(MAX_FILE_LINES).map(|line| clean(line, MAX_LINE)).collect(),
        };
        report.raw_files.iter().filter(is_of).take(MAX_FILES).map(start).collect()
    }

    fn inventory<'a>(&self, report: &'a Report) -> Option<&'a GpuInventory> {
        let gpus = Section::data_of(&report.sections.inventory).into_iter().flat_map(|inventory| &inventory.gpus);
        gpus.into_iter().find(|gpu| self.is_same(gpu.uuid.as_deref(), gpu.pci_address.as_ref().map(PciAddress::as_str)))
    }

    pub(super) fn identity(&self, report: &Report) -> Vec<Fact> {
        let default = GpuInventory::default();
        let GpuInventory {
            name,
            brand,
            architecture,
            board_part_number,
            board_id,
            module_id,
            minor_number,
            pci_device_id,
            pci_subsystem_id,
            platform,
            ..
        } = self.inventory(report).unwrap_or(&default);
        let none = Platform::default();
        let Platform { chassis_serial, slot, tray, host_id, module_id: in_node } = platform.as_ref().unwrap_or(&none);
        let on_bus = Section::data_of(&report.sections.host).into_iter().flat_map(|host| &host.pci_gpus);
        let device = on_bus.into_iter().find(|gpu| gpu.pci_address == self.pci && self.pci.is_some());
        let (serial, of_serial) = self.serial.clone().map_or((None, ""), |(serial, source)| (Some(serial), source));
        let pci = self.pci.as_ref().map(PciAddress::sysfs);
        let facts = [
            Fact::new("product", name.as_ref(), "NVML nvmlDeviceGetName"),
            Fact::new("brand", brand.as_ref(), "NVML nvmlDeviceGetBrand"),
            Fact::new("architecture", architecture.as_ref(), "NVML nvmlDeviceGetArchitecture"),
            Fact::new("part number", board_part_number.as_ref(), "NVML nvmlDeviceGetBoardPartNumber"),
            Fact::new("serial number", serial, of_serial),
            Fact::new(
                "UUID",
                self.uuid.as_ref(),
                if name.is_some() { "NVML nvmlDeviceGetUUID" } else { "driver or kernel log" },
            ),
            Fact::new("PCI address", pci, "sysfs"),
            Fact::new("PCI device id", pci_device_id.as_ref().or(device.and_then(|gpu| gpu.device_id.as_ref())), "PCI"),
            Fact::new("PCI subsystem id", pci_subsystem_id.as_ref(), "NVML nvmlDeviceGetPciInfo"),
            Fact::new("board id", board_id.as_ref(), "NVML nvmlDeviceGetBoardId"),
            Fact::new("module id", module_id.as_ref(), "NVML nvmlDeviceGetModuleId"),
            Fact::new("index now", self.index, "NVML"),
            Fact::new("minor number", minor_number.as_ref(), "NVML nvmlDeviceGetMinorNumber"),
            Fact::new("answers on PCI", device.and_then(|gpu| gpu.answers), "configuration space"),
            Fact::new("state in NVML", self.lost.as_ref(), "NVML"),
            Fact::new("slot", self.slot.as_ref(), "/sys/bus/pci/slots"),
            Fact::new("chassis serial number", chassis_serial.as_ref(), "NVML nvmlDeviceGetPlatformInfo"),
            Fact::new("chassis slot", slot.as_ref(), "NVML nvmlDeviceGetPlatformInfo"),
            Fact::new("tray", tray.as_ref(), "NVML nvmlDeviceGetPlatformInfo"),
            Fact::new("host in the tray", host_id.as_ref(), "NVML nvmlDeviceGetPlatformInfo"),
            Fact::new("module in the node", in_node.as_ref(), "NVML nvmlDeviceGetPlatformInfo"),
            Fact::new("host name", report.hostname.as_ref(), "/proc/sys/kernel/hostname"),
        ];
        facts.into_iter().flatten().collect()
    }

    pub(super) fn versions(&self, report: &Report) -> Vec<Fact> {
        let default = GpuInventory::default();
        let GpuInventory { vbios_version, inforom, gsp_firmware_version, .. } =
            self.inventory(report).unwrap_or(&default);
        let inventory = Section::data_of(&report.sections.inventory);
        let host = Section::data_of(&report.sections.host);
        let driver = host.map(|host| &host.driver);
        let facts = [
            Fact::new(
                "driver (loaded)",
                driver.and_then(|driver| driver.loaded.as_ref()),
                "/sys/module/nvidia/version",
            ),
            Fact::new("kernel module", driver.and_then(|driver| driver.flavor.as_ref()), "/proc/driver/nvidia/version"),
            Fact::new(
                "driver (NVML)",
                inventory.and_then(|all| all.driver_version.as_ref()),
                "NVML nvmlSystemGetDriverVersion",
            ),
            Fact::new(
                "CUDA",
                inventory.and_then(|all| all.cuda_version.as_ref()),
                "NVML nvmlSystemGetCudaDriverVersion",
            ),
            Fact::new("VBIOS", vbios_version.as_ref(), "NVML nvmlDeviceGetVbiosVersion"),
            Fact::new("InfoROM image", inforom.image.as_ref(), "NVML nvmlDeviceGetInforomImageVersion"),
            Fact::new("InfoROM ECC object", inforom.ecc.as_ref(), "NVML nvmlDeviceGetInforomVersion"),
            Fact::new("GSP firmware", gsp_firmware_version.as_ref(), "NVML nvmlDeviceGetGspFirmwareVersion"),
            Fact::new("kernel", report.kernel.as_ref(), "/proc/sys/kernel/osrelease"),
            Fact::new("operating system", host.and_then(|host| host.operating_system.as_ref()), "/etc/os-release"),
            Fact::new("node-probe", Some(&report.probe_version), "this report"),
        ];
        facts.into_iter().flatten().collect()
    }
}
