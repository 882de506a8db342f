//! `NvmlError`: the errors of NVML calls with their meaning for the report, NVML's text, and the next step.
//!
//! There are three kinds. *Absent*: this hardware or driver does not have the value, which is not a defect. *Gone*: the GPU
//! no longer responds, so it is not called again. *Failed*: everything else.

use std::sync::LazyLock;
use std::time::Duration;

use nvml_wrapper::error::NvmlError as WrapperError;
use nvml_wrapper_sys::bindings::nvmlReturn_t;
use serde::Deserialize;
use syringe_core::nvml_codes;
use syringe_core::report::Problem;
use syringe_core::text::clean;
use syringe_core::tsv::{rows, word};

/// Maximum length of an error text of another program (the dynamic loader) in a report.
const FOREIGN_TEXT: usize = 200;

/// The reason why an NVML call returned no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NvmlError {
    /// The return code of NVML.
    Code(u32),
    /// The library does not have the function, because the library is older.
    MissingFunction,
    /// NVML's answer cannot be read, for this reason.
    Unreadable(String),
    /// The dynamic loader could not open the library.
    Unloadable(String),
    /// The call has not returned. No more calls are made for the same GPU.
    Hung { function: String, duration_ms: u64 },
    /// The call was not made in time, for this reason.
    NotReached(String),
}

/// The meaning of an error for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// The hardware or the driver does not support the value.
    Absent,
    /// This GPU no longer responds.
    Gone,
    /// The call should have worked.
    Failed,
}

/// One NVML return code.
struct Meaning {
    number: u32,
    code: &'static str,
    kind: Kind,
    /// The text of `nvmlErrorString`.
    words: &'static str,
    next_step: &'static str,
}

const HANGS: &str = "The driver hangs on this GPU, or is very slow. Check for Xid 79, Xid 119 and processes in state D. If this error \
                     repeats, reboot the node.";

static MEANINGS: LazyLock<Vec<Meaning>> =
    LazyLock::new(|| rows(include_str!("errors.tsv")).filter_map(meaning).collect());

fn meaning(row: Vec<&'static str>) -> Option<Meaning> {
    let [number, code, kind, words, next_step] = row[..] else { return None };
    let next_step = if next_step == "-" { "" } else { next_step };
    Some(Meaning { number: number.parse().ok()?, code, kind: word(kind)?, words, next_step })
}

/// The value of `NVML_ERROR_FUNCTION_NOT_FOUND`.
const FUNCTION_NOT_FOUND: u32 = 13;

/// The highest code that nvml-wrapper defines; see [`NvmlError::from`].
const LAST_NAMED: u32 = 22;

impl NvmlError {
    /// Returns whether the call was not made in time.
    pub(super) fn is_not_reached(&self) -> bool {
        matches!(self, Self::NotReached(_))
    }

    /// The value of `NVML_ERROR_NO_PERMISSION`.
    pub(super) const NO_PERMISSION: Self = Self::Code(4);

    /// The value of `NVML_ERROR_NOT_SUPPORTED`.
    pub(super) const NOT_SUPPORTED: Self = Self::Code(3);

    /// Returns `Ok` for `NVML_SUCCESS`. If the code is `NVML_ERROR_FUNCTION_NOT_FOUND`, the function counts as missing.
    pub(super) fn check(code: nvmlReturn_t) -> Result<(), Self> {
        match code {
            0 => Ok(()),
            FUNCTION_NOT_FOUND => Err(Self::MissingFunction),
            code => Err(Self::Code(code)),
        }
    }

    pub(super) fn impossible(value: impl std::fmt::Display) -> Self {
        Self::Unreadable(format!("{value} is not a possible value"))
    }

    fn meaning(&self) -> Option<&'static Meaning> {
        let Self::Code(number) = self else { return None };
        MEANINGS.iter().find(|meaning| meaning.number == *number)
    }

    /// Returns whether the value is absent, the GPU is gone, or the call failed.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::MissingFunction => Kind::Absent,
            Self::Code(_) => self.meaning().map_or(Kind::Failed, |meaning| meaning.kind),
            Self::Hung { .. } => Kind::Gone,
            Self::Unreadable(_) | Self::Unloadable(_) | Self::NotReached(_) => Kind::Failed,
        }
    }

    /// Returns the stable code of the error.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::MissingFunction => "not_supported",
            Self::Code(_) => self.meaning().map_or(nvml_codes::UNKNOWN, |meaning| meaning.code),
            Self::Unreadable(_) => nvml_codes::UNREADABLE,
            Self::Unloadable(_) => nvml_codes::LIBRARY_NOT_FOUND,
            Self::Hung { .. } => nvml_codes::TIMEOUT,
            Self::NotReached(_) => nvml_codes::NOT_REACHED,
        }
    }

    /// Returns the cause as a sentence, e.g. `NVML: GPU is lost`.
    pub(super) fn why(&self) -> String {
        match (self, self.meaning()) {
            (_, Some(meaning)) => format!("NVML: {}", meaning.words),
            (Self::Code(number), None) => format!("NVML: error {number}"),
            (Self::MissingFunction, _) => "NVML: the library of this driver does not have the function".into(),
            (Self::Unreadable(text), _) => format!("NVML's answer cannot be read: {text}"),
            (Self::Unloadable(text) | Self::NotReached(text), _) => text.clone(),
            (Self::Hung { function, duration_ms }, _) => {
                let seconds = Duration::from_millis(*duration_ms).as_secs_f32();
                format!("NVML did not return from {function} within {seconds:.1} s")
            }
        }
    }

    /// Returns the error as a problem of a report.
    pub(super) fn problem(&self, what: impl Into<String>, gpu: Option<u32>) -> Problem {
        let next_step = match self {
            Self::MissingFunction => "Update the driver if this value is needed.",
            Self::Hung { .. } => HANGS,
            Self::NotReached(_) => "Try again. NVML is slow, or is waiting for another GPU.",
            _ => self.meaning().map_or("", |meaning| meaning.next_step),
        };
        Problem { what: what.into(), why: self.why(), next_step: next_step.into(), gpu, code: self.code().into() }
    }
}

impl From<WrapperError> for NvmlError {
    fn from(error: WrapperError) -> Self {
        match error {
            WrapperError::FailedToLoadSymbol(_) | WrapperError::FunctionNotFound => Self::MissingFunction,
            WrapperError::LibloadingError(error) => Self::Unloadable(clean(&error.to_string(), FOREIGN_TEXT)),
            // The wrapper uses this variant for two cases: for unknown return codes, which are higher than the known codes,
            // and for values that are not in its enums.
            WrapperError::UnexpectedVariant(value) if value <= LAST_NAMED => {
                Self::Unreadable(format!("{value} is not a known value"))
            }
            WrapperError::Utf8Error(_) | WrapperError::IncorrectBits(_) | WrapperError::StringTooLong { .. } => {
                Self::Unreadable(clean(&error.to_string(), FOREIGN_TEXT))
            }
            error => Self::Code(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, MEANINGS, NvmlError, WrapperError, nvml_codes};

    #[test]
    fn a_value_that_the_hardware_lacks_is_not_a_failure() {
        for error in [
            WrapperError::NotSupported,
            WrapperError::InvalidArg,
            WrapperError::NotFound,
            WrapperError::FunctionNotFound,
            WrapperError::FailedToLoadSymbol("nvmlDeviceGetRepairStatus".into()),
            WrapperError::UnexpectedVariant(25),
        ] {
            let error = NvmlError::from(error);
            assert_eq!(error.kind(), Kind::Absent, "{error:?}");
        }
    }

    #[test]
    fn a_lost_gpu_is_reported_with_the_text_of_nvml_and_a_next_step() {
        let problem = NvmlError::from(WrapperError::GpuLost).problem("GPU 3", Some(3));
        assert_eq!((problem.code.as_str(), problem.why.as_str()), ("gpu_lost", "NVML: GPU is lost"));
        assert_eq!(problem.gpu, Some(3));
        assert!(problem.next_step.contains("power-cycle"));
    }

    #[test]
    fn setup_faults_have_their_own_codes() {
        let code = |error| NvmlError::from(error).code();
        assert_eq!(code(WrapperError::DriverNotLoaded), "driver_not_loaded");
        assert_eq!(code(WrapperError::LibraryNotFound), "library_not_found");
        assert_eq!(code(WrapperError::LibRmVersionMismatch), "version_mismatch");
        assert_eq!(code(WrapperError::OperatingSystem), "access_blocked");
        assert_eq!(code(WrapperError::NoPermission), "no_permission");
        assert_eq!(code(WrapperError::ResetRequired), "reset_required");
        assert_eq!(code(WrapperError::Unknown), "unknown");
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        assert_eq!(MEANINGS.len(), syringe_core::tsv::rows(include_str!("errors.tsv")).count());
    }

    #[test]
    fn every_failure_has_a_code_that_the_rules_know() {
        for meaning in MEANINGS.iter().filter(|meaning| meaning.kind != Kind::Absent) {
            assert!(nvml_codes::FAILURES.contains(&meaning.code), "{}", meaning.code);
        }
    }

    #[test]
    fn a_code_from_a_newer_driver_is_a_failure_with_its_number() {
        let error = NvmlError::from(WrapperError::UnexpectedVariant(77));
        assert_eq!((error.kind(), error.why().as_str()), (Kind::Failed, "NVML: error 77"));
    }

    #[test]
    fn an_unknown_enum_value_is_not_mistaken_for_a_return_code() {
        let error = NvmlError::from(WrapperError::UnexpectedVariant(15));
        assert_eq!((error.kind(), error.code()), (Kind::Failed, "unreadable"));
    }
}
