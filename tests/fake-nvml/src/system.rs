//! NVML functions without a device: start and end, texts of errors, versions of library and driver, device count,
//! device handles, and GPUs that NVML does not list.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::*;
use syringe_core::pci::PciAddress;

use crate::device::pci_info;
use crate::facts::{Gpu, error_text, gpu_count, inventory, version_pair};
use crate::ffi::{
    INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, Out, finish, handle, in_session, on_system, put, put_text, resolve,
    text_argument,
};
use crate::session::{self, Session};

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    finish(session::begin("nvmlInit_v2"))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    finish(session::begin("nvmlInitWithFlags"))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    on_system("nvmlShutdown", |_| session::end())
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    error_text(result).as_ptr()
}

/// Exports `fn(text, length)` for each name. The text is from the inventory.
macro_rules! system_texts {
    ($($name:ident => $field:ident;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(text: *mut c_char, length: c_uint) -> nvmlReturn_t {
            on_system(stringify!($name), |session| {
                let fact = inventory(&session.report).and_then(|inventory| inventory.$field.as_ref());
                put_text(text, length, fact.ok_or(NOT_SUPPORTED)?)
            })
        }
    )* };
}

system_texts! {
    nvmlSystemGetDriverVersion => driver_version;
    nvmlSystemGetNVMLVersion => nvml_version;
}

/// Exports the CUDA version under both names: `12.8` is 12080.
macro_rules! cuda_versions {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(version: Out<'_, c_int>) -> nvmlReturn_t {
            on_system(stringify!($name), |session| {
                let text = inventory(&session.report).and_then(|inventory| inventory.cuda_version.as_deref());
                let (major, minor) = text.and_then(version_pair).ok_or(NOT_SUPPORTED)?;
                put(version, major * 1000 + minor * 10)
            })
        }
    )* };
}

cuda_versions! { nvmlSystemGetCudaDriverVersion nvmlSystemGetCudaDriverVersion_v2 }

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCount_v2(count: Out<'_, c_uint>) -> nvmlReturn_t {
    on_system("nvmlDeviceGetCount_v2", |session| put(count, gpu_count(&session.report)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: Out<'_, nvmlDevice_t>) -> nvmlReturn_t {
    in_session(|session| {
        let found = handle(index, None);
        let gpu = resolve(session, found)?;
        session.switches.dispatch("nvmlDeviceGetHandleByIndex_v2", Some(gpu.index))?;
        gpu.opens()?;
        put(device, found)
    })
}

/// Returns every GPU, including lost GPUs.
fn gpus(session: &Session) -> impl Iterator<Item = Gpu<'_>> {
    (0..gpu_count(&session.report)).map(|index| Gpu { report: &session.report, index, mig_index: None })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: Out<'_, nvmlDevice_t>) -> nvmlReturn_t {
    on_system("nvmlDeviceGetHandleByUUID", |session| {
        let uuid = text_argument(uuid)?;
        for gpu in gpus(session) {
            if gpu.uuid() == Some(uuid) {
                return put(device, handle(gpu.index, None));
            }
            let devices = gpu.mig().map(|mig| mig.devices.as_slice()).unwrap_or_default();
            if let Some(position) = devices.iter().position(|mig| mig.uuid.as_deref() == Some(uuid)) {
                return put(device, handle(gpu.index, Some(position as u32)));
            }
        }
        Err(NOT_FOUND)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: *const c_char, device: Out<'_, nvmlDevice_t>) -> nvmlReturn_t {
    on_system("nvmlDeviceGetHandleByPciBusId_v2", |session| {
        let address = PciAddress::parse(text_argument(bus_id)?).ok_or(INVALID_ARGUMENT)?;
        let gpu = gpus(session).find(|gpu| gpu.pci_address() == Some(&address)).ok_or(NOT_FOUND)?;
        put(device, handle(gpu.index, None))
    })
}

/// Returns the address in a structure of NVML.
fn address(info: &nvmlPciInfo_t) -> Option<PciAddress> {
    let text: String = info.busId.iter().map(|byte| *byte as u8 as char).take_while(|letter| *letter != '\0').collect();
    PciAddress::parse(&text)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGetExcludedDeviceCount(count: Out<'_, c_uint>) -> nvmlReturn_t {
    on_system("nvmlGetExcludedDeviceCount", |session| {
        put(count, inventory(&session.report).map_or(0, |inventory| inventory.excluded.len() as c_uint))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGetExcludedDeviceInfoByIndex(index: c_uint, info: Out<'_, nvmlExcludedDeviceInfo_t>) -> nvmlReturn_t {
    on_system("nvmlGetExcludedDeviceInfoByIndex", |session| {
        let excluded = inventory(&session.report).and_then(|inventory| inventory.excluded.get(index as usize));
        let pciInfo = pci_info(excluded.ok_or(INVALID_ARGUMENT)?, 0, 0);
        put(info, nvmlExcludedDeviceInfo_t { pciInfo, uuid: [0; 80] })
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceQueryDrainState(
    info: Option<&mut nvmlPciInfo_t>,
    state: Out<'_, nvmlEnableState_t>,
) -> nvmlReturn_t {
    on_system("nvmlDeviceQueryDrainState", |session| {
        let address = address(info.ok_or(INVALID_ARGUMENT)?).ok_or(INVALID_ARGUMENT)?;
        let draining = inventory(&session.report).is_some_and(|inventory| inventory.draining.contains(&address));
        put(state, draining.into())
    })
}
