//! Modules that read NVML, NVIDIA's management library, in a child process.
//!
//! Each module imports only from the modules above it.
//!
//! ```text
//!   errors           NVML's return codes: what they mean and what to do
//!   current_call     records the current call, for the parent process
//!   answer           the answers, as the child process sends them
//!   read/            reads NVML: one file per section of the report
//!   process/         the child process that calls NVML
//! ```
//!
//! These modules contain no rules: a value is reported as in `nvidia-smi -q`, or is listed as missing.

mod answer;
mod current_call;
mod errors;
mod process;
mod read;

pub(crate) use answer::{GpuAddress, GpuState};
pub(crate) use process::sections::Uses;
pub(crate) use process::subprocess::all_ended;
pub(crate) use process::subprocess_main::run_in_child;
pub(crate) use process::supervisor::{Message, NvmlProcesses};
