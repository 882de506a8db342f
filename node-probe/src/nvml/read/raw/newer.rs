//! `unrepairable_memory`: calls an NVML function that nvml-wrapper-sys does not have.
//! Its symbol is looked up by name in the open library.

use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;

use super::{NvmlError, version};

/// Returns a function of the open library. If the library lacks the function, the error is
/// [`NvmlError::MissingFunction`].
///
/// # Safety
///
/// `F` must be the type of the function in the header. The function must not be called after the library was closed.
unsafe fn function<F: Copy>(nvml: &Nvml, name: &str) -> Result<F, NvmlError> {
    // SAFETY: the caller guarantees the type.
    let symbol = unsafe { nvml.lib().__library.get::<F>(name.as_bytes()) };
    symbol.map(|function| *function).map_err(|_| NvmlError::MissingFunction)
}

/// Calls `nvmlDeviceGetUnrepairableMemoryFlag_v1` (R590 and later).
///
/// NVIDIA publishes two layouts of its structure: in `nvml.h` it has only the flag, in nvidia-ml-py the version comes before
/// the flag. The buffer has room for both, and shows which of the two the driver has written.
pub(in crate::nvml) fn unrepairable_memory(device: &Device<'_>) -> Result<bool, NvmlError> {
    type Function = unsafe extern "C" fn(sys::nvmlDevice_t, *mut [u32; 2]) -> sys::nvmlReturn_t;
    const UNWRITTEN: u32 = u32::MAX;
    let stated = version::<[u32; 2]>(1);
    let mut buffer = [stated, UNWRITTEN];
    // SAFETY: this is the function's type in both layouts, and `Device` proves that the library is open.
    let function: Function = unsafe { function(device.nvml(), "nvmlDeviceGetUnrepairableMemoryFlag_v1")? };
    // SAFETY: the handle comes from NVML, and the buffer is as long as the longer layout.
    NvmlError::check(unsafe { function(device.handle(), &raw mut buffer) })?;
    match buffer {
        [first, flag @ (0 | 1)] if first == stated => Ok(flag == 1),
        [flag @ (0 | 1), UNWRITTEN] => Ok(flag == 1),
        [_, other] => Err(NvmlError::impossible(other)),
    }
}
