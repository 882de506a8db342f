//! The type `Failures`: calls and fields that must return an error code, and the log of all calls.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::ffi::Answer;

/// The settings in `FAKE_NVML_FAIL` and `FAKE_NVML_CALLS`.
#[derive(Default)]
pub(crate) struct Failures {
    /// Functions and fields (`field 164`) that return a code of NVML, each for one GPU or for all.
    fail: Vec<(String, Option<u32>, nvmlReturn_t)>,
    /// File to which every call is written.
    record: Option<Mutex<File>>,
}

impl Failures {
    pub(crate) fn read() -> Self {
        let failing = |item: &str| {
            let (what, code) = item.trim().split_once('=')?;
            let (name, gpu) = what.split_once(':').map_or((what, None), |(name, gpu)| (name, gpu.parse().ok()));
            Some((name.to_owned(), gpu, code.parse().ok()?))
        };
        let fail = std::env::var("FAKE_NVML_FAIL").unwrap_or_default();
        let record = std::env::var_os("FAKE_NVML_CALLS")
            .and_then(|path| OpenOptions::new().create(true).append(true).open(path).ok());
        Self { fail: fail.split(',').filter_map(failing).collect(), record: record.map(Mutex::new) }
    }

    /// Returns the error code if a function or field must fail.
    pub(crate) fn refuse(&self, name: &str, gpu: Option<u32>) -> Answer {
        let fails = |(known, only, _): &&(String, Option<u32>, _)| known == name && (only.is_none() || *only == gpu);
        self.fail.iter().find(fails).map_or(Ok(()), |(_, _, code)| Err(*code))
    }

    /// Writes a call to the log.
    pub(crate) fn note(&self, function: &str, gpu: Option<u32>) {
        if let Some(record) = &self.record {
            let mut file = record.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(file, "{function} {}", gpu.map(|gpu| gpu.to_string()).unwrap_or_default());
        }
    }
}
