//! `CallRecorder`: records the current NVML call of the child process in a page of memory.
//! `SharedPage`: this page in the parent process, which finds a call that hangs or crashed (`OpenCall`).
//!
//! The NVML process writes the record to a page of memory that its parent can read even after a crash.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::time::{ClockId, clock_gettime};
use syringe_core::text::clean;

/// Maximum length of the record, which is at the start of the page.
const CALL: usize = 128;
/// Size of the page in bytes; the standard error of the process fills the rest.
const PAGE: u64 = 4096;
/// Maximum number of bytes of the standard error in a report.
const QUOTED: usize = 200;

/// Records the current call. The default records nothing.
#[derive(Debug, Default)]
pub(crate) struct CallRecorder {
    page: Option<File>,
    /// Number of GPU calls that have returned.
    returned: Cell<u32>,
}

/// Marks the call as current until this value is dropped.
pub(super) struct CurrentCall<'a> {
    recorder: &'a CallRecorder,
    is_on_gpu: bool,
}

/// A call that has not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenCall {
    /// Text such as `nvmlDeviceGetMemoryInfo_v2 on GPU 3`.
    pub(crate) text: String,
    pub(super) duration: Duration,
    /// Number of GPU calls of the same process that returned before this call.
    pub(super) returned: u32,
}

impl OpenCall {
    pub(super) fn function(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// Returns the NVML index of the call's GPU, or of the first GPU if the call is about two.
    pub(super) fn gpu(&self) -> Option<u32> {
        let (_, gpu) = self.text.split_once(" on GPU ")?;
        gpu.split(' ').next()?.parse().ok()
    }

    pub(super) fn is_on_two_gpus(&self) -> bool {
        self.text.contains(" and GPU ")
    }
}

/// The page of memory, for the parent process.
#[derive(Debug)]
pub(super) struct SharedPage(File);

impl SharedPage {
    /// Creates an empty page of fixed size.
    pub(super) fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut page = File::from(rustix::fs::memfd_create("node-probe", flags)?);
        page.set_len(PAGE)?;
        // The limit on the size prevents the output of the library from using more memory.
        rustix::fs::fcntl_add_seals(&page, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        page.seek(SeekFrom::Start(CALL as u64))?;
        Ok(Self(page))
    }

    /// Returns the page as a file, for the standard error of the process.
    pub(super) fn file(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// Returns the call that has not returned.
    pub(super) fn call(&self) -> Option<OpenCall> {
        let text = self.text::<CALL>(0)?;
        let mut words = text.splitn(3, ' ');
        let began = Duration::from_millis(words.next()?.parse().ok()?);
        let returned = words.next()?.parse().ok()?;
        let text = words.next()?.to_owned();
        Some(OpenCall { text, duration: monotonic().saturating_sub(began), returned })
    }

    /// Returns the standard error of the process.
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

/// Returns the time since the machine started. The clock is the same in both processes.
fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

impl CallRecorder {
    /// Returns a recorder that writes to the page, which is the standard error of this process.
    pub(super) fn into_standard_error() -> io::Result<Self> {
        let page = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self { page: Some(File::from(page)), returned: Cell::new(0) })
    }

    /// Records that `function` is being called, for zero, one or two GPUs.
    pub(super) fn record(&self, function: &'static str, gpu: Option<u32>, other: Option<u32>) -> CurrentCall<'_> {
        if let Some(page) = &self.page {
            let on = gpu.map(|gpu| format!(" on GPU {gpu}")).unwrap_or_default();
            let and = other.map(|other| format!(" and GPU {other}")).unwrap_or_default();
            let began = crate::document::millis(monotonic());
            let text = format!("{began} {} {function}{on}{and}\0", self.returned.get());
            let length = text.len().min(CALL - 1);
            // If the write fails, a call that hangs is not detected.
            let _ = page.write_all_at(&text.as_bytes()[..length], 0);
        }
        CurrentCall { recorder: self, is_on_gpu: gpu.is_some() }
    }
}

impl Drop for CurrentCall<'_> {
    fn drop(&mut self) {
        let CallRecorder { page, returned } = self.recorder;
        returned.set(returned.get() + u32::from(self.is_on_gpu));
        if let Some(page) = page {
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
        let recorder = CallRecorder { page: Some(page.file().expect("a file")), returned: Cell::new(0) };
        let call = recorder.record("nvmlDeviceGetUUID", Some(3), None);
        let open = page.call().expect("it has not returned");
        assert_eq!((open.text.as_str(), open.function()), ("nvmlDeviceGetUUID on GPU 3", "nvmlDeviceGetUUID"));
        assert_eq!((open.gpu(), open.is_on_two_gpus(), open.returned), (Some(3), false, 0));
        assert!(open.duration < Duration::from_secs(60), "{:?}", open.duration);
        drop(call);
        assert_eq!(page.call(), None);
        let call = recorder.record("nvmlDeviceGetP2PStatus", Some(12), Some(13));
        let open = page.call().expect("it has not returned");
        assert_eq!((open.gpu(), open.is_on_two_gpus(), open.returned), (Some(12), true, 1));
        drop(call);
        let _call = recorder.record("nvmlInit_v2", None, None);
        assert_eq!(
            page.call().map(|call| (call.gpu(), call.returned, call.text)),
            Some((None, 2, "nvmlInit_v2".into()))
        );
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
