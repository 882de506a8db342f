//! NVML functions for names, serial numbers, firmware versions, PCI data, licenses and the rack position of a GPU
//! (section `inventory`).

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::inventory::LicensableFeature;
use syringe_core::pci::PciAddress;

use crate::facts::{Gpu, hexadecimal, version_pair};
use crate::ffi::{
    Answer, INVALID_ARGUMENT, NOT_SUPPORTED, Out, ask, on_any, on_device, on_gpu, put, put_text, versioned,
};

gpu_texts! {
    nvmlDeviceGetName => |gpu| {
        let name = gpu.inventory()?.name.clone()?;
        // The name of a MIG device ends with the profile.
        Some(match gpu.mig_device() {
            Some(mig) => format!("{name} MIG {}", mig.profile.as_deref().unwrap_or("?")),
            None => name,
        })
    };
    nvmlDeviceGetUUID => |gpu| gpu.uuid();
    nvmlDeviceGetSerial => |gpu| gpu.inventory()?.serial.as_deref();
    nvmlDeviceGetBoardPartNumber => |gpu| gpu.inventory()?.board_part_number.as_deref();
    nvmlDeviceGetVbiosVersion => |gpu| gpu.inventory()?.vbios_version.as_deref();
    nvmlDeviceGetInforomImageVersion => |gpu| gpu.inventory()?.inforom.image.as_deref();
}

gpu_values! {
    nvmlDeviceGetBrand: nvmlBrandType_t => |gpu| Some(brand(gpu.inventory()?.brand.as_deref()?));
    nvmlDeviceGetArchitecture: c_uint => |gpu| Some(architecture(gpu.inventory()?.architecture.as_deref()?));
    nvmlDeviceGetBoardId: c_uint => |gpu| hexadecimal(gpu.inventory()?.board_id.as_deref()?);
    nvmlDeviceGetMinorNumber: c_uint => |gpu| gpu.inventory()?.minor_number;
    nvmlDeviceGetModuleId: c_uint => |gpu| gpu.inventory()?.module_id;
    nvmlDeviceGetNumGpuCores: c_uint => |gpu| gpu.inventory()?.cores;
    nvmlDeviceGetMaxPcieLinkGeneration: c_uint => |gpu| gpu.inventory()?.pcie_max_generation;
    nvmlDeviceGetMaxPcieLinkWidth: c_uint => |gpu| gpu.inventory()?.pcie_max_width;
    // This value is the limit of the GPU, regardless of the limit of the slot.
    nvmlDeviceGetGpuMaxPcieLinkGeneration: c_uint => |gpu| {
        gpu.topology().and_then(|topology| topology.pcie_path.first()?.max_generation)
            .or_else(|| gpu.inventory()?.pcie_max_generation)
    };
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: Out<'_, c_uint>) -> nvmlReturn_t {
    on_any("nvmlDeviceGetIndex", device, |gpu| put(index, gpu.mig_index.unwrap_or(gpu.index)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: nvmlDevice_t,
    major: Out<'_, c_int>,
    minor: Out<'_, c_int>,
) -> nvmlReturn_t {
    on_device("nvmlDeviceGetCudaComputeCapability", device, |gpu| {
        let (one, other) = ask(gpu, |gpu| version_pair(gpu.inventory()?.compute_capability.as_deref()?))?;
        put(major, one)?;
        put(minor, other)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetInforomVersion(
    device: nvmlDevice_t,
    object: nvmlInforomObject_t,
    text: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetInforomVersion", device, |gpu| {
        let versions = &gpu.inventory().ok_or(NOT_SUPPORTED)?.inforom;
        let version = match object {
            nvmlInforomObject_enum_NVML_INFOROM_OEM => &versions.oem,
            nvmlInforomObject_enum_NVML_INFOROM_ECC => &versions.ecc,
            nvmlInforomObject_enum_NVML_INFOROM_POWER => &versions.power,
            nvmlInforomObject_enum_NVML_INFOROM_DEN => &None,
            _ => return Err(INVALID_ARGUMENT),
        };
        put_text(text, length, version.as_ref().ok_or(NOT_SUPPORTED)?)
    })
}

/// Checks the checksum of the InfoROM. The result is the return code, not a value.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceValidateInforom(device: nvmlDevice_t) -> nvmlReturn_t {
    on_gpu("nvmlDeviceValidateInforom", device, |gpu| match ask(gpu, |gpu| gpu.ecc()?.inforom_valid)? {
        true => Ok(()),
        false => Err(nvmlReturn_enum_NVML_ERROR_CORRUPTED_INFOROM),
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGspFirmwareVersion(device: nvmlDevice_t, text: *mut c_char) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetGspFirmwareVersion", device, |gpu| {
        let version = ask(gpu, |gpu| gpu.inventory()?.gsp_firmware_version.as_deref())?;
        put_text(text, NVML_GSP_FIRMWARE_VERSION_BUF_SIZE, version)
    })
}

/// Converts an address to `nvmlPciInfo_t`: the legacy field has 4 domain digits, the current field has 8, in upper case.
pub(crate) fn pci_info(address: &PciAddress, device_id: u32, subsystem_id: u32) -> nvmlPciInfo_t {
    let number = |range: std::ops::Range<usize>| {
        address.as_str().get(range).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
    };
    let (domain, bus, slot) = (number(0..8), number(9..11), number(12..14));
    let mut info = nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain,
        bus,
        device: slot,
        pciDeviceId: device_id,
        pciSubSystemId: subsystem_id,
        busId: [0; 32],
    };
    let function = address.as_str().get(15..).unwrap_or("0");
    copy_text(&mut info.busIdLegacy, &format!("{:04X}:{bus:02X}:{slot:02X}.{function}", domain & 0xffff));
    copy_text(&mut info.busId, &format!("{domain:08X}:{bus:02X}:{slot:02X}.{function}"));
    info
}

fn copy_text(buffer: &mut [c_char], text: &str) {
    for (slot, byte) in buffer.iter_mut().zip(text.bytes()) {
        *slot = byte as c_char;
    }
}

/// Exports the PCI address under each name; even a lost GPU has an address.
macro_rules! pci_infos {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(device: nvmlDevice_t, info: Out<'_, nvmlPciInfo_t>) -> nvmlReturn_t {
            on_any(stringify!($name), device, |gpu| {
                let ids = gpu.inventory();
                let id = |text: Option<&String>| text.and_then(|text| hexadecimal(text)).unwrap_or(0);
                let device_id = id(ids.and_then(|gpu| gpu.pci_device_id.as_ref()));
                let subsystem_id = id(ids.and_then(|gpu| gpu.pci_subsystem_id.as_ref()));
                put(info, pci_info(gpu.pci_address().ok_or(NOT_SUPPORTED)?, device_id, subsystem_id))
            })
        }
    )* };
}

pci_infos! { nvmlDeviceGetPciInfo_v2 nvmlDeviceGetPciInfo_v3 }

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetPlatformInfo(device: nvmlDevice_t, info: *mut nvmlPlatformInfo_t) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetPlatformInfo", device, |gpu| put_platform(gpu, info))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGridLicensableFeatures_v4(
    device: nvmlDevice_t,
    features: Out<'_, nvmlGridLicensableFeatures_t>,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetGridLicensableFeatures_v4", device, |gpu| {
        let license = gpu.inventory().and_then(|gpu| gpu.vgpu_license.as_ref()).ok_or(NOT_SUPPORTED)?;
        let blank = LicensableFeature::default();
        let one = |at: usize| licensable(license.features.get(at).unwrap_or(&blank));
        put(
            features,
            nvmlGridLicensableFeatures_t {
                isGridLicenseSupported: (!license.features.is_empty()).into(),
                licensableFeaturesCount: license.features.len() as c_uint,
                gridLicensableFeatures: [one(0), one(1), one(2)],
            },
        )
    })
}

fn licensable(feature: &LicensableFeature) -> nvmlGridLicensableFeature_t {
    let expiry = nvmlGridLicenseExpiry_t { year: 0, month: 0, day: 0, hour: 0, min: 0, sec: 0, status: 0 };
    let mut raw = nvmlGridLicensableFeature_t {
        featureCode: match feature.name.as_str() {
            "vgpu" => 1,
            "rtx" => 2,
            "gaming" => 3,
            "compute" => 4,
            _ => 0,
        },
        featureState: feature.licensed.into(),
        licenseInfo: [0; 128],
        productName: [0; 128],
        featureEnabled: feature.enabled.into(),
        licenseExpiry: expiry,
    };
    copy_text(&mut raw.productName, feature.product.as_deref().unwrap_or_default());
    copy_text(&mut raw.licenseInfo, feature.info.as_deref().unwrap_or_default());
    raw
}

fn put_platform(gpu: &Gpu<'_>, info: *mut nvmlPlatformInfo_v2_t) -> Answer {
    let platform = gpu.inventory().and_then(|gpu| gpu.platform.as_ref()).ok_or(NOT_SUPPORTED)?;
    let info = versioned(info, 2)?;
    let byte = |number: Option<u32>| number.unwrap_or(0) as u8;
    let serial = platform.chassis_serial.as_deref().unwrap_or_default().bytes();
    info.chassisSerialNumber = [0; 16];
    for (slot, letter) in info.chassisSerialNumber.iter_mut().zip(serial) {
        *slot = letter;
    }
    info.ibGuid = [0; 16];
    info.slotNumber = byte(platform.slot);
    info.trayIndex = byte(platform.tray);
    info.hostId = byte(platform.host_id);
    // Peer type 1: connected to a switch, as in every rack-scale system.
    info.peerType = 1;
    info.moduleId = byte(platform.module_id);
    Ok(())
}

fn brand(name: &str) -> nvmlBrandType_t {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match letters.to_ascii_lowercase().as_str() {
        "quadro" => nvmlBrandType_enum_NVML_BRAND_QUADRO,
        "tesla" => nvmlBrandType_enum_NVML_BRAND_TESLA,
        "nvs" => nvmlBrandType_enum_NVML_BRAND_NVS,
        "grid" => nvmlBrandType_enum_NVML_BRAND_GRID,
        "geforce" => nvmlBrandType_enum_NVML_BRAND_GEFORCE,
        "titan" => nvmlBrandType_enum_NVML_BRAND_TITAN,
        "quadrortx" => nvmlBrandType_enum_NVML_BRAND_QUADRO_RTX,
        "nvidiartx" => nvmlBrandType_enum_NVML_BRAND_NVIDIA_RTX,
        "nvidia" => nvmlBrandType_enum_NVML_BRAND_NVIDIA,
        "geforcertx" => nvmlBrandType_enum_NVML_BRAND_GEFORCE_RTX,
        "titanrtx" => nvmlBrandType_enum_NVML_BRAND_TITAN_RTX,
        _ => nvmlBrandType_enum_NVML_BRAND_UNKNOWN,
    }
}

fn architecture(name: &str) -> c_uint {
    match name.to_ascii_lowercase().as_str() {
        "kepler" => NVML_DEVICE_ARCH_KEPLER,
        "maxwell" => NVML_DEVICE_ARCH_MAXWELL,
        "pascal" => NVML_DEVICE_ARCH_PASCAL,
        "volta" => NVML_DEVICE_ARCH_VOLTA,
        "turing" => NVML_DEVICE_ARCH_TURING,
        "ampere" => NVML_DEVICE_ARCH_AMPERE,
        "ada" => NVML_DEVICE_ARCH_ADA,
        "hopper" => NVML_DEVICE_ARCH_HOPPER,
        "blackwell" => NVML_DEVICE_ARCH_BLACKWELL,
        _ => NVML_DEVICE_ARCH_UNKNOWN,
    }
}
