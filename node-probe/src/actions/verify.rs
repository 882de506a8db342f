//! `judge`: compares the reports from before and after a reset, without a clock and without I/O.
//! `is_in_order`, `in_words`: whether the GPU is healthy after the reset, and its problems as text.

use syringe_core::action_rules::reset_plan::ResetPlan;
use syringe_core::facts::action::GpuAfterReset;
use syringe_core::facts::ecc::RecoveryAction;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::topology::GpuTopology;
use syringe_core::nvml_codes::GPU_LOST;
use syringe_core::report::{Problem, Report, Section};
use syringe_core::section_name::SectionName;

/// Compares the node before the reset with the node after it.
pub(super) fn judge(before: &Report, after: &Report, plan: &ResetPlan) -> GpuAfterReset {
    let mut now = GpuAfterReset::default();
    let inventory = after.sections.inventory.as_ref();
    match inventory.and_then(|section| section.data.as_ref()) {
        Some(listed) => {
            let gpu = listed.gpus.iter().find(|gpu| gpu.uuid.as_deref() == Some(plan.gpu.as_str()));
            let problems = inventory.map(|section| section.problems.as_slice()).unwrap_or_default();
            let lost = gpu.is_some_and(|gpu| {
                problems.iter().any(|problem| problem.gpu == Some(gpu.index) && problem.code == GPU_LOST)
            });
            now.answers = Some(gpu.is_some() && !lost);
            now.persistence_mode = gpu.and_then(|gpu| gpu.persistence_mode);
        }
        None => {
            let why = inventory
                .and_then(|section| section.problems.first())
                .map_or("no inventory", |problem| problem.why.as_str());
            now.problems.push(format!("NVML is not available: {why}"));
        }
    }
    if now.answers == Some(false) {
        now.problems.push("the GPU is missing: NVML does not list its UUID, or the GPU does not respond".to_owned());
    }
    repairs(after, plan, &mut now);
    links(before, after, plan, &mut now);
    new_xids(before, after, plan, &mut now);
    if now.answers == Some(true) && plan.persistence_mode && now.persistence_mode == Some(false) {
        now.problems.push("persistence mode is off, but was on before".to_owned());
    }
    now
}

/// Returns whether everything was checked and no problem was found.
pub(super) fn is_in_order(now: &GpuAfterReset) -> bool {
    now.problems.is_empty() && now.not_read.is_empty()
}

/// Returns the problems, and the values that could not be read, as text.
pub(super) fn in_words(now: &GpuAfterReset) -> String {
    let unread =
        (!now.not_read.is_empty()).then(|| format!("{} could not be read", SectionName::join(&now.not_read, ", ")));
    now.problems.iter().cloned().chain(unread).collect::<Vec<_>>().join("; ")
}

/// Returns whether a section has all data of this GPU.
fn whole<T>(section: &Option<Section<T>>, plan: &ResetPlan) -> bool {
    let concerns = |problem: &Problem| problem.gpu.is_none() || problem.gpu == plan.index;
    section.as_ref().is_some_and(|section| section.data.is_some() && !section.problems.iter().any(concerns))
}

/// Checks that there are no fewer NVLinks and PCIe lanes than before, and that the fabric has registered the GPU.
fn links(before: &Report, after: &Report, plan: &ResetPlan, now: &mut GpuAfterReset) {
    let of_gpu = |report: &'_ Report| -> Option<GpuTopology> {
        let topology = Section::data_of(&report.sections.topology)?;
        topology.gpus.iter().find(|gpu| gpu.uuid.as_deref() == Some(plan.gpu.as_str())).cloned()
    };
    let (Some(old), Some(new), true) = (of_gpu(before), of_gpu(after), whole(&after.sections.topology, plan)) else {
        now.not_read.push(SectionName::Topology);
        return;
    };
    let up = |gpu: &GpuTopology| -> usize {
        gpu.nvlinks.iter().filter(|group| group.active == Some(true)).map(|group| group.links.len()).sum()
    };
    if up(&new) < up(&old) {
        now.problems.push(format!("{} NVLinks are up, but {} were up before", up(&new), up(&old)));
    }
    let state = new.fabric.as_ref().map(|fabric| fabric.state.as_str());
    if let Some(state @ ("not_started" | "in_progress")) = state {
        now.problems.push(format!("the fabric has not registered the GPU ({state})"));
    }
    let lanes = |gpu: &GpuTopology| gpu.pcie_path.first().and_then(|hop| hop.width);
    if let (Some(old), Some(new)) = (lanes(&old), lanes(&new))
        && new < old
    {
        now.problems.push(format!("{new} PCIe lanes are active, but {old} were active before"));
    }
}

fn repairs(after: &Report, plan: &ResetPlan, now: &mut GpuAfterReset) {
    let of_gpu = Section::data_of(&after.sections.ecc)
        .and_then(|ecc| ecc.gpus.iter().find(|gpu| gpu.uuid.as_deref() == Some(plan.gpu.as_str())));
    if of_gpu.is_none() || !whole(&after.sections.ecc, plan) {
        now.not_read.push(SectionName::Ecc);
    }
    let Some(ecc) = of_gpu else { return };
    now.remap_pending = ecc.remapped_rows.as_ref().map(|rows| rows.pending);
    now.recovery_action = ecc.recovery_action;
    if now.remap_pending == Some(true) {
        now.problems.push("a row remap is still pending".to_owned());
    }
    if ecc.channel_repair_pending == Some(true) || ecc.tpc_repair_pending == Some(true) {
        now.problems.push("a repair is still pending".to_owned());
    }
    match ecc.recovery_action {
        None | Some(RecoveryAction::None | RecoveryAction::Unknown) => {}
        Some(action) => {
            let word = serde_json::to_value(action).ok().and_then(|word| word.as_str().map(str::to_owned));
            now.problems.push(format!("the driver still recommends {}", word.unwrap_or_default()));
        }
    }
}

/// Adds the Xid codes that have more log lines than before the reset. This comparison needs no common clock.
fn new_xids(before: &Report, after: &Report, plan: &ResetPlan, now: &mut GpuAfterReset) {
    let Some(log) = Section::data_of(&after.sections.xid) else {
        now.not_read.push(SectionName::Xid);
        return;
    };
    now.kernel_log_read = true;
    let ours = |event: &&KernelEvent| {
        let named = event.gpu_uuid.as_deref() == Some(plan.gpu.as_str());
        event.kind == KernelEventKind::Xid
            && (named || (plan.pci_address.is_some() && event.pci_address == plan.pci_address))
    };
    let count = |events: &[KernelEvent], code: u32| -> u64 {
        events.iter().filter(ours).filter(|event| event.code == Some(code)).map(|event| event.count).sum()
    };
    let old = Section::data_of(&before.sections.xid).map(|log| log.events.as_slice()).unwrap_or_default();
    let mut codes: Vec<u32> = log.events.iter().filter(ours).filter_map(|event| event.code).collect();
    codes.sort_unstable();
    codes.dedup();
    now.new_xids = codes.into_iter().filter(|code| count(&log.events, *code) > count(old, *code)).collect();
    if !now.new_xids.is_empty() {
        let codes: Vec<String> = now.new_xids.iter().map(u32::to_string).collect();
        now.problems.push(format!("new Xid {} in the kernel log", codes.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report(gpu: Value, ecc: Value, events: Value) -> Report {
        let ok = |data: Value| json!({"status": "ok", "data": data});
        serde_json::from_value(json!({"sections": {"inventory": ok(json!({"gpus": [gpu]})),
            "topology": ok(json!({"gpus": [{"uuid": "GPU-1", "nvlinks": [{"links": [0, 1], "active": true}],
                "fabric": {"state": "completed"}, "pcie_path": [{"width": 16}]}]})),
            "ecc": ok(json!({"gpus": [ecc]})), "xid": ok(json!({"events": events}))}}))
        .expect("a report")
    }

    fn fine() -> (Value, Value) {
        (json!({"uuid": "GPU-1", "persistence_mode": true}), json!({"uuid": "GPU-1", "recovery_action": "none"}))
    }

    fn plan() -> ResetPlan {
        ResetPlan { gpu: "GPU-1".into(), persistence_mode: true, ..ResetPlan::default() }
    }

    #[test]
    fn an_old_xid_is_ignored_and_a_new_line_of_it_is_reported() {
        let (gpu, ecc) = fine();
        let xid = |count: u64| json!([{"kind": "xid", "code": 63, "gpu_uuid": "GPU-1", "count": count}]);
        let before = report(gpu.clone(), ecc.clone(), xid(2));
        assert_eq!(judge(&before, &report(gpu.clone(), ecc.clone(), xid(2)), &plan()).problems, Vec::<String>::new());
        let now = judge(&before, &report(gpu, ecc, xid(3)), &plan());
        assert_eq!((now.new_xids, now.problems.len()), (vec![63], 1));
    }

    #[test]
    fn what_is_still_pending_or_off_is_a_trouble() {
        let (gpu, ecc) = fine();
        let before = report(gpu.clone(), ecc.clone(), json!([]));
        let pending = json!({"uuid": "GPU-1", "remapped_rows": {"pending": true}, "recovery_action": "node_reboot"});
        let now = judge(&before, &report(gpu, pending, json!([])), &plan());
        assert_eq!((now.answers, now.problems.len()), (Some(true), 2), "{:?}", now.problems);
        let off = json!({"uuid": "GPU-1", "persistence_mode": false});
        assert_eq!(judge(&before, &report(off, ecc, json!([])), &plan()).problems.len(), 1);
    }

    #[test]
    fn links_that_did_not_come_back_are_troubles() {
        let (gpu, ecc) = fine();
        let before = report(gpu.clone(), ecc.clone(), json!([]));
        let mut after = before.clone();
        assert!(is_in_order(&judge(&before, &after, &plan())));
        let topology = after.sections.topology.as_mut().and_then(|section| section.data.as_mut());
        let of_gpu = &mut topology.expect("a topology").gpus[0];
        of_gpu.nvlinks[0].active = Some(false);
        of_gpu.fabric.as_mut().expect("a fabric").state = "in_progress".into();
        of_gpu.pcie_path[0].width = Some(8);
        let now = judge(&before, &after, &plan());
        assert_eq!(now.problems.len(), 3, "{:?}", now.problems);
    }

    #[test]
    fn a_section_that_was_not_read_is_not_healthy() {
        let (gpu, ecc) = fine();
        let before = report(gpu.clone(), ecc.clone(), json!([]));
        let mut after = before.clone();
        after.sections.ecc = Some(Section::failed(Problem::default()));
        (after.sections.topology, after.sections.xid) = (None, None);
        let now = judge(&before, &after, &plan());
        assert_eq!(
            (now.not_read.as_slice(), now.problems.len()),
            (&[SectionName::Ecc, SectionName::Topology, SectionName::Xid][..], 0)
        );
        assert!(!is_in_order(&now) && in_words(&now).contains("ecc, topology, xid could not be read"));
    }

    #[test]
    fn a_gpu_with_another_uuid_is_not_back() {
        let (gpu, ecc) = fine();
        let before = report(gpu, ecc.clone(), json!([]));
        let other = report(json!({"uuid": "GPU-2"}), ecc, json!([]));
        assert_eq!(judge(&before, &other, &plan()).answers, Some(false));
        assert_eq!(judge(&before, &Report::default(), &plan()).answers, None);
    }
}
