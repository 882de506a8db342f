//! `make_plans`: makes a plan for each GPU or for the node: its urgency, the work that may continue, and the steps.
//! The submodules make the plan of a GPU or node, and adapt it to the machine.
//!
//! Each rule has its own action. The actions of two rules for one GPU can contradict each other ("other work may
//! continue", "drain the work"). One finding can also require a reboot that a process of another finding blocks.
//! Therefore a plan joins the actions of all findings about its GPUs. The strongest action leads, actions that it does
//! not include become further steps, and the texts of the findings refer to the plan. The reset rules
//! (`syringe_core::action_rules`) define which GPUs are reset together, what must be done before, and whether a reset
//! is sufficient.

mod consequences;
mod demands;
mod machine;
mod of_gpu;
mod of_node;

use jiff::SignedDuration;

use crate::conclusion::plan::demands::{Demand, asks_for_inspection, demands};
use crate::evidence;
use crate::evidence::Label;
use crate::finding::{ITS_PLAN, PLAN_FOR_NODE, PLAN_OF_GPU, Plan};
use crate::input::node::{Gpu, Node};
use crate::rule::{About, Draft, InPlan};
use syringe_core::action_rules::reset_needs::{ResetNeeds, needs};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::ecc::RecoveryAction;

/// Maximum number of process ids in a step.
const SHOWN: usize = 4;

/// Makes the plans, and adapts the texts of the drafts to them.
pub(crate) fn make_plans(node: &Node<'_>, drafts: &mut [Draft]) -> Vec<Plan> {
    let mut plans = for_physical_machine(node, drafts);
    plans.iter_mut().for_each(|plan| complete(node, drafts, plan));
    machine::adapt(node, drafts, &mut plans);
    plans
}

fn for_physical_machine(node: &Node<'_>, drafts: &mut [Draft]) -> Vec<Plan> {
    let waiting: Vec<usize> = (0..drafts.len())
        .filter(|at| {
            let draft = &drafts[*at];
            is_outlived(node, draft) || lets_work_end(node, draft, drafts) || holds_no_work(node, draft)
        })
        .collect();
    waiting.into_iter().for_each(|at| drafts[at].can_wait = true);
    if let Some(whole) = of_node::whole(node, drafts) {
        return vec![of_node::of_node(node, drafts, whole)];
    }
    let mut plans: Vec<(Gpu, Plan)> = Vec::new();
    for gpu in &node.gpus {
        plans.extend(of_gpu::of_gpu(node, gpu, drafts).map(|plan| (gpu.clone(), plan)));
    }
    grouped(plans, &node.name, node.gpus.len())
}

/// Adds the strongest action that the text of a finding demands, if no step of its plan contains this action.
fn complete(node: &Node<'_>, drafts: &[Draft], plan: &mut Plan) {
    let is_of_plan = |draft: &&Draft| {
        let is_of_place =
            plan.addresses.is_empty() || plan.addresses.iter().any(|pci| draft.scope.pci.as_ref() == Some(pci));
        is_of_place
            && draft.rule.about != About::Network
            && plan.findings.iter().any(|id| id == draft.rule.id)
            && draft.severity > Severity::Info
    };
    let texts = || drafts.iter().filter(is_of_plan).flat_map(Draft::texts);
    let (name, subject) = (node.name.clone(), plan.subject.clone());
    if texts().any(asks_for_inspection) && !plan.steps.iter().any(|step| asks_for_inspection(step)) {
        plan.steps.push(format!("When {name} is drained, check seating and cables of {subject}."));
    }
    let asked = texts().flat_map(demands).max();
    // A GPU that is returned needs no reset.
    if plan.action == ActionCode::ContactVendor && asked == Some(Demand::Reset) {
        return;
    }
    if asked <= plan.steps.iter().flat_map(|step| demands(step)).max() {
        return;
    }
    let step = asked.map(|demand| match demand {
        Demand::Reset if plan.addresses.is_empty() => format!("When {name} is drained, reset its GPUs."),
        Demand::Reset => format!("When {name} is drained, reset {subject}."),
        Demand::Reboot => format!("When {name} is drained, reboot it."),
        Demand::PowerCycle => format!("When {name} is drained, power-cycle it."),
    });
    // The return to the vendor is the last step.
    let returns = plan.steps.iter().position(|step| step.contains("return it (RMA)"));
    let at = returns.unwrap_or(plan.steps.len());
    plan.steps.splice(at..at, step);
}

/// If work still runs after this time, the fault does not end the work.
const OUTLIVED: SignedDuration = SignedDuration::from_hours(1);

/// Returns whether a fault that is not fatal occurred long ago and its GPU still responds. The work on the GPU may then
/// finish.
fn is_outlived(node: &Node<'_>, draft: &Draft) -> bool {
    let old = node.age(draft.when).is_some_and(|age| age > OUTLIVED);
    let responds = || node.gpus.iter().any(|gpu| draft.is_on(gpu) && node.is_readable(gpu));
    draft.severity == Severity::Critical && draft.rule.in_plan != InPlan::ResultsSuspect && old && responds()
}

/// Returns whether the driver recommends a drain before the reset, and no finding about the GPU reports wrong results.
/// Unaffected work may then finish.
fn lets_work_end(node: &Node<'_>, draft: &Draft, drafts: &[Draft]) -> bool {
    let asks = |gpu: &&Gpu| {
        let action = node.recovery_action(gpu).map(|(action, _)| action);
        draft.is_on(gpu) && node.is_readable(gpu) && action == Some(RecoveryAction::DrainAndReset)
    };
    let is_suspect =
        |gpu: &Gpu| drafts.iter().any(|other| other.is_on(gpu) && other.rule.in_plan == InPlan::ResultsSuspect);
    draft.severity >= Severity::Critical
        && wants_reset(draft)
        && node.gpus.iter().find(asks).is_some_and(|gpu| !is_suspect(gpu))
}

/// Returns whether the fault is about a GPU that was lost long ago and that no pod uses: the kubelet advertises and
/// allocates only GPUs that respond.
fn holds_no_work(node: &Node<'_>, draft: &Draft) -> bool {
    let is_old = draft.when.is_none() || node.age(draft.when).is_some_and(|age| age > OUTLIVED);
    let is_about_gpu = draft.scope.pci.is_some() || draft.scope.gpu.is_some();
    if draft.severity != Severity::Fatal || !is_old || !is_about_gpu || node.answering().any(|gpu| draft.is_on(gpu)) {
        return false;
    }
    let Some(kubelet) = node.kubelet() else { return false };
    let of_nvidia = |resource: &str| resource.starts_with("nvidia.com/");
    let registered = kubelet.registered.iter().filter(|one| of_nvidia(&one.resource)).flat_map(|one| &one.devices);
    let allocated = kubelet.allocations.iter().filter(|one| of_nvidia(&one.resource)).flat_map(|one| &one.devices);
    let responds = |device: &String| {
        node.answering().any(|gpu| gpu.uuid.as_ref().is_some_and(|uuid| device.starts_with(uuid.as_str())))
    };
    let mut devices = registered.chain(allocated).peekable();
    devices.peek().is_some() && devices.all(responds)
}

/// Returns the drafts that require an action.
fn urgent(drafts: &[Draft]) -> impl Iterator<Item = &Draft> {
    let is_idle = |action| matches!(action, ActionCode::None | ActionCode::Watch);
    drafts.iter().filter(move |draft| draft.severity > Severity::Info && !draft.actions().all(is_idle))
}

fn is_reset(action: ActionCode) -> bool {
    matches!(action, ActionCode::ResetGpu | ActionCode::DrainAndReset)
}

fn wants(draft: &Draft, action: ActionCode) -> bool {
    draft.actions().any(|one| one == action)
}

fn wants_reset(draft: &Draft) -> bool {
    draft.actions().any(is_reset)
}

/// Returns whether the draft is the only finding of a plan. Its text then cannot contradict another action.
fn is_only(draft: &Draft, findings: usize, lead: ActionCode) -> bool {
    findings == 1
        && draft.severity > Severity::Info
        && needs_plan(draft)
        && draft.actions().any(|own| own.includes(lead))
}

/// Returns whether a person must carry out the action at the machine.
fn is_inspection(action: ActionCode) -> bool {
    matches!(action, ActionCode::CheckCabling | ActionCode::CheckCooling)
}

/// Returns whether a person must look at the GPU of the draft.
fn inspects_gpu(draft: &Draft) -> bool {
    draft.actions().any(is_inspection) && draft.rule.about != About::Network
}

/// Returns the steps about devices next to a GPU that a person must look at.
fn of_near_devices<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Vec<String> {
    let near = drafts.filter(|draft| draft.rule.about == About::Network && draft.actions().any(is_inspection));
    let mut steps: Vec<String> = near.map(|draft| evidence::about(&draft.advice, &draft.label().1)).collect();
    steps.dedup();
    steps
}

/// Returns whether a change of versions or settings repairs a severe GPU fault that the kernel log reports.
fn is_update(draft: &Draft) -> bool {
    let grave = draft.severity >= Severity::Critical && draft.when.is_some();
    grave && draft.scope.gpu.is_some() && draft.rule.about == About::Gpus && wants(draft, ActionCode::UpdateSoftware)
}

/// Returns whether the action needs a plan because it interrupts the work on a GPU or on the node. Every severe GPU
/// fault in the kernel log needs a plan.
fn needs_plan(draft: &Draft) -> bool {
    let interrupts = |action| {
        let returns = action == ActionCode::ContactVendor;
        is_reset(action) || is_inspection(action) || returns || action == ActionCode::DrainAndReboot
    };
    draft.actions().any(interrupts) || is_update(draft) || comes_first(draft)
}

/// Returns whether the plan begins with the action of this draft, because other components depend on this action.
fn comes_first(draft: &Draft) -> bool {
    draft.severity >= Severity::Critical && is_first_step(draft)
}

fn is_first_step(draft: &Draft) -> bool {
    let acts = matches!(draft.action, ActionCode::UpdateSoftware | ActionCode::CheckCabling);
    acts && draft.severity > Severity::Info
        && matches!(draft.rule.in_plan, InPlan::ComesFirst | InPlan::StartsFabricManager)
}

/// Returns the own steps of the drafts that come before or after a reset or reboot.
fn own_steps<'a>(drafts: impl Iterator<Item = &'a Draft>, step: fn(&Draft) -> Option<&String>) -> Vec<String> {
    let drafts = drafts.filter(|draft| draft.severity > Severity::Info);
    let mut steps: Vec<String> =
        drafts.filter_map(|draft| Some(evidence::about(step(draft)?, &draft.label().1))).collect();
    steps.dedup();
    steps
}

fn steps_before<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Vec<String> {
    own_steps(drafts, |draft| draft.step_before.as_ref())
}

fn steps_after<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Vec<String> {
    own_steps(drafts, |draft| draft.step_after.as_ref())
}

/// Returns the steps that come first. A GPU needs the component after a reset, even if the GPU works without the
/// component until then.
fn first_steps(drafts: &[Draft]) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<Label>)> = Vec::new();
    for draft in drafts.iter().filter(|draft| is_first_step(draft)) {
        match groups.iter_mut().find(|(advice, _)| *advice == draft.advice) {
            Some((_, labels)) => labels.push(draft.label()),
            None => groups.push((&draft.advice, vec![draft.label()])),
        }
    }
    groups.into_iter().map(|(advice, labels)| evidence::about(advice, &evidence::gpus(&labels))).collect()
}

fn needs_of(node: &Node<'_>, gpu: &Gpu) -> Option<ResetNeeds> {
    needs(node.report, gpu.uuid.as_deref()?)
}

/// Returns the steps for actions that the leading action does not include and that have no step in the plan yet.
fn further<'a>(drafts: impl Iterator<Item = &'a Draft>, lead: ActionCode) -> Vec<String> {
    let all = drafts.flat_map(|draft| &draft.further);
    let own = all.filter(|(action, _)| !lead.includes(*action) && !is_inspection(*action));
    let own = own.filter(|(action, _)| *action != ActionCode::ContactVendor);
    let mut steps: Vec<String> = own.map(|(_, advice)| advice.clone()).collect();
    steps.dedup();
    steps
}

/// Returns the steps that change versions or settings. They come after a reset.
fn updates<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Vec<String> {
    let planned = drafts.filter(|draft| draft.action == ActionCode::UpdateSoftware && is_update(draft));
    let mut steps: Vec<String> = planned.map(|draft| evidence::about(&draft.advice, &draft.label().1)).collect();
    steps.dedup();
    steps
}

/// Returns the steps of the findings that ask for a support case, even if they ask for nothing else.
fn support_cases<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Vec<String> {
    let asks = |draft: &&Draft| draft.severity > Severity::Info && draft.asks_for_support();
    let words = |draft: &Draft| {
        let fault = draft.reason.as_ref().or(draft.evidence.first())?;
        Some(format!("Open a support case about {}: {fault}.", draft.label().1))
    };
    drafts.filter(asks).filter_map(words).collect()
}

/// Adapts the texts of the drafts. After this, no draft contradicts the plan.
fn refer_to_plan<'a>(drafts: impl Iterator<Item = &'a mut Draft>, lead: ActionCode, what: &str, verb: &str) {
    for draft in drafts {
        let text = match draft.action {
            // An application error still needs attention. The plan only describes which work may continue.
            ActionCode::RestartPod if draft.severity == Severity::Info => {
                format!(
                    "Check the log of the application. This error does not indicate a fault of {{gpu}}. For the other \
                        findings, follow {what}."
                )
            }
            ActionCode::RestartPod => format!("Stop the work of the pod, and start it elsewhere. Then follow {what}."),
            ActionCode::Watch if draft.step_before.is_some() => continue,
            ActionCode::Watch if draft.severity > Severity::Info && draft.scope.gpu.is_some() => {
                format!("No separate action: follow {what}.")
            }
            action if is_reset(action) && !what.starts_with(PLAN_OF_GPU) => {
                let until = " Until then do not schedule new work on {gpu}.";
                let until = if draft.severity >= Severity::Critical { until } else { "" };
                format!("No separate reset: {what} includes it.{until}")
            }
            ActionCode::DrainAndReboot if draft.severity > Severity::Info => {
                format!("Cordon and drain {{node}}, then {verb} it, as described in {PLAN_FOR_NODE} {{node}}.")
            }
            action if is_reset(action) && draft.severity == Severity::Warning => {
                format!("Reset {{gpu}} of {{node}}, as described in {ITS_PLAN}.")
            }
            action if is_reset(action) && draft.severity > Severity::Info => {
                format!("Do not schedule new work on {{gpu}} of {{node}} and reset it, as described in {ITS_PLAN}.")
            }
            _ => continue,
        };
        if is_reset(draft.action) || draft.action == ActionCode::DrainAndReboot {
            draft.action = if lead == ActionCode::DrainAndReboot { lead } else { draft.action };
        }
        draft.advice = text;
        // The plan contains these steps.
        draft.further.clear();
        draft.step_after = None;
    }
}

/// The sentence about the GPUs that are not in a plan.
const OTHER_WORK: &str = " Work on other GPUs of {node} may continue.";

/// Merges identical plans of several GPUs. `listed`: number of GPUs of the node.
fn grouped(plans: Vec<(Gpu, Plan)>, node: &str, listed: usize) -> Vec<Plan> {
    let mut groups: Vec<(Plan, Vec<Gpu>)> = Vec::new();
    for (gpu, plan) in plans {
        match groups.iter_mut().find(|(first, _)| *first == plan) {
            Some((_, gpus)) => gpus.push(gpu),
            None => groups.push((plan, vec![gpu])),
        }
    }
    let all = usize::from(groups.len() == 1) * listed;
    let named = |(plan, gpus): (Plan, Vec<Gpu>)| {
        let are_all = gpus.len() == all;
        let labels: Vec<Label> = gpus.iter().map(|gpu| (gpu.index, gpu.label())).collect();
        let names = evidence::gpus(&labels);
        let fill = |text: String| evidence::about(&text, &names).replace("{node}", node);
        Plan {
            subject: fill(plan.subject),
            before_plan: fill(if are_all { plan.before_plan.replace(OTHER_WORK, "") } else { plan.before_plan }),
            steps: plan.steps.into_iter().map(fill).collect(),
            if_pod_deleted: fill(plan.if_pod_deleted),
            results: fill(plan.results),
            addresses: gpus.into_iter().filter_map(|gpu| gpu.pci).collect(),
            ..plan
        }
    };
    groups.into_iter().map(named).collect()
}

fn ids<'a>(drafts: impl Iterator<Item = &'a Draft>) -> Vec<String> {
    let mut ids: Vec<String> = drafts.map(|draft| draft.rule.id.to_owned()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn distinct(mut labels: Vec<Label>) -> Vec<Label> {
    labels.sort_unstable();
    labels.dedup();
    // A finding about a process may contain the index of the GPU without its address. The longer name is then used for
    // both.
    let full: Vec<u32> = labels.iter().filter(|(_, text)| text.contains('(')).filter_map(|(index, _)| *index).collect();
    labels.retain(|(index, text)| text.contains('(') || !index.is_some_and(|index| full.contains(&index)));
    labels
}
