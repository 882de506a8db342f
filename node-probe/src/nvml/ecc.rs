//! The `ecc` section: memory errors, repairs, and what the driver asks for.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, MemoryLocation};
use syringe_core::facts::ecc::{
    Ecc, ErrorCounts, GpuEcc, LocationErrors, RecoveryAction, RemapHistogram, RemappedRows, RetiredPages, SramErrors,
};
use syringe_core::report::Section;

use super::inventory::ecc_mode;
use super::missing::Asker;
use super::session::{Identity, Session, fit};
use super::{fields, raw};

/// `NVML_ERROR_CORRUPTED_INFOROM`.
const CORRUPTED_INFOROM: u32 = 14;

/// Locations and their words in the report. The first two are all that Ampere and later know.
const LOCATIONS: &[(MemoryLocation, &str)] = &[
    (MemoryLocation::Device, "dram"),
    (MemoryLocation::SRAM, "sram"),
    (MemoryLocation::L1Cache, "l1_cache"),
    (MemoryLocation::L2Cache, "l2_cache"),
    (MemoryLocation::RegisterFile, "register_file"),
    (MemoryLocation::Texture, "texture_memory"),
    (MemoryLocation::Shared, "texture_shm"),
    (MemoryLocation::Cbu, "cbu"),
];
/// Locations that are read even where the total says that there is nothing: drivers differ in what a total sums up.
const ALWAYS_READ: usize = 2;

impl Session {
    /// Reads error counters, repairs and the driver's own verdict of every GPU.
    pub fn ecc(&self) -> Section<Ecc> {
        let (gpus, missing) = self.each(entry, read);
        Section::read(Ecc { gpus, unsupported: missing.unsupported }, missing.problems)
    }
}

fn entry(gpu: Identity) -> GpuEcc {
    let Identity { index, uuid, pci_address } = gpu;
    GpuEcc { index, uuid, pci_address, ..GpuEcc::default() }
}

fn read(device: &Device<'_>, asker: &mut Asker<'_>, gpu: &mut GpuEcc) {
    gpu.mode = ecc_mode(device, asker, "mode");
    gpu.volatile = counts(device, asker, &EccCounter::Volatile, ["volatile.corrected", "volatile.uncorrected"]);
    gpu.aggregate = counts(device, asker, &EccCounter::Aggregate, ["aggregate.corrected", "aggregate.uncorrected"]);
    gpu.sram = sram(device, asker);
    gpu.remapped_rows = remapped_rows(device, asker);
    gpu.retired_pages = retired_pages(device, asker);
    let [action] = fields::of_gpu(device, asker, [(fields::RECOVERY_ACTION, "recovery_action")]);
    gpu.recovery_action = fit::<u32>(action).map(RecoveryAction::from);
    let repairs = ["channel_repair_pending", "tpc_repair_pending"];
    let repairs = asker.ask("nvmlDeviceGetRepairStatus", &repairs, || raw::repair_status(device));
    (gpu.channel_repair_pending, gpu.tpc_repair_pending) = repairs.unzip();
    gpu.inforom_valid = inforom_valid(device, asker);
}

fn counts(
    device: &Device<'_>,
    asker: &mut Asker<'_>,
    counter: &EccCounter,
    [corrected, uncorrected]: [&'static str; 2],
) -> ErrorCounts {
    let mut total =
        |kind, field| asker.ask("nvmlDeviceGetTotalEccErrors", &[field], || device.total_ecc_errors(kind, *counter));
    let corrected = total(MemoryError::Corrected, corrected);
    let uncorrected = total(MemoryError::Uncorrected, uncorrected);
    let is_clean = corrected == Some(0) && uncorrected == Some(0);
    let locations = if is_clean { LOCATIONS.get(..ALWAYS_READ).unwrap_or_default() } else { LOCATIONS };
    let errors = |(location, word): &(MemoryLocation, &str)| {
        let count = |kind| {
            asker
                .quietly("nvmlDeviceGetMemoryErrorCounter", || device.memory_error_counter(kind, *counter, *location))
                .unwrap_or(0)
        };
        let (corrected, uncorrected) = (count(MemoryError::Corrected), count(MemoryError::Uncorrected));
        (corrected + uncorrected > 0).then(|| LocationErrors { location: (*word).into(), corrected, uncorrected })
    };
    ErrorCounts { corrected, uncorrected, locations: locations.iter().filter_map(errors).collect() }
}

fn sram(device: &Device<'_>, asker: &mut Asker<'_>) -> Option<SramErrors> {
    let status = asker.ask("nvmlDeviceGetSramEccErrorStatus", &["sram"], || raw::sram_ecc_status(device))?;
    Some(SramErrors {
        threshold_exceeded: status.bThresholdExceeded != 0,
        volatile_corrected: status.volatileCor,
        volatile_uncorrected_parity: status.volatileUncParity,
        volatile_uncorrected_secded: status.volatileUncSecDed,
        aggregate_corrected: status.aggregateCor,
        aggregate_uncorrected_parity: status.aggregateUncParity,
        aggregate_uncorrected_secded: status.aggregateUncSecDed,
        bucket_l2: status.aggregateUncBucketL2,
        bucket_sm: status.aggregateUncBucketSm,
        bucket_pcie: status.aggregateUncBucketPcie,
        bucket_microcontroller: status.aggregateUncBucketMcu,
        bucket_other: status.aggregateUncBucketOther,
    })
}

fn remapped_rows(device: &Device<'_>, asker: &mut Asker<'_>) -> Option<RemappedRows> {
    let rows = asker.ask("nvmlDeviceGetRemappedRows", &["remapped_rows"], || raw::remapped_rows(device));
    let (correctable, uncorrectable, pending, failure_occurred) = rows?;
    let histogram = asker
        .ask("nvmlDeviceGetRowRemapperHistogram", &["remapped_rows.histogram"], || raw::row_remapper_histogram(device));
    let histogram = histogram.map(|[max, high, partial, low, none]| RemapHistogram { max, high, partial, low, none });
    Some(RemappedRows { correctable, uncorrectable, pending, failure_occurred, histogram })
}

fn retired_pages(device: &Device<'_>, asker: &mut Asker<'_>) -> Option<RetiredPages> {
    let mut count =
        |cause| asker.ask("nvmlDeviceGetRetiredPages_v2", &["retired_pages"], || raw::retired_pages(device, cause));
    let (single_bit, double_bit) = (count(0)?, count(1)?);
    let pending = asker.ask("nvmlDeviceGetRetiredPagesPendingStatus", &["retired_pages.pending"], || {
        device.are_pages_pending_retired()
    });
    Some(RetiredPages { single_bit, double_bit, pending })
}

/// A corrupted InfoROM is the answer to this question, not a failure to answer it.
fn inforom_valid(device: &Device<'_>, asker: &mut Asker<'_>) -> Option<bool> {
    match asker.attempt("nvmlDeviceValidateInforom", || device.validate_info_rom()) {
        Ok(()) => Some(true),
        Err(super::errors::Refusal::Code(CORRUPTED_INFOROM)) => Some(false),
        Err(refusal) => {
            asker.note(&refusal, &["inforom_valid"]);
            None
        }
    }
}
