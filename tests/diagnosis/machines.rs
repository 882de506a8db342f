//! Tests that the plans and findings of all scenarios fit the machine: virtual machines, and nodes that another system
//! repairs.

use diagnosis::diagnose;
use diagnosis::finding::Diagnosis;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::lifecycle::{Decision, DecisionKind};
use syringe_core::report::Report;

use super::one_answer::strength;
use super::{assert_consistent, scenarios};

/// Returns the texts that recommend an action: the texts of findings above `info`, and the steps of the plans.
fn texts(diagnosis: &Diagnosis) -> impl Iterator<Item = &String> {
    let above = diagnosis.findings.iter().filter(|finding| finding.severity > Severity::Info);
    above.map(|finding| &finding.action.text).chain(diagnosis.plan.iter().flat_map(|plan| &plan.steps))
}

fn decision(kind: DecisionKind) -> Decision {
    Decision {
        kind,
        owner: "NVSentinel".into(),
        signal: "label dgxc.nvidia.com/nvsentinel-state=remediating".into(),
        next: "the node is rebooted".into(),
        at: None,
    }
}

#[test]
fn nobody_is_told_to_reset_a_node_that_another_system_repairs() {
    let mut left = 0;
    for (name, (report, expected)) in scenarios() {
        let with = |kind| {
            let mut cluster = expected.cluster.clone();
            cluster.decisions = vec![decision(kind)];
            diagnose(&report, &cluster)
        };
        let alone = with(DecisionKind::Announced);
        for kind in [DecisionKind::Repair, DecisionKind::Maintenance] {
            let repaired = with(kind);
            assert_consistent(&name, &repaired);
            for text in texts(&repaired) {
                assert_eq!(strength(text), 0, "{name}: {text}");
            }
            for (plan, before) in repaired.plan.iter().zip(&alone.plan) {
                assert_eq!((plan.urgency, &plan.results), (before.urgency, &before.results), "{name}");
                let resets = before.steps.iter().any(|step| strength(step) > 0);
                assert!(!resets || plan.steps.iter().any(|step| step.contains("NVSentinel")), "{name}: {plan:#?}");
                assert!(!resets || !plan.action.includes(ActionCode::ResetGpu), "{name}: {plan:#?}");
                left += u32::from(resets);
            }
        }
        let plans = |diagnosis: &Diagnosis| diagnosis.plan.iter().map(|plan| plan.steps.clone()).collect::<Vec<_>>();
        assert_eq!(plans(&with(DecisionKind::OutOfService)), plans(&alone), "{name}: its owner does nothing more");
    }
    assert!(left > 50, "{left}");
}

/// Returns the report of a node whose driver reports this virtualization mode. `None` if the driver reports none.
fn of_mode(mut report: Report, mode: &str) -> Option<Report> {
    let inventory = report.sections.inventory.as_mut()?.data.as_mut()?;
    if inventory.gpus.is_empty() {
        return None;
    }
    inventory.gpus.iter_mut().for_each(|gpu| gpu.virtualization_mode = Some(mode.to_owned()));
    Some(report)
}

#[test]
fn a_virtual_machine_is_stopped_and_started_and_a_physical_one_is_power_cycled() {
    let (mut virtual_ones, mut physical_ones) = (0, 0);
    for (name, (report, expected)) in scenarios() {
        for mode in ["passthrough", "vgpu", "none"] {
            let mut cluster = expected.cluster.clone();
            cluster.instance_type = None;
            let Some(report) = of_mode(report.clone(), mode) else { continue };
            let diagnosis = diagnose(&report, &cluster);
            assert_consistent(&name, &diagnosis);
            for text in texts(&diagnosis) {
                let lower = text.to_lowercase();
                if mode == "none" {
                    let is_of_guest = lower.contains("is a virtual machine") || lower.contains("restart the virtual");
                    assert!(!is_of_guest && !lower.contains("stop and start"), "{name}: {text}");
                    physical_ones += u32::from(lower.contains("power-cycle"));
                } else {
                    let is_physical = lower.contains("power-cycle") || lower.contains("bmc");
                    assert!(!is_physical && !lower.contains("power cycle"), "{name}: {text}");
                    virtual_ones += u32::from(lower.contains("stop and start"));
                }
            }
            let operator = |plan: &&diagnosis::finding::Plan| plan.steps.iter().any(|step| step.contains("(RMA)"));
            for plan in diagnosis.plan.iter().filter(operator).filter(|_| mode != "none") {
                assert!(plan.steps.iter().any(|step| step.contains("operator of its host")), "{name}: {plan:#?}");
            }
        }
    }
    assert!(virtual_ones > 20 && physical_ones > 20, "{virtual_ones} {physical_ones}");
}
