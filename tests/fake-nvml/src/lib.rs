//! A replacement for `libnvidia-ml.so.1`: exports the NVML C functions, which return the values of a facts file.
//!
//! A facts file is a saved [`Report`](syringe_core::report::Report). This crate is built as a `cdylib`. With it, the code of
//! the probe that calls NVML can be tested without a GPU: facts file → this library → probe → report. The report must equal
//! the facts.
//!
//! ```text
//!   FAKE_NVML_FACTS=node.json ──▶ session ──▶ facts (one GPU's entry of every section)
//!                                                 ▲
//!   nvmlDeviceGet…(device, out) ──▶ ffi ──────────┘   system, device, telemetry, memory, fields, ecc, nvlink,
//!                                                     gpm, topology, mig, processes: one file per family of functions
//! ```
//!
//! Environment variables that control the library:
//!
//! | variable | effect |
//! |---|---|
//! | `FAKE_NVML_FACTS=PATH` | the facts file, read by the first `nvmlInit` |
//! | `FAKE_NVML_BLOCK=FUNCTION[:GPU],…` | this call (for this GPU index) never returns, like a call into a hung driver |
//! | `FAKE_NVML_CRASH=FUNCTION[:GPU],…` | this call (for this GPU index) crashes the process with SIGSEGV |
//! | `FAKE_NVML_LOADED=PATH` | when the library is loaded, it copies `/proc/self/status` of the process to this file |
//! | `FAKE_NVML_DELAY_US=N` | every call takes N microseconds longer |
//! | `FAKE_NVML_SLOW=FUNCTION[:GPU]=N,…` | this call (for this GPU index) takes N milliseconds longer |
//! | `FAKE_NVML_LOCK=1` | calls wait for each other, so that a call that never returns blocks all others |
//! | `FAKE_NVML_HIDE=FUNCTION,…` | this function returns `FUNCTION_NOT_FOUND`, as with an old driver |
//! | `FAKE_NVML_FAIL=FUNCTION[:GPU]=CODE,…` | this call returns this code, e.g. 999; `field 164` for one field |
//! | `FAKE_NVML_VERSIONED_FLAG=1` | the flag of unrepairable memory is written in the layout of nvidia-ml-py |
//! | `FAKE_NVML_CALLS=PATH` | every call is appended to this file, as one line |
//!
//! - An absent fact leads to `NOT_SUPPORTED`, a null pointer to `INVALID_ARGUMENT`, a short buffer to `INSUFFICIENT_SIZE`.
//! - An inventory section with status `error` makes `nvmlInit` fail with the code of the section's first problem.
//! - A GPU with a problem of code `gpu_lost` in the inventory section leads to `GPU_IS_LOST`. If the inventory lists the
//!   GPU, its handle, index and PCI address can still be read; if not, the request for a handle fails.
//! - The library does not simulate a GPU: no value changes with time, except counters with a `sample` in the facts, and no
//!   value can be set.
#![allow(non_snake_case, non_upper_case_globals, reason = "NVML's own names")]
#![allow(unsafe_code, reason = "a C ABI: exported symbols, and pointers and buffers that a C caller owns")]

use std::path::PathBuf;

#[macro_use]
mod ffi;
mod device;
mod ecc;
mod facts;
mod failures;
mod fields;
mod gpm;
mod memory;
mod mig;
mod modes;
mod nvlink;
mod processes;
mod rates;
mod session;
mod system;
mod telemetry;
mod topology;

/// Runs when the library is loaded, before any call. A hostile library would run its code in such a function.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

extern "C" fn loaded() {
    if let Some(file) = std::env::var_os("FAKE_NVML_LOADED") {
        // If the file cannot be written, the test that reads the file fails.
        let _ = std::fs::copy("/proc/self/status", file);
    }
}

/// Returns the path of the built shared library, for programs that load NVML by path.
///
/// Cargo builds it beside the test executable of every package that has this crate as a (dev-)dependency.
///
/// # Panics
///
/// Panics if the library does not exist. The message contains the paths that were searched.
pub fn library_path() -> PathBuf {
    let file = format!("{}fake_nvml{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let executable = std::env::current_exe().unwrap_or_default();
    // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM: look in both folders, in `deps` first.
    let folders = executable.ancestors().skip(1).take(2);
    let places: Vec<PathBuf> =
        folders.flat_map(|folder| [folder.join("deps").join(&file), folder.join(&file)]).collect();
    match places.iter().find(|place| place.is_file()) {
        Some(place) => place.clone(),
        None => panic!("the fake NVML library was not built: none of {places:?} exists"),
    }
}
