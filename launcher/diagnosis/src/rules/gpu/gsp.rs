//! Rules about GSP firmware, which runs a part of the driver on the GPU: timeouts, errors, and GPUs without GSP
//! firmware.

use crate::input::node::{Gpu, Node};
use crate::input::processes::stuck_on;
use crate::input::timeline::{AFTERMATH, concerns, follows, is_off_bus, is_xid};
use crate::input::xids;
use crate::rule::{Draft, XID_DOC, rules};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::NO_FIRMWARE_IMAGE;

rules! {
    GSP: "gsp-failed" Fatal Driver XID_DOC, "GSP firmware does not respond",
        DrainAndReset "Drain {node}, stop all processes on {gpu}, then reset {gpu}. If a process cannot be killed, reboot \
            {node}.",
        means "The firmware processor of a GPU does not respond to the driver. Calls to the GPU hang or fail until the GPU \
            is reset.",
        reads "xid: 119, 120";
    GSP_SEVERAL: "gsp-failed-on-several" Fatal Driver XID_DOC, "GSP firmware fails on several GPUs",
        DrainAndReboot "Drain and reboot {node}. Failures on several GPUs indicate the driver, the firmware or the \
            host: compare the driver version with the release notes of NVIDIA.",
        means "The firmware processors of several GPUs failed together, which points to the driver, the firmware or the host.",
        reads "xid: 119, 120";
    GSP_LINES: "gsp-errors-logged" Warning Driver XID_DOC, "The driver logged GSP firmware errors",
        Watch "Watch {gpu} of {node} for Xid 119 or 120. If the errors repeat, update the driver.",
        means "The driver logged errors of the firmware processor that are not Xids.",
        reads "xid: GSP lines";
    GSP_OFF: "gsp-firmware-differs" Info Driver None, "GSP firmware is enabled on some GPUs only",
        None "No action. {gpu} runs without GSP firmware, unlike the other GPUs of the node.",
        means "Some GPUs of one model run with GSP firmware and others without.",
        reads "inventory.gsp_enabled";
}

/// Returns findings from Xid 119, 120 and 175, from other GSP lines, and about GPUs without GSP firmware.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let positions = |gpu| -> Vec<usize> {
        let of_gpu = node.timeline.unexplained().filter(|(_, event)| is_xid(event, &xids::GSP) && concerns(event, gpu));
        of_gpu.map(|(at, _)| at).collect()
    };
    let failing: Vec<_> = node.gpus.iter().map(|gpu| (gpu, positions(gpu))).filter(|(_, at)| !at.is_empty()).collect();
    let limited = node.timeline.of_kind(Kind::GspRateLimit).next().is_some();
    for (gpu, at) in &failing {
        let rule = if failing.len() > 1 { GSP_SEVERAL } else { GSP };
        let events: Vec<_> = at.iter().map(|&at| node.timeline.events[at].fact).collect();
        let mut draft = Draft::on_gpu(rule, gpu).with_events(events.iter().copied());
        if limited {
            draft = draft.with_evidence("the driver rate-limits these lines: the count is a lower bound");
        }
        let stuck = stuck_on(node, gpu);
        if stuck.is_empty() {
            draft = draft.aged(node, gpu, &events, true);
        } else {
            let pids: Vec<String> = stuck.iter().take(4).map(u32::to_string).collect();
            draft = draft.with_evidence(format!("uninterruptible processes: pid {}", pids.join(", ")));
        }
        drafts.push(draft.with_all_evidence(node.timeline.consequences(at)));
    }
    drafts.extend(gsp_lines(node, &failing.iter().map(|(gpu, _)| *gpu).collect::<Vec<_>>()));
    drafts.extend(gsp_differs(node));
    drafts
}

/// Returns findings from GSP lines of the driver, except for the GPUs that have a GSP Xid (`failing`).
fn gsp_lines(node: &Node<'_>, failing: &[&Gpu]) -> Vec<Draft> {
    let is_line = |event: &KernelEvent| matches!(event.kind, Kind::GspFailed | Kind::GspRateLimit);
    // GSP errors of a GPU that fell off the bus are part of that fault.
    // The finding about GPUs that do not initialize names a missing firmware image.
    let fails_to_start = node.timeline.of_kind(Kind::RmInitFailed).next().is_some();
    let is_named = |event: &KernelEvent| fails_to_start && event.sub_code.as_deref() == Some(NO_FIRMWARE_IMAGE);
    let all = node.timeline.unexplained().map(|(_, event)| event);
    let open: Vec<&KernelEvent> = all.filter(|event| is_line(event) && !is_named(event)).collect();
    let mut drafts = Vec::new();
    for gpu in node.gpus.iter().filter(|gpu| !failing.contains(gpu)) {
        let events: Vec<&KernelEvent> = open.iter().copied().filter(|event| concerns(event, gpu)).collect();
        if !events.is_empty() {
            drafts.push(gsp_logged(Draft::on_gpu(GSP_LINES, gpu), &events).aged(node, gpu, &events, true));
        }
    }
    let is_of_lost = |event: &KernelEvent| {
        let falls = node.timeline.current().filter(|fall| is_off_bus(fall));
        falls.into_iter().any(|fall| follows(fall, event, Some(AFTERMATH)))
    };
    let nameless: Vec<&KernelEvent> =
        open.iter().copied().filter(|event| event.pci_address.is_none() && !is_of_lost(event)).collect();
    if !nameless.is_empty() && failing.is_empty() {
        drafts.push(gsp_logged(Draft::on_node(GSP_LINES), &nameless).aged_on_node(node, &nameless));
    }
    drafts
}

/// Adds the events. If the driver rate-limits GSP errors, it also logs that the GPU probably needs a reset.
fn gsp_logged(draft: Draft, events: &[&KernelEvent]) -> Draft {
    let draft = draft.with_events(events.iter().copied());
    if events.iter().all(|event| event.kind != Kind::GspRateLimit) {
        return draft;
    }
    draft.with_action(
        ActionCode::DrainAndReset,
        "The driver reports that {gpu} likely needs a reset. Move its workloads off {node}, then reset {gpu}.",
    )
}

fn gsp_differs(node: &Node<'_>) -> Vec<Draft> {
    let enabled = |gpu| node.inventory_of(gpu).and_then(|inventory| inventory.gsp_enabled);
    let some_on = node.gpus.iter().any(|gpu| enabled(gpu) == Some(true));
    let off = node.gpus.iter().filter(|gpu| some_on && enabled(gpu) == Some(false));
    off.map(|gpu| Draft::on_gpu(GSP_OFF, gpu).with_evidence("GSP firmware off")).collect()
}
