//! The functions of the GPU performance monitoring (GPM): the `activity` in the `sample` of the facts.
//!
//! A GPU without an activity in the facts does not support GPM. The structures contain their version as a plain number. All
//! versions of NVML have version 1, but the array of metrics has another length in each. So only the entries that the caller
//! asks for are accessed.

use std::collections::BTreeMap;
use std::ffi::c_uint;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::rates::Activity;

use crate::facts::Gpu;
use crate::ffi::{Answer, INVALID_ARGUMENT, NOT_SUPPORTED, Out, on_any, on_device, on_system, put};

/// The GPU and the time of a reading.
type Reading = (u32, Instant);

/// The buffers that were allocated and not freed, each with its last reading.
static BUFFERS: Mutex<BTreeMap<usize, Option<Reading>>> = Mutex::new(BTreeMap::new());

/// GPM refreshes its counters in this interval.
const REFRESH: Duration = Duration::from_millis(100);

fn buffers() -> MutexGuard<'static, BTreeMap<usize, Option<Reading>>> {
    // No holder of the lock can leave an incomplete change behind.
    BUFFERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn activity<'r>(gpu: &Gpu<'r>) -> Option<&'r Activity> {
    gpu.telemetry()?.sample.as_ref()?.activity.as_deref()
}

/// Returns whether the caller uses version 1 of a structure.
fn is_version_1<T>(structure: *const T) -> Answer {
    if structure.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the pointer is not null, and both structures begin with their version, which the caller has set.
    match unsafe { structure.cast::<c_uint>().read() } {
        1 => Ok(()),
        _ => Err(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpmQueryDeviceSupport(device: nvmlDevice_t, support: *mut nvmlGpmSupport_t) -> nvmlReturn_t {
    on_device("nvmlGpmQueryDeviceSupport", device, |gpu| {
        is_version_1(support)?;
        // SAFETY: the pointer refers to a whole structure, which has only one version.
        unsafe { (*support).isSupportedDevice = activity(gpu).is_some().into() };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpmSampleAlloc(sample: Out<'_, nvmlGpmSample_t>) -> nvmlReturn_t {
    on_system("nvmlGpmSampleAlloc", |_| {
        let mut buffers = buffers();
        let address = buffers.last_key_value().map_or(0x20_0000, |(last, _)| last + 0x1000);
        buffers.insert(address, None);
        put(sample, std::ptr::without_provenance_mut(address))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> nvmlReturn_t {
    on_system("nvmlGpmSampleFree", |_| buffers().remove(&sample.addr()).map(|_| ()).ok_or(INVALID_ARGUMENT))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpmSampleGet(device: nvmlDevice_t, sample: nvmlGpmSample_t) -> nvmlReturn_t {
    on_device("nvmlGpmSampleGet", device, |gpu| {
        activity(gpu).ok_or(NOT_SUPPORTED)?;
        *buffers().get_mut(&sample.addr()).ok_or(INVALID_ARGUMENT)? = Some((gpu.index, Instant::now()));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t) -> nvmlReturn_t {
    let reading = |sample: nvmlGpmSample_t| buffers().get(&sample.addr()).copied().flatten().ok_or(INVALID_ARGUMENT);
    let readings = is_version_1(request).and_then(|()| {
        // SAFETY: the caller owns the beginning of the structure, and has set these fields.
        let (first, last) = unsafe { ((*request).sample1, (*request).sample2) };
        Ok((reading(first)?, reading(last)?))
    });
    let ((gpu, first), (other, last)) = match readings {
        Ok(readings) => readings,
        Err(code) => return code,
    };
    on_any("nvmlGpmMetricsGet", crate::ffi::handle(gpu, None), |gpu| {
        if gpu.index != other {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: as above. The array begins behind the fields, and the caller owns as many entries as it states.
        let metrics = unsafe {
            let first = (&raw mut (*request).metrics).cast::<nvmlGpmMetric_t>();
            std::slice::from_raw_parts_mut(first, (*request).numMetrics as usize)
        };
        let is_long = last.saturating_duration_since(first) >= REFRESH;
        for metric in metrics {
            let value = activity(gpu).and_then(|activity| value(activity, metric.metricId));
            (metric.nvmlReturn, metric.value) = match value {
                Some(value) if is_long => (nvmlReturn_enum_NVML_SUCCESS, value),
                Some(_) => (nvmlReturn_enum_NVML_ERROR_NO_DATA, f64::NAN),
                None => (NOT_SUPPORTED, f64::NAN),
            };
        }
        Ok(())
    })
}

fn value(activity: &Activity, metric: nvmlGpmMetricId_t) -> Option<f64> {
    match metric {
        nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL => activity.sm_percent,
        nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL => activity.tensor_percent,
        nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL => activity.memory_bandwidth_percent,
        nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC => activity.pcie_sent_mebibytes_per_second,
        nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC => activity.pcie_received_mebibytes_per_second,
        nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC => activity.nvlink_received_mebibytes_per_second,
        nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC => activity.nvlink_sent_mebibytes_per_second,
        _ => None,
    }
}
