//! `MEMORY`, `NVLINK`, `GSP` and other constants: Xid codes by subject. `class`, `lets_work_continue`,
//! `recommends_recovery`, `is_application_or_info`: classify an Xid event.

use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::catalogue::Fatality;
use syringe_core::kernel_log::{catalogue, event_meaning};

/// Memory errors and repairs.
pub(crate) const MEMORY: [u32; 9] = [48, 63, 64, 92, 94, 95, 140, 171, 172];

/// Uncorrected memory errors.
pub(crate) const UNCORRECTED_MEMORY: [u32; 6] = [48, 94, 95, 140, 171, 172];

/// NVLink. 121 and 173 are about the link between the CPU and the GPU (C2C).
pub(crate) const NVLINK: [u32; 13] = [74, 108, 136, 137, 144, 145, 146, 147, 148, 149, 150, 155, 166];

/// GSP timeouts and errors.
pub(crate) const GSP: [u32; 3] = [119, 120, 175];

/// Memory repairs that are recorded, failed, or pending until a reset.
pub(crate) const REPAIR: [u32; 6] = [63, 64, 156, 160, 161, 177];

/// Xids that the driver logs when it removes the channels of a program, for any reason. NVIDIA writes about 45:
/// "Control-C, GPU resets, sigkill". About 43, NVIDIA writes that the application must end after a fault that another
/// Xid reports. These Xids do not show the cause.
pub(crate) const TEARDOWN: [u32; 4] = [43, 45, 141, 174];

/// Xids about commands that were damaged before they reached the GPU. NVIDIA: "primarily involve quality issues on PCI,
/// and are generally not caused by user application actions".
pub(crate) const DAMAGED_COMMANDS: [u32; 2] = [32, 80];

/// Returns the class of an Xid.
pub(crate) fn class(event: &KernelEvent) -> Option<Class> {
    event.code.filter(|_| event.kind == Kind::Xid).and_then(catalogue::xid)?.class
}

/// Families of faults that do not stop programs: repairs that wait for a reset, and power limits.
const WITHOUT_EFFECT: [&str; 2] = ["repair", "power"];

/// Actions in NVIDIA's catalogue that do not interrupt programs.
const WITHOUT_INTERRUPTION: [&str; 2] = ["IGNORE", "CONTACT_SUPPORT"];

/// Returns whether the programs on the GPU continue to run after the event, although the GPU must be reset or repaired.
/// This is the case if the action in NVIDIA's catalogue does not interrupt them, or if the NVSwitch reports its error
/// as non-fatal.
pub(crate) fn lets_work_continue(event: &KernelEvent) -> bool {
    let of_family = || catalogue::family_of(event).is_some_and(|family| WITHOUT_EFFECT.contains(&family.name));
    match event.kind {
        Kind::Xid => {
            let action = event.code.and_then(catalogue::xid).and_then(|entry| entry.nvidia_action);
            of_family() || action.is_some_and(|action| WITHOUT_INTERRUPTION.contains(&action))
        }
        Kind::Sxid => match event.details.get("nv_severity").map(String::as_str) {
            Some(word) => word != "Fatal",
            None => event.code.and_then(catalogue::sxid).and_then(|entry| entry.fatality) == Some(Fatality::NonFatal),
        },
        _ => false,
    }
}

/// Returns whether the event is an Xid 154 in which the driver recommends an action.
pub(crate) fn recommends_recovery(event: &KernelEvent) -> bool {
    event.is_xid(&[154]) && event_meaning::of(event).is_some_and(|meaning| meaning.severity > Severity::Info)
}

/// Returns whether the event is an Xid that applications cause, or that is for information only.
pub(crate) fn is_application_or_info(event: &KernelEvent) -> bool {
    let entry = event.code.filter(|_| event.kind == Kind::Xid).and_then(catalogue::xid);
    let harmless = entry.is_some_and(|entry| matches!(entry.class, None | Some(Class::Application)));
    harmless && !recommends_recovery(event)
}
