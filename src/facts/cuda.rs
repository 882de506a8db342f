//! `CudaStart`: the results of the CUDA calls of a new process on the node, which `--deep` starts.

use syringe_macros::facts;

use crate::report::Problem;

/// A process without privileges that loaded the CUDA library of the node and called `cuInit`, `cuDriverGetVersion` and
/// `cuDeviceGetCount`. It created no context.
#[facts(omit(Option))]
pub struct CudaStart {
    /// Path of the library.
    pub library: Option<String>,
    /// Result of `cuInit` (`CUresult`): 0 is success.
    pub init_code: Option<u32>,
    /// The version of CUDA that the library supports: `12.8`.
    pub version: Option<String>,
    /// Result of `cuDeviceGetCount`.
    pub count_code: Option<u32>,
    /// Number of devices.
    pub devices: Option<u32>,
    /// Time until the calls returned, or until the probe did not wait any longer.
    pub duration_ms: Option<u64>,
    /// The call that did not return.
    pub open_call: Option<String>,
    /// How the process ended in that call. `None` if the process was still running.
    pub ended: Option<String>,
    /// ID of the process, if it could not be killed: it hangs in the kernel.
    pub left_process: Option<u32>,
    /// Why CUDA was not started.
    pub problem: Option<Problem>,
}
