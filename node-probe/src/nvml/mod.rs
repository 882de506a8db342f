//! Everything that NVIDIA's management library can tell: one file per section of the report.
//!
//! ```text
//!   process   starts a process of its own that asks NVML, and reads its answers
//!   serve     is that process
//!   library   opens libnvidia-ml.so.1, which host::libraries finds
//!   session   the open library and its GPUs; asks one GPU after the other
//!   missing   what a GPU would not say: not offered (`unsupported`) or failed (`problems`)
//!   errors    NVML's return codes in words, with what to do
//!   raw       the calls that nvml-wrapper lacks or gets wrong: the only `unsafe` of this program
//!   possible  the values that NVML's numbers can have
//!   words     NVML's numbers in words
//! ```
//!
//! Nothing here judges: a value is passed on as `nvidia-smi -q` would show it, or it is named as missing.

mod ecc;
mod errors;
mod fields;
mod inventory;
mod library;
mod mig;
mod missing;
mod nvlink;
mod possible;
mod process;
mod processes;
mod raw;
mod serve;
mod session;
mod telemetry;
mod topology;
mod trace;
mod words;

pub(crate) use process::{Answer, Answers, GpuAddress, GpuState, NvmlProcess, Questions, Uses, all_ended};
pub(crate) use serve::serve;
pub use session::Session;
pub use trace::Trace;
