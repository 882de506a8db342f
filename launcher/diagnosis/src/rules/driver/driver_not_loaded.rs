//! Rules about why the driver is not loaded: Secure Boot, SELinux, a boot parameter, or a module that is missing or for
//! another kernel. `reason`, `with_crash`, `background`: the reason, and other evidence from the kernel, for
//! `driver_unusable`.
//!
//! If there are several reasons, the reason that stops the load first is used, in this order: no module for this
//! kernel, its signature, SELinux, a module that was built for another kernel. Only kernel lines of the running boot
//! count.

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{DEBUG_DOC, Draft, OPERATOR_DOC, rules};
use crate::rules::driver::driver_log::{CRASHES, in_records};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::driver_load::{DriverLoad, SelinuxDenial};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::host_lines;
use syringe_core::text::clean;

/// The kernel's documentation of module signatures.
const SIGNING_DOC: Option<&str> = Some("https://docs.kernel.org/admin-guide/module-signing.html");

rules! {
    about Driver;
    SECURE_BOOT: "driver-refused-by-secure-boot" Fatal Driver SIGNING_DOC,
        "The kernel rejected a module without a signature that the kernel trusts",
        UpdateSoftware "Sign the nvidia module with a key that {node} trusts (mokutil --import), use a driver package \
            or precompiled driver image with signed modules, or turn Secure Boot off in the firmware of {node}.",
        means "The kernel loads only modules with a trusted signature (Secure Boot or lockdown). The kernel rejected a module, and \
            the nvidia module is not loaded: no pod on the node gets a GPU.",
        reads "host.driver, host.pci_gpus, xid: module_refused, host.driver_load";
    SELINUX: "driver-refused-by-selinux" Fatal Driver OPERATOR_DOC, "SELinux prevented the nvidia module from loading",
        UpdateSoftware "Allow the driver container of {node} to load modules: run it privileged, and install the \
            distribution's container-selinux policy. `ausearch -m avc -c modprobe` shows the denials. Also restore \
            the label of the module file (`restorecon -R /lib/modules`).",
        means "SELinux prevented a program from loading the nvidia module, and the module is not loaded: no pod on the \
            node gets a GPU.",
        reads "host.driver, host.pci_gpus, host.driver_load, xid: module_refused";
    BLOCKED: "driver-blocked-by-boot-parameter" Fatal Driver DEBUG_DOC, "A boot parameter prevents the kernel from loading the nvidia module",
        UpdateSoftware "Remove nvidia from module_blacklist in the kernel command line of {node} (for example in /etc/default/grub), and \
            reboot {node}.",
        means "The kernel command line names the nvidia module in `module_blacklist`: the kernel does not load it, and no pod on the node \
            gets a GPU.",
        reads "host.driver, xid: module_refused";
    NOT_BUILT: "driver-not-built-for-kernel" Fatal Driver OPERATOR_DOC, "No nvidia module fits the running kernel",
        UpdateSoftware "Build or install the nvidia module for the running kernel of {node} (`dkms autoinstall`, or \
            the driver package for this kernel), or boot a kernel that has a module. Then keep kernel and driver \
            updates together.",
        means "The nvidia module exists for other kernels, but not for the running kernel, usually after an update of \
            the kernel. No pod on the node gets a GPU.",
        reads "host.driver, host.driver_load, xid: module_refused";
}

/// Returns the reason why the driver is not loaded, if the facts show one.
pub(super) fn reason(node: &Node<'_>) -> Option<Draft> {
    let load = node.host().and_then(|host| host.driver_load.as_ref());
    not_built(node, load)
        .or_else(|| unsigned(node, load))
        .or_else(|| selinux(node, load))
        .or_else(|| blocked(node))
        .or_else(|| misfit(node))
}

fn blocked(node: &Node<'_>) -> Option<Draft> {
    let events = refused(node, &["blocked"]);
    let draft = || Draft::on_node(BLOCKED).with_events(events.iter().copied()).with_all_evidence(newest_line(&events));
    (!events.is_empty()).then(draft)
}

/// Returns a finding of severity warning with the reason if only the kernel log was read, because the module may have
/// been loaded since. Otherwise, the reason is part of the finding about NVML.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    if node.host().is_some() || node.inventory().is_some() {
        return Vec::new();
    }
    let unread = "it is not known whether the nvidia module is loaded now";
    let drafts = reason(node).map(|draft| draft.with_severity(Severity::Warning).with_evidence(unread));
    drafts.into_iter().collect()
}

/// Returns the lines about the module `nvidia`. Lines about dependent modules name the dependent module.
fn refused<'a>(node: &'a Node<'_>, reasons: &[&str]) -> Vec<&'a KernelEvent> {
    let of_reason = |event: &&KernelEvent| event.sub_code.as_deref().is_some_and(|reason| reasons.contains(&reason));
    let of_driver = |event: &&KernelEvent| !event.details.contains_key("module");
    node.timeline.of_kind(Kind::ModuleRefused).filter(of_reason).filter(of_driver).collect()
}

/// Returns a finding if the module exists only for another kernel, because the kernel was updated without the driver.
fn not_built(node: &Node<'_>, load: Option<&DriverLoad>) -> Option<Draft> {
    let (load, kernel) = (load?, node.report.kernel.as_deref()?);
    let others: Vec<String> = load
        .kernels_with_module
        .iter()
        .filter(|other| *other != kernel)
        .take(3)
        .map(|other| evidence::data(other))
        .collect();
    let none_here = load.kernels_without_module.iter().any(|other| other == kernel);
    let listed = node.host().and_then(|host| host.driver.module_listed) == Some(true);
    if others.is_empty() || !none_here || listed {
        return None;
    }
    let kernel = evidence::data(kernel);
    let draft = Draft::on_node(NOT_BUILT).with_evidence(format!(
        "/lib/modules: no nvidia.ko for the running kernel {kernel}; there is one for {}",
        others.join(", ")
    ));
    let advice = format!(
        "Build or install the nvidia module for kernel {kernel} on {{node}} (`dkms autoinstall -k {kernel}`, or the driver \
         package for this kernel), or boot {{node}} with {}. Then keep kernel and driver updates together.",
        others.first()?
    );
    Some(draft.with_action(ActionCode::UpdateSoftware, advice))
}

fn unsigned(node: &Node<'_>, load: Option<&DriverLoad>) -> Option<Draft> {
    let events = refused(node, &["unsigned", "lockdown"]);
    if events.is_empty() {
        return None;
    }
    let rules = load.map(rules_of_kernel).unwrap_or_default();
    let rules = (!rules.is_empty()).then(|| rules.join(", "));
    Some(
        Draft::on_node(SECURE_BOOT)
            .with_events(events.iter().copied())
            .with_all_evidence(newest_line(&events))
            .with_all_evidence(rules),
    )
}

/// Adds the kernel lines about GPUs that the driver could not take: their addresses are missing or in use, or another
/// driver has them.
pub(super) fn with_failed_probes(node: &Node<'_>, draft: Draft) -> Draft {
    let lines: Vec<&KernelEvent> = [Kind::BarUnassigned, Kind::ProbeFailed]
        .into_iter()
        .filter_map(|kind| node.timeline.of_kind(kind).last())
        .collect();
    if lines.is_empty() {
        return draft;
    }
    let draft = draft.with_all_evidence(lines.iter().map(|event| evidence::kernel_line(event)));
    draft.with_action(ActionCode::UpdateSoftware, NOT_TAKEN)
}

const NOT_TAKEN: &str = "Remove the reason in the kernel lines of the evidence, and load the nvidia module on {node} again: another driver holds a GPU (blacklist \
                         it), or the BIOS gave a GPU no addresses (Above 4G Decoding).";

/// Returns the newest of these kernel lines as evidence, because the line states the fault.
fn newest_line(events: &[&KernelEvent]) -> Option<String> {
    events.last().map(|event| format!("the line: {}", evidence::reason(&event.raw)))
}

/// Returns the kernel's requirements for modules.
fn rules_of_kernel(load: &DriverLoad) -> Vec<String> {
    let secure_boot = load.secure_boot.map(|on| format!("Secure Boot {}", if on { "on" } else { "off" }));
    let lockdown = load.lockdown.as_deref().map(|mode| format!("kernel lockdown {}", evidence::data(mode)));
    let enforced = (load.signature_enforced == Some(true)).then(|| "module signatures enforced".to_owned());
    [secure_boot, lockdown, enforced].into_iter().flatten().collect()
}

/// Finds a denial in the kernel log, or in the audit log if an audit daemon writes this log. The denial must be about
/// an NVIDIA module.
fn selinux(node: &Node<'_>, load: Option<&DriverLoad>) -> Option<Draft> {
    let permissive = load.is_some_and(|load| load.selinux.as_deref().is_some_and(|mode| mode != "enforcing"));
    if permissive {
        return None;
    }
    let events: Vec<&KernelEvent> =
        refused(node, &["selinux"]).into_iter().filter(|event| event.raw.contains("nvidia")).collect();
    let denial = load.and_then(|load| load.selinux_denial.as_ref()).filter(|denial| denial.record.contains("nvidia"));
    let record = denial.map(audit_line);
    if events.is_empty() && record.is_none() {
        return None;
    }
    let mode = load.and_then(|load| load.selinux.as_deref()).map(|mode| format!("SELinux is {}", evidence::data(mode)));
    let draft = Draft::on_node(SELINUX).with_events(events.iter().copied()).with_all_evidence(newest_line(&events));
    Some(draft.with_all_evidence(record).with_all_evidence(mode))
}

/// Maximum length of a record: the file and the process come first, the security contexts last.
const AUDIT_CAP: usize = 240;

/// Returns a record of the audit log as evidence.
pub(super) fn audit_line(denial: &SelinuxDenial) -> String {
    let when = denial.at.map(|at| format!(" {}", evidence::time(at))).unwrap_or_default();
    let (_, words) = denial.record.split_once("avc:").unwrap_or(("", &denial.record));
    format!("audit log{when}: {}", clean(words.trim_start(), AUDIT_CAP))
}

/// Returns a finding if the module was built for another kernel, or needs symbols that this kernel does not have.
fn misfit(node: &Node<'_>) -> Option<Draft> {
    let events = refused(node, &["symbol_version", "version_magic", "unknown_symbol"]);
    let newest = events.last()?;
    let draft = Draft::on_node(NOT_BUILT).with_events(events.iter().copied()).with_all_evidence(newest_line(&events));
    let Some(symbol) = newest.details.get("symbol").filter(|_| newest.sub_code.as_deref() == Some("unknown_symbol"))
    else {
        return Some(draft);
    };
    let symbol = evidence::data(symbol);
    let reason = format!("the module uses {symbol}, which the running kernel does not have or does not offer to it");
    Some(Draft { reason: Some(reason), ..draft }.with_action(ActionCode::UpdateSoftware, OTHER_KERNEL))
}

const OTHER_KERNEL: &str = "Install a version of the driver that supports the kernel of {node} (a driver can be too old for a newer kernel), \
     or boot {node} with the kernel that worked before. If the version supports the kernel, build the module again for it (`dkms autoinstall`).";

/// Adds a kernel crash to the finding about a driver that is not loaded, if the kernel crashed in an NVIDIA module or
/// because of its branch checks. Such a crash ends the load: the module is then not loaded, but it is not missing.
pub(super) fn with_crash(node: &Node<'_>, draft: Draft) -> Draft {
    let crashed = |event: &&KernelEvent| host_lines::row_of(event).is_some_and(|row| CRASHES.contains(&row.name));
    let is_check = |event: &KernelEvent| event.sub_code.as_deref().is_some_and(|code| code.starts_with("branch_check"));
    let of_boot = || node.timeline.events.iter().filter(|event| event.history.is_none()).map(|event| event.fact);
    let names_module = |event: &KernelEvent| event.raw.contains("[nvidia");
    let places = in_records(node, &CRASHES);
    let of_driver = |event: &KernelEvent| places.iter().any(|place| std::ptr::eq(*place, event));
    let crash =
        of_boot().find(|event| (crashed(event) && (is_check(event) || names_module(event))) || of_driver(event));
    let Some(crash) = crash else { return draft };
    let mut draft = draft.with_evidence(evidence::kernel_line(crash));
    let (reason, advice) = if is_check(crash) {
        (
            "the kernel crashed when it loaded the module: kernel and processor check the targets of branches (IBT or \
             BTI), but the module was built without such targets",
            "Use a version of the driver that was built with these targets for the kernel of {node}. Until then, boot the kernel without the \
             check: ibt=off (x86), arm64.nobti (arm64).",
        )
    } else {
        (
            "the kernel crashed in a module of the driver",
            "Install a version of the driver that supports the kernel of {node}, and reboot {node}. Or boot {node} \
            with the kernel that worked before.",
        )
    };
    draft.reason = Some(reason.to_owned());
    draft.with_action(ActionCode::UpdateSoftware, advice)
}

/// Returns the kernel's requirements for modules. They are evidence if the driver is not loaded and no reason was
/// found.
pub(super) fn background(node: &Node<'_>) -> Option<String> {
    let load = node.host()?.driver_load.as_ref()?;
    let strict = load.secure_boot == Some(true) || load.lockdown.as_deref().is_some_and(|mode| mode != "none");
    let rules = rules_of_kernel(load).join(", ");
    (strict && !rules.is_empty()).then(|| format!("{rules}: only signed modules can be loaded"))
}
