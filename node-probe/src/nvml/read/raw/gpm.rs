//! Raw NVML calls of the GPU performance monitoring (GPM).
//! `is_supported`, `Sample`: whether a GPU has it, and its counters at one time. `metrics`: values between two samples.

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings as sys;

use super::NvmlError;

/// The version of both structures. They contain the number itself, without the size of the structure.
const VERSION: u32 = 1;

/// Calls `nvmlGpmQueryDeviceSupport`.
pub(in crate::nvml) fn is_supported(device: &Device<'_>) -> Result<bool, NvmlError> {
    let mut support = sys::nvmlGpmSupport_t { version: VERSION, isSupportedDevice: 0 };
    call!(device, nvmlGpmQueryDeviceSupport, &mut support)?;
    Ok(support.isSupportedDevice != 0)
}

/// The counters of a GPU at one time, in a buffer that NVML allocates.
pub(in crate::nvml) struct Sample {
    device: &'static Device<'static>,
    buffer: sys::nvmlGpmSample_t,
}

impl Sample {
    /// Calls `nvmlGpmSampleAlloc` and `nvmlGpmSampleGet`.
    pub(in crate::nvml) fn take(device: &'static Device<'static>) -> Result<Self, NvmlError> {
        let alloc = device.nvml().lib().nvmlGpmSampleAlloc.as_ref().map_err(|_| NvmlError::MissingFunction)?;
        let mut sample = Self { device, buffer: std::ptr::null_mut() };
        // SAFETY: the pointer is that of a local variable, and `Device` proves that NVML is initialized.
        NvmlError::check(unsafe { alloc(&raw mut sample.buffer) })?;
        call!(device, nvmlGpmSampleGet, sample.buffer)?;
        Ok(sample)
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        if let (false, Ok(free)) = (self.buffer.is_null(), &self.device.nvml().lib().nvmlGpmSampleFree) {
            // The buffer cannot be freed in another way, so the result is not used.
            // SAFETY: NVML allocated the buffer, nothing else has the pointer, and NVML is still initialized.
            let _ = unsafe { free(self.buffer) };
        }
    }
}

/// Number of metrics in the structure of the newest header (R615: 477), rounded up. The array has become longer (98, 210,
/// 333) without a new version of the structure.
const ROOM: usize = 512;

/// `nvmlGpmMetricsGet_t` with room for a driver that is newer than the bindings.
#[repr(C)]
struct MetricsGet {
    version: u32,
    count: u32,
    first: sys::nvmlGpmSample_t,
    last: sys::nvmlGpmSample_t,
    metrics: [sys::nvmlGpmMetric_t; ROOM],
}

/// Calls `nvmlGpmMetricsGet`: the value of each metric between two samples of one GPU.
pub(in crate::nvml) fn metrics<const N: usize>(
    first: &Sample,
    last: &Sample,
    ids: [u32; N],
) -> Result<[Result<f64, NvmlError>; N], NvmlError> {
    const { assert!(N <= ROOM) };
    let get = first.device.nvml().lib().nvmlGpmMetricsGet.as_ref().map_err(|_| NvmlError::MissingFunction)?;
    let null = std::ptr::null_mut;
    let info = sys::nvmlGpmMetric_t__bindgen_ty_1 { shortName: null(), longName: null(), unit: null() };
    let blank = sys::nvmlGpmMetric_t {
        metricId: 0,
        // A metric that the driver does not fill in stays "not supported".
        nvmlReturn: sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
        value: 0.0,
        metricInfo: info,
    };
    let count = u32::try_from(N).unwrap_or_default();
    let (first, last) = (first.buffer, last.buffer);
    let mut request = Box::new(MetricsGet { version: VERSION, count, first, last, metrics: [blank; ROOM] });
    for (metric, id) in request.metrics.iter_mut().zip(ids) {
        metric.metricId = id;
    }
    // SAFETY: the structure begins like the one of the bindings and is longer. Both samples are buffers of NVML, which is
    // still initialized.
    NvmlError::check(unsafe { get((&raw mut *request).cast()) })?;
    Ok(std::array::from_fn(|at| {
        let metric = &request.metrics[at];
        NvmlError::check(metric.nvmlReturn).map(|()| metric.value)
    }))
}
