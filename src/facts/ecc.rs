//! The types of the `ecc` section: memory errors, row remapping, page retirement, repairs, recommended recovery action.
//!
//! Source: NVML.
//!
//! *Volatile* counters are reset when the driver is loaded and, without persistence mode, when the last client exits.
//! *Aggregate* counters are stored in the InfoROM over the lifetime of the board.

use serde::{Deserialize, Serialize};
use syringe_macros::facts;

use super::{LostGpu, Mode, Unread, Unsupported, availability_of, is_zero};
use crate::pci::PciAddress;

/// ECC state of every GPU.
#[facts(omit(Vec, !gpus))]
pub struct Ecc {
    /// One entry per GPU, in NVML's order.
    pub gpus: Vec<GpuEcc>,
    /// Fields that the driver does not support.
    pub unsupported: Vec<Unsupported>,
    /// Fields that could not be read.
    pub unread: Vec<Unread>,
    /// GPUs that do not respond, or no longer respond.
    pub lost: Vec<LostGpu>,
}

availability_of!(Ecc);

/// Memory health of one GPU.
#[facts(omit(sram, remapped_rows, retired_pages, channel_repair_pending, tpc_repair_pending, unrepairable_memory))]
pub struct GpuEcc {
    /// NVML index.
    pub index: u32,
    /// UUID.
    pub uuid: Option<String>,
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// ECC mode.
    pub mode: Option<Mode>,
    /// Errors since the driver was loaded.
    pub volatile: ErrorCounts,
    /// Errors over the lifetime of the board.
    pub aggregate: ErrorCounts,
    /// SRAM errors in detail (`nvmlDeviceGetSramEccErrorStatus`, Ampere and later).
    pub sram: Option<SramErrors>,
    /// Row remapping (Ampere and later).
    pub remapped_rows: Option<RemappedRows>,
    /// Page retirement (before Ampere).
    pub retired_pages: Option<RetiredPages>,
    /// The recovery action that the driver recommends (field 230, R570 and later; fields 226 and 227 of R550 to R565).
    pub recovery_action: Option<RecoveryAction>,
    /// Whether a channel repair is pending until a reset (`nvmlDeviceGetRepairStatus`, Blackwell and later).
    pub channel_repair_pending: Option<bool>,
    /// Whether a TPC repair is pending until a reset (Blackwell and later).
    pub tpc_repair_pending: Option<bool>,
    /// Whether the memory has a fault that cannot be repaired (`nvmlDeviceGetUnrepairableMemoryFlag_v1`, R590 and later,
    /// Hopper and later).
    pub unrepairable_memory: Option<bool>,
    /// Whether the checksum of the InfoROM is correct (`nvmlDeviceValidateInforom`).
    pub inforom_valid: Option<bool>,
}

/// Corrected and uncorrected errors of one kind of counter (volatile or aggregate).
#[facts(omit(Vec))]
pub struct ErrorCounts {
    /// Corrected errors in all locations (`nvmlDeviceGetTotalEccErrors`).
    pub corrected: Option<u64>,
    /// Uncorrected errors in all locations.
    pub uncorrected: Option<u64>,
    /// Error counts by location (`nvmlDeviceGetMemoryErrorCounter`). A location is omitted if it has no errors or if
    /// one of its counters could not be read: see [`Ecc::availability`].
    pub locations: Vec<LocationErrors>,
}

/// Errors at one location.
#[facts]
pub struct LocationErrors {
    /// `dram` (device memory), `sram`, `l1_cache`, `l2_cache`, `register_file`, `texture_memory`, `texture_shm`, `cbu`.
    pub location: String,
    /// Corrected errors.
    pub corrected: u64,
    /// Uncorrected errors.
    pub uncorrected: u64,
}

/// SRAM errors by kind and location. Counts are over the lifetime of the board unless stated otherwise. An omitted
/// count is zero.
#[facts(omit(u64))]
pub struct SramErrors {
    /// Whether the driver reports too many uncorrected SRAM errors, so that the board should be replaced.
    pub threshold_exceeded: bool,
    /// Corrected errors since driver load.
    pub volatile_corrected: u64,
    /// Uncorrected parity errors since driver load.
    pub volatile_uncorrected_parity: u64,
    /// Uncorrected SEC-DED errors since driver load.
    pub volatile_uncorrected_secded: u64,
    /// Corrected errors over the lifetime of the board.
    pub aggregate_corrected: u64,
    /// Uncorrected parity errors over the lifetime of the board.
    pub aggregate_uncorrected_parity: u64,
    /// Uncorrected SEC-DED errors over the lifetime of the board.
    pub aggregate_uncorrected_secded: u64,
    /// Uncorrected errors in the L2 cache.
    pub bucket_l2: u64,
    /// Uncorrected errors in an SM.
    pub bucket_sm: u64,
    /// Uncorrected errors in PCIe.
    pub bucket_pcie: u64,
    /// Uncorrected errors in a microcontroller.
    pub bucket_microcontroller: u64,
    /// Uncorrected errors elsewhere.
    pub bucket_other: u64,
}

/// Row remapping: bad rows of HBM are replaced by spare rows.
#[facts(omit(Option))]
pub struct RemappedRows {
    /// Rows remapped for corrected errors.
    pub correctable: u32,
    /// Rows remapped for uncorrected errors.
    pub uncorrectable: u32,
    /// Whether a remap is pending until a GPU reset.
    pub pending: bool,
    /// Whether a remap has failed at any time, because no spare row was left.
    pub failure_occurred: bool,
    /// Remaps for corrected errors that are recorded but not active (field 301, R595 and later).
    pub correctable_inactive: Option<u32>,
    /// Remaps for uncorrected errors that are recorded but not active (field 302, R595 and later).
    pub uncorrectable_inactive: Option<u32>,
    /// Number of banks by remaining spare rows.
    pub histogram: Option<RemapHistogram>,
}

/// Number of memory banks by remaining spare rows (`nvmlDeviceGetRowRemapperHistogram`). An omitted count is zero.
#[facts(omit(u32, !max))]
pub struct RemapHistogram {
    /// Banks with all spare rows left.
    pub max: u32,
    /// Banks with many spare rows left.
    pub high: u32,
    /// Banks with some spare rows left.
    pub partial: u32,
    /// Banks with one spare row left.
    pub low: u32,
    /// Banks with no spare row left: the next bad row of such a bank cannot be repaired.
    pub none: u32,
}

/// Retired pages (before Ampere).
#[facts]
pub struct RetiredPages {
    /// Pages retired because of several single-bit errors at one address.
    pub single_bit: Option<u32>,
    /// Pages retired because of a double-bit error.
    pub double_bit: Option<u32>,
    /// Whether page retirement is pending until a reboot or driver reload.
    pub pending: Option<bool>,
}

/// The recovery action that the driver recommends for the GPU (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecoveryAction {
    /// No action.
    #[default]
    None,
    /// Reset the GPU.
    GpuReset,
    /// Reboot the node.
    NodeReboot,
    /// Stop peer-to-peer traffic, then check again.
    DrainP2p,
    /// Do not schedule new work, let the running work finish, then reset the GPU.
    DrainAndReset,
    /// Recover the IMEX domain.
    RecoverImex,
    /// Reset the bus.
    BusReset,
    /// Reboot the whole system.
    SystemReboot,
    /// A value that is unknown to this version of gpu-syringe.
    Unknown,
}

impl GpuEcc {
    /// Returns the number of uncorrected errors since the driver was loaded. NVML has two counts, total and SRAM: the larger
    /// count is returned.
    pub fn uncorrected_since_load(&self) -> Option<u64> {
        let sram = self
            .sram
            .as_ref()
            .map(|sram| sram.volatile_uncorrected_parity.saturating_add(sram.volatile_uncorrected_secded));
        let all = self.volatile.uncorrected?;
        Some(all.max(sram.unwrap_or(0)))
    }
}

impl RecoveryAction {
    /// Returns the name in JSON, which is NVML's name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GpuReset => "gpu_reset",
            Self::NodeReboot => "node_reboot",
            Self::DrainP2p => "drain_p2p",
            Self::DrainAndReset => "drain_and_reset",
            Self::RecoverImex => "recover_imex",
            Self::BusReset => "bus_reset",
            Self::SystemReboot => "system_reboot",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the name for use in a sentence.
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GpuReset => "GPU reset",
            Self::NodeReboot => "node reboot",
            Self::DrainP2p => "drain P2P",
            Self::DrainAndReset => "drain and reset",
            Self::RecoverImex => "recover IMEX domain",
            Self::BusReset => "bus reset",
            Self::SystemReboot => "system reboot",
            Self::Unknown => "not known to this version",
        }
    }
}

impl From<u32> for RecoveryAction {
    fn from(value: u32) -> Self {
        match value {
            0 => Self::None,
            1 => Self::GpuReset,
            2 => Self::NodeReboot,
            3 => Self::DrainP2p,
            4 => Self::DrainAndReset,
            5 => Self::RecoverImex,
            6 => Self::BusReset,
            7 => Self::SystemReboot,
            _ => Self::Unknown,
        }
    }
}
