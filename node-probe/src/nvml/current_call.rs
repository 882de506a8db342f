//! Records the current NVML call, so that the parent process can name a call that hangs or crashed.
//!
//! The NVML process writes it to a page of memory that its parent can read even after a crash.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use syringe_core::text::clean;

/// Maximum length of the name of the call, which is at the start of the page.
const CALL: usize = 128;
/// Bytes of the page; the standard error of the process fills the rest.
const PAGE: u64 = 4096;
/// Maximum bytes of the standard error in a report.
const QUOTED: usize = 200;

/// Records the current call. Clones use the same page; the default records nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallRecorder(Option<Arc<File>>);

/// The current call, until this value is dropped.
pub(super) struct CurrentCall<'a>(&'a CallRecorder);

/// The page, for the parent.
#[derive(Debug)]
pub(super) struct SharedPage(File);

impl SharedPage {
    /// An empty page of fixed size.
    pub(super) fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut page = File::from(rustix::fs::memfd_create("node-probe", flags)?);
        page.set_len(PAGE)?;
        // The output of the library cannot use more memory.
        rustix::fs::fcntl_add_seals(&page, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        page.seek(SeekFrom::Start(CALL as u64))?;
        Ok(Self(page))
    }

    /// The page as the standard error of the process.
    pub(super) fn file(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// The call that has not returned, e.g. `nvmlDeviceGetMemoryInfo_v2 on GPU 3`.
    pub(super) fn call(&self) -> Option<String> {
        self.text::<CALL>(0)
    }

    /// The standard error of the process.
    pub(super) fn stderr_text(&self) -> Option<String> {
        self.text::<{ PAGE as usize - CALL }>(CALL as u64)
    }

    fn text<const LENGTH: usize>(&self, at: u64) -> Option<String> {
        let mut bytes = [0; LENGTH];
        self.0.read_exact_at(&mut bytes, at).ok()?;
        let text = bytes.split(|byte| *byte == 0).next()?;
        Some(clean(&String::from_utf8_lossy(text), QUOTED)).filter(|text| !text.is_empty())
    }
}

impl CallRecorder {
    /// Records to the page that is the standard error of this process.
    pub(super) fn into_standard_error() -> io::Result<Self> {
        let page = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self(Some(Arc::new(File::from(page)))))
    }

    /// Records that `function` is called.
    pub(super) fn record(&self, function: &'static str, gpu: Option<u32>) -> CurrentCall<'_> {
        if let Some(page) = &self.0 {
            let text = match gpu {
                Some(gpu) => format!("{function} on GPU {gpu}\0"),
                None => format!("{function}\0"),
            };
            let length = text.len().min(CALL - 1);
            // On an error, only the name of the call in a message is missing.
            let _ = page.write_all_at(&text.as_bytes()[..length], 0);
        }
        CurrentCall(self)
    }
}

impl Drop for CurrentCall<'_> {
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
    fn the_current_call_is_recorded_until_it_returns() {
        let page = SharedPage::new().expect("a page");
        let recorder = CallRecorder(Some(Arc::new(page.file().expect("a file"))));
        let call = recorder.record("nvmlDeviceGetUUID", Some(3));
        assert_eq!(page.call().as_deref(), Some("nvmlDeviceGetUUID on GPU 3"));
        drop(call);
        assert_eq!(page.call(), None);
        let _call = recorder.record("nvmlInit_v2", None);
        assert_eq!(page.call().as_deref(), Some("nvmlInit_v2"));
    }

    #[test]
    fn the_standard_error_is_separate_and_bounded() {
        let page = SharedPage::new().expect("a page");
        let mut printed = page.file().expect("a file");
        printed.write_all(b"free(): invalid pointer\n").expect("there is room");
        assert_eq!((page.call(), page.stderr_text().as_deref()), (None, Some("free(): invalid pointer")));
        assert!(printed.write_all(&[b'x'; 1 << 16]).is_err());
        assert_eq!(page.0.metadata().expect("a file").len(), PAGE);
    }
}
