//! `start`, `since`: read the activity of a GPU between two times, with NVML's GPU performance monitoring (GPM).
//!
//! GPM exists on Hopper and later GPUs. The two readings must be at least 100 ms apart.

use std::ops::RangeInclusive;
use std::rc::Rc;

use nvml_wrapper::Device;
use syringe_core::facts::rates::Activity;

use super::device_reader::DeviceReader;
use super::raw::gpm;
use crate::nvml::errors::NvmlError;

const SUPPORT: &str = "nvmlGpmQueryDeviceSupport";
const SAMPLE: &str = "nvmlGpmSampleGet";
const METRICS: &str = "nvmlGpmMetricsGet";
/// The path of the values in a GPU's entry.
const FIELD: &str = "sample.activity";

/// The first reading, or the reason why there is none.
pub(in crate::nvml) type Start = Result<Rc<gpm::Sample>, NvmlError>;

const PERCENT: RangeInclusive<f64> = 0.0..=100.0;
/// MiB per second. A rack of GPUs moves about 1e9.
const TRAFFIC: RangeInclusive<f64> = 0.0..=1e12;

/// Returns the place of one value.
type Place = fn(&mut Activity) -> &mut Option<f64>;

/// The metrics (`NVML_GPM_METRIC_SM_UTIL`, `…_ANY_TENSOR_UTIL`, `…_DRAM_BW_UTIL`, `…_PCIE_TX_PER_SEC`, `…_PCIE_RX_PER_SEC`,
/// `…_NVLINK_TOTAL_RX_PER_SEC`, `…_NVLINK_TOTAL_TX_PER_SEC`), their ranges, and their places in the report.
const VALUES: [(u32, RangeInclusive<f64>, Place); 7] = [
    (2, PERCENT, |activity| &mut activity.sm_percent),
    (5, PERCENT, |activity| &mut activity.tensor_percent),
    (10, PERCENT, |activity| &mut activity.memory_bandwidth_percent),
    (20, TRAFFIC, |activity| &mut activity.pcie_sent_mebibytes_per_second),
    (21, TRAFFIC, |activity| &mut activity.pcie_received_mebibytes_per_second),
    (60, TRAFFIC, |activity| &mut activity.nvlink_received_mebibytes_per_second),
    (61, TRAFFIC, |activity| &mut activity.nvlink_sent_mebibytes_per_second),
];

/// Starts the reading.
pub(in crate::nvml) fn start(device: &'static Device<'static>, reader: &DeviceReader<'_>) -> Start {
    match reader.try_call(SUPPORT, || gpm::is_supported(device))? {
        true => sample(device, reader),
        false => Err(NvmlError::NOT_SUPPORTED),
    }
}

fn sample(device: &'static Device<'static>, reader: &DeviceReader<'_>) -> Start {
    reader.try_call(SAMPLE, || gpm::Sample::take(device).map(Rc::new))
}

/// Returns the mean values since `start`.
pub(in crate::nvml) fn since(
    start: Start,
    device: &'static Device<'static>,
    reader: &mut DeviceReader<'_>,
) -> Option<Activity> {
    let read = |first: Rc<gpm::Sample>| {
        let last = sample(device, reader)?;
        reader.try_call(METRICS, || gpm::metrics(&first, &last, VALUES.map(|(id, ..)| id)))
    };
    let values = match start.and_then(read) {
        Ok(values) => values,
        Err(error) => {
            // A driver can reserve performance counters for administrators. This process has no privileges.
            let error = if error == NvmlError::NO_PERMISSION { NvmlError::NOT_SUPPORTED } else { error };
            reader.note_error(SAMPLE, &error, &[FIELD]);
            return None;
        }
    };
    let mut activity = Activity::default();
    for ((_, possible, place), value) in VALUES.into_iter().zip(values) {
        // A GPU without NVLinks has no value for them.
        let Ok(value) = value else { continue };
        if possible.contains(&value) {
            *place(&mut activity) = Some((value * 10.0).round() / 10.0);
        } else {
            reader.note_failure(METRICS, &NvmlError::impossible(value), &[FIELD]);
        }
    }
    Some(activity)
}
