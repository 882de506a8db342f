//! `nvlink_remote_type`, `nvlink_error_counter`: raw NVML calls about an NVLink.
//! `p2p_status`, `common_ancestor`: raw NVML calls about two GPUs.

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings as sys;

use super::NvmlError;

/// Calls `nvmlDeviceGetNvLinkRemoteDeviceType`.
pub(in crate::nvml) fn nvlink_remote_type(device: &Device<'_>, link: u32) -> Result<u32, NvmlError> {
    let mut kind = sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN;
    call!(device, nvmlDeviceGetNvLinkRemoteDeviceType, link, &mut kind)?;
    Ok(kind)
}

/// Calls `nvmlDeviceGetNvLinkErrorCounter`; `counter` is an `nvmlNvLinkErrorCounter_t`.
pub(in crate::nvml) fn nvlink_error_counter(device: &Device<'_>, link: u32, counter: u32) -> Result<u64, NvmlError> {
    let mut value = 0;
    call!(device, nvmlDeviceGetNvLinkErrorCounter, link, counter, &mut value)?;
    Ok(value)
}

/// Calls `nvmlDeviceGetP2PStatus` for two GPUs; `capability` is an `nvmlGpuP2PCapsIndex_t`.
pub(in crate::nvml) fn p2p_status(device: &Device<'_>, other: &Device<'_>, capability: u32) -> Result<u32, NvmlError> {
    let mut status = 0;
    // The other handle is as valid as the first: see `call!`.
    call!(device, nvmlDeviceGetP2PStatus, other.handle(), capability, &mut status)?;
    Ok(status)
}

/// Calls `nvmlDeviceGetTopologyCommonAncestor` for two GPUs.
pub(in crate::nvml) fn common_ancestor(device: &Device<'_>, other: &Device<'_>) -> Result<u32, NvmlError> {
    let mut level = 0;
    call!(device, nvmlDeviceGetTopologyCommonAncestor, other.handle(), &mut level)?;
    Ok(level)
}
