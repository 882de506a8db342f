//! Constants for the names of the NVML return codes. These names are the `code` of a problem.
//! `FAILURES`: all names, except the name for a call that the probe did not make.
//!
//! The probe writes these names, the rules read them, and the fake NVML library converts them to numbers.
//!
//! Only failures are listed. A field that the hardware or the driver does not support has the code `not_supported`. That is
//! not a problem.

/// Code 1: `nvmlInit` was not called, or the driver was unloaded.
pub const UNINITIALIZED: &str = "uninitialized";
/// Code 4.
pub const NO_PERMISSION: &str = "no_permission";
/// Code 7: the buffer is too small. This is a defect of the probe.
pub const INSUFFICIENT_SIZE: &str = "insufficient_size";
/// Code 8: external power is not connected.
pub const INSUFFICIENT_POWER: &str = "insufficient_power";
/// Code 9.
pub const DRIVER_NOT_LOADED: &str = "driver_not_loaded";
/// Code 10. Also used for a call that did not return before the probe stopped waiting for it.
pub const TIMEOUT: &str = "timeout";
/// Code 11.
pub const INTERRUPT_ISSUE: &str = "interrupt_issue";
/// Code 12; also used if no library was found or could be opened.
pub const LIBRARY_NOT_FOUND: &str = "library_not_found";
/// Code 14.
pub const CORRUPTED_INFOROM: &str = "corrupted_inforom";
/// Code 15.
pub const GPU_LOST: &str = "gpu_lost";
/// Code 16.
pub const RESET_REQUIRED: &str = "reset_required";
/// Code 17: there is no device file, or the device cgroup denies access.
pub const ACCESS_BLOCKED: &str = "access_blocked";
/// Code 18: the versions of the library and the kernel module differ.
pub const VERSION_MISMATCH: &str = "version_mismatch";
/// Code 19.
pub const IN_USE: &str = "in_use";
/// Code 20: the caller, not the GPU, has too little memory.
pub const INSUFFICIENT_MEMORY: &str = "insufficient_memory";
/// Code 23.
pub const INSUFFICIENT_RESOURCES: &str = "insufficient_resources";
/// Code 27.
pub const NOT_READY: &str = "not_ready";
/// Code 28.
pub const GPU_NOT_FOUND: &str = "gpu_not_found";
/// Code 29.
pub const INVALID_STATE: &str = "invalid_state";
/// Code 999, and every number without a name.
pub const UNKNOWN: &str = "unknown";
/// The returned value is impossible.
pub const UNREADABLE: &str = "unreadable";
/// The probe reached its time limit and did not make the call. This gives no information about the GPU, so the code is
/// not in [`FAILURES`].
pub const NOT_REACHED: &str = "not_reached";

/// All failures. `diagnosis` has a finding for each of them.
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
