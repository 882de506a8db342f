//! The errors of NVML calls (`NvmlError`): their meaning for the report, the text of NVML, and the next step.
//!
//! There are three kinds. *Absent*: this hardware or driver does not have the value, which is not a defect. *Gone*: the GPU
//! no longer responds, so it is not called again. *Failed*: everything else.

use std::time::Duration;

use nvml_wrapper::error::NvmlError as WrapperError;
use nvml_wrapper_sys::bindings::nvmlReturn_t;
use syringe_core::nvml_codes;
use syringe_core::report::Problem;
use syringe_core::text::clean;

/// Maximum length of an error text of another program (the dynamic loader) in a report.
const FOREIGN_TEXT: usize = 200;

/// The reason why an NVML call returned no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NvmlError {
    /// The return code of NVML.
    Code(u32),
    /// The library does not have the function, because the library is older.
    MissingFunction,
    /// The answer is not valid for this version.
    Unreadable(String),
    /// The dynamic loader could not open the library.
    Unloadable(String),
    /// The call has not returned. No more calls are made for the same GPU.
    Hung { function: String, duration_ms: u64 },
    /// The call was not made in time, for this reason.
    NotReached(String),
}

/// The meaning of an error for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

const fn meaning(number: u32, code: &'static str, kind: Kind, words: &'static str, next_step: &'static str) -> Meaning {
    Meaning { number, code, kind, words, next_step }
}

const KERNEL_LOG: &str = "Check the kernel log (xid section) for messages of the driver about this GPU.";
const HANGS: &str = "The driver hangs on this GPU, or is very slow. Check for Xid 79, Xid 119 and processes in state D. If it happens \
                     again, reboot the node.";
const RELOAD: &str = "The driver was replaced while the old kernel module is loaded: drain the node and reboot it, or \
                      unload and reload the nvidia modules.";

/// The meanings of `nvmlReturn_t`. *Invalid argument* is Absent: the probe only passes valid arguments, and drivers return
/// this code for "not on this hardware", and for field IDs and structure versions that are newer than the driver.
const MEANINGS: &[Meaning] = &[
    meaning(1, nvml_codes::UNINITIALIZED, Kind::Failed, "Uninitialized", ""),
    meaning(2, "not_supported", Kind::Absent, "Invalid Argument", ""),
    meaning(3, "not_supported", Kind::Absent, "Not Supported", ""),
    meaning(
        4,
        nvml_codes::NO_PERMISSION,
        Kind::Failed,
        "Insufficient Permissions",
        "Run the probe privileged, as root.",
    ),
    meaning(6, "not_found", Kind::Absent, "Not Found", ""),
    meaning(7, nvml_codes::INSUFFICIENT_SIZE, Kind::Failed, "Insufficient Size", ""),
    meaning(
        8,
        nvml_codes::INSUFFICIENT_POWER,
        Kind::Failed,
        "Insufficient External Power",
        "Check the power cables of the GPU.",
    ),
    meaning(
        9,
        nvml_codes::DRIVER_NOT_LOADED,
        Kind::Failed,
        "Driver Not Loaded",
        "Install or rebuild the NVIDIA driver for the running kernel, then load it (modprobe nvidia).",
    ),
    meaning(10, nvml_codes::TIMEOUT, Kind::Gone, "Timeout", KERNEL_LOG),
    meaning(11, nvml_codes::INTERRUPT_ISSUE, Kind::Failed, "Interrupt Request Issue", KERNEL_LOG),
    meaning(
        12,
        nvml_codes::LIBRARY_NOT_FOUND,
        Kind::Failed,
        "NVML Shared Library Not Found",
        "Nothing to do on a node without GPUs; otherwise install the NVIDIA driver.",
    ),
    meaning(
        14,
        nvml_codes::CORRUPTED_INFOROM,
        Kind::Failed,
        "Corrupted infoROM",
        "Counters and settings kept in the InfoROM are not reliable: have the board checked or replaced.",
    ),
    meaning(
        15,
        nvml_codes::GPU_LOST,
        Kind::Gone,
        "GPU is lost",
        "Drain the node and power-cycle it; a GPU reset does not help. If it happens again, RMA the GPU.",
    ),
    meaning(
        16,
        nvml_codes::RESET_REQUIRED,
        Kind::Failed,
        "GPU requires reset",
        "Drain the GPU's work, then reset the GPU or reboot the node.",
    ),
    meaning(
        17,
        nvml_codes::ACCESS_BLOCKED,
        Kind::Failed,
        "GPU access blocked by the operating system",
        "Check that /dev/nvidiactl and /dev/nvidiaN exist and that the device cgroup allows them (a privileged pod has \
         all device nodes that existed at its start).",
    ),
    meaning(18, nvml_codes::VERSION_MISMATCH, Kind::Failed, "Driver/library version mismatch", RELOAD),
    meaning(19, nvml_codes::IN_USE, Kind::Failed, "In use by another client", ""),
    meaning(
        20,
        nvml_codes::INSUFFICIENT_MEMORY,
        Kind::Failed,
        "Insufficient Memory",
        "Give the probe pod more memory.",
    ),
    meaning(21, "no_data", Kind::Absent, "No data", ""),
    meaning(22, "not_supported", Kind::Absent, "vGPU is not supported while ECC is enabled", ""),
    meaning(23, nvml_codes::INSUFFICIENT_RESOURCES, Kind::Failed, "Insufficient resources", ""),
    meaning(24, "not_supported", Kind::Absent, "Frequency not supported", ""),
    meaning(25, "not_supported", Kind::Absent, "Argument version mismatch", ""),
    meaning(26, "not_supported", Kind::Absent, "Deprecated", ""),
    meaning(27, nvml_codes::NOT_READY, Kind::Failed, "Not ready", "Try again in some seconds."),
    meaning(28, nvml_codes::GPU_NOT_FOUND, Kind::Gone, "GPU not found", KERNEL_LOG),
    meaning(29, nvml_codes::INVALID_STATE, Kind::Failed, "Invalid state", KERNEL_LOG),
    meaning(999, nvml_codes::UNKNOWN, Kind::Failed, "Unknown Error", KERNEL_LOG),
];

/// The value of `NVML_ERROR_FUNCTION_NOT_FOUND`.
const FUNCTION_NOT_FOUND: u32 = 13;

/// The highest code that nvml-wrapper knows; see [`NvmlError::from`].
const LAST_NAMED: u32 = 22;

impl NvmlError {
    /// Returns whether the call was not made in time.
    pub(super) fn is_not_reached(&self) -> bool {
        matches!(self, Self::NotReached(_))
    }

    /// The value of `NVML_ERROR_NOT_SUPPORTED`.
    pub(super) const NOT_SUPPORTED: Self = Self::Code(3);

    /// Returns `Ok` for `NVML_SUCCESS`. A function that only returns `NVML_ERROR_FUNCTION_NOT_FOUND` counts as missing.
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

    /// Returns the meaning for the report.
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
            Self::NotReached(_) => "Try again; NVML is slow, or is waiting for another GPU.",
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
