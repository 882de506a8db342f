//! Modules of the tests of the built fake NVML library, which is opened by path with `nvml-wrapper`.
#![allow(non_upper_case_globals, reason = "NVML's own names")]
#![allow(unsafe_code, reason = "environment variables, and NVML calls that nvml-wrapper lacks or does not make")]

mod answers;
mod faults;
mod support;
