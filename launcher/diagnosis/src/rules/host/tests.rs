//! Tests of the rules about the host (file systems, arrays, limits, pressure, CPUs, sockets, clock, kernel taint,
//! services). Each fault is tested together with a similar healthy node.

use std::collections::BTreeMap;

use syringe_core::classification::Severity;
use syringe_core::facts::host::Host;
use syringe_core::facts::host_levels::{
    Clock, Cpus, DegradedArray, FileSystem, HostLevels, Level, Limits, Pressure, Socket,
};
use syringe_core::facts::inventory::{GpuInventory, Inventory};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind, KernelLog};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::{Extent, Report, ReportScope, Section};

use super::{levels, parts};
use crate::input::node::Node;
use crate::rule::Draft;

const GIB: u64 = 1 << 30;

/// Returns the report of a physical machine with these levels.
fn report(levels: HostLevels) -> Report {
    let mut report = Report::default();
    let host = Host { uptime_seconds: Some(90_000), levels: Some(levels), ..Host::default() };
    report.sections.host = Some(Section::read(host, Vec::new()));
    let gpu = GpuInventory { virtualization_mode: Some("none".into()), ..GpuInventory::default() };
    report.sections.inventory = Some(Section::read(Inventory { gpus: vec![gpu], ..Inventory::default() }, Vec::new()));
    report
}

fn drafts(report: &Report) -> Vec<Draft> {
    let facts = KubernetesFacts::default();
    let node = Node::new(report, &facts);
    levels::check(&node).into_iter().chain(parts::check(&node)).collect()
}

fn found(report: &Report) -> Vec<(&'static str, Severity)> {
    drafts(report).iter().map(|draft| (draft.rule.id, draft.severity)).collect()
}

fn of(levels: HostLevels) -> Vec<(&'static str, Severity)> {
    found(&report(levels))
}

/// Returns the findings on a virtual machine with these levels.
fn of_virtual(levels: HostLevels) -> Vec<(&'static str, Severity)> {
    let mut report = report(levels);
    let gpus = report.sections.inventory.iter_mut().flat_map(|section| &mut section.data).flat_map(|all| &mut all.gpus);
    gpus.for_each(|gpu| gpu.virtualization_mode = Some("passthrough".into()));
    found(&report)
}

fn file_system(paths: &[&str], kind: &str, total: u64, available: u64) -> HostLevels {
    let file_system = FileSystem {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        kind: kind.to_owned(),
        total_bytes: total,
        available_bytes: available,
        ..FileSystem::default()
    };
    HostLevels { file_systems: vec![file_system], ..HostLevels::default() }
}

fn read_only(mut levels: HostLevels) -> HostLevels {
    levels.file_systems.iter_mut().for_each(|one| one.read_only = true);
    levels
}

fn inodes(mut levels: HostLevels, all: u64, free: u64) -> HostLevels {
    levels.file_systems.iter_mut().for_each(|one| (one.inodes, one.inodes_free) = (Some(all), Some(free)));
    levels
}

#[test]
fn a_full_file_system_is_judged_by_share_and_amount() {
    let root = |total, available| of(file_system(&["/", "/var/lib/kubelet"], "ext4", total, available));
    assert_eq!(root(500 * GIB, 200 << 20), [("host-file-system-full", Severity::Critical)]);
    assert_eq!(root(100 * GIB, 4 * GIB), [("host-file-system-full", Severity::Warning)]);
    assert_eq!(root(100 * GIB, 6 * GIB), []);
    assert_eq!(root(28_000 * GIB, 900 * GIB), [], "three percent of a large disk");
    assert_eq!(of(file_system(&["/tmp"], "tmpfs", 64 * GIB, 0)), [("host-file-system-full", Severity::Warning)]);
    let squashfs = read_only(file_system(&["/"], "squashfs", GIB, 0));
    assert_eq!(of(inodes(squashfs, 9000, 0)), [], "the image of an immutable system is always full");
    let disk = || file_system(&["/"], "ext4", 500 * GIB, 400 * GIB);
    assert_eq!(of(inodes(disk(), 32_000_000, 0)), [("host-file-system-full", Severity::Critical)]);
    assert_eq!(of(inodes(disk(), 1_000_000, 9_000)), [("host-file-system-full", Severity::Warning)]);
    assert_eq!(of(inodes(disk(), 32_000_000, 300_000)), []);
    assert_eq!(of(inodes(disk(), 0, 0)), [], "the file system does not count inodes");
}

#[test]
fn a_read_only_root_is_normal_and_a_read_only_kubelet_is_not() {
    let of_paths = |paths: &[&str]| of(read_only(file_system(paths, "ext4", GIB, GIB)));
    assert_eq!(of_paths(&["/"]), []);
    assert_eq!(of_paths(&["/", "/var/lib/kubelet"]), [("host-file-system-read-only", Severity::Critical)]);
    assert_eq!(of_paths(&["/var/lib/containerd"]), [("host-file-system-read-only", Severity::Critical)]);
    assert_eq!(of_paths(&["/var/log"]), [("host-file-system-read-only", Severity::Warning)]);
}

#[test]
fn the_files_of_a_container_are_not_those_of_the_node() {
    let mut report = report(file_system(&["/"], "overlay", 500 * GIB, 0));
    report.scope = Some(ReportScope { files: Extent::Container, ..ReportScope::default() });
    assert_eq!(found(&report), []);
}

#[test]
fn an_array_without_a_disk_is_named_until_it_is_rebuilt() {
    let array = |is_rebuilding| {
        let array =
            DegradedArray { name: "md0".into(), devices: 2, working: 1, is_rebuilding, ..DegradedArray::default() };
        of(HostLevels { degraded_arrays: vec![array], ..HostLevels::default() })
    };
    assert_eq!(array(false), [("raid-array-degraded", Severity::Warning)]);
    assert_eq!(array(true), [("raid-array-degraded", Severity::Info)]);
}

#[test]
fn limits_and_pressure_have_thresholds() {
    let threads = |used, limit| {
        let limits = Limits { threads: Some(Level { used, limit }), ..Limits::default() };
        of(HostLevels { limits: Some(limits), ..HostLevels::default() })
    };
    assert_eq!(threads(29_491, 32_768), []);
    assert_eq!(threads(29_500, 32_768), [("host-limit-near", Severity::Warning)]);
    assert_eq!(threads(5, 0), [], "no limit was read");
    let pressure = |memory_percent, io_percent| {
        of(HostLevels { pressure: Some(Pressure { memory_percent, io_percent }), ..HostLevels::default() })
    };
    assert_eq!(pressure(Some(35), None), [("host-under-pressure", Severity::Warning)]);
    assert_eq!(pressure(Some(5), Some(60)), [], "a data set is read");
    assert_eq!(pressure(None, Some(90)), [("host-under-pressure", Severity::Info)]);
}

fn cpus(present: u32, online: u32, smt: Option<&str>) -> HostLevels {
    let cpus = Cpus { present, online, smt: smt.map(str::to_owned), ..Cpus::default() };
    HostLevels { cpus: Some(cpus), ..HostLevels::default() }
}

#[test]
fn second_threads_of_cores_may_be_offline() {
    assert_eq!(of(cpus(128, 128, None)), []);
    assert_eq!(of(cpus(128, 64, Some("forceoff"))), []);
    assert_eq!(of(cpus(128, 64, Some("on"))), [], "an administrator turned the second threads off one by one");
    assert_eq!(
        of(cpus(144, 72, Some("notsupported"))),
        [("cpus-offline", Severity::Info)],
        "a socket of cores without threads"
    );
    assert_eq!(of(cpus(128, 126, Some("on"))), [("cpus-offline", Severity::Warning)]);
    assert_eq!(of(cpus(128, 62, Some("off"))), [("cpus-offline", Severity::Warning)]);
    assert_eq!(of(cpus(128, 32, Some("on"))), [("cpus-offline", Severity::Info)], "somebody chose that");
    assert_eq!(of_virtual(cpus(128, 126, Some("on"))), [("cpus-offline", Severity::Info)]);
}

#[test]
fn powersave_is_low_only_with_some_drivers() {
    let governor = |driver: &str, lowest, governors: &[(&str, u32)]| {
        let governors: BTreeMap<String, u32> =
            governors.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        let cpus = Cpus {
            present: 8,
            online: 8,
            smt: None,
            frequency_driver: Some(driver.to_owned()),
            governors,
            minimum_megahertz: Some(lowest),
            maximum_megahertz: Some(3700),
        };
        of(HostLevels { cpus: Some(cpus), ..HostLevels::default() })
    };
    let all = [("powersave", 32)];
    assert_eq!(governor("acpi-cpufreq", 1500, &all), [("cpu-frequency-held-low", Severity::Warning)]);
    assert_eq!(
        governor("acpi-cpufreq", 1500, &[("performance", 30), ("powersave", 2)]),
        [("cpu-frequency-held-low", Severity::Info)]
    );
    assert_eq!(governor("intel_pstate", 800, &all), []);
    assert_eq!(governor("amd-pstate-epp", 400, &all), []);
    assert_eq!(governor("cppc_cpufreq", 3700, &all), [], "the lowest frequency was raised to the highest");
    assert_eq!(governor("acpi-cpufreq", 1500, &[("schedutil", 32)]), []);
}

fn sockets(memory: [u64; 2], cpus: [u32; 2]) -> HostLevels {
    let socket =
        |number: u32| Socket { socket: number, cpus: cpus[number as usize], memory_bytes: memory[number as usize] };
    let cpus = Cpus { present: cpus.iter().sum(), online: cpus.iter().sum(), ..Cpus::default() };
    HostLevels { sockets: vec![socket(0), socket(1)], cpus: Some(cpus), ..HostLevels::default() }
}

#[test]
fn a_socket_without_a_module_is_told_from_memory_that_the_firmware_keeps() {
    let lost = || sockets([1007 * GIB, 943 * GIB], [64, 64]);
    assert_eq!(of(lost()), [("cpu-sockets-differ", Severity::Warning)]);
    assert_eq!(of(sockets([1003 * GIB, 1007 * GIB], [64, 64])), []);
    assert_eq!(of(sockets([62 * GIB, 58 * GIB], [8, 8])), [], "less than a module");
    assert_eq!(of_virtual(lost()), []);
    assert_eq!(of(sockets([503 * GIB, 503 * GIB], [62, 64])), [("cpu-sockets-differ", Severity::Warning)]);
    let mut without_threads = sockets([503 * GIB, 503 * GIB], [30, 32]);
    without_threads.cpus = Some(Cpus { present: 124, online: 62, smt: Some("off".into()), ..Cpus::default() });
    assert_eq!(of(without_threads), []);
}

#[test]
fn half_of_the_cpus_can_be_a_whole_socket() {
    let half = |numa_nodes: u32, smt: &str, sockets: Vec<Socket>| {
        let cpus = Cpus { present: 224, online: 112, smt: Some(smt.to_owned()), ..Cpus::default() };
        let mut report = report(HostLevels { cpus: Some(cpus), sockets, ..HostLevels::default() });
        let host = report.sections.host.as_mut().and_then(|host| host.data.as_mut()).expect("a host");
        host.numa_nodes = Some(numa_nodes);
        found(&report)
    };
    assert_eq!(half(2, "on", Vec::new()), [("cpus-offline", Severity::Warning)]);
    assert_eq!(half(2, "off", Vec::new()), [], "one socket with several NUMA nodes");
    assert_eq!(half(1, "on", Vec::new()), []);
    assert_eq!(half(2, "on", sockets([GIB, GIB], [56, 56]).sockets), [], "second threads of both sockets");
}

#[test]
fn the_clock_of_a_virtual_machine_may_be_kept_by_the_hypervisor() {
    let clock = |service: Option<&str>| {
        let clock = Clock { is_synchronized: Some(false), service: service.map(str::to_owned) };
        HostLevels { clock: Some(clock), ..HostLevels::default() }
    };
    assert_eq!(of(clock(Some("chronyd"))), [("clock-not-synchronized", Severity::Warning)]);
    assert_eq!(of(clock(None)), [("clock-not-synchronized", Severity::Warning)]);
    assert_eq!(of_virtual(clock(Some("chronyd"))), [("clock-not-synchronized", Severity::Info)]);
    assert_eq!(of_virtual(clock(None)), []);
    let mut booting = report(clock(Some("chronyd")));
    booting.sections.host.as_mut().and_then(|host| host.data.as_mut()).expect("a host").uptime_seconds = Some(300);
    assert_eq!(found(&booting), []);
    let right = Clock { is_synchronized: Some(true), service: None };
    assert_eq!(of(HostLevels { clock: Some(right), ..HostLevels::default() }), []);
}

#[test]
fn damage_of_the_kernel_is_named_if_its_lines_are_gone() {
    let tainted = |taint| HostLevels { kernel_taint: Some(taint), ..HostLevels::default() };
    // These bits are for proprietary, out-of-tree and unsigned modules, a warning, and a firmware workaround.
    assert_eq!(of(tainted(1 | 1 << 9 | 1 << 11 | 1 << 12 | 1 << 13)), []);
    assert_eq!(of(tainted(1 | 1 << 7)), [("kernel-tainted", Severity::Warning)]);
    assert_eq!(of(tainted(1 << 4)), [("kernel-tainted", Severity::Warning)]);
    let with_line = |kind, name: &str, taint| {
        let mut report = report(tainted(taint));
        let event = KernelEvent { kind, sub_code: Some(name.to_owned()), count: 1, ..KernelEvent::default() };
        report.sections.xid =
            Some(Section::read(KernelLog { events: vec![event], ..KernelLog::default() }, Vec::new()));
        found(&report)
    };
    assert_eq!(with_line(KernelEventKind::Host, "oops", 1 << 7), [], "the rule about the line judges it");
    assert_eq!(with_line(KernelEventKind::Mce, "exception", 1 << 4), []);
    assert_eq!(with_line(KernelEventKind::Host, "soft_lockup", 1 << 7), [("kernel-tainted", Severity::Warning)]);
}

#[test]
fn a_service_that_starts_with_the_node_and_has_no_process_is_information() {
    let with = |uptime: u64, services: &[&str]| {
        let mut report = report(HostLevels::default());
        let host = report.sections.host.as_mut().and_then(|section| section.data.as_mut()).expect("the host");
        host.uptime_seconds = Some(uptime);
        host.services_not_running = services.iter().map(|name| (*name).to_owned()).collect();
        host.levels = None;
        found(&report)
    };
    assert_eq!(with(90_000, &["nvidia-dcgm.service"]), [("node-service-not-running", Severity::Info)]);
    assert_eq!(with(300, &["nvidia-dcgm.service"]), [], "the node has just booted");
    assert_eq!(with(90_000, &[]), []);
}
