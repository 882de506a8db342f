//! The result of one check, and the command that fixes a problem.

use serde::Serialize;
use syringe_core::text::clean;

/// Limit on the evidence of a check, which quotes the API server.
const MAX_EVIDENCE: usize = 400;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    /// gpu-syringe works, with a restriction or a risk.
    Warning,
    /// gpu-syringe does not work until this is fixed.
    Failure,
    /// Not checked: it does not matter here, or another check failed first.
    Skipped,
}

/// The fix of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fix {
    /// A command that can be pasted.
    pub(crate) command: String,
    /// Who runs it, and what it means.
    pub(crate) note: String,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// A stable name.
    pub(crate) id: String,
    pub(crate) status: Status,
    pub(crate) evidence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<Fix>,
    /// The result matters, and is not known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) undecided: bool,
}

impl Check {
    fn new(id: impl Into<String>, status: Status, evidence: impl AsRef<str>) -> Self {
        let evidence = clean(evidence.as_ref(), MAX_EVIDENCE);
        Self { id: id.into(), status, evidence, fix: None, undecided: false }
    }

    pub(crate) fn ok(id: impl Into<String>, evidence: impl AsRef<str>) -> Self {
        Self::new(id, Status::Ok, evidence)
    }

    /// Not checked, for this reason.
    pub(crate) fn skipped(id: impl Into<String>, evidence: impl AsRef<str>) -> Self {
        Self::new(id, Status::Skipped, evidence)
    }

    /// The result matters, and is not known, for this reason.
    pub(crate) fn undecided(id: impl Into<String>, evidence: impl AsRef<str>) -> Self {
        Self { undecided: true, ..Self::new(id, Status::Skipped, evidence) }
    }

    pub(crate) fn warning(id: impl Into<String>, evidence: impl AsRef<str>, fix: Fix) -> Self {
        Self { fix: Some(fix), ..Self::new(id, Status::Warning, evidence) }
    }

    pub(crate) fn failure(id: impl Into<String>, evidence: impl AsRef<str>, fix: Fix) -> Self {
        Self { fix: Some(fix), ..Self::new(id, Status::Failure, evidence) }
    }

    /// A failure, or a warning where gpu-syringe can do without.
    pub(crate) fn problem(is_failure: bool, id: impl Into<String>, evidence: impl AsRef<str>, fix: Fix) -> Self {
        if is_failure { Self::failure(id, evidence, fix) } else { Self::warning(id, evidence, fix) }
    }

    /// A failure, a warning, or an undecided check.
    pub(crate) fn is_problem(&self) -> bool {
        matches!(self.status, Status::Failure | Status::Warning) || self.undecided
    }

    /// Problems first.
    pub(crate) fn rank(&self) -> u8 {
        match self.status {
            Status::Failure => 0,
            Status::Skipped if self.undecided => 1,
            Status::Warning => 2,
            Status::Ok => 3,
            Status::Skipped => 4,
        }
    }
}
