//! Rules about CPUs that are offline or slow, memory of sockets, services that do not run, the clock, and a tainted
//! kernel.

use crate::evidence;
use crate::input::boards;
use crate::input::node::Node;
use crate::rule::{Draft, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host_levels::{Cpus, HostLevels};
use syringe_core::facts::kernel_log::KernelEventKind;

rules! {
    GOVERNOR: "cpu-frequency-held-low" Warning Driver GOVERNOR_DOC, "The CPUs are held at their lowest frequency",
        UpdateSoftware "Set the CPU governor of {node} to performance (cpupower frequency-set -g performance). Also set it in the settings that are \
            applied at boot (tuned, cpupower).",
        means "The frequency governor is powersave, with a driver for which this means the lowest frequency. With intel_pstate and amd-pstate-epp, \
            powersave is normal.",
        reads "host.levels.cpus", in_plan WorkContinues;
    OFFLINE: "cpus-offline" Warning Hardware None, "Some CPUs of the node are offline",
        Watch "Find out why the CPUs of {node} are offline (kernel log of the boot, BMC, rasdaemon). If they were not disabled on purpose, check the processor.",
        means "The kernel lists CPUs that are offline, and these are not only the second threads of the cores.",
        reads "host.levels.cpus, host.levels.sockets, host.numa_nodes, inventory.virtualization_mode", in_plan WorkContinues;
    SOCKETS: "cpu-sockets-differ" Warning Hardware None, "A CPU socket has less memory or fewer CPUs than another \
        socket",
        Watch "Compare the memory modules (DIMMs) and processors of {node} in the BMC with the installed parts. At \
            the next maintenance, reseat or replace the missing parts.",
        means "One socket has clearly less memory, or fewer CPUs, than another socket: the firmware has probably disabled a memory module or cores.",
        reads "host.levels.sockets, host.levels.cpus, inventory.virtualization_mode", in_plan WorkContinues;
    CLOCK: "clock-not-synchronized" Warning Driver None, "The clock of the node is not synchronized",
        Watch "Check the time service of {node} and its servers (chronyc tracking, timedatectl): certificates, leases and the order of log lines depend \
            on the clock.",
        means "The kernel reports that its clock was not corrected for hours. A hypervisor can keep the clock of a \
            virtual machine without such corrections.",
        reads "host.levels.clock, host.uptime_seconds, inventory.virtualization_mode", in_plan WorkContinues;
    NOT_RUNNING: "node-service-not-running" Info Driver None, "A service that starts with the node does not run",
        Watch "Find out why the service of {node} in the evidence ended (systemctl status, journalctl -u). If {node} \
            does not need the service, disable it.",
        means "systemd starts the service at boot, and no process has its name: the service ended or failed, or somebody stopped it. Fabric Manager \
            and IMEX have findings of their own.",
        reads "host.services_not_running, host.uptime_seconds", in_plan WorkContinues;
    TAINTED: "kernel-tainted" Warning Driver TAINT_DOC, "The kernel marks itself as damaged",
        DrainAndReboot "Reboot {node} when its jobs have ended, and check its hardware log (BMC): the kernel lines about the event are gone.",
        means "Since the boot, the kernel had a machine check, a crash in one of its parts, or damaged memory \
            structures. The kernel log no longer has the lines about this event.",
        reads "host.levels.kernel_taint, xid: kernel log lines";
}

const GOVERNOR_DOC: Option<&str> = Some("https://docs.kernel.org/admin-guide/pm/cpufreq.html");
const TAINT_DOC: Option<&str> = Some("https://docs.kernel.org/admin-guide/tainted-kernels.html");

/// CPU frequency drivers whose governor `powersave` raises the frequency with the load.
const SCALE_WITH_POWERSAVE: [&str; 2] = ["intel_pstate", "amd-pstate-epp"];

/// If at least one CPU in this number is offline, an administrator probably disabled these CPUs.
const CHOSEN_PART: u32 = 4;

/// A node that booted more recently than this may still be setting its clock.
const BOOTING_SECONDS: u64 = 3600;

/// A node that booted more recently than this may still be starting its services.
const STARTING_SECONDS: u64 = 600;

/// Time services that set the system clock. `ptp4l` alone sets only the clock of a network card.
const SETS_CLOCK: [&str; 4] = ["chronyd", "systemd-timesyn", "ntpd", "phc2sys"];

/// Bits of the kernel taint that show damage: the bit, the meaning, and the names of kernel lines that other rules
/// check. On a GPU node, it is normal that modules are proprietary, unsigned or out of tree, and that there are
/// warnings or firmware workarounds.
const DAMAGE: [(u32, &str, &[&str]); 3] = [
    (4, "M: a processor reported a machine check", &[]),
    (5, "B: a page of memory was in a wrong state", &["bug"]),
    (7, "D: a part of the kernel died (oops or BUG)", &["oops", "bad_access", "bug", "kernel_crash"]),
];

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let stopped = not_running(node);
    let Some(levels) = super::levels_of(node) else { return stopped.into_iter().collect() };
    let cpus = levels.cpus.as_ref();
    let found = [
        cpus.and_then(governor),
        cpus.and_then(|cpus| offline(node, levels, cpus)),
        sockets(node, levels),
        clock(node, levels),
        tainted(node, levels),
        stopped,
    ];
    found.into_iter().flatten().collect()
}

/// Finds services that are enabled but have no process. A node that has just booted may still be starting them.
fn not_running(node: &Node<'_>) -> Option<Draft> {
    let host = node.host()?;
    let is_up = host.uptime_seconds.is_some_and(|uptime| uptime >= STARTING_SECONDS);
    let line = || format!("enabled, without a process: {}", evidence::names(&host.services_not_running, 8));
    (is_up && !host.services_not_running.is_empty()).then(|| Draft::on_node(NOT_RUNNING).with_evidence(line()))
}

fn governor(cpus: &Cpus) -> Option<Draft> {
    let driver = cpus.frequency_driver.as_deref()?;
    let (lowest, highest) = (cpus.minimum_megahertz?, cpus.maximum_megahertz?);
    let held = *cpus.governors.get("powersave")?;
    let all: u32 = cpus.governors.values().sum();
    if SCALE_WITH_POWERSAVE.contains(&driver) || lowest.saturating_mul(5) > highest.saturating_mul(4) {
        return None;
    }
    let line = format!(
        "governor powersave on {held} of {all} checked CPUs, driver {}: {lowest} of {highest} MHz",
        evidence::data(driver)
    );
    let severity = if held.saturating_mul(2) >= all { Severity::Warning } else { Severity::Info };
    Some(Draft::on_node(GOVERNOR).with_severity(severity).with_evidence(line))
}

/// Finds CPUs that are offline. The second threads of cores do not count, because security settings disable them.
fn offline(node: &Node<'_>, levels: &HostLevels, cpus: &Cpus) -> Option<Draft> {
    let Cpus { present, online, .. } = *cpus;
    let without_threads = ["off", "forceoff"].contains(&cpus.smt.as_deref().unwrap_or_default());
    let expected = if without_threads { present / 2 } else { present };
    // Half of the CPUs are second threads that were switched off one by one, unless the cores have only one thread. If
    // they belong to one socket of several NUMA nodes, the other socket has no CPU.
    let has_no_threads = cpus.smt.as_deref() == Some("notsupported");
    let is_half = online.saturating_mul(2) == present;
    let lacks_socket = is_half && !without_threads && lacks_socket(node, levels);
    if online >= expected || (is_half && !has_no_threads && !lacks_socket) {
        return None;
    }
    let missing = expected - online;
    let is_fault = missing < present / CHOSEN_PART || lacks_socket;
    let severity = if is_fault && boards::is_bare_metal(node) { Severity::Warning } else { Severity::Info };
    let place = if lacks_socket { ", all of one socket; the node has several NUMA nodes" } else { "" };
    let line = format!("{online} of {present} CPUs are online{place}");
    Some(Draft::on_node(OFFLINE).with_severity(severity).with_evidence(line))
}

/// Returns whether a node with several NUMA nodes has only one socket with CPUs.
fn lacks_socket(node: &Node<'_>, levels: &HostLevels) -> bool {
    let has_nodes = node.host().and_then(|host| host.numa_nodes).is_some_and(|count| count > 1);
    has_nodes && levels.sockets.len() < 2
}

/// Minimum difference in memory between two sockets. The smallest memory module of a server has 8 GiB, and the firmware
/// can reserve a part of it.
const MODULE: u64 = 7 << 30;

fn sockets(node: &Node<'_>, levels: &HostLevels) -> Option<Draft> {
    if !boards::is_bare_metal(node) {
        return None;
    }
    let least = levels.sockets.iter().min_by_key(|socket| socket.memory_bytes)?;
    let most = levels.sockets.iter().max_by_key(|socket| socket.memory_bytes)?;
    let (low, high) = (least.memory_bytes, most.memory_bytes);
    let lacks_memory = high - low >= MODULE && u128::from(low) * 100 < u128::from(high) * 95;
    let memory = lacks_memory.then(|| {
        let (low, high) = (evidence::bytes(low), evidence::bytes(high));
        format!("socket {} has {low} of memory, socket {} has {high}", least.socket, most.socket)
    });
    let all_online = levels.cpus.as_ref().is_some_and(|cpus| cpus.online == cpus.present);
    let fewest = levels.sockets.iter().min_by_key(|socket| socket.cpus)?;
    let other = levels.sockets.iter().max_by_key(|socket| socket.cpus)?;
    // No setting leaves a whole socket without CPUs.
    let cpus = (fewest.cpus < other.cpus && (all_online || fewest.cpus == 0)).then(|| {
        format!("socket {} has {} CPUs, socket {} has {}", fewest.socket, fewest.cpus, other.socket, other.cpus)
    });
    let lines: Vec<String> = memory.into_iter().chain(cpus).collect();
    (!lines.is_empty()).then(|| Draft::on_node(SOCKETS).with_all_evidence(lines))
}

fn clock(node: &Node<'_>, levels: &HostLevels) -> Option<Draft> {
    let clock = levels.clock.as_ref().filter(|clock| clock.is_synchronized == Some(false))?;
    node.host()?.uptime_seconds.filter(|uptime| *uptime >= BOOTING_SECONDS)?;
    let service = clock.service.as_deref();
    // In a virtual machine without a time service, the hypervisor sets the clock.
    if service.is_none() && boards::is_virtual_machine(node) {
        return None;
    }
    let should_be = service.is_none_or(|service| SETS_CLOCK.contains(&service)) && boards::is_bare_metal(node);
    let service = service.map_or_else(
        || "no time service was found".into(),
        |service| format!("{} is running", evidence::data(service)),
    );
    let severity = if should_be { Severity::Warning } else { Severity::Info };
    let line = format!("the kernel reports an unsynchronized clock (adjtimex); {service}");
    Some(Draft::on_node(CLOCK).with_severity(severity).with_evidence(line))
}

/// Finds damage that no line of the kernel log reports. If there are lines, other rules check them.
fn tainted(node: &Node<'_>, levels: &HostLevels) -> Option<Draft> {
    let taint = levels.kernel_taint?;
    let events = || node.timeline.events.iter().filter(|event| event.history.is_none()).map(|event| event.fact);
    let is_logged = |bit: u32, names: &[&str]| {
        events().any(|event| match event.kind {
            KernelEventKind::Mce => bit == 4,
            _ => event.sub_code.as_deref().is_some_and(|name| names.contains(&name)),
        })
    };
    let set: Vec<_> =
        DAMAGE.into_iter().filter(|(bit, _, names)| taint & (1 << bit) != 0 && !is_logged(*bit, names)).collect();
    let only_processor = set.iter().all(|(bit, ..)| *bit == 4);
    let draft = Draft::on_node(TAINTED).with_evidence((!set.is_empty()).then(|| format!("kernel.tainted = {taint}"))?);
    let draft = draft.with_all_evidence(set.iter().map(|(_, meaning, _)| (*meaning).to_owned()));
    let watch = "Check the hardware log (BMC) of {node} for the error: the kernel lines about it are gone. The mark stays until the next boot.";
    Some(if only_processor { draft.with_action(ActionCode::Watch, watch) } else { draft })
}
