//! Everything that NVIDIA's management library can tell: one file per section of the report.
//!
//! ```text
//!   library   finds and opens libnvidia-ml.so.1, wherever the platform keeps it
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
mod processes;
mod raw;
mod session;
mod telemetry;
mod topology;
mod trace;
mod words;

pub use session::Session;
pub use trace::Trace;
