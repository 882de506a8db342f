//! Modules that read NVML in the child process. Each file imports only from the files above it in this list.
//!
//! ```text
//!   raw              the calls that nvml-wrapper lacks or implements incorrectly
//!   value_ranges     the values that NVML's numbers can have
//!   enum_names       the text for each number of NVML's enums
//!   identity         the identity of a GPU
//!   cache            answers that are used more than once
//!   device_reader    the calls of one GPU, and which fields could not be read
//!   field_errors     the fields of a section that could not be read
//!   library          opens libnvidia-ml.so.1, which host::driver::nvml_library finds
//!   session          the open library and its GPUs
//!   field_values, nvlink_fields, fabric, peer_to_peer, nvlink, c2c     parts of sections
//!   throttled_time   the time with reduced clocks, for telemetry and rates
//!   activity         the activity of a GPU between two readings, for rates
//!   inventory, telemetry, ecc, mig, processes, topology     one file per section
//!   rates            the second reading of the counters
//!   step             the steps of the reading, and their order
//! ```

mod activity;
mod c2c;
pub(super) mod cache;
pub(super) mod device_reader;
mod ecc;
mod enum_names;
mod fabric;
pub(super) mod field_errors;
mod field_values;
pub(super) mod identity;
mod inventory;
pub(super) mod library;
mod mig;
mod nvlink;
mod nvlink_fields;
pub(super) mod peer_to_peer;
mod processes;
mod rates;
mod raw;
pub(super) mod session;
pub(super) mod step;
mod telemetry;
mod throttled_time;
mod topology;
mod value_ranges;
