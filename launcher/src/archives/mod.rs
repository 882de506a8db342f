//! Modules for archives: `save` writes an archive, `open` starts the embedded cluster with an archive.
//! `RawRecords`: the kernel log and the files of a node in an archive.

#[cfg(feature = "demo")]
mod open;
#[cfg(not(feature = "demo"))]
#[path = "open_disabled.rs"]
mod open;
mod save;

use syringe_core::raw_file::RawFile;
use syringe_core::report::Report;

pub(crate) use self::open::{EmbeddedCluster, Opened, open, open_file, raw_records};
pub(crate) use self::save::{SaveArgs, save};

/// The kernel log and the files of a node in an archive, which are not in its report.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawRecords {
    kernel_log: Vec<u8>,
    files: Vec<RawFile>,
}

impl RawRecords {
    /// Adds the records to a report that was read without them.
    pub(crate) fn add_to(&self, report: &mut Report) {
        if report.kernel_log.is_empty() {
            let lines = String::from_utf8_lossy(&self.kernel_log);
            report.kernel_log = lines.lines().map(str::to_owned).collect();
        }
        if report.raw_files.is_empty() {
            report.raw_files.clone_from(&self.files);
        }
    }
}
