//! The type `Gpu`: the facts of one GPU from the sections of a report. Converts texts of a report to NVML's numbers.

use std::ffi::CStr;

use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::ecc::GpuEcc;
use syringe_core::facts::inventory::{GpuInventory, Inventory};
use syringe_core::facts::mig::{GpuMig, MigDevice};
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::facts::topology::{GpuTopology, Topology};
use syringe_core::nvml_codes as codes;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section};

use crate::ffi::Answer;

/// Returns the data of the `inventory` section.
pub(crate) fn inventory(report: &Report) -> Option<&Inventory> {
    Section::data_of(&report.sections.inventory)
}

/// Returns the branch of the driver, e.g. 580.
pub(crate) fn driver_branch(report: &Report) -> Option<u32> {
    inventory(report)?.driver_version.as_deref()?.split('.').next()?.parse().ok()
}

/// Returns the data of the `topology` section.
pub(crate) fn topology(report: &Report) -> Option<&Topology> {
    Section::data_of(&report.sections.topology)
}

/// Returns the number of GPUs that NVML lists: all up to the highest index in a section or problem, including lost GPUs.
pub(crate) fn gpu_count(report: &Report) -> u32 {
    let sections = &report.sections;
    let listed =
        Section::data_of(&sections.inventory).into_iter().flat_map(|section| &section.gpus).map(|gpu| gpu.index);
    let measured =
        Section::data_of(&sections.telemetry).into_iter().flat_map(|section| &section.gpus).map(|gpu| gpu.index);
    let connected =
        Section::data_of(&sections.topology).into_iter().flat_map(|section| &section.gpus).map(|gpu| gpu.index);
    let checked = Section::data_of(&sections.ecc).into_iter().flat_map(|section| &section.gpus).map(|gpu| gpu.index);
    let divided = Section::data_of(&sections.mig).into_iter().flat_map(|section| &section.gpus).map(|gpu| gpu.index);
    let failed = sections.inventory.iter().flat_map(|section| &section.problems).filter_map(|problem| problem.gpu);
    let indices = listed.chain(measured).chain(connected).chain(checked).chain(divided).chain(failed);
    indices.max().map_or(0, |highest| highest + 1)
}

/// A GPU, or one of its MIG devices, with access to its facts in the report.
#[derive(Clone, Copy)]
pub(crate) struct Gpu<'r> {
    pub(crate) report: &'r Report,
    /// NVML index of the GPU.
    pub(crate) index: u32,
    /// Position in the GPU's list of MIG devices. `None` for the whole GPU.
    pub(crate) mig_index: Option<u32>,
}

impl<'r> Gpu<'r> {
    pub(crate) fn inventory(&self) -> Option<&'r GpuInventory> {
        inventory(self.report)?.gpus.iter().find(|gpu| gpu.index == self.index)
    }

    pub(crate) fn telemetry(&self) -> Option<&'r GpuTelemetry> {
        Section::data_of(&self.report.sections.telemetry)?.gpus.iter().find(|gpu| gpu.index == self.index)
    }

    pub(crate) fn topology(&self) -> Option<&'r GpuTopology> {
        topology(self.report)?.gpus.iter().find(|gpu| gpu.index == self.index)
    }

    pub(crate) fn ecc(&self) -> Option<&'r GpuEcc> {
        Section::data_of(&self.report.sections.ecc)?.gpus.iter().find(|gpu| gpu.index == self.index)
    }

    pub(crate) fn mig(&self) -> Option<&'r GpuMig> {
        Section::data_of(&self.report.sections.mig)?.gpus.iter().find(|gpu| gpu.index == self.index)
    }

    /// Returns the MIG device, if this is not the whole GPU.
    pub(crate) fn mig_device(&self) -> Option<&'r MigDevice> {
        self.mig()?.devices.get(self.mig_index? as usize)
    }

    /// Returns the UUID of the GPU or of the MIG device.
    pub(crate) fn uuid(&self) -> Option<&'r str> {
        if self.mig_index.is_some() {
            return self.mig_device()?.uuid.as_deref();
        }
        let uuids = [
            self.inventory().and_then(|gpu| gpu.uuid.as_deref()),
            self.telemetry().and_then(|gpu| gpu.uuid.as_deref()),
            self.topology().and_then(|gpu| gpu.uuid.as_deref()),
            self.ecc().and_then(|gpu| gpu.uuid.as_deref()),
            self.mig().and_then(|gpu| gpu.uuid.as_deref()),
        ];
        uuids.into_iter().flatten().next()
    }

    /// Returns the PCI address.
    pub(crate) fn pci_address(&self) -> Option<&'r PciAddress> {
        let known = [
            self.inventory().and_then(|gpu| gpu.pci_address.as_ref()),
            self.telemetry().and_then(|gpu| gpu.pci_address.as_ref()),
            self.topology().and_then(|gpu| gpu.pci_address.as_ref()),
            self.ecc().and_then(|gpu| gpu.pci_address.as_ref()),
        ];
        known.into_iter().flatten().next()
    }

    /// Returns whether there is a handle for the GPU. A GPU that the inventory does not list could not be opened; the reason
    /// is in the problems of the inventory.
    pub(crate) fn opens(&self) -> Answer {
        match self.uuid().is_some() || self.pci_address().is_some() {
            true => Ok(()),
            false => Err(self.refusals().next().unwrap_or(nvmlReturn_enum_NVML_ERROR_UNKNOWN)),
        }
    }

    /// Returns whether the GPU has more than a handle, an index and a PCI address. A lost GPU, or a GPU that needs a
    /// reset, has only these three. A problem with one field does not affect the other fields.
    pub(crate) fn answers(&self) -> Answer {
        self.opens()?;
        let whole = [nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST, nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED];
        self.refusals().find(|code| whole.contains(code)).map_or(Ok(()), Err)
    }

    /// Returns the NVML return codes of the problems that the inventory lists for this GPU.
    fn refusals(&self) -> impl Iterator<Item = nvmlReturn_t> {
        let problems = self.report.sections.inventory.iter().flat_map(|section| &section.problems);
        problems.filter(|problem| problem.gpu == Some(self.index)).map(|problem| return_code(&problem.code))
    }
}

/// Return values of NVML: the number, the code in the problems of a report, and NVML's text.
const CODES: &[(nvmlReturn_t, &str, &CStr)] = &[
    (nvmlReturn_enum_NVML_SUCCESS, "success", c"The operation was successful"),
    (nvmlReturn_enum_NVML_ERROR_UNINITIALIZED, codes::UNINITIALIZED, c"Uninitialized"),
    (nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT, "invalid_argument", c"Invalid Argument"),
    (nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED, "not_supported", c"Not Supported"),
    (nvmlReturn_enum_NVML_ERROR_NO_PERMISSION, codes::NO_PERMISSION, c"Insufficient Permissions"),
    (nvmlReturn_enum_NVML_ERROR_NOT_FOUND, "not_found", c"Not Found"),
    (nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE, codes::INSUFFICIENT_SIZE, c"Insufficient Size"),
    (nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_POWER, codes::INSUFFICIENT_POWER, c"Insufficient External Power"),
    (nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED, codes::DRIVER_NOT_LOADED, c"Driver Not Loaded"),
    (nvmlReturn_enum_NVML_ERROR_TIMEOUT, codes::TIMEOUT, c"Timeout"),
    (nvmlReturn_enum_NVML_ERROR_IRQ_ISSUE, codes::INTERRUPT_ISSUE, c"Interrupt Request Issue"),
    (nvmlReturn_enum_NVML_ERROR_LIBRARY_NOT_FOUND, codes::LIBRARY_NOT_FOUND, c"NVML Shared Library Not Found"),
    (nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND, "function_not_found", c"Function Not Found"),
    (nvmlReturn_enum_NVML_ERROR_CORRUPTED_INFOROM, codes::CORRUPTED_INFOROM, c"Corrupted infoROM"),
    (nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST, codes::GPU_LOST, c"GPU is lost"),
    (nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED, codes::RESET_REQUIRED, c"GPU requires reset"),
    (nvmlReturn_enum_NVML_ERROR_OPERATING_SYSTEM, codes::ACCESS_BLOCKED, c"GPU access blocked by the operating system"),
    (nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH, codes::VERSION_MISMATCH, c"Driver/library version mismatch"),
    (nvmlReturn_enum_NVML_ERROR_IN_USE, codes::IN_USE, c"In use by another client"),
    (nvmlReturn_enum_NVML_ERROR_MEMORY, codes::INSUFFICIENT_MEMORY, c"Insufficient Memory"),
    (nvmlReturn_enum_NVML_ERROR_NO_DATA, "no_data", c"No data"),
    (nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES, codes::INSUFFICIENT_RESOURCES, c"Insufficient Resources"),
    (nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "argument_version_mismatch", c"Argument version mismatch"),
    (nvmlReturn_enum_NVML_ERROR_NOT_READY, codes::NOT_READY, c"Not ready"),
    (nvmlReturn_enum_NVML_ERROR_GPU_NOT_FOUND, codes::GPU_NOT_FOUND, c"GPU not found"),
    (nvmlReturn_enum_NVML_ERROR_INVALID_STATE, codes::INVALID_STATE, c"Invalid state"),
];

/// Returns the return value for the code of a problem.
pub(crate) fn return_code(code: &str) -> nvmlReturn_t {
    let known = CODES.iter().find(|(_, word, _)| *word == code);
    known.map_or(nvmlReturn_enum_NVML_ERROR_UNKNOWN, |(number, ..)| *number)
}

/// Returns the return value for a text such as `NVML: GPU is lost`.
pub(crate) fn return_code_of_text(text: &str) -> nvmlReturn_t {
    let text = text.strip_prefix("NVML: ").unwrap_or(text).as_bytes();
    let known = CODES.iter().find(|(.., words)| words.to_bytes() == text);
    known.map_or(nvmlReturn_enum_NVML_ERROR_UNKNOWN, |(number, ..)| *number)
}

/// Returns the text of `nvmlErrorString`.
pub(crate) fn error_text(code: nvmlReturn_t) -> &'static CStr {
    CODES.iter().find(|(number, ..)| *number == code).map_or(c"Unknown Error", |(.., words)| words)
}

/// Parses `12.8` as `(12, 8)`.
pub(crate) fn version_pair(text: &str) -> Option<(i32, i32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Parses a hexadecimal number with or without `0x`.
pub(crate) fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}
