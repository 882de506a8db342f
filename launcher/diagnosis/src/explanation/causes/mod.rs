//! `Case`: the facts from which the cause of a pod's state is determined.
//! Modules with the causes (GPU, driver, kubelet, scheduler, start, program), which `evaluate::first_cause` applies.
//!
//! As in POSIX shells and the kubelet, an exit code above 128 is 128 plus the signal. The role of an Xid (cause, or end
//! of a program) and its class in the catalogue determine the cause that it indicates. The reasons of pods and
//! containers come from the kubelet and the scheduler.

mod blockers;
mod claims;
mod cuda_versions;
mod effects;
pub(crate) mod evaluate;
mod eviction;
mod failing_part;
mod free_gpus;
mod gpu;
mod injection;
mod kubelet;
mod kubelet_admission;
mod linked_pods;
mod memory;
mod node_storage;
mod not_created;
mod own_settings;
mod process;
mod program_message;
mod scheduling;
mod start;
mod subject_owner;
mod unresolved_cdi;

use jiff::{SignedDuration, Timestamp};

use crate as diagnosis;
use crate::explanation::pod_on_node::PodOnNode;
use crate::explanation::timeline::line;
use crate::explanation::types::{Cause, Certainty, Explanation, NOT_IDENTIFIED};
use crate::finding::{Action, Diagnosis, Finding, Scope, Verdict};
use crate::input::node::Node;
use crate::input::processes::{Stuck, is_name_of_service};
use crate::input::xids;
use crate::messages::shapes;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::kubernetes::KubernetesFacts;
use syringe_core::facts::kubernetes::pod::{ContainerState, PodEvent, PodFacts, Termination};
use syringe_core::facts::processes::GpuProcess;
use syringe_core::kernel_log::catalogue;
use syringe_core::pci::PciAddress;
use syringe_core::report::{Report, Section, Status};
use syringe_core::text::clean_keeping_end;

/// Action for a program that finds no GPU in a container that requests none.
const REQUEST_A_GPU: &str = "Request a GPU in the limits of the container (nvidia.com/gpu: 1). A program that only monitors GPUs requests none: give it NVIDIA's \
    runtime (runtimeClassName) and NVIDIA_VISIBLE_DEVICES=all.";

/// Maximum number of evidence lines in one explanation.
const MAX_EVIDENCE: usize = 8;

/// Maximum length of one evidence line. It is long enough for PyTorch's message about memory. Container runtimes nest
/// their errors and put the reason last, so longer lines are cut in the middle.
const MAX_QUOTE: usize = 760;

/// Maximum length of a summary, because a message of the scheduler may list many reasons.
const MAX_SUMMARY: usize = 600;

/// If an event or state precedes the end of a container by more than this, it is not shown as the cause.
const NEAR: SignedDuration = SignedDuration::from_mins(15);

/// A container that has run for this time since its last restart works.
const LONG_AGO: SignedDuration = SignedDuration::from_hours(24);

/// The input of all causes.
struct Case<'a> {
    pod: &'a PodFacts,
    on_node: &'a PodOnNode,
    diagnosis: Option<&'a Diagnosis>,
    report: Option<&'a Report>,
    /// Name and state of the pod, for the summary.
    name: String,
    /// Name of the pod's node in messages.
    node: &'a str,
    /// True if no probe read the node.
    unread: bool,
    /// True if the node was read and has no GPU.
    node_has_none: bool,
}

type CauseRule = fn(&Case<'_>) -> Option<Explanation>;

impl Case<'_> {
    fn explain(&self, cause: Cause, certainty: Certainty, what: impl AsRef<str>) -> Explanation {
        let summary = clean_keeping_end(&format!("{}: {}.", self.name, what.as_ref()), MAX_SUMMARY);
        Explanation { cause, certainty, summary, ..Explanation::default() }
    }

    /// Returns the lines of the log of the pod's failed container that the probe read on the node, oldest first.
    fn log_on_node(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        let host = self.report.and_then(|report| Section::data_of(&report.sections.host));
        let log = host.and_then(|host| host.stack_log.as_ref()).filter(|log| log.pod_uid == self.pod.uid);
        let of_failed = |container: &str| self.failed().is_some_and(|end| end.container == container);
        let log = log.filter(|log| of_failed(&log.container));
        log.into_iter().flat_map(|log| log.detail_lines.iter().chain(&log.lines)).map(String::as_str)
    }

    /// Returns the container of the device plugin whose log the probe read on the node, with its last line about an
    /// error.
    fn error_of_plugin(&self) -> Option<(&str, &str)> {
        let host = self.report.and_then(|report| Section::data_of(&report.sections.host));
        let log = host.and_then(|host| host.stack_log.as_ref()).filter(|log| log.pod_uid != self.pod.uid)?;
        let lines = || log.detail_lines.iter().chain(&log.lines).map(String::as_str);
        let crash = || lines().rfind(|line| line.starts_with("panic:") || line.starts_with("fatal error:"));
        let line = crash().or_else(|| shapes::marked_error(lines(), false))?;
        log.container.contains("plugin").then_some((log.container.as_str(), line))
    }

    /// Returns a container of the pod whose log the probe read on the node, with the lines of the log.
    fn any_log_on_node(&self) -> Option<(&str, Vec<&str>)> {
        let host = self.report.and_then(|report| Section::data_of(&report.sections.host));
        let log = host.and_then(|host| host.stack_log.as_ref()).filter(|log| log.pod_uid == self.pod.uid)?;
        Some((log.container.as_str(), log.detail_lines.iter().chain(&log.lines).map(String::as_str).collect()))
    }

    /// Returns the termination of the pod's container, if one terminated.
    fn ended(&self) -> Option<Termination<'_>> {
        self.pod.end()
    }

    /// Returns the termination of the pod's failed container. A completed init container is not a failure. In a pod
    /// that succeeded, no container failed: the kubelet ends sidecars with a signal.
    fn failed(&self) -> Option<Termination<'_>> {
        let is_failure = |end: &Termination<'_>| end.exit_code != 0 || end.never_ran();
        self.ended().filter(|end| self.pod.phase != "Succeeded" && is_failure(end) && !self.is_over(end))
    }

    /// Returns whether the container has run for a long time since this termination, and the pod is Ready.
    fn is_over(&self, end: &Termination<'_>) -> bool {
        let now = self.report.and_then(|report| report.taken_at);
        let is_old = |time: Timestamp| now.is_some_and(|now| now.duration_since(time) > LONG_AGO);
        let mut starts = self.pod.running().filter(|(name, _)| *name == end.container).filter_map(|(_, since)| since);
        end.was_restarted && self.pod.ready == Some(true) && end.finished.is_some_and(is_old) && starts.any(is_old)
    }

    /// Returns the pod's events with these reasons, newest first.
    fn events<'c>(&'c self, reasons: &'c [&str]) -> impl Iterator<Item = &'c PodEvent> {
        let of_it = move |event: &&PodEvent| reasons.contains(&event.reason.as_str()) && !event.is_ours();
        self.pod.events.iter().rev().filter(of_it)
    }

    /// Returns whether the pod does not ask for a GPU in any way, so that it gets no GPU and no driver.
    /// Components of the GPU stack, and containers that are privileged, name devices or mount the driver, get the
    /// driver in another way. An allocation of `nvidia.com` without a request is a remnant in the kubelet's checkpoint.
    fn asks_for_no_gpu(&self) -> bool {
        let pod = self.pod;
        let in_own_way = pod
            .specs
            .iter()
            .any(|spec| spec.privileged || injection::asks_by_variable(spec) || injection::has_driver_mounted(spec));
        let PodOnNode { addresses, allocations, processes, .. } = self.on_node;
        let left_over =
            !allocations.is_empty() && allocations.iter().all(|held| held.resource.starts_with("nvidia.com/"));
        let uses_one = processes.iter().any(|process| !process.uses.is_empty());
        let has_none = addresses.is_empty() || (left_over && !uses_one);
        !pod.wants_gpus && !pod.is_gpu_stack && has_none && !in_own_way
    }

    /// Returns the boot time of the pod's node.
    fn booted(&self) -> Option<Timestamp> {
        let report = self.report?;
        let uptime = Section::data_of(&report.sections.host)?.uptime_seconds?;
        report.taken_at?.checked_sub(SignedDuration::from_secs(i64::try_from(uptime).ok()?)).ok()
    }

    /// Returns when the driver of the node was loaded.
    fn driver_loaded(&self) -> Option<Timestamp> {
        Node::new(self.report?, &KubernetesFacts::default()).driver_loaded()
    }

    /// Returns the pod's processes in this scheduler state.
    fn processes_in<'c>(&'c self, state: &'c str) -> impl Iterator<Item = &'c GpuProcess> {
        self.on_node.processes.iter().filter(move |process| process.state.as_deref() == Some(state))
    }

    /// Returns whether the failed container may have had a GPU of the pod. True if the kubelet does not name a
    /// container.
    fn failed_container_had_gpus(&self) -> bool {
        let holders = &self.on_node.holders;
        self.failed().is_none_or(|end| holders.is_empty() || holders.contains(end.container))
    }

    /// Returns the action of the most severe finding about the pod's GPUs, whatever its severity. The explanation then
    /// does not recommend a stronger action than the diagnosis.
    fn plan(&self) -> Option<Action> {
        let ends =
            |finding: &&Finding| finding.severity >= Severity::Critical || effects::ends_programs(finding).is_some();
        let about = self.all_findings().filter(|finding| self.is_on_its_gpus(finding)).filter(ends);
        match about.min_by_key(|finding| std::cmp::Reverse(finding.severity)) {
            Some(worst) if worst.severity > Severity::Info => Some(self.action_for(worst)),
            // The fault ended before the node was read.
            None if self.unread || self.diagnosis.is_none_or(|found| found.verdict > Verdict::NoFaultFound) => None,
            _ => {
                let text = format!("Restart the pod: the diagnosis of {} shows that its GPU works again.", self.node);
                Some(Action { code: ActionCode::RestartPod, text })
            }
        }
    }

    /// Returns the action of the most severe critical finding about the pod's GPUs.
    fn severe_plan(&self) -> Option<Action> {
        let severe = self.severe_findings().filter(|finding| self.is_on_its_gpus(finding));
        severe.min_by_key(|finding| std::cmp::Reverse(finding.severity)).map(|finding| self.action_for(finding))
    }

    /// Returns whether the diagnosis shows that the faults of the pod's GPUs are over.
    fn works_again(&self) -> bool {
        let ends = |finding: &&Finding| self.is_on_its_gpus(finding) && effects::ends_programs(finding).is_some();
        let mut faults = self.all_findings().filter(ends).peekable();
        faults.peek().is_some() && faults.all(|finding| finding.severity == Severity::Info)
    }

    /// Returns whether a finding is about a GPU of the pod, a process on such a GPU, or an NVSwitch of the board.
    fn is_on_its_gpus(&self, finding: &Finding) -> bool {
        self.is_on_own_gpu(finding) || self.is_of_switch(finding)
    }

    /// Returns whether a finding is about a GPU of the pod, or about a process on such a GPU.
    fn is_on_own_gpu(&self, finding: &Finding) -> bool {
        let PodOnNode { addresses, indices, .. } = self.on_node;
        let processes = self.report.and_then(|report| Section::data_of(&report.sections.processes));
        let mut all = processes.into_iter().flat_map(|section| &section.processes);
        let of_process = finding.scope.pid.is_some_and(|pid| {
            all.any(|process| process.pid == pid && process.uses.iter().any(|one| indices.contains(&one.gpu)))
        });
        let named = finding.scope.gpu.is_some_and(|index| indices.contains(&index));
        of_process || named || finding.addresses.iter().any(|address| addresses.contains(address))
    }

    /// Returns whether a finding is about an NVSwitch of the pod's node.
    fn is_of_switch(&self, finding: &Finding) -> bool {
        let Scope { gpu, uuid, pci, .. } = &finding.scope;
        let Some(sections) = self.report.map(|report| &report.sections) else { return false };
        let listed = Section::data_of(&sections.inventory).into_iter().flat_map(|inventory| &inventory.gpus);
        let on_pci = Section::data_of(&sections.host).into_iter().flat_map(|host| &host.pci_gpus);
        let mut gpus = listed.map(|gpu| &gpu.pci_address).chain(on_pci.map(|gpu| &gpu.pci_address));
        let of_fabric = matches!(finding.class, Class::Fabric | Class::Thermal);
        let names_gpu = gpu.is_some() || uuid.is_some() || gpus.any(|address| address == pci);
        of_fabric && pci.is_some() && !names_gpu && !self.on_node.addresses.is_empty()
    }

    /// Returns whether an event may have ended the container. An error of another process does not count if it occurred
    /// long before the end of the container and the container's message is not about GPUs.
    fn can_have_ended(&self, event: &KernelEvent) -> bool {
        let Some(end) = self.failed() else { return true };
        let gap = end.finished.zip(event.last).map(|(finished, last)| finished.duration_since(last));
        if gap.is_none_or(|gap| gap <= NEAR) || self.on_node.names_own_process(event) {
            return true;
        }
        let says_something_else = !end.message.is_empty() && !program_message::speaks_of_gpus(end.message);
        let of_service = event.process.as_deref().is_some_and(is_name_of_service);
        !says_something_else && !of_service
    }

    /// Returns whether the driver of the node works now: NVML lists GPUs, and no finding contradicts this.
    fn driver_works(&self) -> bool {
        let inventory = self.report.and_then(|report| report.sections.inventory.as_ref());
        let lists = inventory
            .filter(|section| section.status == Status::Ok)
            .and_then(|section| section.data.as_ref())
            .is_some_and(|inventory| !inventory.gpus.is_empty());
        let broken =
            |finding: &Finding| ["driver-", "nvml-", "nouveau"].iter().any(|start| finding.id.starts_with(start));
        lists && !self.all_findings().any(|finding| finding.severity > Severity::Info && broken(finding))
    }

    /// Returns whether a process uses at least a tenth of the memory of a GPU of the pod.
    fn holds_much_memory(&self, pid: u32) -> bool {
        let Some(sections) = self.report.map(|report| &report.sections) else { return false };
        let processes = Section::data_of(&sections.processes).into_iter().flat_map(|section| &section.processes);
        let uses = processes.filter(|process| process.pid == pid).flat_map(|process| &process.uses);
        let total = |index: u32| {
            let gpus = &Section::data_of(&sections.inventory)?.gpus;
            gpus.iter().find(|gpu| gpu.index == index)?.memory_total_bytes
        };
        uses.filter(|one| self.on_node.indices.contains(&one.gpu)).any(|one| {
            let known = one.memory_bytes.zip(total(one.gpu));
            known.is_none_or(|(held, total)| held >= total / 10)
        })
    }

    /// Returns severe events about the pod's GPUs during the pod's run that cannot have ended the pod.
    fn without_effect(&self) -> Vec<&KernelEvent> {
        let of_gpu = |event: &&KernelEvent| is_fault(event) && !self.can_have_ended(event);
        self.on_node.own_events.iter().filter(of_gpu).collect()
    }

    /// Returns the action of a finding according to the plan of the diagnosis, so that the explanation recommends the
    /// same action.
    fn action_for(&self, finding: &Finding) -> Action {
        let gpus: Vec<PciAddress> = self.on_node.addresses.iter().cloned().collect();
        self.diagnosis.map_or_else(|| finding.action.clone(), |diagnosis| diagnosis.action_for(finding, &gpus))
    }

    /// Returns whether a process that waits in the kernel is stuck.
    fn stuck(&self, process: &GpuProcess) -> Option<Stuck> {
        diagnosis::stuck(self.report?, process.pid)
    }

    /// Returns the kernel events about this pod that are causes and have one of these classes in the catalogue.
    fn own_xids(&self, classes: &[Class]) -> Vec<&KernelEvent> {
        self.on_node
            .own_events
            .iter()
            .filter(|event| !is_teardown(event) && class_of(event).is_some_and(|class| classes.contains(&class)))
            .collect()
    }

    /// Returns whether events on the pod's GPUs may be about pods that share them, because no event names a process of
    /// this pod.
    fn may_be_of_others(&self, events: &[&KernelEvent]) -> bool {
        (self.on_node.shares || self.on_node.is_inferred)
            && !events.iter().any(|event| self.on_node.names_own_process(event))
    }

    /// Returns all findings about the node.
    fn all_findings(&self) -> std::slice::Iter<'_, Finding> {
        self.diagnosis.map(|diagnosis| diagnosis.findings.as_slice()).unwrap_or_default().iter()
    }

    /// Returns critical and fatal findings about the node.
    fn severe_findings(&self) -> impl Iterator<Item = &Finding> {
        self.all_findings().filter(|finding| finding.severity >= Severity::Critical)
    }

    /// Returns severe findings about the pod's GPUs and the NVSwitches of their board.
    fn findings(&self, classes: &[Class]) -> Vec<&Finding> {
        let own = |finding: &&Finding| self.is_on_its_gpus(finding);
        self.severe_findings().filter(|finding| classes.contains(&finding.class)).filter(own).collect()
    }

    /// Returns findings about the node as a whole, not about one GPU, process or pod.
    fn findings_of_node(&self) -> Vec<&Finding> {
        let whole = |finding: &&Finding| {
            let Scope { node: _, gpu, uuid, pci, pid, pod_uid, pod: _ } = &finding.scope;
            let anything = gpu.is_some() || uuid.is_some() || pci.is_some() || pid.is_some() || pod_uid.is_some();
            !anything && finding.addresses.is_empty()
        };
        self.severe_findings().filter(whole).collect()
    }
}

/// Returns the current state in a few words: phase, containers and processes.
fn state(pod: &PodFacts, on_node: &PodOnNode) -> String {
    let mut words = vec![if pod.phase.is_empty() { "phase unknown".to_owned() } else { pod.phase.clone() }];
    if pod.deleted.is_some() {
        words.push("being deleted".into());
    }
    if pod.phase == "Running" && pod.ready == Some(false) {
        words.push("not Ready".into());
    }
    let waiting = pod.containers.iter().find_map(|container| match &container.state {
        ContainerState::Waiting { reason, .. } if !reason.is_empty() => Some(reason.clone()),
        _ => None,
    });
    words.extend(waiting);
    let restarts: u32 = pod.containers.iter().map(|container| container.restarts).sum();
    match restarts {
        0 => {}
        1 => words.push("1 restart".into()),
        more => words.push(format!("{more} restarts")),
    }
    if pod.phase == "Running" {
        let hung = on_node.processes.iter().filter(|process| process.state.as_deref() == Some("D"));
        words.extend(hung.take(2).map(|process| format!("pid {} in state D", process.pid)));
    }
    words.join(", ")
}

impl Explanation {
    fn with_evidence(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence.into_iter().map(|line| clean_keeping_end(&line, MAX_QUOTE)));
        self
    }

    /// Sets the action of the finding if there is a finding, or else this action.
    fn with_plan_or(mut self, plan: Option<Action>, code: ActionCode, text: impl Into<String>) -> Self {
        self.action = plan.unwrap_or_else(|| Action { code, text: text.into() });
        self
    }

    fn with_action(mut self, code: ActionCode, text: impl Into<String>) -> Self {
        self.action = Action { code, text: text.into() };
        self
    }
}

/// Returns whether an event only reports that the driver ended a program.
fn is_teardown(event: &KernelEvent) -> bool {
    event.kind == KernelEventKind::Xid && event.code.is_some_and(|code| xids::TEARDOWN.contains(&code))
}

/// Returns whether an event is a fault of a GPU, a link or the driver, of any severity, not a fault of a program.
fn is_fault(event: &KernelEvent) -> bool {
    !is_teardown(event) && class_of(event).is_some_and(|class| class != Class::Application)
}

fn class_of(event: &KernelEvent) -> Option<Class> {
    match event.kind {
        KernelEventKind::Xid => catalogue::xid(event.code?)?.class,
        KernelEventKind::OffBus => Some(Class::Hardware),
        KernelEventKind::Sxid => Some(Class::Fabric),
        KernelEventKind::RmInitFailed | KernelEventKind::GspFailed => Some(Class::Driver),
        _ => None,
    }
}

fn quotes(events: &[&KernelEvent]) -> Vec<String> {
    let quote = |event: &&KernelEvent| {
        let time = event.first.map(|time| format!("{time:.0}")).unwrap_or_default();
        format!("kernel {time}: {}", line(event))
    };
    events.iter().map(quote).collect()
}

fn finding_quote(finding: &Finding) -> String {
    format!("finding {}: {}", finding.id, finding.title)
}

fn end_quote(case: &Case<'_>) -> Option<String> {
    let Termination { container, exit_code, reason, message, finished, .. } = case.failed()?;
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    let at = finished.map(|time| format!(" at {time:.0}")).unwrap_or_default();
    Some(format!("container {container} ended{at}: {reason}, exit code {exit_code}{message}"))
}

fn event_quote(event: &PodEvent) -> String {
    let PodEvent { time, reason, message, count, .. } = event;
    let at = time.map(|time| format!(" {time:.0}")).unwrap_or_default();
    let times = if *count > 1 { format!(" ({count} times)") } else { String::new() };
    format!("event{at} {reason}{times}: {message}")
}

/// Returns whether the node has no GPU: PCI or NVML was read, and no GPU was listed.
fn has_no_gpu(report: &Report) -> bool {
    let on_pci = Section::data_of(&report.sections.host).map(|host| host.pci_gpus.len());
    let in_nvml = Section::data_of(&report.sections.inventory).map(|inventory| inventory.gpus.len());
    let counts: Vec<usize> = on_pci.into_iter().chain(in_nvml).collect();
    !counts.is_empty() && counts.iter().all(|count| *count == 0)
}
