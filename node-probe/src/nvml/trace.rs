//! What NVML is being asked at this instant, so that who waits can name the call that does not return, or that crashed.
//!
//! The process that asks NVML writes it into a page of memory that its parent can read whatever becomes of the process.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use syringe_core::text::clean;

/// Where the name of the call stands, and how long it may be.
const CALL: usize = 128;
/// Bytes of the page; what the process writes as its standard error fills the rest.
const PAGE: u64 = 4096;
/// Most of that which a report quotes.
const QUOTED: usize = 200;

/// Notes the call that is under way. Clones note into the same page; by default nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Arc<File>>);

/// A call that is under way; it has returned when this is dropped.
pub(super) struct UnderWay<'a>(&'a Trace);

/// The page, as the parent reads it.
#[derive(Debug)]
pub(super) struct Notes(File);

impl Notes {
    /// An empty page, of a size that stays.
    pub(super) fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut page = File::from(rustix::fs::memfd_create("node-probe", flags)?);
        page.set_len(PAGE)?;
        // However much the library prints, it takes no more memory.
        rustix::fs::fcntl_add_seals(&page, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        page.seek(SeekFrom::Start(CALL as u64))?;
        Ok(Self(page))
    }

    /// The page as a standard error for the process.
    pub(super) fn file(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// The call that NVML has not returned from, e.g. `nvmlDeviceGetMemoryInfo_v2 on GPU 3`.
    pub(super) fn call(&self) -> Option<String> {
        self.text::<CALL>(0)
    }

    /// What the process said on its standard error.
    pub(super) fn said(&self) -> Option<String> {
        self.text::<{ PAGE as usize - CALL }>(CALL as u64)
    }

    fn text<const LENGTH: usize>(&self, at: u64) -> Option<String> {
        let mut bytes = [0; LENGTH];
        self.0.read_exact_at(&mut bytes, at).ok()?;
        let text = bytes.split(|byte| *byte == 0).next()?;
        Some(clean(&String::from_utf8_lossy(text), QUOTED)).filter(|text| !text.is_empty())
    }
}

impl Trace {
    /// Notes into the page that is this process's standard error.
    pub(super) fn into_standard_error() -> io::Result<Self> {
        let page = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self(Some(Arc::new(File::from(page)))))
    }

    /// Notes that `function` is being called.
    pub(super) fn enter(&self, function: &'static str, gpu: Option<u32>) -> UnderWay<'_> {
        if let Some(page) = &self.0 {
            let text = match gpu {
                Some(gpu) => format!("{function} on GPU {gpu}\0"),
                None => format!("{function}\0"),
            };
            let length = text.len().min(CALL - 1);
            // What cannot be noted costs the name of a call in a message.
            let _ = page.write_all_at(&text.as_bytes()[..length], 0);
        }
        UnderWay(self)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(page) = &self.0.0 {
            let _ = page.write_all_at(&[0], 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_call_under_way_is_named_and_forgotten_when_it_returns() {
        let notes = Notes::new().expect("a page");
        let trace = Trace(Some(Arc::new(notes.file().expect("a file"))));
        let call = trace.enter("nvmlDeviceGetUUID", Some(3));
        assert_eq!(notes.call().as_deref(), Some("nvmlDeviceGetUUID on GPU 3"));
        drop(call);
        assert_eq!(notes.call(), None);
        let _call = trace.enter("nvmlInit_v2", None);
        assert_eq!(notes.call().as_deref(), Some("nvmlInit_v2"));
    }

    #[test]
    fn what_is_printed_stands_apart_and_cannot_grow() {
        let notes = Notes::new().expect("a page");
        let mut printed = notes.file().expect("a file");
        printed.write_all(b"free(): invalid pointer\n").expect("there is room");
        assert_eq!((notes.call(), notes.said().as_deref()), (None, Some("free(): invalid pointer")));
        assert!(printed.write_all(&[b'x'; 1 << 16]).is_err());
        assert_eq!(notes.0.metadata().expect("a file").len(), PAGE);
    }
}
