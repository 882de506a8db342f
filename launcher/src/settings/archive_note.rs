//! `ArchiveNote`: the mark of answers that come from an archive: when and by which program the archive was written.

use jiff::Timestamp;
use serde::Serialize;
use syringe_macros::omit;

/// The origin of answers from an archive.
#[omit(Option)]
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ArchiveNote {
    /// The time at which the archive was written, which is the current time for its answers.
    pub(crate) taken_at: Timestamp,
    /// Version of gpu-syringe, or of node-probe for a single report.
    pub(crate) version: String,
    /// A sentence of the archive about itself.
    pub(crate) note: Option<String>,
    /// Whether names and identifiers are pseudonyms.
    pub(crate) redacted: bool,
}

impl ArchiveNote {
    /// Returns the last line of a page.
    pub(crate) fn line(&self) -> String {
        let Self { taken_at, version, note, redacted } = self;
        let redacted = if *redacted { " Names are pseudonyms." } else { "" };
        note.clone().unwrap_or_else(|| {
            format!("From an archive of {taken_at:.0}, written by version {version}; no cluster was asked.{redacted}")
        })
    }
}
