//! `whole`: decides whether a node needs one plan (`Whole`: a reboot, a reset of all GPUs and NVSwitches, or a start of
//! a component). `of_node`: makes this plan.

use crate::conclusion::plan::consequences::{
    if_pod_deleted, needs_cooling_before, only_cools, results, return_step, rma, stuck, work_urgency,
};
use crate::conclusion::plan::demands::{Demand, demands};
use crate::conclusion::plan::{
    SHOWN, comes_first, distinct, first_steps, further, ids, inspects_gpu, is_only, needs_of, needs_plan,
    of_near_devices, refer_to_plan, steps_after, steps_before, support_cases, updates, urgent, wants, wants_reset,
};
use crate::evidence;
use crate::evidence::Label;
use crate::finding::{Plan, Urgency};
use crate::input::node::{Gpu, Node};
use crate::input::processes::{are_all_listed, is_service};
use crate::rule::{Draft, InPlan, have_shared_cause};
use syringe_core::classification::{ActionCode, Severity};

/// A plan for the whole node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    Reboot,
    /// Resets all GPUs and NVSwitches together.
    ResetAll,
    /// Starts a component that other components need, and reads the node again.
    Start,
}

/// Returns whether a finding requires a plan for the whole node.
pub(super) fn whole(node: &Node<'_>, drafts: &[Draft]) -> Option<Whole> {
    let worst = urgent(drafts).filter(|draft| needs_plan(draft)).map(|draft| draft.severity).max()?;
    if worst < Severity::Critical && urgent(drafts).count() < 2 {
        return None;
    }
    let resets = || urgent(drafts).filter(|draft| wants_reset(draft) && draft.severity >= Severity::Critical);
    if urgent(drafts).any(|draft| wants(draft, ActionCode::DrainAndReboot)) || why_not_reset(node, drafts).is_some() {
        return Some(Whole::Reboot);
    }
    let needs_more = |draft: &Draft| wants_reset(draft) || wants(draft, ActionCode::ContactVendor);
    if urgent(drafts).any(comes_first) && !urgent(drafts).any(needs_more) {
        return Some(Whole::Start);
    }
    // The finding is about a switch, or about a device that no section lists.
    resets().any(|draft| !node.gpus.iter().any(|gpu| draft.is_on(gpu))).then_some(Whole::ResetAll)
}

/// Returns the first GPU that needs a reset but can only be repaired by a reboot, with the reason.
fn why_not_reset(node: &Node<'_>, drafts: &[Draft]) -> Option<(Label, String)> {
    let reset = |gpu: &&Gpu| {
        let mut own = urgent(drafts).filter(|draft| draft.is_on(gpu) && draft.severity >= Severity::Critical);
        own.any(wants_reset)
    };
    node.gpus.iter().filter(reset).find_map(|gpu| Some(((gpu.index, gpu.label()), needs_of(node, gpu)?.reboot?)))
}

/// Makes the plan of a node that must be rebooted, or whose GPUs must all be reset. The plan includes the resets of
/// single GPUs.
pub(super) fn of_node(node: &Node<'_>, drafts: &mut [Draft], whole: Whole) -> Plan {
    let findings = ids(urgent(drafts));
    let reboots = || urgent(drafts).filter(|draft| wants(draft, ActionCode::DrainAndReboot));
    let is_gone = reboots().any(|draft| draft.rule.in_plan == InPlan::PowerCycle);
    let is_cold = reboots().any(|draft| draft.rule.in_plan == InPlan::ColdStart);
    let asks_for_power_cycle =
        reboots().any(|draft| draft.texts().flat_map(demands).any(|one| one == Demand::PowerCycle));
    let fell = |draft: &&Draft| matches!(draft.rule.in_plan, InPlan::PowerCycle | InPlan::LostBefore);
    let mut fallen: Vec<&Draft> = reboots().filter(fell).collect();
    let stuck: Vec<String> = stuck(drafts, |_| true);
    if whole == Whole::Start {
        return start(node, drafts, findings);
    }
    let mut steps = Vec::new();
    steps.extend((!node.kubernetes.is_cordoned()).then(|| "Cordon {node}.".to_owned()));
    let name = &node.name;
    steps.push(if stuck.is_empty() && is_idle(node) {
        "Drain {node}: no program uses its GPUs now.".to_owned()
    } else if stuck.is_empty() {
        "Drain {node}.".to_owned()
    } else {
        format!("Drain {{node}}. Do not wait for pid {}: no signal ends it.", evidence::some(&stuck, SHOWN))
    });
    steps.extend(steps_before(drafts.iter()));
    let why = if reboots().next().is_none() { why_not_reset(node, drafts) } else { None };
    steps.extend(why.map(|((_, gpu), why)| format!("A reset of {gpu} is not sufficient: {why}.")));
    steps.push(
        match (whole, is_gone, stuck.is_empty()) {
            (Whole::Reboot, true, true) => {
                "Power-cycle {node}: a reset or a plain reboot may not bring back a GPU that fell off the bus."
            }
            (Whole::Reboot, false, true) if is_cold => {
                "Power-cycle {node}: a warm reboot does not clear the state that prevents the start of the GPU."
            }
            (Whole::Reboot, false, true) if asks_for_power_cycle => {
                "Power-cycle {node}: a plain reboot may not be sufficient."
            }
            (Whole::Reboot, false, true) => "Reboot {node}.",
            (Whole::ResetAll, _, true) => {
                "Reset all GPUs and NVSwitches of {node} together (nvidia-smi --gpu-reset), or reboot {node}."
            }
            (Whole::Start, _, true) => "",
            (_, _, false) => {
                "Power-cycle {node} (BMC): a plain reboot can wait forever for a process that no signal ends."
            }
        }
        .to_owned(),
    );
    let (lead, verb) = match whole {
        Whole::ResetAll if stuck.is_empty() => (ActionCode::DrainAndReset, "reset"),
        _ if !is_gone && !is_cold && !asks_for_power_cycle && stuck.is_empty() => {
            (ActionCode::DrainAndReboot, "reboot")
        }
        _ => (ActionCode::DrainAndReboot, "power-cycle"),
    };
    let places = |wanted: fn(&Draft) -> bool| -> Vec<Label> {
        urgent(drafts).filter(|draft| wanted(draft) && draft.names_gpu()).map(Draft::label).collect()
    };
    // A reboot also restarts the pods of the node.
    if whole == Whole::ResetAll {
        steps.extend(steps_after(drafts.iter()));
    }
    let reset = distinct(places(wants_reset));
    if !reset.is_empty() && whole == Whole::Reboot {
        let text = format!("{{gpu}} needs no separate reset: the {verb} is enough.");
        steps.push(evidence::about(&text, &evidence::gpus(&reset)));
    }
    steps.extend(first_steps(drafts));
    steps.extend(afterwards(drafts, &places));
    let returned = places(|draft| wants(draft, ActionCode::ContactVendor));
    fallen.retain(|draft| !returned.iter().any(|(index, _)| index.is_some() && *index == draft.scope.gpu));
    let gpus = distinct(fallen.iter().map(|draft| draft.label()).collect());
    let of_several = gpus.len() > 1 && have_shared_cause(&fallen);
    let shared = of_several || urgent(drafts).any(|draft| draft.rule.in_plan == InPlan::SharedCause);
    if shared && !gpus.is_empty() {
        let parts = "check the power supply, the PCIe switches, risers and the baseboard";
        let devices = if of_several { "GPUs" } else { "devices" };
        steps.push(format!(
            "While {{node}} is down, {parts}: a cause that several {devices} share is more likely than a fault of each."
        ));
    } else {
        let named = |is_outside: bool| {
            let own = fallen.iter().filter(|draft| draft.is_outside == is_outside).map(|draft| draft.label());
            evidence::gpus(&distinct(own.collect()))
        };
        let (to_return, to_test) = (named(false), named(true));
        if !to_return.is_empty() {
            steps.push(evidence::about("If {gpu} falls off the bus again, return it (RMA).", &to_return));
        }
        if !to_test.is_empty() {
            let text = "If {gpu} falls off the bus again although the slot works, test the GPU in another slot.";
            steps.push(evidence::about(text, &to_test));
        }
    }
    let repaired = |draft: &&Draft| wants(draft, ActionCode::DrainAndReboot) || wants_reset(draft);
    steps.extend(lasting(urgent(drafts).filter(|draft| repaired(draft) && !fell(draft))));
    steps.extend(further(urgent(drafts), lead));
    steps.extend(updates(urgent(drafts)));
    steps.extend(support_cases(drafts.iter()));
    let affected = distinct(places(|draft| draft.severity >= Severity::Critical));
    let planned = || urgent(drafts).filter(|draft| needs_plan(draft));
    let urgency = work_urgency(planned());
    if needs_cooling_before(planned(), urgency) {
        let hot = distinct(planned().filter(|draft| only_cools(draft)).map(Draft::label).collect());
        let gpus = evidence::gpus(&hot);
        let cool =
            format!("Check the cooling of {gpus} now. Only this check is urgent: the drain can wait until jobs end.");
        steps.insert(0, cool);
    }
    let before_plan = before_drain(node, &affected, urgency);
    let suspect: Vec<&Gpu> = node.gpus.iter().filter(|gpu| !results(node, gpu, drafts).is_empty()).collect();
    let results = suspect.iter().map(|gpu| results(node, gpu, drafts).replace("{gpu}", &gpu.label()));
    let results = results.collect::<Vec<_>>().join(" ");
    let if_pod_deleted = if_pod_deleted(&stuck, urgency);
    let rma = if shared { rma(urgent(drafts).filter(|draft| !fell(draft))) } else { rma(urgent(drafts)) };
    let what = format!("the {verb} of {{node}}");
    let adapted = drafts.iter_mut().filter(|draft| !is_only(draft, findings.len(), lead));
    refer_to_plan(adapted, lead, &what, verb);
    let fill = |text: String| text.replace("{node}", name);
    Plan {
        subject: name.clone(),
        action: lead,
        urgency,
        before_plan,
        steps: steps.into_iter().map(fill).collect(),
        if_pod_deleted: fill(if_pod_deleted),
        results,
        rma,
        findings,
        addresses: Vec::new(),
    }
}

/// Makes the plan of a node on which a component must be started first. The plan contains no reset, because the other
/// faults may be consequences of the missing component.
fn start(node: &Node<'_>, drafts: &[Draft], findings: Vec<String>) -> Plan {
    let name = &node.name;
    let mut steps = first_steps(drafts);
    steps.push(
        "Then run this diagnosis of {node} again: other findings about the fabric can be consequences of this fault."
            .to_owned(),
    );
    let inspected = distinct(urgent(drafts).filter(|draft| inspects_gpu(draft)).map(Draft::label).collect());
    if !inspected.is_empty() {
        let gpus = evidence::gpus(&inspected);
        steps.push(format!("When {{node}} is drained, check seating, power, cooling and cables of {gpus}."));
    }
    steps.extend(updates(urgent(drafts)));
    steps.extend(support_cases(drafts.iter()));
    Plan {
        subject: name.clone(),
        action: ActionCode::UpdateSoftware,
        urgency: work_urgency(urgent(drafts).filter(|draft| needs_plan(draft))),
        before_plan: format!(
            "Do not schedule new work on {name} until then. Programs that already use the GPUs may continue."
        ),
        steps: steps.into_iter().map(|text| text.replace("{node}", name)).collect(),
        if_pod_deleted: String::new(),
        results: String::new(),
        rma: rma(urgent(drafts)),
        findings,
        addresses: Vec::new(),
    }
}

/// Returns the sentences about what to do if a fault of the node, not of one GPU, remains after the reboot.
fn lasting<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Vec<String> {
    let sentences = drafts
        .filter(|draft| !draft.names_gpu() || draft.noun != "GPU")
        .flat_map(|draft| draft.advice.split_inclusive(". "));
    // Other sentences are about the time before the reboot, or do not name their subject.
    let is_after = |one: &&str| one.starts_with("If ") && !one.starts_with("If it ") && !one.contains("reboot");
    let mut steps: Vec<String> = sentences.filter(is_after).map(|one| one.trim_end().to_owned()).collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// Returns whether no program uses the GPUs, except services of the node.
fn is_idle(node: &Node<'_>) -> bool {
    let mut processes = node.processes().into_iter().flat_map(|section| &section.processes);
    are_all_listed(node) && !processes.any(|process| !process.uses.is_empty() && !is_service(process))
}

/// Returns which work may continue until the drain.
fn before_drain(node: &Node<'_>, affected: &[Label], urgency: Urgency) -> String {
    let name = &node.name;
    if is_idle(node) {
        return format!(
            "No program uses the GPUs of {name} now, so the plan needs to wait for nothing. Do not schedule new work on {name}."
        );
    }
    if urgency < Urgency::Now {
        return format!("Running work on {name} may continue until the drain. Do not schedule new work on {name}.");
    }
    if affected.is_empty() || node.listed().count() <= affected.len() {
        return format!("Do not schedule new work on {name}. The drain ends the running work.");
    }
    format!(
        "Work that does not use {} may continue until the drain. Stop jobs that use it now. Do not schedule new work on \
         {name}.",
        evidence::gpus(affected)
    )
}

/// Returns the steps for hardware repairs, which come last.
fn afterwards(drafts: &[Draft], places: &dyn Fn(fn(&Draft) -> bool) -> Vec<Label>) -> Vec<String> {
    let mut steps = Vec::new();
    let cabling = distinct(places(inspects_gpu));
    if !cabling.is_empty() {
        steps.push(format!(
            "While the node is down, check seating, power, cooling and cables of {}.",
            evidence::gpus(&cabling)
        ));
    }
    steps.extend(of_near_devices(urgent(drafts)));
    let vendor = distinct(places(|draft| wants(draft, ActionCode::ContactVendor)));
    if !vendor.is_empty() {
        steps.push(return_step(urgent(drafts), &evidence::gpus(&vendor)));
    }
    steps
}
