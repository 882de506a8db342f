//! `Check`: one doctor check, with its result (`Status`) and the command that fixes a problem (`Fix`).

use serde::Serialize;
use syringe_core::text::clean;
use syringe_macros::omit;

/// Maximum length of the evidence of a check, which quotes the API server.
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
    /// The check was not made, because it does not matter with these settings, or because another check failed first.
    Skipped,
}

/// The fix for a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fix {
    /// A command that can be pasted.
    pub(crate) command: String,
    /// Who should run the command, and what the command means.
    pub(crate) note: String,
}

/// One check of the environment, with its result and its evidence.
#[omit(Option, bool)]
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// A stable name of the check.
    pub(crate) id: String,
    pub(crate) status: Status,
    pub(crate) evidence: String,
    pub(crate) fix: Option<Fix>,
    /// Whether the result matters but is not known.
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

    /// Creates a check that was not made, for this reason.
    pub(crate) fn skipped(id: impl Into<String>, evidence: impl AsRef<str>) -> Self {
        Self::new(id, Status::Skipped, evidence)
    }

    /// Creates a check whose result matters but is not known, for this reason.
    pub(crate) fn undecided(id: impl Into<String>, evidence: impl AsRef<str>) -> Self {
        Self { undecided: true, ..Self::new(id, Status::Skipped, evidence) }
    }

    pub(crate) fn warning(id: impl Into<String>, evidence: impl AsRef<str>, fix: Fix) -> Self {
        Self { fix: Some(fix), ..Self::new(id, Status::Warning, evidence) }
    }

    pub(crate) fn failure(id: impl Into<String>, evidence: impl AsRef<str>, fix: Fix) -> Self {
        Self { fix: Some(fix), ..Self::new(id, Status::Failure, evidence) }
    }

    /// Creates a failure, or a warning if gpu-syringe works despite the problem.
    pub(crate) fn problem(is_failure: bool, id: impl Into<String>, evidence: impl AsRef<str>, fix: Fix) -> Self {
        if is_failure { Self::failure(id, evidence, fix) } else { Self::warning(id, evidence, fix) }
    }

    /// Returns whether the check is a failure, a warning or undecided.
    pub(crate) fn is_problem(&self) -> bool {
        matches!(self.status, Status::Failure | Status::Warning) || self.undecided
    }

    /// Returns the position in the report. Problems come first.
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
