//! `Outcome`: the outcome of an answer, from which the exit status follows. `CommandAnswer`: gives the outcome of an
//! answer. `FailOn`: the severity of `--fail-on`. `FOUND`, `NOT_KNOWN` and other constants: the exit statuses.

use clap::ValueEnum;
use diagnosis::finding::Verdict;
use syringe_core::classification::Severity;

/// The result of an answer, for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was found, or the answer has no verdict.
    NothingFound,
    /// There are findings. The value is the highest severity.
    Found(Severity),
    /// Too little could be read for a verdict.
    Unknown,
    /// An action was rejected or declined, or it failed. The answer contains the reason.
    NotDone,
    /// A signal ended `--watch`. The answers are already printed.
    Interrupted,
}

/// Provides the outcome and the object names of an answer, for a command.
pub trait CommandAnswer {
    /// The outcome, which becomes the exit status.
    fn outcome(&self) -> Outcome;

    /// The names of the objects, as kubectl prints them: `node/gpu-1`.
    fn names(&self) -> Vec<String>;
}

/// The lowest severity for which a command exits with status 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Warnings and worse
    Warning,
    /// Critical and fatal findings
    #[default]
    Critical,
    /// Fatal findings only
    Fatal,
    /// No severity: findings and missing data do not change the exit status
    Never,
}

impl Outcome {
    /// Returns the outcome of a diagnosis.
    pub fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Healthy | Verdict::NoFaultFound => Self::NothingFound,
            Verdict::Unknown => Self::Unknown,
            Verdict::Warning => Self::Found(Severity::Warning),
            Verdict::Critical => Self::Found(Severity::Critical),
            Verdict::Fatal => Self::Found(Severity::Fatal),
        }
    }

    /// Returns the outcome of an incomplete answer: unknown, unless there is a critical finding.
    #[must_use]
    pub fn of_incomplete(self) -> Self {
        match self {
            Self::NothingFound | Self::Found(Severity::Info | Severity::Warning) => Self::Unknown,
            certain => certain,
        }
    }

    /// Returns the exit status of a command with this outcome.
    pub fn exit_status(self, fail_on: FailOn) -> u8 {
        let least = match fail_on {
            FailOn::Warning => Severity::Warning,
            FailOn::Critical => Severity::Critical,
            FailOn::Fatal => Severity::Fatal,
            FailOn::Never if self == Self::NotDone => return FOUND,
            FailOn::Never if self == Self::Interrupted => return INTERRUPTED,
            FailOn::Never => return NOTHING_FOUND,
        };
        match self {
            Self::NothingFound => NOTHING_FOUND,
            Self::Found(severity) if severity < least => NOTHING_FOUND,
            Self::Found(_) | Self::NotDone => FOUND,
            Self::Unknown => NOT_KNOWN,
            Self::Interrupted => INTERRUPTED,
        }
    }
}

/// Exit status if there is no finding, or no finding at or above `--fail-on`.
pub(crate) const NOTHING_FOUND: u8 = 0;
/// Exit status for a finding at or above `--fail-on`, or an action that was not done.
pub(crate) const FOUND: u8 = 1;
/// Exit status if the arguments or the settings are not valid.
pub(crate) const USAGE: u8 = 2;
/// Exit status if the command failed, or too little could be read for a verdict.
pub(crate) const NOT_KNOWN: u8 = 3;
/// Exit status after an interrupt: 128 plus SIGINT, as in a shell.
pub(crate) const INTERRUPTED: u8 = 130;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_a_contract() {
        let statuses = |outcome: Outcome| {
            [FailOn::Warning, FailOn::Critical, FailOn::Fatal, FailOn::Never].map(|least| outcome.exit_status(least))
        };
        assert_eq!(statuses(Outcome::of_verdict(Verdict::Healthy)), [0; 4]);
        assert_eq!(statuses(Outcome::of_verdict(Verdict::NoFaultFound)), [0; 4]);
        assert_eq!(statuses(Outcome::of_verdict(Verdict::Warning)), [1, 0, 0, 0]);
        assert_eq!(statuses(Outcome::of_verdict(Verdict::Critical)), [1, 1, 0, 0]);
        assert_eq!(statuses(Outcome::of_verdict(Verdict::Fatal)), [1, 1, 1, 0]);
        assert_eq!(statuses(Outcome::of_verdict(Verdict::Unknown)), [3, 3, 3, 0]);
        assert_eq!(statuses(Outcome::NotDone), [1; 4], "a script must not take the action for done");
        assert_eq!(statuses(Outcome::Interrupted), [130; 4]);
    }

    #[test]
    fn a_part_that_was_not_read_is_not_healthy() {
        assert_eq!(Outcome::NothingFound.of_incomplete(), Outcome::Unknown);
        assert_eq!(Outcome::Found(Severity::Warning).of_incomplete(), Outcome::Unknown);
        assert_eq!(Outcome::Found(Severity::Critical).of_incomplete(), Outcome::Found(Severity::Critical));
    }
}
