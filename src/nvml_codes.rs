//! Names of the NVML return codes in the `code` of a problem. The probe writes them, the rules read them, and the fake
//! NVML library turns them into numbers.
//!
//! Only failures are listed. What the hardware or the driver does not support is `not_supported`, which is no problem.

/// 1: `nvmlInit` was not called, or the driver was unloaded.
pub const UNINITIALIZED: &str = "uninitialized";
/// 4.
pub const NO_PERMISSION: &str = "no_permission";
/// 7: the buffer is too small, which is a defect of the probe.
pub const INSUFFICIENT_SIZE: &str = "insufficient_size";
/// 8: external power is not connected.
pub const INSUFFICIENT_POWER: &str = "insufficient_power";
/// 9.
pub const DRIVER_NOT_LOADED: &str = "driver_not_loaded";
/// 10; also for a call that the probe no longer waits for.
pub const TIMEOUT: &str = "timeout";
/// 11.
pub const INTERRUPT_ISSUE: &str = "interrupt_issue";
/// 12; also if no library was found or could be opened.
pub const LIBRARY_NOT_FOUND: &str = "library_not_found";
/// 14.
pub const CORRUPTED_INFOROM: &str = "corrupted_inforom";
/// 15.
pub const GPU_LOST: &str = "gpu_lost";
/// 16.
pub const RESET_REQUIRED: &str = "reset_required";
/// 17: no device file, or the device cgroup denies it.
pub const ACCESS_BLOCKED: &str = "access_blocked";
/// 18: library and kernel module differ.
pub const VERSION_MISMATCH: &str = "version_mismatch";
/// 19.
pub const IN_USE: &str = "in_use";
/// 20: of the caller, not of the GPU.
pub const INSUFFICIENT_MEMORY: &str = "insufficient_memory";
/// 23.
pub const INSUFFICIENT_RESOURCES: &str = "insufficient_resources";
/// 27.
pub const NOT_READY: &str = "not_ready";
/// 28.
pub const GPU_NOT_FOUND: &str = "gpu_not_found";
/// 29.
pub const INVALID_STATE: &str = "invalid_state";
/// 999, and every number without a name.
pub const UNKNOWN: &str = "unknown";
/// An answer that makes no sense.
pub const UNREADABLE: &str = "unreadable";
/// The probe's time was over before the call. It is no fact about the GPU, so it is not one of [`FAILURES`].
pub const NOT_REACHED: &str = "not_reached";

/// All failures. Each of them leads to a finding of `diagnosis`.
pub const FAILURES: [&str; 21] = [
    UNINITIALIZED,
    NO_PERMISSION,
    INSUFFICIENT_SIZE,
    INSUFFICIENT_POWER,
    DRIVER_NOT_LOADED,
    TIMEOUT,
    INTERRUPT_ISSUE,
    LIBRARY_NOT_FOUND,
    CORRUPTED_INFOROM,
    GPU_LOST,
    RESET_REQUIRED,
    ACCESS_BLOCKED,
    VERSION_MISMATCH,
    IN_USE,
    INSUFFICIENT_MEMORY,
    INSUFFICIENT_RESOURCES,
    NOT_READY,
    GPU_NOT_FOUND,
    INVALID_STATE,
    UNKNOWN,
    UNREADABLE,
];
