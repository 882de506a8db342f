//! Tests of the built library, opened by path through `nvml-wrapper` as its users open it.
#![allow(non_upper_case_globals, reason = "NVML's own names")]
#![allow(unsafe_code, reason = "environment variables; NVML calls that nvml-wrapper lacks, or would not make")]

mod answers;
mod faults;
mod support;
