//! Rules about GPU memory: ECC mode and errors, row remapping, retired pages, SRAM, InfoROM, from counters and Xids.
//!
//! The state in NVML has priority over the log. For example, an Xid 63 reports that a repair was recorded, but only
//! NVML shows whether the repair is pending. Aggregate counters describe the history of the board, not its current
//! state.

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::{Gpu, Node, STALE_AFTER};
use crate::input::processes::{is_service, uses};
use crate::input::timeline::{concerns, is_xid};
use crate::input::xids;
use crate::rule::aging;
use crate::rule::{Draft, InPlan, MEMORY_DOC, RETIREMENT_DOC, Unread, XID_DOC, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::ecc::{ErrorCounts, GpuEcc, RecoveryAction, RemappedRows, RetiredPages, SramErrors};
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::facts::processes::GpuProcess;
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

rules! {
    REMAP_FAILED: "row-remap-failed" Fatal Hardware MEMORY_DOC, "Row remapping failed: no spare row left",
        ContactVendor "Drain {node}, run the NVIDIA field diagnostic on {gpu} and return it (RMA).",
        means "The GPU has no spare row left for a bad row of its memory. The bad row stays in use.",
        reads "ecc.remapped_rows, xid: 64";
    REMAP_PENDING: "row-remap-pending" Warning Hardware MEMORY_DOC,
        "Row remap pending: takes effect after a GPU reset",
        DrainAndReset "Reset {gpu} of {node} at the next maintenance. The remap then takes effect. New and running work \
            may use {gpu} until then. No RMA is needed.",
        means "The GPU has found a bad row of its memory and replaces it at the next reset. Until then, error \
            containment and page offlining keep the row out of use, so that work is not affected.",
        reads "ecc.remapped_rows, xid: 63, 64", in_plan WorkContinues;
    UNREPAIRABLE: "unrepairable-memory" Fatal Hardware MEMORY_DOC, "The memory has a fault that cannot be repaired",
        ContactVendor "Drain {node}, run the NVIDIA field diagnostic on {gpu} and return it (RMA).",
        means "The driver reports that a fault in the memory of the GPU cannot be repaired by a remap or a reset.",
        reads "ecc.unrepairable_memory";
    REMAP_INACTIVE: "row-remap-inactive" Warning Hardware MEMORY_DOC,
        "A row remap is recorded but not active, and none is pending",
        DrainAndReset "Move the workloads off {gpu} of {node}, reset {gpu}, and read the state again (snapshot_ecc). If the remap is \
            still not active, run the NVIDIA field diagnostic on {gpu}.",
        means "The repair of a bad memory row is recorded, but the hardware does not use it. No remap is pending, so the driver does not \
            announce that a reset activates it.",
        reads "ecc.remapped_rows", in_plan WorkContinues;
    REMAP_MANY: "row-remap-many" Critical Hardware MEMORY_DOC, "A very large number of rows is remapped",
        ContactVendor "Plan to return {gpu} of {node} (RMA): its memory keeps degrading.",
        means "So many rows were replaced that NVIDIA accepts the return of the board.",
        reads "ecc.remapped_rows", in_plan WorkContinues;
    REMAP_SPARES: "row-remap-spares-used" Warning Hardware MEMORY_DOC, "Memory banks without spare rows",
        Watch "No action now. The next bad row in a memory bank of {gpu} without spare rows cannot be repaired: plan \
            to replace the GPU.",
        means "Some memory banks have used all their spare rows. A further bad row there cannot be replaced.",
        reads "ecc.remapped_rows";
    REMAP_DONE: "row-remap-done" Info Hardware MEMORY_DOC, "Bad memory rows were repaired",
        None "No action: the repair of {gpu} succeeded.",
        means "Bad rows were replaced in the past. The memory works as before.",
        reads "ecc.remapped_rows";
    REMAP_UNVERIFIED: "row-remap-recorded" Warning Hardware MEMORY_DOC, "The driver recorded a memory repair",
        Watch "Check whether a remap of {gpu} is pending or failed (snapshot_ecc). Reset {gpu} at the next drain.",
        means "The driver recorded that it will replace a bad row, but the counters could not be read.",
        reads "xid: 63";
    REMAP_NOT_RECORDED: "row-remap-not-recorded" Critical Hardware XID_DOC,
        "The driver could not record a memory repair",
        DrainAndReset "Drain {node}, reset {gpu}, then run the NVIDIA field diagnostic. If the repair fails again, \
            return the GPU (RMA).",
        means "The driver could not record the repair of a bad row: the repair is lost at the next reset.",
        reads "xid: 64";
    SRAM_THRESHOLD: "sram-threshold-exceeded" Fatal Hardware MEMORY_DOC, "Too many uncorrected SRAM errors",
        ContactVendor "Drain {node}, run the NVIDIA field diagnostic on {gpu} and return it (RMA).",
        means "The uncorrected errors of the GPU's SRAM are above NVIDIA's limit for a return.",
        reads "ecc.sram";
    UNCONTAINED: "ecc-uncontained" Fatal Hardware MEMORY_DOC, "Uncontained memory error",
        DrainAndReset "Do not schedule new work on {gpu} of {node}, stop its work and then reset {gpu}: every program \
            there may have read corrupted data.",
        means "A memory error was not contained to one program. The results of all programs on the GPU can be wrong.",
        reads "xid: 95", in_plan ResultsSuspect;
    CONTAINED: "ecc-contained" Critical Hardware MEMORY_DOC, "Uncorrectable memory error, contained",
        DrainAndReset "Restart the affected application. Other work on {gpu} is not affected. Do not schedule new \
            work on {gpu} of {node}, then reset {gpu} at the next drain.",
        means "An uncorrectable memory error stopped the program that used the memory. Other programs were not \
            affected.",
        reads "xid: 48, 94, ecc.volatile", in_plan OtherWorkContinues;
    DOUBLE_BIT: "ecc-double-bit" Critical Hardware XID_DOC, "Uncorrectable memory error",
        DrainAndReset "Move the workloads off {gpu} of {node}, then reset {gpu}.",
        means "A memory error could not be corrected (Xid 48). The program that used the memory was terminated.",
        reads "xid: 48, ecc.volatile";
    UNCORRECTED: "ecc-uncorrected" Warning Hardware MEMORY_DOC,
        "Uncorrected memory errors since the driver was loaded",
        Watch "Look for Xid 48, 63, 94 or 95 of {gpu} in older logs. Reset {gpu} at the next drain of {node}.",
        means "The GPU counts memory errors that could not be corrected since the driver was loaded, and the log has \
            no Xid about them.",
        reads "ecc.volatile", depth 1;
    STORM: "ecc-correctable-storm" Warning Hardware XID_DOC, "Very many corrected memory errors",
        Watch "No immediate action: corrected errors do not affect data. Watch {gpu} for row remaps, and run a \
            diagnostic at the next drain.",
        means "The GPU corrects very many memory errors. Uncorrectable errors often follow.",
        reads "ecc.volatile, telemetry.sample, xid: 92";
    HISTORY: "ecc-history" Info Hardware MEMORY_DOC, "Memory errors over the lifetime of the board",
        None "No action: there is no error of {gpu} since the driver was loaded.",
        means "The GPU counted memory errors in its lifetime, but none since the driver was loaded.",
        reads "ecc.aggregate";
    PAGES_PENDING: "retired-pages-pending" Critical Hardware RETIREMENT_DOC,
        "Page retirement pending: takes effect after a reset or driver reload",
        DrainAndReset "Move the workloads off {gpu} of {node}, then reset {gpu}, or reload the driver.",
        means "A page of memory with an error is taken out of use at the next reboot.",
        reads "ecc.retired_pages";
    PAGES_LIMIT: "retired-pages-limit" Fatal Hardware RETIREMENT_DOC, "The limit of retired pages is reached or close",
        ContactVendor "Return {gpu} of {node} (RMA): no more than 64 pages can be retired.",
        means "The number of retired pages has reached NVIDIA's limit for a return of the board.",
        reads "ecc.retired_pages";
    PAGES_MANY: "retired-pages-many" Warning Hardware RETIREMENT_DOC, "Many pages retired for double-bit errors",
        Watch "Watch {gpu}: more pages retired for double-bit errors within a week are a reason for an RMA.",
        means "Many pages are retired for uncorrectable errors. The limit is near.",
        reads "ecc.retired_pages";
    ECC_OFF: "ecc-disabled" Warning Driver MEMORY_DOC, "ECC is disabled",
        UpdateSoftware "Enable ECC on {gpu} of {node} (nvidia-smi -e 1) and reboot the node when it is drained. \
            Without ECC, memory errors are not detected and not repaired.",
        means "ECC is off on a GPU that supports it: memory errors are not corrected and not detected.",
        reads "ecc.mode, inventory.ecc_mode";
    ECC_PENDING: "ecc-mode-pending" Warning Driver MEMORY_DOC, "ECC mode change pending: takes effect after a reboot",
        DrainAndReboot "Reboot {node} when it is drained. Until then {gpu} keeps the old ECC mode.",
        means "ECC will be switched on or off at the next reboot or reset.",
        reads "ecc.mode";
    INFOROM: "inforom-corrupted" Critical Hardware XID_DOC, "InfoROM is corrupted",
        ContactVendor "Power-cycle {node} when it is drained, and read the InfoROM of {gpu} again. If it is still corrupted, have {gpu} inspected: its stored \
            counters and settings are not reliable.",
        means "The checksum of the InfoROM, which stores settings and counters of the board, does not match.",
        reads "ecc.inforom_valid, xid", in_plan WorkContinues;
    REPAIR_PENDING: "repair-pending" Critical Hardware MEMORY_DOC,
        "Hardware repair pending: takes effect after a GPU reset",
        DrainAndReset "Move the workloads off {gpu} of {node}, then reset {gpu}. The repair then takes effect.",
        means "The GPU can repair a memory channel or a processing cluster at the next reset.",
        reads "ecc.channel_repair_pending, ecc.tpc_repair_pending", in_plan WorkContinues;
}

/// Number of rows remapped for uncorrectable errors at which DCGM reports a GPU as failed: all spare rows are used.
const MAX_REMAPS: u32 = 512;

/// The limit of retired pages.
const MAX_PAGES: u32 = 64;

/// From this number of retired pages on, the limit is close.
const PAGES_NEAR_LIMIT: u32 = 60;

/// NVIDIA's criterion for an RMA is more than 15 pages retired for double-bit errors, if this number is still growing.
const DOUBLE_BIT_PAGES: u32 = 15;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for gpu in &node.gpus {
        let ecc = node.ecc_of(gpu);
        if let Some(ecc) = ecc {
            ecc.remapped_rows.iter().for_each(|rows| drafts.extend(remapped(node, gpu, rows)));
            ecc.retired_pages.iter().for_each(|pages| drafts.extend(retired(node, gpu, pages)));
            ecc.sram.iter().for_each(|sram| drafts.extend(sram_threshold(node, gpu, sram)));
            drafts.extend(repairs_waiting(gpu, ecc));
            drafts.extend(unrepairable(node, gpu, ecc));
        }
        let events = errors(node, gpu);
        // If there is an Xid, the counters are its evidence. Otherwise they are a separate finding.
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
    let RemappedRows { correctable, uncorrectable, pending, failure_occurred, histogram, .. } = rows;
    let counts = format!("remapped rows: {uncorrectable} for uncorrectable, {correctable} for corrected errors");
    let inactive = inactive(rows);
    let log = || node.timeline.xids(gpu, &[63, 64]).map(evidence::event).take(2);
    let mut drafts = Vec::new();
    if *failure_occurred {
        let flag = node
            .ecc_of(gpu)
            .is_some_and(|ecc| ecc.unrepairable_memory == Some(true))
            .then(|| UNREPAIRABLE_FLAG.to_owned());
        let draft = Draft::on_gpu(REMAP_FAILED, gpu)
            .with_evidence("NVML: row remapping failure flag set")
            .with_all_evidence(flag);
        let can_wait = is_lifetime_only(node, gpu);
        drafts.push(Draft { can_wait, ..draft.with_evidence(counts.clone()).with_all_evidence(log()) });
    }
    if *pending {
        let draft = Draft::on_gpu(REMAP_PENDING, gpu).with_evidence("NVML: row remap pending");
        drafts.push(draft.with_evidence(counts.clone()).with_all_evidence(inactive).with_all_evidence(log()));
    } else if let Some(inactive) = inactive.filter(|_| rows.uncorrectable_inactive > Some(0)) {
        drafts.push(Draft::on_gpu(REMAP_INACTIVE, gpu).with_evidence(inactive).with_evidence("none pending"));
    }
    if *uncorrectable >= MAX_REMAPS {
        drafts.push(Draft::on_gpu(REMAP_MANY, gpu).with_evidence(counts.clone()));
    }
    let exhausted = histogram.as_ref().map_or(0, |histogram| histogram.none);
    if exhausted > 0 {
        let banks = format!("{} without a spare row", evidence::count(usize::try_from(exhausted).unwrap_or(0), "bank"));
        drafts.push(Draft::on_gpu(REMAP_SPARES, gpu).with_evidence(banks));
    }
    if *uncorrectable > 0 && drafts.is_empty() {
        drafts.push(Draft::on_gpu(REMAP_DONE, gpu).with_evidence(counts).with_evidence("none pending, none failed"));
    }
    drafts
}

/// The evidence that the driver reports unrepairable memory.
const UNREPAIRABLE_FLAG: &str = "NVML: unrepairable memory flag set";

/// Returns a finding about unrepairable memory. If a remap failed, that finding has the flag as its evidence.
fn unrepairable(node: &Node<'_>, gpu: &Gpu, ecc: &GpuEcc) -> Option<Draft> {
    let remap_failed = ecc.remapped_rows.as_ref().is_some_and(|rows| rows.failure_occurred);
    (ecc.unrepairable_memory == Some(true) && !remap_failed).then(|| {
        let draft = Draft::on_gpu(UNREPAIRABLE, gpu).with_evidence(UNREPAIRABLE_FLAG);
        Draft { can_wait: is_lifetime_only(node, gpu), ..draft }
    })
}

/// Returns the evidence about remaps that are not active. A remap for corrected errors can be inactive because a remap
/// for uncorrected errors replaced it, so only inactive remaps for uncorrected errors are a fault.
fn inactive(rows: &RemappedRows) -> Option<String> {
    let (correctable, uncorrectable) = (rows.correctable_inactive?, rows.uncorrectable_inactive?);
    let line =
        format!("remaps that are not active: {uncorrectable} for uncorrectable, {correctable} for corrected errors");
    (correctable.max(uncorrectable) > 0).then_some(line)
}

/// Returns whether worn memory has caused no new error: the log has no severe memory error, and no error was counted
/// since the driver was loaded. Running work may then finish before the GPU is returned.
fn is_lifetime_only(node: &Node<'_>, gpu: &Gpu) -> bool {
    let counted = node.ecc_of(gpu).and_then(GpuEcc::uncorrected_since_load);
    let grave = |event: &&KernelEvent| aging::severity(event) >= Severity::Critical;
    counted == Some(0) && node.timeline.xids(gpu, &xids::MEMORY).find(grave).is_none()
}

fn retired(node: &Node<'_>, gpu: &Gpu, pages: &RetiredPages) -> Vec<Draft> {
    let RetiredPages { single_bit, double_bit, pending } = *pages;
    let counts = single_bit.zip(double_bit).map(|(single_bit, double_bit)| {
        format!("retired pages: {double_bit} for double-bit, {single_bit} for single-bit errors")
    });
    let mut drafts = Vec::new();
    if pending == Some(true) {
        let error = node.timeline.xids(gpu, &xids::UNCORRECTED_MEMORY).last();
        let draft = Draft::on_gpu(PAGES_PENDING, gpu)
            .with_evidence("NVML: page retirement pending")
            .with_all_evidence(counts.clone());
        let draft = error.into_iter().fold(draft, Draft::with_time_of);
        drafts.push(if is_for_corrected_errors(node, gpu, double_bit) { corrected(draft) } else { draft });
    }
    let retired = single_bit.unwrap_or(0).saturating_add(double_bit.unwrap_or(0));
    if retired >= PAGES_NEAR_LIMIT {
        let draft = Draft::on_gpu(PAGES_LIMIT, gpu).with_all_evidence(counts).with_evidence("the limit is 64");
        // Without a new error, the board works, and only its spare pages are used up.
        let can_wait = is_lifetime_only(node, gpu);
        let severity = match (can_wait && pending != Some(true), retired >= MAX_PAGES) {
            (false, _) => Severity::Fatal,
            (true, true) => Severity::Critical,
            (true, false) => Severity::Warning,
        };
        drafts.push(Draft { can_wait, ..draft.with_severity(severity) });
    } else if double_bit.is_some_and(|double_bit| double_bit > DOUBLE_BIT_PAGES) {
        drafts.push(Draft::on_gpu(PAGES_MANY, gpu).with_all_evidence(counts));
    }
    drafts
}

/// Returns whether the pages that wait for retirement had only corrected errors: no double-bit error is counted in the
/// lifetime of the board, or none since the last driver load, which retires pages.
fn is_for_corrected_errors(node: &Node<'_>, gpu: &Gpu, double_bit: Option<u32>) -> bool {
    let since_load = node.ecc_of(gpu).and_then(GpuEcc::uncorrected_since_load);
    let in_log = node.timeline.xids(gpu, &xids::UNCORRECTED_MEMORY).next().is_some();
    !in_log && (since_load == Some(0) || (since_load.is_none() && double_bit == Some(0)))
}

/// Lowers a finding about pages with corrected errors. Their data is correct, so running work is not affected.
fn corrected(draft: Draft) -> Draft {
    let draft = draft.with_evidence("no double-bit error since the driver was loaded: the errors were corrected");
    let draft = Draft { rule: draft.rule.in_plan(InPlan::WorkContinues), ..draft };
    draft.with_severity(Severity::Warning).with_action(
        ActionCode::DrainAndReset,
        "Reset {gpu} of {node} or reload the driver at the next maintenance. The retirement then takes effect. New and running work may \
         use {gpu} until then.",
    )
}

fn sram_threshold(node: &Node<'_>, gpu: &Gpu, sram: &SramErrors) -> Option<Draft> {
    let uncorrected = sram.aggregate_uncorrected_parity.saturating_add(sram.aggregate_uncorrected_secded);
    sram.threshold_exceeded.then(|| {
        let draft = Draft::on_gpu(SRAM_THRESHOLD, gpu)
            .with_evidence("NVML: SRAM uncorrected error threshold exceeded")
            .with_evidence(format!("{uncorrected} uncorrected SRAM errors over the lifetime of the board"));
        Draft { can_wait: is_lifetime_only(node, gpu), ..draft }
    })
}

/// Returns a finding about repairs that wait for a reset.
fn repairs_waiting(gpu: &Gpu, ecc: &GpuEcc) -> Option<Draft> {
    let waiting = [(ecc.channel_repair_pending, "channel repair"), (ecc.tpc_repair_pending, "TPC repair")];
    let waiting: Vec<String> = waiting
        .into_iter()
        .filter(|(pending, _)| *pending == Some(true))
        .map(|(_, what)| format!("NVML: {what} pending"))
        .collect();
    (!waiting.is_empty()).then(|| Draft::on_gpu(REPAIR_PENDING, gpu).with_all_evidence(waiting))
}

/// Checks the InfoROM. NVML has a function for this check, and other calls fail if the InfoROM is corrupted.
fn inforom(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let invalid = node.ecc_of(gpu).is_some_and(|ecc| ecc.inforom_valid == Some(false));
    let checked = invalid.then(|| "NVML: the checksum of the InfoROM is wrong".to_owned());
    let refused = node.gpu_problem(gpu, &[syringe_core::nvml_codes::CORRUPTED_INFOROM]);
    let evidence: Vec<String> =
        checked.into_iter().chain(refused.map(|problem| evidence::reason(&problem.why))).collect();
    let return_if = Some("if its InfoROM is still corrupted after a power cycle of the node");
    (!evidence.is_empty()).then(|| Draft { return_if, ..Draft::on_gpu(INFOROM, gpu) }.with_all_evidence(evidence))
}

/// Returns the most severe memory error in the log, with related lines as evidence. Xid 95 and 140 are the most severe,
/// followed by 94 and 48.
fn errors(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    // Errors of a GPU that fell off the bus are evidence of that fault.
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
        open.iter().filter(|(_, event)| is_xid(event, &xids::MEMORY)).map(|(position, _)| *position).collect();
    let mut draft = Draft::on_gpu(rule, gpu).with_events(events.iter().copied());
    draft = draft.with_all_evidence(node.timeline.consequences(&positions));
    if let Some(ecc) = node.ecc_of(gpu) {
        draft = draft.with_all_evidence(since_load(&ecc.volatile));
        let failed = ecc.remapped_rows.as_ref().is_some_and(|rows| rows.failure_occurred)
            || ecc.unrepairable_memory == Some(true);
        draft = if failed || node.timeline.xids(gpu, &[64]).any(exhausted) {
            draft.with_action(
                ActionCode::ContactVendor,
                "Drain {node}, reset {gpu}, run the NVIDIA field diagnostic and return the GPU (RMA): the repair failed.",
            )
        } else if rule.id == CONTAINED.id && needs_no_reset(node, gpu, &events) {
            draft
                .with_severity(Severity::Warning)
                .with_action(ActionCode::RestartPod, ONLY_RESTART)
                .aged(node, gpu, &events, true)
        } else if rule.id == CONTAINED.id && is_in_use_again(node, gpu, &events) {
            draft
                .with_severity(Severity::Warning)
                .with_action(ActionCode::DrainAndReset, ONLY_RESET)
                .aged(node, gpu, &events, true)
        } else {
            draft.aged(node, gpu, &events, true)
        };
    } else {
        draft = draft.unless_unread(node, &events);
    }
    Some(draft)
}

/// Action for a contained error after which the GPU is in use again.
const ONLY_RESET: &str = "Reset {gpu} at the next drain of {node}, so that the repair takes effect. A program that was started after the error uses {gpu}.";

/// A program that has run for this long works.
const WORKS: SignedDuration = SignedDuration::from_mins(5);

/// Returns whether there was one contained error, it names the program that it ended, the driver asks for no action (older
/// drivers ask for none), and a program that was started after the error has used the GPU for some time.
fn is_in_use_again(node: &Node<'_>, gpu: &Gpu, events: &[&KernelEvent]) -> bool {
    let contained: Vec<&&KernelEvent> = events.iter().filter(|event| is_xid(event, &[94])).collect();
    let asked = node.recovery_action(gpu).is_some_and(|(action, _)| action != RecoveryAction::None);
    if asked || contained.iter().map(|event| event.count).sum::<u64>() != 1 || contained[0].pid.is_none() {
        return false;
    }
    let last = events.iter().filter_map(|event| event.last).max();
    let is_later = |process: &GpuProcess| {
        let works = node.age(process.started_at).is_some_and(|age| age > WORKS);
        works && process.started_at.zip(last).is_some_and(|(start, last)| start > last)
    };
    let mut all = node.processes().into_iter().flat_map(|section| &section.processes);
    all.any(|process| uses(process, gpu) && !is_service(process) && is_later(process))
}

/// Action for a contained error after which the driver asks for no reset.
const ONLY_RESTART: &str = "Restart the affected application. The driver asks for no reset of {gpu} (RST: No, D-RST: No), and no memory row failed. If \
     the error repeats, run the NVIDIA field diagnostic on {gpu} of {node}.";

/// Returns whether the lines of contained errors say that no reset is needed, and NVML and the log report no failed
/// row.
fn needs_no_reset(node: &Node<'_>, gpu: &Gpu, events: &[&KernelEvent]) -> bool {
    let is_no = |event: &KernelEvent, key: &str| event.details.get(key).is_some_and(|answer| answer == "false");
    let rows = node.ecc_of(gpu).and_then(|ecc| ecc.remapped_rows.as_ref());
    let asked = node.recovery_action(gpu).is_some_and(|(action, _)| action != RecoveryAction::None);
    let repaired = node.timeline.xids(gpu, &xids::REPAIR).next().is_some();
    !asked
        && !repaired
        && rows.is_none_or(|rows| !rows.pending)
        && events.iter().all(|event| is_no(event, "rst") && is_no(event, "drst"))
}

/// Returns whether an Xid 140 reports an error that escaped. If all its counters are zero (or negative), no error
/// escaped.
fn escaped(event: &KernelEvent) -> bool {
    let counters: Vec<i64> =
        ["dram", "ltc", "mmu", "pcie"].iter().filter_map(|name| event.details.get(*name)?.parse().ok()).collect();
    event.code != Some(140) || counters.is_empty() || counters.iter().any(|&count| count > 0)
}

/// Returns whether an Xid 64 reports that no spare rows are left. The texts "already pending" and "reserved row" report
/// something else.
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
        .map(|place| format!("{} {}", place.uncorrected, evidence::data(&place.location)))
        .collect();
    let places = if places.is_empty() { String::new() } else { format!(" ({})", places.join(", ")) };
    Some(format!("uncorrected since driver load: {uncorrected}{places}"))
}

/// Returns a finding from the error counters, if no Xid reports the errors.
fn counted(gpu: &Gpu, ecc: &GpuEcc) -> Option<Draft> {
    let lifetime = ecc.aggregate.uncorrected.filter(|&count| count > 0);
    let lifetime_words = lifetime.map(|count| format!("uncorrected over the lifetime of the board: {count}"));
    if let Some(evidence) = since_load(&ecc.volatile) {
        return Some(Draft::on_gpu(UNCORRECTED, gpu).with_evidence(evidence).with_all_evidence(lifetime_words));
    }
    if let Some(sram) = ecc.uncorrected_since_load().filter(|&count| count > 0) {
        let evidence = format!("uncorrected SRAM errors since driver load: {sram}");
        return Some(Draft::on_gpu(UNCORRECTED, gpu).with_evidence(evidence).with_all_evidence(lifetime_words));
    }
    // Without the volatile counter, it is not known whether the errors are old.
    ecc.volatile.uncorrected?;
    let draft = Draft::on_gpu(HISTORY, gpu).with_all_evidence(lifetime_words.clone());
    lifetime_words.map(|_| draft.with_evidence("uncorrected since driver load: 0"))
}

/// Returns a finding about repairs. For Xid 63 and 64, the state in NVML is used. If NVML reports no state or counts no
/// repair, the Xids are a separate finding.
fn repairs(node: &Node<'_>, gpu: &Gpu, ecc: Option<&GpuEcc>) -> Option<Draft> {
    let rows = ecc.and_then(|ecc| ecc.remapped_rows.as_ref());
    let pages = ecc.and_then(|ecc| ecc.retired_pages.as_ref());
    let of_rows = rows
        .map(|rows| rows.pending || rows.failure_occurred || rows.uncorrectable.saturating_add(rows.correctable) > 0);
    let of_pages = pages.filter(|pages| pages.pending.is_some()).map(|pages| {
        pages.pending == Some(true) || [pages.single_bit, pages.double_bit].into_iter().flatten().any(|count| count > 0)
    });
    let counted = of_rows.or(of_pages);
    let failures: Vec<&KernelEvent> = node
        .timeline
        .xids(gpu, &[64])
        .filter(|event| event.details.get("row_remap").is_none_or(|state| state != "already_pending"))
        .collect();
    if !failures.is_empty() && !rows.is_some_and(|rows| rows.failure_occurred) {
        let repaired = |fact: &&KernelEvent| {
            node.timeline.events.iter().any(|event| std::ptr::eq(event.fact, *fact) && event.repaired)
        };
        let contradicted = rows.is_some() && failures.iter().all(repaired);
        let draft = Draft::on_gpu(REMAP_NOT_RECORDED, gpu).with_events(failures);
        return Some(if contradicted { remap_contradicted(draft) } else { draft });
    }
    let mut recorded = node.timeline.xids(gpu, &[63, 64]).peekable();
    if counted == Some(true) || recorded.peek().is_none() {
        return None;
    }
    let newest = node.timeline.xids(gpu, &[63, 64]).filter_map(|event| event.ordered_at()).max();
    let draft = Draft::on_gpu(REMAP_UNVERIFIED, gpu).with_events(recorded);
    if counted.is_none() {
        return Some(draft.with_evidence("the remap state was not read from NVML"));
    }
    // The repair was recorded after the driver was loaded, but NVML counts none. Either a reset that is not in the log
    // applied the repair, or NVML has not counted the repair yet.
    let settled = node.age(newest).is_some_and(|age| age > STALE_AFTER);
    let severity = if settled { Severity::Info } else { Severity::Warning };
    let watch =
        "Read the remap state of {gpu} of {node} again (snapshot_ecc): a repair was recorded, but NVML counts none.";
    Some(
        draft
            .with_evidence("NVML counts no completed and no pending repair")
            .with_severity(severity)
            .with_action(ActionCode::Watch, watch),
    )
}

/// Lowers a finding about exhausted spare rows if NVML reports no failed remap after the reset, because the log and
/// NVML contradict each other.
fn remap_contradicted(draft: Draft) -> Draft {
    draft
        .with_severity(Severity::Warning)
        .with_evidence("the GPU was reset since then, and NVML reports no failed remap: this contradicts the log")
        .with_action(
            ActionCode::DrainAndReset,
            "When {node} is drained, run the NVIDIA field diagnostic on {gpu}: the log says that its spare rows are \
             used up. If the diagnostic fails, return {gpu} (RMA).",
        )
}

/// Action for a GPU on which the next reboot or reset disables ECC. Memory errors are then no longer detected.
const KEEP_ECC: &str = "Find out whether ECC of {gpu} was switched off on purpose. If not, switch it on again (nvidia-smi -e 1 for this GPU) \
     before the next reboot or reset of {node}.";

/// Returns a finding if ECC is disabled on a board that supports ECC, or if the mode is about to change.
fn mode(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let inventory = node.inventory_of(gpu);
    let mode = node.ecc_of(gpu).and_then(|ecc| ecc.mode).or_else(|| inventory.and_then(|gpu| gpu.ecc_mode))?;
    if mode.current != mode.pending {
        let word = |on: bool| if on { "on" } else { "off" };
        let evidence = format!("ECC is {} now, and {} after the next reboot", word(mode.current), word(mode.pending));
        let draft = Draft::on_gpu(ECC_PENDING, gpu).with_evidence(evidence);
        return Some(match mode.pending {
            true => draft,
            false => draft.with_action(ActionCode::Watch, KEEP_ECC).with_step_before(KEEP_ECC),
        });
    }
    // For an unknown product, `unread_product` returns an entry.
    (!mode.current && gpu.name.is_some() && !leaves_factory_without_ecc(gpu)).then(|| {
        let draft = Draft::on_gpu(ECC_OFF, gpu).with_evidence("ECC mode off");
        // One setting for several GPUs is a choice, not an accident.
        let is_choice = node.answering().count() > 1 && node.answering().all(|gpu| is_off(node, gpu));
        if is_choice { draft.with_severity(Severity::Info).with_action(ActionCode::Watch, OFF_ON_ALL) } else { draft }
    })
}

/// Returns whether ECC is off and stays off.
fn is_off(node: &Node<'_>, gpu: &Gpu) -> bool {
    let mode = node.ecc_of(gpu).and_then(|ecc| ecc.mode);
    mode.is_some_and(|mode| !mode.current && !mode.pending)
}

const OFF_ON_ALL: &str = "No action if ECC is switched off on purpose on all GPUs of {node}. Otherwise enable it on {gpu} (nvidia-smi -e 1) and reboot \
     the node when it is drained. Without ECC, memory errors are not detected and not repaired.";

/// Returns an entry about GPUs with disabled ECC whose product is not known. On some products this is the default, on
/// others it is a fault.
pub(super) fn unread_product(node: &Node<'_>) -> Vec<Unread> {
    let off = |gpu: &&Gpu| gpu.name.is_none() && is_off(node, gpu);
    let gpus: Vec<_> = node.gpus.iter().filter(off).map(|gpu| (gpu.index, gpu.label())).collect();
    if gpus.is_empty() {
        return Vec::new();
    }
    let why = format!(
        "ECC is off on {}; only the inventory (diagnose_gpu_node) shows whether this is the default of the product",
        evidence::gpus(&gpus)
    );
    vec![Unread { fact: Unknown::new(SectionName::Ecc, why), decides: true }]
}

/// Returns whether this is a workstation or consumer board, on which ECC is disabled by default or not supported.
fn leaves_factory_without_ecc(gpu: &Gpu) -> bool {
    let name = gpu.name.as_deref().unwrap_or("RTX");
    ["GeForce", "RTX", "Quadro", "TITAN"].iter().any(|brand| name.contains(brand))
}

/// Minimum number of corrected SRAM errors that are shown. NVIDIA publishes no limit.
const MANY_CORRECTED_SRAM: u64 = 100_000;

fn storm(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let events: Vec<&KernelEvent> = node.timeline.xids(gpu, &[92]).collect();
    let corrected = node.ecc_of(gpu).and_then(|ecc| ecc.volatile.corrected);
    let corrected = corrected.map(|count| format!("corrected since driver load: {count}"));
    let draft = || Draft::on_gpu(STORM, gpu).with_all_evidence(events.iter().map(|event| evidence::event(event)));
    if !events.is_empty() {
        return Some(draft().with_all_evidence(corrected).aged(node, gpu, &events, true));
    }
    let sample = node.telemetry_of(gpu).and_then(|now| now.sample.as_ref());
    let added = sample.and_then(|sample| Some((sample, sample.corrected_memory_errors?)));
    if let Some((sample, added)) = added.filter(|(sample, added)| sample.per_second(*added) >= CORRECTED_PER_SECOND) {
        let line = format!("{added} corrected in the last {}", evidence::window(sample));
        return Some(draft().with_evidence(line).with_all_evidence(corrected));
    }
    if let Some(line) = unlike_siblings(node, gpu) {
        return Some(draft().with_severity(Severity::Info).with_evidence(line));
    }
    // Xid 92 is not logged for SRAM.
    let sram = node.ecc_of(gpu)?.sram.as_ref()?.volatile_corrected;
    let line = format!("corrected SRAM errors since driver load: {sram}");
    (sram >= MANY_CORRECTED_SRAM).then(|| draft().with_severity(Severity::Info).with_evidence(line))
}

/// Minimum rate of corrected errors per second for a finding. DCGM has the same limit for each of its readings.
const CORRECTED_PER_SECOND: u64 = 10;

/// Minimum number of corrected errors at which a GPU is compared with the other GPUs.
const MANY_CORRECTED: u64 = 10_000;

/// Minimum number of other GPUs for a comparison.
const SIBLINGS: usize = 3;

/// Returns a line about the other GPUs, if a GPU has many corrected errors and each of the others has less than a
/// hundredth of them.
fn unlike_siblings(node: &Node<'_>, gpu: &Gpu) -> Option<String> {
    // On some boards, the SRAM counter is not part of the total.
    let count = |gpu: &Gpu| {
        let ecc = node.ecc_of(gpu)?;
        ecc.volatile.corrected.max(ecc.sram.as_ref().map(|sram| sram.volatile_corrected))
    };
    let own = count(gpu).filter(|own| *own >= MANY_CORRECTED)?;
    let others: Vec<u64> = node.answering().filter(|other| other.pci != gpu.pci).filter_map(count).collect();
    let most = others.iter().copied().max().filter(|most| others.len() >= SIBLINGS && *most <= own / 100)?;
    let others = evidence::count(others.len(), "GPU");
    Some(format!("{own} corrected errors since driver load; the other {others} of the node have at most {most}"))
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
