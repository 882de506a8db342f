//! `excluded`, `is_draining`: raw NVML calls about GPUs that NVML does not list.
//! Such GPUs are excluded from the driver or in the drain state.

use std::ffi::c_char;

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings as sys;
use syringe_core::pci::PciAddress;

use super::NvmlError;
use crate::nvml::read::session::MAX_GPUS;

/// Returns a structure for this address. The IDs of the device are not set.
fn pci_info(address: &PciAddress) -> sys::nvmlPciInfo_t {
    let text = address.as_str();
    let number = |digits: Option<&str>| digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let mut info = sys::nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain: number(text.get(0..8)),
        bus: number(text.get(9..11)),
        device: number(text.get(12..14)),
        pciDeviceId: 0,
        pciSubSystemId: 0,
        busId: [0; 32],
    };
    copy(&mut info.busId, text);
    // The older text has four digits for the domain.
    copy(&mut info.busIdLegacy, text.get(4..).unwrap_or_default());
    info
}

/// Copies a text that ends with a zero. The buffer is zeroed, and one byte longer than the text that fits.
fn copy(buffer: &mut [c_char], text: &str) {
    let last = buffer.len() - 1;
    for (slot, byte) in buffer[..last].iter_mut().zip(text.bytes()) {
        *slot = byte as c_char;
    }
}

/// Returns the address in a structure.
fn address(info: &sys::nvmlPciInfo_t) -> Option<PciAddress> {
    let text: Vec<u8> = info.busId.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    PciAddress::parse(&String::from_utf8_lossy(&text))
}

/// Calls `nvmlGetExcludedDeviceCount` and `nvmlGetExcludedDeviceInfoByIndex`.
pub(in crate::nvml) fn excluded(nvml: &Nvml) -> Result<Vec<PciAddress>, NvmlError> {
    let missing = |_: &_| NvmlError::MissingFunction;
    let count_of = nvml.lib().nvmlGetExcludedDeviceCount.as_ref().map_err(missing)?;
    let info_of = nvml.lib().nvmlGetExcludedDeviceInfoByIndex.as_ref().map_err(missing)?;
    let mut count = 0;
    // SAFETY: the pointer refers to a local variable, and `Nvml` proves that NVML is initialized.
    NvmlError::check(unsafe { count_of(&raw mut count) })?;
    let one = |index: u32| {
        let pci = sys::nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus: 0,
            device: 0,
            pciDeviceId: 0,
            pciSubSystemId: 0,
            busId: [0; 32],
        };
        let mut info = sys::nvmlExcludedDeviceInfo_t { pciInfo: pci, uuid: [0; 80] };
        // SAFETY: as above.
        NvmlError::check(unsafe { info_of(index, &raw mut info) })?;
        Ok(address(&info.pciInfo))
    };
    let addresses: Result<Vec<Option<PciAddress>>, NvmlError> = (0..count.min(MAX_GPUS)).map(one).collect();
    Ok(addresses?.into_iter().flatten().collect())
}

/// Calls `nvmlDeviceQueryDrainState` for the GPU at this address.
pub(in crate::nvml) fn is_draining(nvml: &Nvml, address: &PciAddress) -> Result<bool, NvmlError> {
    let query = nvml.lib().nvmlDeviceQueryDrainState.as_ref().map_err(|_| NvmlError::MissingFunction)?;
    let (mut info, mut state) = (pci_info(address), 0);
    // SAFETY: both pointers refer to local variables, and `Nvml` proves that NVML is initialized.
    NvmlError::check(unsafe { query(&raw mut info, &raw mut state) })?;
    Ok(state == sys::nvmlEnableState_enum_NVML_FEATURE_ENABLED)
}
