//! `Unknown`: a fact that is needed for an answer but could not be read, with the reason.

use syringe_macros::facts;

use crate::section_name::SectionName;

/// Beginning of the reason for data that an archive does not contain.
pub const NOT_IN_ARCHIVE: &str = "it is not in the archive: ";

/// Annotation of a Node object that was made from the report of node-probe, because the archive has no Node object. No
/// conclusion about Kubernetes is drawn from such an object.
pub const FROM_REPORT: &str = "gpu-syringe/from-report";

/// Something that could not be read.
#[facts(omit(Option))]
pub struct Unknown {
    /// Sections of the report, separated by commas, or another source of facts: `pods`, `events`.
    #[cfg_attr(feature = "schema", schemars(extend("x-text" = "own")))]
    pub section: String,
    /// NVML index of the GPU, if the fact is about one GPU.
    pub gpu: Option<u32>,
    /// The reason why the fact could not be read, and the next step.
    pub why: String,
}

impl Unknown {
    /// Creates the entry of a section, or of another source of facts.
    pub fn new(section: impl ToString, why: impl Into<String>) -> Self {
        Self { section: section.to_string(), gpu: None, why: why.into() }
    }

    /// Returns whether the entry is about this section, alone or together with other sections.
    pub fn is_of(&self, section: SectionName) -> bool {
        self.section.split(", ").any(|name| name == section.as_str())
    }
}
