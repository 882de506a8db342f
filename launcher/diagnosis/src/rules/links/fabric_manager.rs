//! Rules about Fabric Manager and IMEX: not running, restarted while jobs run, restarted often, version different from
//! the driver, running twice. `fabric_manager`, `last_error`: the finding about a missing Fabric Manager, and the last
//! error that it logged.

use crate::evidence;
use crate::input::boards;
use crate::input::node::Node;
use crate::messages::shapes;
use crate::rule::{Draft, FABRIC_DOC, IMEX_DOC, Rule, rules};
use jiff::{SignedDuration, Timestamp};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host::ServiceLog;
use syringe_core::facts::nvidia_stack::StackProcess;
use syringe_core::facts::processes::GpuProcess;

rules! {
    NO_FABRIC_MANAGER: "fabric-manager-not-running" Critical Fabric FABRIC_DOC,
        "Fabric Manager is not running on an NVSwitch system",
        UpdateSoftware "Start nvidia-fabricmanager on {node}, in the version of the driver. CUDA cannot start on GPUs \
            that are not registered.",
        means "The board has NVSwitches, but Fabric Manager is not running. CUDA cannot initialize on the GPUs.",
        reads "topology.nvswitches, topology.fabric, host.daemons, host.service_logs, inventory.name", in_plan StartsFabricManager, depth 1;
    RESTARTED: "fabric-manager-restarted-under-jobs" Warning Fabric FABRIC_DOC, "Fabric Manager was restarted while programs used the GPUs",
        Watch "Find out why Fabric Manager of {node} was restarted (`journalctl -u nvidia-fabricmanager`, /var/log/fabricmanager.log). Programs that fail \
            with NVLink or fabric errors since then must be restarted.",
        means "Programs that use the GPUs are older than the running Fabric Manager. CUDA cannot start without Fabric \
            Manager, so an earlier Fabric Manager ended.",
        reads "host.services, processes, topology.fabric", in_plan WorkContinues;
    OFTEN: "fabric-manager-restarts-often" Warning Fabric FABRIC_DOC, "Fabric Manager restarts repeatedly",
        UpdateSoftware "Read /var/log/fabricmanager.log of {node} for the error before each start. Fabric Manager \
            must have the version of the driver.",
        means "The log of Fabric Manager has several starts within two days.",
        reads "host.service_logs, host.uptime_seconds", in_plan WorkContinues;
    IMEX_OFTEN: "imex-restarts-often" Warning Fabric IMEX_DOC, "IMEX restarts repeatedly",
        UpdateSoftware "Read /var/log/nvidia-imex.log of {node} for the error before each start. Version, addresses \
            and ports must match the other nodes of its domain. Jobs on {node} alone do not need IMEX.",
        means "The log of IMEX has several starts within two days.",
        reads "host.service_logs, host.uptime_seconds", about Workload, in_plan WorkContinues;
    VERSION: "service-version-differs" Warning Fabric FABRIC_DOC, "Fabric Manager or IMEX has another version than the driver",
        UpdateSoftware "Install the service in the evidence on {node} in the version of the driver, and restart it when the jobs have ended.",
        means "The log of the running service names another version than the version of the loaded driver. NVIDIA supports only equal versions of \
            Fabric Manager, and equal branches of IMEX.",
        reads "host.service_logs, host.services, host.driver", in_plan WorkContinues;
    LOGGED: "fabric-service-logged-error" Info Fabric None, "Fabric Manager or IMEX logged an error since its last start",
        Watch "If jobs of {node} fail or wait at their start, resolve the error in the evidence.",
        means "The service runs, and the last error line of its log is from the time after its last start. The service can have recovered.",
        reads "host.service_logs, host.daemons";
    TWO_IMEX: "imex-service-beside-compute-domain" Warning Fabric IMEX_DOC, "The IMEX service of the node runs in addition to the IMEX of a ComputeDomain",
        UpdateSoftware "Stop and disable the service on {node} (systemctl disable --now nvidia-imex): with the DRA driver, IMEX runs only in the pods of \
            ComputeDomains, and only one IMEX can own the node.",
        means "nvidia-imex runs as a service of the node, and the DRA driver starts IMEX in pods of ComputeDomains: the \
            second IMEX cannot start, and the ComputeDomain does not become ready.",
        reads "host.services, host.nvidia_stack", about Workload;
    NO_IMEX: "imex-not-running" Warning Fabric IMEX_DOC, "IMEX is not running on a node of an NVLink rack",
        Watch "No action for jobs on {node} alone. For jobs on several nodes of the rack, start nvidia-imex on {node} \
            (nvidia-imex-ctl -N shows the domain), unless a ComputeDomain of the DRA driver starts IMEX for each \
            job.",
        means "The GPUs are registered with the fabric of a rack, and the IMEX daemon of the node is not running: programs cannot share GPU \
            memory with other nodes.",
        reads "topology.fabric, host.daemons, host.service_logs, host.services_not_running", about Workload;
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let found = [fabric_manager(node), imex(node), restarted(node), two_imex(node)];
    let of_logs = SERVICES.iter().flat_map(|service| {
        let version = version(node, service);
        let error = if version.is_none() { logged_error(node, service) } else { None };
        [often(node, service), version, error]
    });
    found.into_iter().chain(of_logs).flatten().collect()
}

/// Process names of the services in the kernel.
const FABRIC_MANAGER: &str = "nv-fabricmanage";
const IMEX: &str = "nvidia-imex";

/// A service whose log the probe reads.
struct Service {
    /// Name of its process, as the kernel reports it (`comm`).
    process: &'static str,
    /// The name of its log in `/var/log`, without `.log`.
    log: &'static str,
    name: &'static str,
    /// Whether the whole version must match the driver, or only the branch. IMEX of all nodes of a domain must have one
    /// version.
    needs_whole_version: bool,
    /// The rule about many starts.
    often: Rule,
}

const SERVICES: [Service; 2] = [
    Service {
        process: FABRIC_MANAGER,
        log: "fabricmanager",
        name: "Fabric Manager",
        needs_whole_version: true,
        often: OFTEN,
    },
    Service { process: IMEX, log: "nvidia-imex", name: "IMEX", needs_whole_version: false, often: IMEX_OFTEN },
];

impl Service {
    fn of(process: &str) -> Option<&'static Self> {
        SERVICES.iter().find(|service| service.process == process)
    }

    fn log<'a>(&self, node: &Node<'a>) -> Option<&'a ServiceLog> {
        node.host()?.service_logs.iter().find(|log| log.service == self.log)
    }

    /// Returns whether a process of the service is running. The list of processes may not contain it.
    fn is_running(&self, node: &Node<'_>) -> Option<bool> {
        let daemons = &node.host()?.daemons;
        if self.process == IMEX { daemons.imex } else { daemons.fabric_manager }
    }

    fn log_of_this_boot<'a>(&self, node: &Node<'a>) -> Option<&'a ServiceLog> {
        let log = self.log(node)?;
        let (written, booted) = log.written_at.zip(node.booted())?;
        (written.duration_since(booted) > -TOLERANCE).then_some(log)
    }

    /// Returns the version in this log and the version of the loaded driver, if NVIDIA does not support them together.
    fn other_version<'a>(&self, node: &Node<'a>, log: &'a ServiceLog) -> Option<(&'a str, &'a str)> {
        let branch = |version: &'a str| version.split('.').next().unwrap_or_default();
        let (version, driver) = log.version.as_deref().zip(node.host()?.driver.loaded.as_deref())?;
        let is_refused =
            log.last_error.as_deref().is_some_and(|error| error.to_lowercase().contains("version mismatch"));
        let differs =
            if self.needs_whole_version || is_refused { version != driver } else { branch(version) != branch(driver) };
        differs.then_some((version, driver))
    }
}

/// Tolerance for the start times of two processes.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// Minimum number of starts within two days at which a service counts as restarting repeatedly.
const MANY_STARTS: u32 = 4;

/// Returns when the running process of a service started. A process in a pod can choose any name, so the oldest process
/// counts.
fn started(node: &Node<'_>, service: &str) -> Option<Timestamp> {
    let own = node.host()?.services.iter().filter(|process| process.name == service);
    own.filter_map(|process| process.started_at).min()
}

/// Finds a Fabric Manager that started after programs that use the GPUs.
fn restarted(node: &Node<'_>) -> Option<Draft> {
    let at = started(node, FABRIC_MANAGER)?;
    let is_older = |process: &&GpuProcess| {
        let computes = process.uses.iter().any(|of| of.kind == "compute");
        computes && process.started_at.is_some_and(|start| at.duration_since(start) > TOLERANCE)
    };
    let older: Vec<&GpuProcess> = node.processes()?.processes.iter().filter(is_older).collect();
    let first = older.iter().min_by_key(|process| process.started_at)?;
    let line = format!(
        "Fabric Manager started {}; {} started before it, the first one {}: {}",
        evidence::time(at),
        evidence::count(older.len(), "program"),
        first.started_at.map(evidence::time).unwrap_or_default(),
        evidence::process(first)
    );
    let fabrics = node.topology().into_iter().flat_map(|topology| &topology.gpus).filter_map(|gpu| gpu.fabric.as_ref());
    let waiting = fabrics.filter(|fabric| fabric.state != "completed").count();
    let draft = Draft::on_node(RESTARTED).with_evidence(line);
    Some(match waiting {
        0 => draft.with_severity(Severity::Info),
        _ => draft.with_evidence(format!("{} not registered with the fabric", evidence::count(waiting, "GPU"))),
    })
}

/// Finds many starts in the log of a service. After a recent boot, some of them may belong to earlier boots. The finding
/// about a service that does not run has these lines.
fn often(node: &Node<'_>, service: &Service) -> Option<Draft> {
    let log = service.log(node).filter(|log| log.starts >= MANY_STARTS && service.is_running(node) != Some(false))?;
    let recent = node.age(log.written_at).is_some_and(|age| age < SignedDuration::from_hours(24));
    let one_boot = node.host()?.uptime_seconds.is_some_and(|uptime| uptime > 48 * 3600);
    let severity = if one_boot { Severity::Warning } else { Severity::Info };
    let line = format!("/var/log/{}.log: {} starts within two days", service.log, log.starts);
    let draft = || Draft::on_node(service.often).with_severity(severity).with_evidence(line);
    recent.then(|| draft().with_all_evidence(error_of(log)))
}

/// Returns the last error that Fabric Manager logged since its last start, if it logged one in this boot.
pub(super) fn last_error(node: &Node<'_>) -> Option<String> {
    let log = Service::of(FABRIC_MANAGER)?.log_of_this_boot(node)?;
    error_of(log).map(|error| format!("Fabric Manager logged: {error}"))
}

/// Returns a finding about an error that a running service logged since its last start, within a day. If GPUs are not
/// registered, the finding about them has this line.
fn logged_error(node: &Node<'_>, service: &Service) -> Option<Draft> {
    let log = service.log_of_this_boot(node).filter(|log| node.age(log.written_at).is_some_and(|age| age < ONE_DAY))?;
    let fabrics = node.topology().into_iter().flat_map(|topology| &topology.gpus).filter_map(|gpu| gpu.fabric.as_ref());
    let is_waiting = fabrics.into_iter().any(|fabric| fabric.state == "in_progress");
    let is_used = service.log.starts_with("fabric") && is_waiting || log.starts >= MANY_STARTS;
    let error = error_of(log).filter(|_| service.is_running(node) == Some(true) && !is_used)?;
    let written = evidence::ago(node.now, log.written_at).map(|ago| format!(", {ago}")).unwrap_or_default();
    Some(Draft::on_node(LOGGED).with_evidence(format!("/var/log/{}.log{written}: {error}", service.log)))
}

const ONE_DAY: SignedDuration = SignedDuration::from_hours(24);

fn error_of(log: &ServiceLog) -> Option<String> {
    log.last_error.as_deref().map(evidence::reason)
}

/// Finds a service whose log names another version than the driver. The log must be newer than the running process,
/// because an older log may remain from an earlier installation.
fn version(node: &Node<'_>, service: &Service) -> Option<Draft> {
    let log = service.log(node)?;
    let (version, driver) = service.other_version(node, log)?;
    let is_running = service.is_running(node) == Some(true);
    let started = started(node, service.process).or(if is_running { node.booted() } else { None })?;
    let is_of_process = log.written_at?.duration_since(started) > -TOLERANCE;
    is_of_process.then(|| {
        let (version, driver) = (evidence::data(version), evidence::data(driver));
        let line = format!("{} {version}, driver {driver} (/var/log/{}.log)", service.name, service.log);
        Draft::on_node(VERSION).with_evidence(line).with_all_evidence(error_of(log))
    })
}

/// Finds the IMEX service of the node in addition to the DRA driver, which starts IMEX in pods.
fn two_imex(node: &Node<'_>) -> Option<Draft> {
    let host = node.host()?;
    let service = host.services.iter().find(|process| process.name == IMEX && process.pod_uid.is_none())?;
    let line = format!("pid {} nvidia-imex is in no pod", service.pid);
    let in_pod = |process: &&StackProcess| {
        process.pod_uid.is_some() && [IMEX, "compute-domain-daemon"].contains(&process.name.as_str())
    };
    if let Some(second) = host.services.iter().find(in_pod) {
        let uid = second.pod_uid.as_deref().unwrap_or_default();
        let pod = node.pod_name(uid).unwrap_or_else(|| format!("pod {uid}"));
        let other = format!("pid {} {} is in {}", second.pid, evidence::data(&second.name), evidence::data(&pod));
        return Some(Draft::on_node(TWO_IMEX).with_evidence(line).with_evidence(other));
    }
    let plugin = host.nvidia_stack.as_ref()?.processes.iter().find(|process| process.name == "compute-domain-")?;
    let plugin = format!("pid {} is the plugin for ComputeDomains of the DRA driver", plugin.pid);
    let advice = "If pods of {node} use ComputeDomains, stop and disable the service there (systemctl disable --now nvidia-imex).";
    let draft = Draft::on_node(TWO_IMEX).with_severity(Severity::Info).with_evidence(line).with_evidence(plugin);
    Some(draft.with_action(ActionCode::Watch, advice))
}

/// Returns a finding if GPUs belong to a fabric of several nodes, but the IMEX daemon, which exports memory to these
/// nodes, is not running.
fn imex(node: &Node<'_>) -> Option<Draft> {
    let cliques = node.topology()?.gpus.iter().filter_map(|gpu| gpu.fabric.as_ref());
    let of_rack = cliques.filter(|fabric| fabric.cluster_uuid.is_some() && fabric.state == "completed").count();
    let line = format!("{} in the fabric of a cluster; nvidia-imex is not running", evidence::count(of_rack, "GPU"));
    if of_rack == 0 || node.host()?.daemons.imex != Some(false) {
        return None;
    }
    let is_enabled = node.host()?.services_not_running.iter().any(|service| service.starts_with(IMEX));
    let log = Service::of(IMEX).and_then(|service| service.log_of_this_boot(node));
    let log = log.filter(|log| is_enabled || log.starts >= MANY_STARTS);
    let error = log.and_then(|log| log.last_error.as_deref());
    let draft = Draft::on_node(NO_IMEX).with_evidence(line).with_all_evidence(last_start(node, IMEX));
    Some(match error {
        None => draft.with_severity(Severity::Info),
        Some(error) => with_error(draft, FAILED_IMEX, error),
    })
}

/// Adds the reason and the repair of the last error of a service that does not run.
fn with_error(draft: Draft, intro: &str, error: &str) -> Draft {
    let reading = shapes::read(error);
    let lower = error.to_lowercase();
    let known = ERRORS.iter().find(|(words, _)| lower.contains(words)).map(|(_, repair)| *repair);
    let repair = known.or(reading.as_ref().map(|reading| reading.advice)).unwrap_or_default();
    let reason = reading.map_or_else(|| shapes::words_of(error), |reading| reading.quoted());
    let advice = format!("{intro} {repair}");
    Draft { reason: Some(reason), ..draft }.with_action(ActionCode::UpdateSoftware, advice.trim_end())
}

/// Action for an IMEX service that is enabled and ended with an error.
const FAILED_IMEX: &str = "Repair the error of nvidia-imex on {node}, and start nvidia-imex again. Until then, jobs cannot share GPU memory with other nodes of the \
     rack. If a ComputeDomain of the DRA driver starts IMEX, disable the service instead.";

/// Action for a Fabric Manager that ended with an error.
const FAILED_FABRIC_MANAGER: &str = "Repair the error of Fabric Manager on {node}, and start nvidia-fabricmanager again: a further start \
     alone fails with the same error.";

/// Words, in lower case, of errors of Fabric Manager, with the repair.
const ERRORS: [(&str, &str); 2] = [("configure all", SWITCHES_FAIL), ("umad", LOAD_UMAD)];

/// Action for a Fabric Manager that finds no management port of InfiniBand.
const LOAD_UMAD: &str = "Load the module ib_umad on {node} (modprobe ib_umad, and /etc/modules-load.d for the next boots): Fabric Manager \
     reaches the NVLink management ports of this board through its device files.";

/// Action for a Fabric Manager that cannot configure the fabric.
const SWITCHES_FAIL: &str = "Compare the NVSwitches and GPUs on the PCI bus with the board, and power-cycle {node} when it is drained. If the error \
     returns, the baseboard must be inspected.";

/// Returns a finding if Fabric Manager is required but not running. Boards with NVSwitches need it on the node, even if
/// the NVSwitches are not on the PCI bus (HGX B200). For racks (GB200), Fabric Manager runs elsewhere.
pub(super) fn fabric_manager(node: &Node<'_>) -> Option<Draft> {
    let (topology, host) = (node.topology()?, node.host()?);
    // Fabric Manager cannot run without the driver. The GPUs of virtual machines do not need it on their host.
    if node.driver.is_broken() || node.is_passed_through() {
        return None;
    }
    let on_board = boards::of_node(node).and_then(|board| board.switches_of(boards::count(node)));
    let has_switches = !topology.nvswitches.is_empty() || on_board.is_some();
    if !has_switches || host.daemons.fabric_manager != Some(false) || boards::host_serves_fabric(node) {
        return None;
    }
    let states: Vec<&str> = topology.gpus.iter().filter_map(|gpu| Some(gpu.fabric.as_ref()?.state.as_str())).collect();
    let registered = !states.is_empty() && states.iter().all(|state| *state == "completed");
    let switches = match topology.nvswitches.len() {
        0 => "the board has NVSwitches".to_owned(),
        switches => format!("{switches} NVSwitches on PCI"),
    };
    let draft = Draft::on_node(NO_FABRIC_MANAGER).with_evidence(format!("{switches}; nv-fabricmanager is not running"));
    let draft = draft.with_all_evidence(last_start(node, FABRIC_MANAGER));
    let service = Service::of(FABRIC_MANAGER)?;
    let log = service.log_of_this_boot(node).filter(|log| service.other_version(node, log).is_none());
    let other = service.log_of_this_boot(node).and_then(|log| service.other_version(node, log));
    let draft = match (log.and_then(|log| log.last_error.as_deref()), other) {
        (Some(error), _) => with_error(draft, FAILED_FABRIC_MANAGER, error),
        (None, Some((version, driver))) => of_other_version(draft, version, driver),
        (None, None) => draft,
    };
    let draft = with_modules(draft, node);
    Some(if registered {
        // Running work continues, but a GPU cannot be used after a reset.
        draft.with_severity(Severity::Warning).with_evidence("all GPUs are still registered with the fabric")
    } else {
        let waiting = states.iter().filter(|state| **state != "completed").count();
        draft.with_all_evidence(
            (waiting > 0).then(|| format!("{} not registered with the fabric", evidence::count(waiting, "GPU"))),
        )
    })
}

fn of_other_version(draft: Draft, version: &str, driver: &str) -> Draft {
    let (version, driver) = (evidence::data(version), evidence::data(driver));
    let advice = format!(
        "Install nvidia-fabricmanager {driver} on {{node}}, then start it: version {version} does not start with the driver {driver}."
    );
    let reason = Some(format!("its version {version} differs from the driver {driver}"));
    Draft { reason, ..draft }.with_action(ActionCode::UpdateSoftware, advice)
}

/// Action for a board whose NVSwitches cannot be managed because modules are not loaded.
const MODULES: &str = "Load mlx5_ib and ib_umad on {node} (modprobe), and let them load before the driver. Then restart Fabric Manager, which \
     manages the NVSwitches of this board through network cards. CUDA cannot start until then.";

/// Adds the missing modules, if the NVSwitches of the board are managed through network cards.
pub(super) fn with_modules(draft: Draft, node: &Node<'_>) -> Draft {
    let needed = ["mlx5_ib", "ib_umad"];
    let missing = node.host().into_iter().flat_map(|host| &host.rdma_modules_missing);
    let missing: Vec<&str> = missing.map(String::as_str).filter(|module| needed.contains(module)).collect();
    let by_cards = boards::of_node(node).and_then(|board| board.switches_of(boards::count(node))) == Some(0);
    if missing.is_empty() || !by_cards {
        return draft;
    }
    let reason = format!("Fabric Manager does not reach the NVSwitches: {} not loaded", missing.join(" and "));
    Draft { reason: Some(reason), ..draft }
        .with_evidence(format!("kernel modules not loaded: {}", missing.join(", ")))
        .with_action(ActionCode::UpdateSoftware, MODULES)
}

/// Returns the lines of a service's log about its last start, if the log was written in this boot.
fn last_start(node: &Node<'_>, process: &str) -> Vec<String> {
    let Some(service) = Service::of(process) else { return Vec::new() };
    let Some(log) = service.log_of_this_boot(node) else { return Vec::new() };
    let other = service.other_version(node, log).map(|(version, driver)| {
        format!("its last start was version {}, the driver is {}", evidence::data(version), evidence::data(driver))
    });
    let starts = (log.starts >= MANY_STARTS).then(|| format!("{} starts within two days", log.starts));
    other.into_iter().chain(starts).chain(error_of(log)).collect()
}

#[cfg(test)]
mod tests {
    use syringe_core::facts::host::{DriverVersions, Host};
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::facts::processes::{GpuUse, Processes};
    use syringe_core::facts::topology::{Fabric, GpuTopology, Topology};
    use syringe_core::report::{Report, Section};

    use super::*;

    const BOOT: i64 = 1_795_000_000;

    fn at(hours: i64) -> Option<Timestamp> {
        Timestamp::from_second(BOOT + hours * 3600).ok()
    }

    fn service(name: &str, pod: Option<&str>, hours: i64) -> StackProcess {
        StackProcess { name: name.to_owned(), pid: 900, pod_uid: pod.map(str::to_owned), started_at: at(hours) }
    }

    /// Returns the findings on a node with these services and logs. It booted 100 hours ago, and a program has been
    /// running since hour 10.
    fn found(services: Vec<StackProcess>, logs: Vec<ServiceLog>, state: &str) -> Vec<(&'static str, Severity)> {
        let mut report = Report { taken_at: at(100), ..Report::default() };
        let driver = DriverVersions { loaded: Some("570.124.06".into()), ..DriverVersions::default() };
        let host = Host { uptime_seconds: Some(360_000), driver, services, service_logs: logs, ..Host::default() };
        report.sections.host = Some(Section::read(host, Vec::new()));
        let program = GpuProcess {
            pid: 7,
            started_at: at(10),
            uses: vec![GpuUse { kind: "compute".into(), ..GpuUse::default() }],
            ..GpuProcess::default()
        };
        let monitor = GpuProcess { pid: 8, started_at: at(1), ..GpuProcess::default() };
        let processes = Processes { processes: vec![monitor, program], ..Processes::default() };
        report.sections.processes = Some(Section::read(processes, Vec::new()));
        let fabric = Some(Fabric { state: state.to_owned(), ..Fabric::default() });
        let topology = Topology { gpus: vec![GpuTopology { fabric, ..GpuTopology::default() }], ..Topology::default() };
        report.sections.topology = Some(Section::read(topology, Vec::new()));
        let facts = KubernetesFacts::default();
        check(&Node::new(&report, &facts)).iter().map(|draft| (draft.rule.id, draft.severity)).collect()
    }

    #[test]
    fn a_fabric_manager_that_is_younger_than_a_program_was_restarted() {
        let running = |hours| vec![service(FABRIC_MANAGER, None, hours)];
        assert_eq!(found(running(0), Vec::new(), "completed"), []);
        assert_eq!(found(running(5), Vec::new(), "completed"), [], "only a monitor is older");
        let id = "fabric-manager-restarted-under-jobs";
        assert_eq!(found(running(20), Vec::new(), "completed"), [(id, Severity::Info)]);
        assert_eq!(found(running(20), Vec::new(), "in_progress"), [(id, Severity::Warning)]);
        let of_a_pod = vec![service(FABRIC_MANAGER, None, 0), service(FABRIC_MANAGER, Some("u"), 20)];
        assert_eq!(found(of_a_pod, Vec::new(), "completed"), [], "a pod chose that name");
    }

    #[test]
    fn the_log_of_an_earlier_installation_says_nothing_about_the_running_service() {
        let log = |version: &str, starts, written| ServiceLog {
            service: "fabricmanager".into(),
            version: Some(version.to_owned()),
            starts,
            written_at: at(written),
            last_error: None,
        };
        let running = || vec![service(FABRIC_MANAGER, None, 1)];
        assert_eq!(found(running(), vec![log("570.124.06", 1, 1)], "completed"), []);
        assert_eq!(found(running(), vec![log("570.86.15", 1, 0)], "completed"), []);
        assert_eq!(
            found(running(), vec![log("570.86.15", 1, 1)], "completed"),
            [("service-version-differs", Severity::Warning)]
        );
        assert_eq!(
            found(running(), vec![log("570.124.06", 5, 99)], "completed"),
            [("fabric-manager-restarts-often", Severity::Warning)]
        );
        assert_eq!(found(running(), vec![log("570.124.06", 5, 20)], "completed"), [], "days ago");
        assert_eq!(
            found(Vec::new(), vec![ServiceLog { service: IMEX.into(), ..log("570.124.06", 9, 99) }], "completed"),
            [("imex-restarts-often", Severity::Warning)]
        );
        let imex = |version: &str| ServiceLog { service: IMEX.into(), ..log(version, 1, 2) };
        let service = || vec![service(IMEX, None, 1)];
        assert_eq!(found(service(), vec![imex("570.133.20")], "completed"), [], "the same branch");
        assert_eq!(
            found(service(), vec![imex("580.10")], "completed"),
            [("service-version-differs", Severity::Warning)]
        );
    }

    #[test]
    fn the_log_of_each_service_says_why_it_stopped() {
        let mut report = Report { taken_at: at(100), ..Report::default() };
        let logs = SERVICES.iter().map(|service| ServiceLog {
            service: service.log.to_owned(),
            written_at: at(99),
            last_error: Some("[ERROR] address already in use".to_owned()),
            version: Some("580.10".to_owned()),
            ..ServiceLog::default()
        });
        let driver = DriverVersions { loaded: Some("570.124.06".into()), ..DriverVersions::default() };
        let host = Host { uptime_seconds: Some(360_000), driver, service_logs: logs.collect(), ..Host::default() };
        report.sections.host = Some(Section::read(host, Vec::new()));
        let facts = KubernetesFacts::default();
        for service in &SERVICES {
            let lines = last_start(&Node::new(&report, &facts), service.process).join("; ");
            assert!(lines.contains("address already") && lines.contains("version 580.10"), "{}: {lines}", service.log);
        }
        report.sections.host.as_mut().and_then(|host| host.data.as_mut()).expect("a host").uptime_seconds = Some(60);
        let node = Node::new(&report, &facts);
        assert!(SERVICES.iter().all(|service| last_start(&node, service.process).is_empty()), "of an earlier boot");
    }

    #[test]
    fn one_imex_alone_is_no_conflict() {
        let id = "imex-service-beside-compute-domain";
        assert_eq!(found(vec![service(IMEX, None, 1)], Vec::new(), "completed"), []);
        assert_eq!(
            found(
                vec![service(IMEX, Some("u"), 1), service("compute-domain-daemon", Some("u"), 1)],
                Vec::new(),
                "completed"
            ),
            []
        );
        for other in [IMEX, "compute-domain-daemon"] {
            let both = vec![service(IMEX, None, 1), service(other, Some("u"), 1)];
            assert_eq!(found(both, Vec::new(), "completed"), [(id, Severity::Warning)]);
        }
    }
}
