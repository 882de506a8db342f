//! NVIDIA's management library: one file per section of the report. Each file imports only from those above it:
//!
//! ```text
//!   errors           NVML's return codes: what they mean and what to do
//!   current_call     records the current call, for the parent process
//!   answer           the answers, as the child process sends them
//!   call_log         the calls of one step of the reading, for another thread
//!   raw              the calls that nvml-wrapper lacks or gets wrong: the only `unsafe` of this program
//!   value_ranges     the values that NVML's numbers can have
//!   enum_names       the text for each number of NVML's enums
//!   identity         the identity of a GPU
//!   kept_answers     answers that are used more than once
//!   device_reader    the calls of one GPU, and which fields could not be read
//!   field_errors     the fields of a section that could not be read
//!   library          opens libnvidia-ml.so.1, which host::nvml_library finds
//!   session          the open library and its GPUs
//!   field_values, nvlink_fields, fabric, peer_to_peer, nvlink     parts of sections
//!   inventory, telemetry, ecc, mig, processes, topology     one file per section
//!   step             the steps of the reading, and their order
//!   output           writes the answers
//!   supervisor       reads the steps in a thread, and goes on without a GPU that hangs
//!   sections         joins the answers to sections (runs in the parent)
//!   subprocess       starts the child process that calls NVML, and reads its answers (runs in the parent)
//!   subprocess_main  the code of the child process
//! ```
//!
//! There are no rules here: a value is reported as in `nvidia-smi -q`, or it is listed as missing.

mod answer;
mod call_log;
mod current_call;
mod device_reader;
mod ecc;
mod enum_names;
mod errors;
mod fabric;
mod field_errors;
mod field_values;
mod identity;
mod inventory;
mod kept_answers;
mod library;
mod mig;
mod nvlink;
mod nvlink_fields;
mod output;
mod peer_to_peer;
mod processes;
mod raw;
mod sections;
mod session;
mod step;
mod subprocess;
mod subprocess_main;
mod supervisor;
mod telemetry;
mod topology;
mod value_ranges;

pub(crate) use answer::{Answer, GpuAddress, GpuState};
pub(crate) use sections::{Parts, Uses};
pub(crate) use subprocess::{Answers, NvmlProcess, all_ended};
pub(crate) use subprocess_main::run_in_child;
