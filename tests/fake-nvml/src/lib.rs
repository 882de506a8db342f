//! A stand-in for `libnvidia-ml.so.1` that answers the NVML C ABI from a facts file.
//!
//! A facts file is a saved [`Report`](syringe_core::report::Report). Built as a `cdylib`, this crate exports the NVML
//! functions that a reader of those facts calls, so that the probe's real path through NVML can be tested without a
//! GPU: facts file → this library → probe → report, and the report must say what the facts said.
//!
//! ```text
//!   FAKE_NVML_FACTS=node.json ──▶ session ──▶ facts (one GPU's entry of every section)
//!                                                 ▲
//!   nvmlDeviceGet…(device, out) ──▶ ffi ──────────┘   system, device, telemetry, memory, fields, ecc, nvlink,
//!                                                     topology, mig, processes: one file per family of functions
//! ```
//!
//! What it does, and how to steer it:
//!
//! | variable | effect |
//! |---|---|
//! | `FAKE_NVML_FACTS=PATH` | the facts file, read by the first `nvmlInit` |
//! | `FAKE_NVML_BLOCK=FUNCTION[:GPU],…` | that call (on that GPU index) never returns, like a call into a hung driver |
//! | `FAKE_NVML_CRASH=FUNCTION[:GPU],…` | that call (on that GPU index) ends the process by SIGSEGV |
//! | `FAKE_NVML_LOADED=PATH` | loading the library writes `/proc/self/status` of the process into that file |
//! | `FAKE_NVML_DELAY_US=N` | every call takes N microseconds longer |
//! | `FAKE_NVML_LOCK=1` | calls wait for each other, so that one that never returns blocks all others |
//! | `FAKE_NVML_HIDE=FUNCTION,…` | that function answers `FUNCTION_NOT_FOUND`, like a driver too old for it |
//! | `FAKE_NVML_FAIL=FUNCTION[:GPU]=CODE,…` | that call answers this return code, e.g. 999; `field 164` for one field |
//! | `FAKE_NVML_CALLS=PATH` | every call is appended there, one line each |
//!
//! - A fact that is absent answers `NOT_SUPPORTED`; a null pointer `INVALID_ARGUMENT`; a short buffer
//!   `INSUFFICIENT_SIZE`.
//! - An inventory section with status `error` makes `nvmlInit` fail with the code that its problem names.
//! - A GPU with a problem of code `gpu_lost` in the inventory section answers `GPU_IS_LOST`: to everything but its
//!   handle, its index and its PCI address where the inventory lists it all the same, to the request for a handle
//!   where it does not.
//! - It is no model of a GPU: nothing changes with time, and nothing can be set.
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
mod memory;
mod mig;
mod modes;
mod nvlink;
mod processes;
mod session;
mod system;
mod telemetry;
mod topology;

/// Runs when the library is loaded, before anybody asks it anything: what a hostile library would do its work in.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

extern "C" fn loaded() {
    if let Some(file) = std::env::var_os("FAKE_NVML_LOADED") {
        // Where it cannot be written the test that looks for it fails.
        let _ = std::fs::copy("/proc/self/status", file);
    }
}

/// The built shared library, for a test to hand to whatever loads NVML by path.
///
/// Cargo builds it beside the test executable of every package that has this crate as a (dev-)dependency.
///
/// # Panics
///
/// When it is not there; the message names the places that were looked at.
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
