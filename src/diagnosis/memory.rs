//! Memory errors and repairs: what the counters, the row remapper and the Xids of the memory say together.
//!
//! NVML's state outranks the log: an Xid 63 says that a repair was recorded, only NVML says whether it still waits. And
//! aggregate counters are the board's biography, not its condition.

use super::draft::Draft;
use super::node::{Gpu, Node, STALE_AFTER};
use super::rules::{MEMORY_DOC, RETIREMENT_DOC, XID_DOC, rules};
use super::timeline::{concerns, is_xid};
use super::{ActionCode, Severity, quote};
use crate::facts::ecc::{ErrorCounts, GpuEcc, RemappedRows, RetiredPages, SramErrors};
use crate::facts::kernel_log::KernelEvent;

rules! {
    REMAP_FAILED: "row-remap-failed" Fatal Hardware MEMORY_DOC, "Row remapping failed: no spare row left",
        ContactVendor "Drain {node}, run NVIDIA's field diagnostic on {gpu} and return it (RMA).";
    REMAP_PENDING: "row-remap-pending" Critical Hardware MEMORY_DOC, "A row remap waits for a GPU reset",
        DrainAndReset "Drain the work of {gpu} on {node} and reset it; the remap then takes effect. No return needed.";
    REMAP_MANY: "row-remap-many" Critical Hardware MEMORY_DOC, "Very many rows remapped",
        ContactVendor "Plan to return {gpu} of {node}: its memory keeps wearing out.";
    REMAP_SPARES: "row-remap-spares-used" Warning Hardware MEMORY_DOC, "Banks without spare rows",
        Watch "Nothing now; the next bad row in such a bank of {gpu} cannot be repaired. Plan its replacement.";
    REMAP_DONE: "row-remap-done" Info Hardware MEMORY_DOC, "Bad rows were repaired",
        None "Nothing: the repair of {gpu} worked.";
    REMAP_UNVERIFIED: "row-remap-recorded" Warning Hardware MEMORY_DOC, "The driver recorded a memory repair",
        Watch "Ask NVML whether a remap of {gpu} is pending or failed (ecc section); reset it at the next drain.";
    REMAP_NOT_RECORDED: "row-remap-not-recorded" Critical Hardware XID_DOC,
        "The driver could not record a memory repair",
        DrainAndReset "Drain {node}, reset {gpu}, then run NVIDIA's field diagnostic; return it if the repair fails \
            again.";
    SRAM_THRESHOLD: "sram-threshold-exceeded" Fatal Hardware MEMORY_DOC, "Too many uncorrected SRAM errors",
        ContactVendor "Drain {node}, run NVIDIA's field diagnostic on {gpu} and return it (RMA).";
    UNCONTAINED: "ecc-uncontained" Fatal Hardware MEMORY_DOC, "Uncontained memory error",
        DrainAndReset "Give {gpu} of {node} no new work, drain it and reset it: other processes may have read bad \
            data.";
    CONTAINED: "ecc-contained" Critical Hardware MEMORY_DOC, "Uncorrectable memory error, contained",
        DrainAndReset "Restart the application that was hit; other work on {gpu} may go on. Give {gpu} of {node} no new work, \
            and reset it at the next drain.";
    DOUBLE_BIT: "ecc-double-bit" Critical Hardware XID_DOC, "Uncorrectable memory error",
        DrainAndReset "Drain the work of {gpu} on {node} and reset it.";
    UNCORRECTED: "ecc-uncorrected" Warning Hardware MEMORY_DOC, "Uncorrected memory errors since the driver was loaded",
        Watch "Look for Xid 48, 63, 94 or 95 of {gpu} in older logs; reset it at the next drain of {node}.";
    STORM: "ecc-correctable-storm" Warning Hardware XID_DOC, "Storm of corrected memory errors",
        Watch "Nothing at once: corrected errors harm nobody. Watch {gpu} for row remaps, run a diagnostic at the \
            next drain.";
    HISTORY: "ecc-history" Info Hardware MEMORY_DOC, "Memory errors in the board's past",
        None "Nothing: the lifetime counters of {gpu} stand still, none since the driver was loaded.";
    PAGES_PENDING: "retired-pages-pending" Critical Hardware RETIREMENT_DOC, "A page retirement waits for a reboot",
        DrainAndReset "Drain the work of {gpu} on {node} and reset it, or reload the driver.";
    PAGES_LIMIT: "retired-pages-limit" Fatal Hardware RETIREMENT_DOC, "Retired pages at NVIDIA's limit",
        ContactVendor "Return {gpu} of {node}: no more pages can be retired.";
    PAGES_MANY: "retired-pages-many" Warning Hardware RETIREMENT_DOC, "Many pages retired for double-bit errors",
        Watch "Watch {gpu}: more such pages within a week are a reason to return it.";
    ECC_OFF: "ecc-disabled" Warning Driver MEMORY_DOC, "ECC is switched off",
        UpdateSoftware "Enable ECC on {gpu} of {node} (nvidia-smi -e 1) and reboot the node when it is drained; \
            without ECC errors stay unseen and unrepaired.";
    ECC_PENDING: "ecc-mode-pending" Warning Driver MEMORY_DOC, "An ECC mode change waits for a reboot",
        DrainAndReboot "Reboot {node} when it is drained; until then {gpu} keeps the old ECC mode.";
    INFOROM: "inforom-corrupted" Critical Hardware XID_DOC, "InfoROM corrupted",
        ContactVendor "Have {gpu} of {node} checked: its stored counters and settings are not reliable.";
    REPAIR_PENDING: "repair-pending" Critical Hardware MEMORY_DOC, "A hardware repair waits for a GPU reset",
        DrainAndReset "Drain the work of {gpu} on {node} and reset it; the repair then takes effect.";
}

/// DCGM fails a GPU at this many rows remapped for uncorrectable errors: the remapper's whole reserve.
const MAX_REMAPS: u32 = 512;

/// NVIDIA's limit of retired pages is 64; from 60 on the next storm reaches it.
const PAGES_NEAR_LIMIT: u32 = 60;

/// NVIDIA's return criterion speaks of more than 15 double-bit pages that still grow.
const DOUBLE_BIT_PAGES: u32 = 15;

/// Xids of the memory that this family judges.
pub(super) const CODES: [u32; 9] = [48, 63, 64, 92, 94, 95, 140, 171, 172];

/// Those of them that tell of an uncorrected error.
pub(super) const UNCORRECTED_CODES: [u32; 6] = [48, 94, 95, 140, 171, 172];

/// Memory findings of every GPU.
pub(super) fn judge(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for gpu in &node.gpus {
        let ecc = node.ecc_of(gpu);
        if let Some(ecc) = ecc {
            ecc.remapped_rows.iter().for_each(|rows| drafts.extend(remapped(node, gpu, rows)));
            ecc.retired_pages.iter().for_each(|pages| drafts.extend(retired(gpu, pages)));
            ecc.sram.iter().for_each(|sram| drafts.extend(sram_threshold(gpu, sram)));
            drafts.extend(repairs_waiting(gpu, ecc));
        }
        let events = errors(node, gpu);
        // With an Xid the counters are its evidence, without one they are a finding of their own.
        match (events, ecc) {
            (Some(draft), _) => drafts.push(draft),
            (None, Some(ecc)) => drafts.extend(counted(gpu, ecc)),
            (None, None) => {}
        }
        drafts.extend(repairs(node, gpu, ecc));
        drafts.extend(mode(node, gpu));
        drafts.extend(storm(node, gpu));
        drafts.extend(inforom(node, gpu));
    }
    drafts
}

fn remapped(node: &Node<'_>, gpu: &Gpu, rows: &RemappedRows) -> Vec<Draft> {
    let RemappedRows { correctable, uncorrectable, pending, failure_occurred, histogram } = rows;
    let counts = format!("rows remapped: {uncorrectable} for uncorrectable, {correctable} for corrected errors");
    let log = || node.timeline.xids(gpu, &[63, 64]).map(quote::event).take(2);
    let mut drafts = Vec::new();
    if *failure_occurred {
        let draft = Draft::on_gpu(REMAP_FAILED, gpu).with_evidence("NVML: row remapping failure flag set");
        drafts.push(draft.with_evidence(counts.clone()).with_all_evidence(log()));
    }
    if *pending {
        let draft = Draft::on_gpu(REMAP_PENDING, gpu).with_evidence("NVML: row remap pending");
        drafts.push(draft.with_evidence(counts.clone()).with_all_evidence(log()));
    }
    if *uncorrectable >= MAX_REMAPS {
        drafts.push(Draft::on_gpu(REMAP_MANY, gpu).with_evidence(counts.clone()));
    }
    let exhausted = histogram.as_ref().map_or(0, |histogram| histogram.none);
    if exhausted > 0 {
        let banks = format!("{} without a spare row", quote::count(usize::try_from(exhausted).unwrap_or(0), "bank"));
        drafts.push(Draft::on_gpu(REMAP_SPARES, gpu).with_evidence(banks));
    }
    if *uncorrectable > 0 && drafts.is_empty() {
        drafts.push(Draft::on_gpu(REMAP_DONE, gpu).with_evidence(counts).with_evidence("none pending, none failed"));
    }
    drafts
}

fn retired(gpu: &Gpu, pages: &RetiredPages) -> Vec<Draft> {
    let RetiredPages { single_bit, double_bit, pending } = *pages;
    let counts = format!("pages retired: {double_bit} for double-bit, {single_bit} for single-bit errors");
    let mut drafts = Vec::new();
    if pending == Some(true) {
        drafts.push(
            Draft::on_gpu(PAGES_PENDING, gpu)
                .with_evidence("NVML: page retirement pending")
                .with_evidence(counts.clone()),
        );
    }
    if single_bit.saturating_add(double_bit) >= PAGES_NEAR_LIMIT {
        drafts.push(Draft::on_gpu(PAGES_LIMIT, gpu).with_evidence(counts).with_evidence("the limit is 64"));
    } else if double_bit > DOUBLE_BIT_PAGES {
        drafts.push(Draft::on_gpu(PAGES_MANY, gpu).with_evidence(counts));
    }
    drafts
}

fn sram_threshold(gpu: &Gpu, sram: &SramErrors) -> Option<Draft> {
    let uncorrected = sram.aggregate_uncorrected_parity.saturating_add(sram.aggregate_uncorrected_secded);
    sram.threshold_exceeded.then(|| {
        Draft::on_gpu(SRAM_THRESHOLD, gpu)
            .with_evidence("NVML: SRAM uncorrected error threshold exceeded")
            .with_evidence(format!("{uncorrected} uncorrected SRAM errors in the board's life"))
    })
}

/// Repairs that wait for a reset.
fn repairs_waiting(gpu: &Gpu, ecc: &GpuEcc) -> Option<Draft> {
    let waiting = [(ecc.channel_repair_pending, "channel repair"), (ecc.tpc_repair_pending, "TPC repair")];
    let waiting: Vec<String> = waiting
        .into_iter()
        .filter(|(pending, _)| *pending == Some(true))
        .map(|(_, what)| format!("NVML: {what} pending"))
        .collect();
    (!waiting.is_empty()).then(|| Draft::on_gpu(REPAIR_PENDING, gpu).with_all_evidence(waiting))
}

/// The InfoROM: NVML checks it when asked, and trips over it elsewhere. Both are one finding.
fn inforom(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let invalid = node.ecc_of(gpu).is_some_and(|ecc| ecc.inforom_valid == Some(false));
    let checked = invalid.then(|| "NVML: the InfoROM's checksum does not hold".to_owned());
    let refused = node.gpu_problem(gpu, &[crate::nvml_codes::CORRUPTED_INFOROM]);
    let evidence: Vec<String> = checked.into_iter().chain(refused.map(|problem| quote::reason(&problem.why))).collect();
    (!evidence.is_empty()).then(|| Draft::on_gpu(INFOROM, gpu).with_all_evidence(evidence))
}

/// The gravest memory error in the log, with its companions as evidence: 95 and 140 before 94 before 48.
fn errors(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    // What a GPU says on its way off the bus is that loss, and is quoted there.
    let open: Vec<(usize, &KernelEvent)> =
        node.timeline.unexplained().filter(|(_, event)| concerns(event, gpu)).collect();
    let found = |codes: &[u32]| -> Vec<&KernelEvent> {
        open.iter().map(|(_, event)| *event).filter(|event| is_xid(event, codes)).collect()
    };
    let (uncontained, contained, double_bit) = (found(&[95, 140]), found(&[94]), found(&[48, 171, 172]));
    let rule = if uncontained.iter().any(|event| escaped(event)) {
        UNCONTAINED
    } else if !contained.is_empty() {
        CONTAINED
    } else if !double_bit.is_empty() {
        DOUBLE_BIT
    } else {
        return None;
    };
    let events: Vec<&KernelEvent> = uncontained.into_iter().chain(contained).chain(double_bit).collect();
    let positions: Vec<usize> =
        open.iter().filter(|(_, event)| is_xid(event, &CODES)).map(|(position, _)| *position).collect();
    let mut draft = Draft::on_gpu(rule, gpu).with_events(events.iter().copied());
    draft = draft.with_all_evidence(node.timeline.consequences(&positions));
    if let Some(ecc) = node.ecc_of(gpu) {
        draft = draft.with_all_evidence(since_load(&ecc.volatile));
        let failed = ecc.remapped_rows.as_ref().is_some_and(|rows| rows.failure_occurred);
        draft = if failed || node.timeline.xids(gpu, &[64]).any(exhausted) {
            draft.with_action(
                ActionCode::ContactVendor,
                "Drain {node}, reset {gpu}, run NVIDIA's field diagnostic and return it: the repair failed.",
            )
        } else {
            draft.aged(node, gpu, &events, true)
        };
    }
    Some(draft)
}

/// 140 lists counters; all zero (or negative, which the driver does print) is no escape.
fn escaped(event: &KernelEvent) -> bool {
    let counters: Vec<i64> =
        ["dram", "ltc", "mmu", "pcie"].iter().filter_map(|name| event.details.get(*name)?.parse().ok()).collect();
    event.code != Some(140) || counters.is_empty() || counters.iter().any(|&count| count > 0)
}

/// Whether a 64 means that spares are used up; "already pending" and "reserved row" mean less.
fn exhausted(event: &KernelEvent) -> bool {
    let state = event.details.get("row_remap").map(String::as_str);
    matches!(state, Some("table_full" | "bank_spares_used"))
}

fn since_load(volatile: &ErrorCounts) -> Option<String> {
    let uncorrected = volatile.uncorrected.filter(|&count| count > 0)?;
    let places: Vec<String> = volatile
        .locations
        .iter()
        .filter(|place| place.uncorrected > 0)
        .map(|place| format!("{} {}", place.uncorrected, quote::data(&place.location)))
        .collect();
    let places = if places.is_empty() { String::new() } else { format!(" ({})", places.join(", ")) };
    Some(format!("uncorrected since driver load: {uncorrected}{places}"))
}

/// Counters without an Xid.
fn counted(gpu: &Gpu, ecc: &GpuEcc) -> Option<Draft> {
    let lifetime = ecc.aggregate.uncorrected.filter(|&count| count > 0);
    let lifetime_words = lifetime.map(|count| format!("uncorrected in the board's life: {count}"));
    if let Some(evidence) = since_load(&ecc.volatile) {
        return Some(Draft::on_gpu(UNCORRECTED, gpu).with_evidence(evidence).with_all_evidence(lifetime_words));
    }
    if let Some(sram) = ecc.uncorrected_since_load().filter(|&count| count > 0) {
        let evidence = format!("uncorrected SRAM errors since driver load: {sram}");
        return Some(Draft::on_gpu(UNCORRECTED, gpu).with_evidence(evidence).with_all_evidence(lifetime_words));
    }
    // Without the volatile counter nothing says that the past is past.
    ecc.volatile.uncorrected?;
    let draft = Draft::on_gpu(HISTORY, gpu).with_all_evidence(lifetime_words.clone());
    lifetime_words.map(|_| draft.with_evidence("uncorrected since driver load: 0"))
}

/// 63 and 64 ask NVML for the state of the remapper; where it cannot say, or counts no repair at all, they speak for
/// themselves.
fn repairs(node: &Node<'_>, gpu: &Gpu, ecc: Option<&GpuEcc>) -> Option<Draft> {
    let rows = ecc.and_then(|ecc| ecc.remapped_rows.as_ref());
    let pages = ecc.and_then(|ecc| ecc.retired_pages.as_ref());
    let of_rows = rows
        .map(|rows| rows.pending || rows.failure_occurred || rows.uncorrectable.saturating_add(rows.correctable) > 0);
    let of_pages = pages
        .filter(|pages| pages.pending.is_some())
        .map(|pages| pages.pending == Some(true) || pages.single_bit.saturating_add(pages.double_bit) > 0);
    let counted = of_rows.or(of_pages);
    let failures: Vec<&KernelEvent> = node
        .timeline
        .xids(gpu, &[64])
        .filter(|event| event.details.get("row_remap").is_none_or(|state| state != "already_pending"))
        .collect();
    if !failures.is_empty() && !rows.is_some_and(|rows| rows.failure_occurred) {
        return Some(Draft::on_gpu(REMAP_NOT_RECORDED, gpu).with_events(failures));
    }
    let mut recorded = node.timeline.xids(gpu, &[63, 64]).peekable();
    if counted == Some(true) || recorded.peek().is_none() {
        return None;
    }
    let newest = node.timeline.xids(gpu, &[63, 64]).filter_map(|event| event.last).max();
    let draft = Draft::on_gpu(REMAP_UNVERIFIED, gpu).with_events(recorded);
    if counted.is_none() {
        return Some(draft.with_evidence("NVML's remap state was not read"));
    }
    // The row was recorded since the driver was loaded, and NVML counts none: it took effect by a reset that the log
    // does not show, or NVML has not counted it yet.
    let settled = node.age(newest).is_some_and(|age| age > STALE_AFTER);
    let severity = if settled { Severity::Info } else { Severity::Warning };
    let watch =
        "Read the remap state of {gpu} of {node} again (snapshot_ecc): a repair was recorded, and NVML counts none.";
    Some(
        draft
            .with_evidence("NVML counts no repair, neither done nor pending")
            .with_severity(severity)
            .with_action(ActionCode::Watch, watch),
    )
}

/// ECC off on a board that has it, or about to change.
fn mode(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let inventory = node.inventory_of(gpu);
    let mode = node.ecc_of(gpu).and_then(|ecc| ecc.mode).or_else(|| inventory.and_then(|gpu| gpu.ecc_mode))?;
    if mode.current != mode.pending {
        let word = |on: bool| if on { "on" } else { "off" };
        let evidence = format!("ECC is {}, {} after the next reboot", word(mode.current), word(mode.pending));
        return Some(Draft::on_gpu(ECC_PENDING, gpu).with_evidence(evidence));
    }
    // Of a product that was not read `unknown` says so.
    (!mode.current && gpu.name.is_some() && !leaves_factory_without_ecc(gpu))
        .then(|| Draft::on_gpu(ECC_OFF, gpu).with_evidence("ECC mode off"))
}

/// GPUs whose ECC is off and whose product was not read: some leave the factory so, on others it is a fault.
pub(super) fn ecc_off_of_unknown_products(node: &Node<'_>) -> Vec<(Option<u32>, String)> {
    let off = |gpu: &&Gpu| {
        let mode = node.ecc_of(gpu).and_then(|ecc| ecc.mode);
        gpu.name.is_none() && mode.is_some_and(|mode| !mode.current && !mode.pending)
    };
    node.gpus.iter().filter(off).map(|gpu| (gpu.index, gpu.label())).collect()
}

/// Workstation and consumer boards have ECC off, or none, by default.
fn leaves_factory_without_ecc(gpu: &Gpu) -> bool {
    let name = gpu.name.as_deref().unwrap_or("RTX");
    ["GeForce", "RTX", "Quadro", "TITAN"].iter().any(|brand| name.contains(brand))
}

fn storm(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let events: Vec<&KernelEvent> = node.timeline.xids(gpu, &[92]).collect();
    let corrected = node.ecc_of(gpu).and_then(|ecc| ecc.volatile.corrected);
    let corrected = corrected.map(|count| format!("corrected since driver load: {count}"));
    let draft = || Draft::on_gpu(STORM, gpu).with_all_evidence(events.iter().map(|event| quote::event(event)));
    (!events.is_empty()).then(|| draft().with_all_evidence(corrected).aged(node, gpu, &events, true))
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
