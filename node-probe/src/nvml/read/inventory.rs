//! `read`: reads the values of one GPU for the `inventory` section: identity, permanent properties, modes and licenses.
//! `Session::versions`: the driver versions. `mig_mode`, `ecc_mode`: the modes of a GPU.

use std::cell::OnceCell;
use std::ffi::c_char;

use nvml_wrapper::enum_wrappers::device::InfoRom;
use nvml_wrapper::error::NvmlError as WrapperError;
use nvml_wrapper::{Device, cuda_driver_version_major, cuda_driver_version_minor};
use syringe_core::facts::Mode;
use syringe_core::facts::inventory::{GpuInventory, InforomVersions, LicensableFeature, Platform, VgpuLicense};
use syringe_core::pci::PciAddress;
use syringe_core::text::clean;

use super::cache::{Cache, Function};
use super::device_reader::DeviceReader;
use super::session::{Session, text};
use super::{enum_names, raw};
use crate::host::bound_gpus;
use crate::nvml::answer::Versions;
use crate::paths::Paths;

/// Maximum length of the library's path in a report.
const PATH_TEXT: usize = 300;

impl Session {
    /// Reads the versions of driver, library and CUDA, and why NVML does not list some GPUs on the bus.
    pub(in crate::nvml) fn versions(&self, paths: &Paths) -> Versions {
        let (nvml, gone, cache, mut problems) = (self.nvml, OnceCell::new(), Cache::default(), Vec::new());
        let reader = DeviceReader::new(self.context(None, &gone, &cache, None));
        let mut version = |field, function, call: &dyn Fn() -> Result<String, WrapperError>| {
            let answer = reader.try_call(function, call);
            let noted = answer.map_err(|error| problems.push(error.problem(format!("{field} ({function})"), None)));
            noted.ok().and_then(|version| text(&version))
        };
        let driver = version("driver_version", "nvmlSystemGetDriverVersion", &|| nvml.sys_driver_version());
        let library = version("nvml_version", "nvmlSystemGetNVMLVersion", &|| nvml.sys_nvml_version());
        let cuda = version("cuda_version", "nvmlSystemGetCudaDriverVersion_v2", &|| {
            let version = nvml.sys_cuda_driver_version()?;
            Ok(format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version)))
        });
        let path = clean(&self.library.display().to_string(), PATH_TEXT);
        let excluded =
            reader.try_call("nvmlGetExcludedDeviceCount", || raw::hidden::excluded(nvml)).unwrap_or_default();
        let draining = self.unlisted(paths).into_iter().filter(|address| {
            let answer = reader.try_call("nvmlDeviceQueryDrainState", || raw::hidden::is_draining(nvml, address));
            answer.unwrap_or(false)
        });
        Versions { driver, nvml: library, cuda, library: path, draining: draining.collect(), excluded, problems }
    }

    /// Returns the GPUs that are bound to the nvidia driver and that NVML does not list. Empty if the address of a
    /// listed GPU is not known, because that GPU could be any of them.
    fn unlisted(&self, paths: &Paths) -> Vec<PciAddress> {
        let listed: Option<Vec<&PciAddress>> = self.gpus.iter().map(|gpu| gpu.identity.pci_address.as_ref()).collect();
        let Some(listed) = listed.filter(|listed| usize::try_from(self.count) == Ok(listed.len())) else {
            return Vec::new();
        };
        bound_gpus(paths).into_iter().filter(|address| !listed.contains(&address)).collect()
    }
}

pub(in crate::nvml) fn read(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuInventory) {
    // The UUID is normally read when the session opens. It is read again here to note an error.
    if gpu.uuid.is_none() {
        gpu.uuid = string(reader, "nvmlDeviceGetUUID", "uuid", || device.uuid());
    }
    product(device, reader, gpu);
    board(device, reader, gpu);
    firmware(device, reader, gpu);
    modes(device, reader, gpu);
    capacity(device, reader, gpu);
    gpu.platform = reader.call("nvmlDeviceGetPlatformInfo", &["platform"], || raw::platform_info(device)).map(|info| {
        let serial = String::from_utf8_lossy(&info.chassisSerialNumber).into_owned();
        let chassis_serial = text(serial.trim_end_matches('\0'));
        // Outside of a chassis, the driver returns 0 and 1 as positions.
        let in_chassis = |number| place(number).filter(|_| chassis_serial.is_some());
        Platform {
            slot: in_chassis(info.slotNumber),
            tray: in_chassis(info.trayIndex),
            host_id: in_chassis(info.hostId),
            module_id: place(info.moduleId),
            chassis_serial,
        }
    });
}

/// Returns a position in the rack; `None` if all bits are set, which means that the board is not in a rack.
fn place(number: u8) -> Option<u32> {
    (number != u8::MAX).then(|| number.into())
}

fn product(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuInventory) {
    gpu.name = string(reader, Function::of_gpu("nvmlDeviceGetName"), "name", || device.name());
    gpu.brand = reader
        .call(Function::of_product("nvmlDeviceGetBrand", "brand"), &["brand"], || raw::brand(device))
        .map(enum_names::brand);
    gpu.architecture = reader
        .call(Function::of_product("nvmlDeviceGetArchitecture", "architecture"), &["architecture"], || {
            raw::architecture(device)
        })
        .and_then(enum_names::architecture);
    gpu.compute_capability = reader
        .call(
            Function::of_product("nvmlDeviceGetCudaComputeCapability", "compute_capability"),
            &["compute_capability"],
            || device.cuda_compute_capability(),
        )
        .map(|capability| format!("{}.{}", capability.major, capability.minor));
    gpu.cores =
        reader.call(Function::of_product("nvmlDeviceGetNumGpuCores", "cores"), &["cores"], || device.num_cores());
}

fn board(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuInventory) {
    gpu.serial = string(reader, "nvmlDeviceGetSerial", "serial", || device.serial());
    gpu.board_part_number =
        string(reader, "nvmlDeviceGetBoardPartNumber", "board_part_number", || device.board_part_number());
    gpu.board_id =
        reader.call("nvmlDeviceGetBoardId", &["board_id"], || device.board_id()).map(|id| format!("{id:#x}"));
    gpu.minor_number =
        reader.call(Function::of_gpu("nvmlDeviceGetMinorNumber"), &["minor_number"], || device.minor_number());
    gpu.module_id = reader.call("nvmlDeviceGetModuleId", &["module_id"], || raw::module_id(device));
    let all = ["pci_device_id", "pci_subsystem_id", "pci_address"];
    let fields = if gpu.pci_address.is_none() { &all[..] } else { &all[..2] };
    let pci = reader.call(Function::of_gpu("nvmlDeviceGetPciInfo_v3"), fields, || device.pci_info());
    if let Some(pci) = pci {
        gpu.pci_address = gpu.pci_address.take().or_else(|| PciAddress::parse(&pci.bus_id));
        gpu.pci_device_id = Some(format!("{:08x}", pci.pci_device_id));
        gpu.pci_subsystem_id = pci.pci_sub_system_id.map(|id| format!("{id:08x}"));
    }
}

fn firmware(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuInventory) {
    gpu.vbios_version =
        string(reader, Function::of_gpu("nvmlDeviceGetVbiosVersion"), "vbios_version", || device.vbios_version());
    const OBJECT: &str = "nvmlDeviceGetInforomVersion";
    gpu.inforom = InforomVersions {
        image: string(reader, "nvmlDeviceGetInforomImageVersion", "inforom.image", || device.info_rom_image_version()),
        oem: string(reader, OBJECT, "inforom.oem", || device.info_rom_version(InfoRom::OEM)),
        ecc: string(reader, OBJECT, "inforom.ecc", || device.info_rom_version(InfoRom::ECC)),
        power: string(reader, OBJECT, "inforom.power", || device.info_rom_version(InfoRom::Power)),
    };
    gpu.gsp_enabled = reader
        .call("nvmlDeviceGetGspFirmwareMode", &["gsp_enabled"], || device.gsp_firmware_mode())
        .map(|mode| mode.enabled);
    // A GPU without GSP has no GSP version; see `gsp_enabled`.
    if gpu.gsp_enabled != Some(false) {
        gpu.gsp_firmware_version =
            string(reader, "nvmlDeviceGetGspFirmwareVersion", "gsp_firmware_version", || device.gsp_firmware_version());
    }
}

fn modes(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuInventory) {
    gpu.persistence_mode =
        reader.call("nvmlDeviceGetPersistenceMode", &["persistence_mode"], || device.is_in_persistent_mode());
    gpu.compute_mode = reader
        .call("nvmlDeviceGetComputeMode", &["compute_mode"], || raw::compute_mode(device))
        .map(enum_names::compute_mode);
    gpu.virtualization_mode = reader
        .call("nvmlDeviceGetVirtualizationMode", &["virtualization_mode"], || raw::virtualization_mode(device))
        .map(enum_names::virtualization_mode);
    if gpu.virtualization_mode.as_deref() == Some("vgpu") {
        gpu.vgpu_license = reader
            .call("nvmlDeviceGetGridLicensableFeatures_v4", &["vgpu_license"], || {
                raw::license::licensable_features(device)
            })
            .map(|features| VgpuLicense { features: features.iter().map(licensable).collect() });
    }
    gpu.display_active = reader.call("nvmlDeviceGetDisplayActive", &["display_active"], || device.is_display_active());
    gpu.mig_mode = mig_mode(device, reader, "mig_mode");
    gpu.ecc_mode = ecc_mode(device, reader, "ecc_mode");
}

fn licensable(feature: &raw::license::Feature) -> LicensableFeature {
    let words = |bytes: &[c_char]| {
        let bytes: Vec<u8> = bytes.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
        text(&String::from_utf8_lossy(&bytes))
    };
    LicensableFeature {
        name: enum_names::licensable(feature.featureCode),
        product: words(&feature.productName),
        enabled: feature.featureEnabled != 0,
        licensed: feature.featureState != 0,
        info: words(&feature.licenseInfo),
    }
}

fn capacity(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuInventory) {
    let fields = ["memory_total_bytes", "memory_reserved_bytes"];
    let memory = reader.call(Function::of_gpu("nvmlDeviceGetMemoryInfo_v2"), &fields, || raw::memory(device));
    if let Some(memory) = memory {
        gpu.memory_total_bytes = Some(memory.total);
        gpu.memory_reserved_bytes = memory.reserved;
        if memory.reserved.is_none() {
            reader.note_unsupported(&["memory_reserved_bytes"]);
        }
    }
    gpu.bar1_total_bytes = reader
        .call(Function::of_gpu("nvmlDeviceGetBAR1MemoryInfo"), &["bar1_total_bytes"], || device.bar1_memory_info())
        .map(|bar1| bar1.total);
    gpu.pcie_max_generation =
        reader.call(Function::of_gpu("nvmlDeviceGetMaxPcieLinkGeneration"), &["pcie_max_generation"], || {
            device.max_pcie_link_gen()
        });
    gpu.pcie_max_width = reader
        .call(Function::of_gpu("nvmlDeviceGetMaxPcieLinkWidth"), &["pcie_max_width"], || device.max_pcie_link_width());
}

/// Calls `nvmlDeviceGetMigMode`.
pub(in crate::nvml) fn mig_mode(
    device: &Device<'_>,
    reader: &mut DeviceReader<'_>,
    field: &'static str,
) -> Option<Mode> {
    let mode = reader.call(Function::of_gpu("nvmlDeviceGetMigMode"), &[field], || device.mig_mode())?;
    Some(Mode { current: mode.current != 0, pending: mode.pending != 0 })
}

/// Calls `nvmlDeviceGetEccMode`.
pub(in crate::nvml) fn ecc_mode(
    device: &Device<'_>,
    reader: &mut DeviceReader<'_>,
    field: &'static str,
) -> Option<Mode> {
    let mode = reader.call(Function::of_gpu("nvmlDeviceGetEccMode"), &[field], || device.is_ecc_enabled())?;
    Some(Mode { current: mode.currently_enabled, pending: mode.pending_enabled })
}

fn string(
    reader: &mut DeviceReader<'_>,
    function: impl Into<Function>,
    field: &'static str,
    call: impl FnOnce() -> Result<String, WrapperError>,
) -> Option<String> {
    let raw = reader.call(function, &[field], call)?;
    let value = offered(&raw);
    if value.is_none() {
        reader.note_unsupported(&[field]);
    }
    value
}

/// Returns the text if it has a value. Some drivers return "N/A" instead of an error.
fn offered(raw: &str) -> Option<String> {
    text(raw).filter(|text| text != "N/A")
}

#[cfg(test)]
mod tests {
    use super::{offered, place};

    #[test]
    fn a_text_without_a_value_is_none() {
        assert_eq!(offered("7.16").as_deref(), Some("7.16"));
        assert_eq!((offered("N/A"), offered("")), (None, None));
    }

    #[test]
    fn a_board_outside_of_a_rack_has_no_slot() {
        assert_eq!((place(25), place(0), place(0xff)), (Some(25), Some(0), None));
    }
}
