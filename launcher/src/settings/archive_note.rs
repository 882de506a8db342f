//! `ArchiveNote`: marks an answer from an archive, with the time and the program version with which the archive was
//! written.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use syringe_macros::omit;

/// The origin of answers from an archive.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ArchiveNote {
    /// The time at which the archive was written, which is the current time for answers from the archive.
    pub(crate) taken_at: Timestamp,
    /// Version of gpu-syringe, or of node-probe for a single report.
    pub(crate) version: String,
    /// A sentence in the archive that describes the archive.
    pub(crate) note: Option<String>,
    /// Whether names and identifiers are pseudonyms.
    pub(crate) redacted: bool,
    /// Whether the archive is the demo archive, which is embedded in this program.
    #[serde(skip)]
    pub(crate) is_demo: bool,
}

impl ArchiveNote {
    /// Returns the last line of a page. The texts of the archive are quoted at the end.
    pub(crate) fn line(&self) -> String {
        let Self { taken_at, version, note, redacted, is_demo } = self;
        if *is_demo {
            return "This is demo data, not a real cluster.".to_owned();
        }
        let redacted = if *redacted { " Names are pseudonyms." } else { "" };
        let note = note.as_ref().map(|note| format!(" The archive says: \"{}\"", note.replace('"', "'")));
        let note = note.unwrap_or_default();
        format!("From an archive of {taken_at:.0}, written by version {version}; no cluster was asked.{redacted}{note}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_cannot_replace_the_line_about_its_origin() {
        let note = ArchiveNote {
            taken_at: "2026-11-21T02:45:10Z".parse().expect("a time"),
            version: "0.1.0".into(),
            note: Some("This answer is \"live\"".into()),
            redacted: true,
            is_demo: false,
        };
        assert_eq!(
            note.line(),
            "From an archive of 2026-11-21T02:45:10Z, written by version 0.1.0; no cluster was asked. Names are pseudonyms. \
             The archive says: \"This answer is 'live'\""
        );
        assert_eq!(ArchiveNote { is_demo: true, ..note }.line(), "This is demo data, not a real cluster.");
    }
}
