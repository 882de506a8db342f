//! `times`: reads for how long each policy reduced the clocks of a GPU since the driver was loaded.
//! `branch`: the branch of the driver.
//!
//! `nvmlDeviceGetViolationStatus` is deprecated since R580. The IDs of the fields that replace it changed: in R570 and
//! R575, IDs 251 to 253 are times and 269 to 271 are settings of power smoothing; since R590, it is the reverse. R580
//! exists with both meanings, so no field is read there.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::PerformancePolicy;

use super::cache::Function;
use super::device_reader::DeviceReader;
use super::{field_values, value_ranges};

/// Policies of `nvmlDeviceGetViolationStatus` that limit clocks, and their names in the report.
const POLICIES: &[(PerformancePolicy, &str)] = &[
    (PerformancePolicy::Power, "power"),
    (PerformancePolicy::Thermal, "thermal"),
    (PerformancePolicy::SyncBoost, "sync_boost"),
    (PerformancePolicy::BoardLimit, "board_limit"),
    (PerformancePolicy::LowUtilization, "low_utilization"),
    (PerformancePolicy::Reliability, "reliability"),
];

/// Names in the report of the three fields, in the order of their IDs.
const OF_FIELDS: [&str; 3] = ["software_thermal", "hardware_thermal", "power_brake"];

/// The NVML function that returns the times, and their path in the entry of a GPU.
const FUNCTION: &str = "nvmlDeviceGetViolationStatus";
const FIELD: &str = "throttling.violations";

/// Returns the time in nanoseconds under each policy that the driver counts. A policy that should be counted but could
/// not be read is noted.
pub(in crate::nvml) fn times(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Vec<(&'static str, u64)> {
    let mut times = Vec::new();
    for (policy, word) in POLICIES {
        let time = reader.call_if_supported(FUNCTION, &[FIELD], || device.violation_status(*policy)).ok();
        let time = reader.check_range(FUNCTION, FIELD, time.map(|time| time.violation_time), value_ranges::COUNT);
        times.extend(time.map(|time| (*word, time)));
    }
    // The fields cover only some of the policies.
    if times.is_empty() && !reader.has_failed(FIELD) {
        reader.note_unsupported(&[FIELD]);
    }
    if let Some(ids) = branch(device, reader).and_then(fields_of) {
        let answers = field_values::answers_of_gpu(device, reader, ids);
        let times_of_fields = answers.map(|answer| u64::try_from(answer.ok()?).ok());
        let is_time = |time: &u64| *time != u64::MAX && *time != u64::from(u32::MAX);
        times.extend(
            OF_FIELDS.into_iter().zip(times_of_fields).filter_map(|(word, time)| Some((word, time.filter(is_time)?))),
        );
    }
    times
}

/// Returns the branch of the driver, e.g. 580.
pub(in crate::nvml) fn branch(device: &Device<'_>, reader: &DeviceReader<'_>) -> Option<u32> {
    let function = Function::of_product("nvmlSystemGetDriverVersion", "branch");
    let version = reader.try_call(function, || device.nvml().sys_driver_version()).ok()?;
    version.split('.').next()?.parse().ok()
}

/// Returns the fields of the times under software thermal slowdown, hardware thermal slowdown and power brake.
fn fields_of(branch: u32) -> Option<[u32; 3]> {
    match branch {
        570..580 => Some([251, 252, 253]),
        590.. => Some([269, 270, 271]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::fields_of;

    #[test]
    fn a_field_with_two_meanings_is_not_read() {
        for (branch, fields) in [
            (550, None),
            (570, Some([251, 252, 253])),
            (575, Some([251, 252, 253])),
            (580, None),
            (590, Some([269, 270, 271])),
            (615, Some([269, 270, 271])),
        ] {
            assert_eq!(fields_of(branch), fields, "R{branch}");
        }
    }
}
