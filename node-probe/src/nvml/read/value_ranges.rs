//! Constants for the ranges of possible values of NVML's numbers, e.g. `PERCENT`, `CELSIUS` and `COUNT`.
//! A value outside its range is a defect of the driver or the device.
//!
//! Often all bits of such a value are set. The value is dropped and reported. The ranges are wide, because they check
//! whether the value is valid, not whether the GPU is healthy.

use std::ops::RangeInclusive;

/// A percentage of a time or of a limit.
pub(in crate::nvml) const PERCENT: RangeInclusive<u32> = 0..=100;
/// Fan speed. According to the header it may exceed 100 %.
pub(in crate::nvml) const FAN_PERCENT: RangeInclusive<u32> = 0..=255;
/// Temperatures and their limits.
pub(in crate::nvml) const CELSIUS: RangeInclusive<i32> = -100..=250;
/// Differences between temperatures.
pub(in crate::nvml) const DEGREES: RangeInclusive<i32> = -250..=250;
/// Power; a whole rack of GPUs draws about 130 kW.
pub(in crate::nvml) const MILLIWATTS: RangeInclusive<u32> = 0..=200_000_000;
pub(in crate::nvml) const MHZ: RangeInclusive<u32> = 0..=100_000;
pub(in crate::nvml) const PCIE_GENERATION: RangeInclusive<u32> = 0..=16;
pub(in crate::nvml) const PCIE_LANES: RangeInclusive<u32> = 0..=64;
pub(in crate::nvml) const PERFORMANCE_STATE: RangeInclusive<u32> = 0..=15;
/// Counters. A value with all bits set is NVML's "not available", or comes from a device that left the bus.
pub(in crate::nvml) const COUNT: RangeInclusive<u64> = 0..=u64::MAX - 1;
/// Counters with 32 bits.
pub(in crate::nvml) const SMALL_COUNT: RangeInclusive<u32> = 0..=u32::MAX - 1;
