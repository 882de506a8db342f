//! Tests that a missing or invalid value of NVML is not reported as zero, as unsupported or for another GPU, and that
//! values that only some drivers have are read: licenses, repairs, hidden GPUs, C2C links.
//! `two_gpus`, `calls`, `functions_called`: a small node, and the NVML calls of a run.

use std::collections::BTreeSet;

use syringe_core::facts::ecc::{RecoveryAction, RetiredPages};
use syringe_core::facts::host::PciGpu;
use syringe_core::facts::inventory::{LicensableFeature, VgpuLicense};
use syringe_core::facts::topology::C2cLinks;
use syringe_core::facts::{Availability, LostGpu, Unsupported};
use syringe_core::pci::PciAddress;
use syringe_core::report::{Problem, Report, Section, Sections, Source, Status};
use syringe_core::section_name::SectionName;

use crate::{Bench, Run, data};

/// Functions about the remote device of a link. They fail for working links on some drivers, so a failure is not a problem.
const NO_NEWS: [&str; 3] =
    ["nvmlDeviceGetNvLinkRemotePciInfo_v2", "nvmlDeviceGetNvLinkRemoteDeviceType", "nvmlDeviceGetNvLinkVersion"];

/// Returns the first two GPUs of the healthy H100 node, which are enough for every call.
pub(crate) fn two_gpus() -> Bench {
    Bench::with("healthy-h100-8", |report| {
        let Sections { inventory, telemetry, topology, ecc, mig, processes, .. } = &mut report.sections;
        inventory.as_mut().expect("it").data.as_mut().expect("data").gpus.truncate(2);
        telemetry.as_mut().expect("it").data.as_mut().expect("data").gpus.truncate(2);
        topology.as_mut().expect("it").data.as_mut().expect("data").gpus.truncate(2);
        ecc.as_mut().expect("it").data.as_mut().expect("data").gpus.truncate(2);
        mig.as_mut().expect("it").data.as_mut().expect("data").gpus.truncate(2);
        processes.as_mut().expect("it").data.as_mut().expect("data").processes.clear();
    })
}

pub(crate) fn with<T>(section: &mut Option<Section<T>>) -> &mut T {
    section.as_mut().and_then(|section| section.data.as_mut()).expect("the section has data")
}

fn problems_of(report: &Report, gpu: u32) -> Vec<&Problem> {
    report.sections.problems().into_iter().map(|(_, problem)| problem).filter(|one| one.gpu == Some(gpu)).collect()
}

/// Returns the calls of a run, in order: `nvmlDeviceGetSerial 3`.
pub(crate) fn calls(bench: &Bench) -> Vec<String> {
    let path = bench.directory.path().join("calls");
    bench.run(&["all"], &[("FAKE_NVML_CALLS", path.to_str().expect("UTF-8"))]);
    std::fs::read_to_string(path).expect("calls").lines().map(str::to_owned).collect()
}

/// Returns the functions that the probe calls for GPU 1.
pub(crate) fn functions_called(bench: &Bench) -> BTreeSet<String> {
    calls(bench).iter().filter_map(|call| call.strip_suffix(" 1").map(str::to_owned)).collect()
}

fn unsupported_of(lists: &[Unsupported], gpu: u32) -> BTreeSet<&str> {
    let of_gpu = lists.iter().filter(|list| list.gpus.contains(&gpu));
    of_gpu.flat_map(|list| &list.fields).map(String::as_str).collect()
}

#[test]
fn every_failed_function_is_a_problem_with_function_and_gpu() {
    let bench = two_gpus();
    let functions = functions_called(&bench);
    assert!(functions.len() > 50, "{functions:?}");
    for function in functions.iter().filter(|function| !NO_NEWS.contains(&function.as_str())) {
        let Run { report, .. } = bench.run(&["all"], &[("FAKE_NVML_FAIL", &format!("{function}:1=999"))]);
        let names = |problem: &&Problem| problem.what.contains(function.as_str()) || problem.what == "GPU 1";
        let named = problems_of(&report, 1).into_iter().find(names);
        assert_eq!(named.map(|problem| problem.code.as_str()), Some("unknown"), "{function}");
        assert!(problems_of(&report, 0).is_empty(), "{function}");
    }
}

#[test]
fn every_failed_field_is_a_problem_without_a_value() {
    let bench = two_gpus();
    let fields = [
        (82, "telemetry", "temperature.memory_celsius"),
        (95, "telemetry", "pcie.replay_rollovers"),
        (164, "topology", "nvlinks.speed_megabytes_per_second"),
        (186, "telemetry", "power.instant_milliwatts"),
        (193, "telemetry", "temperature.tlimit_thresholds.shutdown_celsius"),
        (194, "telemetry", "temperature.tlimit_thresholds.slowdown_celsius"),
        (195, "telemetry", "temperature.tlimit_thresholds.memory_max_celsius"),
        (196, "telemetry", "temperature.tlimit_thresholds.gpu_max_celsius"),
        (230, "ecc", "recovery_action"),
    ];
    let all: Vec<String> = fields.iter().map(|(field, ..)| format!("field {field}:1=999")).collect();
    let Run { report, .. } = bench.run(&["all"], &[("FAKE_NVML_FAIL", &all.join(","))]);
    for (field, section, path) in fields {
        assert_eq!(availability(&report, section, 1, path), Availability::Unread, "{field}");
        assert_eq!(availability(&report, section, 0, path), Availability::Read, "{field}");
    }
    let temperature = &data(report.sections.telemetry).gpus[1].temperature;
    assert_eq!((temperature.memory_celsius, &temperature.tlimit_thresholds), (None, &None));
    assert_eq!(data(report.sections.ecc).gpus[1].recovery_action, None);
}

pub(crate) fn availability(report: &Report, section: &str, gpu: u32, path: &str) -> Availability {
    let Sections { telemetry, topology, ecc, .. } = &report.sections;
    match section {
        "telemetry" => Section::data_of(telemetry).expect("data").availability(gpu, path),
        "topology" => Section::data_of(topology).expect("data").availability(gpu, path),
        _ => Section::data_of(ecc).expect("data").availability(gpu, path),
    }
}

/// Tests error 999 and two other errors that are neither "not supported" nor "lost".
#[test]
fn counters_that_are_refused_are_not_zero() {
    let bench = two_gpus();
    for (function, section, path) in [
        ("nvmlDeviceGetMemoryErrorCounter", "ecc", "volatile.locations"),
        ("nvmlDeviceGetTotalEccErrors", "ecc", "aggregate.uncorrected"),
        ("nvmlDeviceGetRemappedRows", "ecc", "remapped_rows"),
        ("nvmlDeviceGetNvLinkErrorCounter", "topology", "nvlinks.errors"),
        ("nvmlDeviceGetViolationStatus", "telemetry", "throttling.violations"),
        ("nvmlDeviceGetCurrentClocksEventReasons", "telemetry", "throttling.reasons_mask"),
        ("nvmlDeviceGetTemperature", "telemetry", "temperature.gpu_celsius"),
    ] {
        let name: SectionName = section.parse().expect("a section");
        for code in [999, 4, 29] {
            let fail = format!("{function}:1={code}");
            let Run { report, .. } = bench.run(&[section], &[("FAKE_NVML_FAIL", &fail)]);
            assert_eq!(availability(&report, section, 1, path), Availability::Unread, "{fail}");
            assert_eq!(availability(&report, section, 0, path), Availability::Read, "{fail}");
            assert_eq!(report.sections.statuses(), [(name, Status::Partial)], "{fail}");
        }
        // A value that a GPU or driver does not support is not a failure.
        let Run { report, .. } = bench.run(&[section], &[("FAKE_NVML_FAIL", &format!("{function}=3"))]);
        assert_eq!(report.sections.statuses(), [(name, Status::Ok)], "{function}");
        assert_eq!(availability(&report, section, 1, path), Availability::Unsupported, "{function}");
    }
}

/// Tests that the two functions about retired pages do not hide each other.
#[test]
fn each_function_about_retired_pages_is_read_without_the_other() {
    const COUNTS: &str = "nvmlDeviceGetRetiredPages_v2";
    const PENDING: &str = "nvmlDeviceGetRetiredPagesPendingStatus";
    let bench = Bench::with("healthy-t4-1", |report| {
        let pages = RetiredPages { single_bit: Some(3), double_bit: Some(1), pending: Some(true) };
        with(&mut report.sections.ecc).gpus[0].retired_pages = Some(pages);
    });
    let counts = RetiredPages { single_bit: Some(3), double_bit: Some(1), pending: None };
    let pending = RetiredPages { pending: Some(true), ..RetiredPages::default() };
    for code in [3, 4, 13, 999] {
        let state = if [3, 13].contains(&code) { Availability::Unsupported } else { Availability::Unread };
        let refused = [(COUNTS, "double_bit", &pending), (PENDING, "pending", &counts)];
        for (function, path, left) in refused {
            let Run { report, .. } = bench.run(&["ecc"], &[("FAKE_NVML_FAIL", &format!("{function}={code}"))]);
            let told = availability(&report, "ecc", 0, &format!("retired_pages.{path}"));
            assert_eq!(told, state, "{function}={code}");
            assert_eq!(data(report.sections.ecc).gpus[0].retired_pages.as_ref(), Some(left), "{function}={code}");
        }
        let Run { report, .. } =
            bench.run(&["ecc"], &[("FAKE_NVML_FAIL", &format!("{COUNTS}={code},{PENDING}={code}"))]);
        assert_eq!(availability(&report, "ecc", 0, "retired_pages"), state, "{code}");
        assert_eq!(data(report.sections.ecc).gpus[0].retired_pages, None, "{code}");
    }
}

#[test]
fn an_unsupported_value_is_not_a_problem() {
    let bench = two_gpus();
    let opens = |function: &String| function.contains("GetHandle") || function.contains("ComputeRunning");
    let functions = functions_called(&bench).into_iter().filter(|function| !opens(function));
    let all: Vec<String> = functions.map(|function| format!("{function}:1=3")).collect();
    let Run { report, .. } = bench.run(&["all"], &[("FAKE_NVML_FAIL", &all.join(","))]);
    assert!(problems_of(&report, 1).is_empty(), "{:?}", problems_of(&report, 1));
    let lists = data(report.sections.ecc).unsupported;
    let lacking = unsupported_of(&lists, 1);
    for path in ["volatile.corrected", "remapped_rows", "retired_pages", "recovery_action", "inforom_valid"] {
        assert!(lacking.contains(path), "{path}: {lacking:?}");
    }
    assert!(!unsupported_of(&lists, 0).contains("remapped_rows"));
}

#[test]
fn impossible_values_are_dropped_and_reported() {
    let bench = Bench::with("healthy-h100-8", |report| {
        let telemetry = with(&mut report.sections.telemetry);
        telemetry.gpus[1].utilization.gpu_percent = Some(u32::MAX);
        telemetry.gpus[2].temperature.gpu_celsius = Some(-1_000);
        telemetry.gpus[2].temperature.tlimit_thresholds.as_mut().expect("limits").slowdown_celsius = Some(-1_000);
        telemetry.gpus[3].power.draw_milliwatts = Some(u32::MAX);
        telemetry.gpus[4].clocks.sm_mhz = Some(u32::MAX);
        telemetry.gpus[5].memory.used_bytes = Some(1 << 60);
        telemetry.gpus[6].throttling.reasons_mask = Some(u64::MAX);
        telemetry.gpus[7].pcie.width = Some(u32::MAX);
        let ecc = with(&mut report.sections.ecc);
        ecc.gpus[1].volatile.uncorrected = Some(u64::MAX);
        ecc.gpus[2].remapped_rows.as_mut().expect("rows").correctable = u32::MAX;
    });
    let Run { report, .. } = bench.run(&["all"], &[]);
    for (gpu, section, path) in [
        (1, "telemetry", "utilization.gpu_percent"),
        (2, "telemetry", "temperature.gpu_celsius"),
        (2, "telemetry", "temperature.tlimit_thresholds.slowdown_celsius"),
        (3, "telemetry", "power.draw_milliwatts"),
        (4, "telemetry", "clocks.sm_mhz"),
        (5, "telemetry", "memory.used_bytes"),
        (6, "telemetry", "throttling.reasons_mask"),
        (7, "telemetry", "pcie.width"),
        (1, "ecc", "volatile.uncorrected"),
        (2, "ecc", "remapped_rows"),
    ] {
        assert_eq!(availability(&report, section, gpu, path), Availability::Unread, "{path}");
        let problem = problems_of(&report, gpu).into_iter().find(|problem| problem.what.contains(path));
        assert_eq!(problem.map(|problem| problem.code.as_str()), Some("unreadable"), "{path}");
    }
    let telemetry = data(report.sections.telemetry);
    assert_eq!(telemetry.gpus[1].utilization.gpu_percent, None);
    assert!(telemetry.gpus[1].utilization.memory_percent.is_some(), "the value of the other function must be read");
    assert_eq!((telemetry.gpus[6].throttling.active, telemetry.gpus[7].pcie.width), (None, None));
    assert_eq!(data(report.sections.ecc).gpus[1].volatile.uncorrected, None);
}

#[test]
fn gpus_with_the_same_uuid_are_separate_and_reported() {
    let bench = Bench::with("healthy-h100-8", |report| {
        let Sections { inventory, telemetry, topology, ecc, mig, .. } = &mut report.sections;
        let shared = with(inventory).gpus[0].uuid.clone();
        with(inventory).gpus.iter_mut().for_each(|gpu| gpu.uuid.clone_from(&shared));
        with(telemetry).gpus.iter_mut().for_each(|gpu| gpu.uuid.clone_from(&shared));
        with(topology).gpus.iter_mut().for_each(|gpu| gpu.uuid.clone_from(&shared));
        with(ecc).gpus.iter_mut().for_each(|gpu| gpu.uuid.clone_from(&shared));
        with(mig).gpus.iter_mut().for_each(|gpu| gpu.uuid.clone_from(&shared));
    });
    let Run { report, .. } = bench.run(&["all"], &[]);
    for (section, problems) in [
        ("inventory", &report.sections.inventory.as_ref().expect("it").problems),
        ("telemetry", &report.sections.telemetry.as_ref().expect("it").problems),
        ("ecc", &report.sections.ecc.as_ref().expect("it").problems),
    ] {
        let [problem] = problems.as_slice() else { panic!("{section}: {problems:?}") };
        assert_eq!(
            (problem.code.as_str(), problem.what.as_str()),
            ("duplicate_uuid", "UUID of GPUs 0, 1, 2, 3, 4, 5, 6, 7")
        );
    }
    assert_eq!(data(report.sections.inventory).gpus.len(), 8);
}

#[test]
fn a_link_that_is_down_has_no_speed_though_its_siblings_have() {
    let bench = Bench::with("healthy-h100-8", |report| {
        let links = &mut with(&mut report.sections.topology).gpus[0].nvlinks;
        let number = links[0].links.pop().expect("a link");
        let down = syringe_core::facts::topology::NvlinkGroup {
            links: vec![number],
            active: Some(false),
            speed_megabytes_per_second: None,
            ..links[0].clone()
        };
        links.push(down);
    });
    let gpu = data(bench.run(&["topology"], &[]).report.sections.topology).gpus.remove(0);
    let down = gpu.nvlinks.iter().find(|group| group.active == Some(false)).expect("one is down");
    assert_eq!((down.links.len(), down.speed_megabytes_per_second), (1, None));
    let up = gpu.nvlinks.iter().filter(|group| group.active == Some(true));
    assert!(up.into_iter().all(|group| group.speed_megabytes_per_second.is_some()));
}

#[test]
fn the_cluster_uuid_is_reported_after_the_registration() {
    let cluster = |state: &str| {
        let bench = Bench::with("gb200-4", |report| {
            with(&mut report.sections.topology).gpus[0].fabric.as_mut().expect("a fabric").state = state.to_owned();
        });
        let gpu = data(bench.run(&["topology"], &[]).report.sections.topology).gpus.remove(0);
        gpu.fabric.expect("a fabric").cluster_uuid
    };
    assert!(cluster("completed").is_some());
    assert_eq!((cluster("in_progress"), cluster("not_started")), (None, None));
}

#[test]
fn tlimit_thresholds_are_read_if_there_are_no_thresholds_in_degrees() {
    let Run { report, .. } = Bench::of("gb200-4").run(&["telemetry"], &[]);
    let telemetry = data(report.sections.telemetry);
    let now = &telemetry.gpus[0].temperature;
    let limits = now.tlimit_thresholds.as_ref().expect("limits");
    assert_eq!((limits.shutdown_celsius, limits.slowdown_celsius), (Some(-8), Some(-2)));
    assert_eq!((limits.memory_max_celsius, limits.gpu_max_celsius), (Some(0), Some(0)));
    assert_eq!((now.slowdown_celsius, now.shutdown_celsius, now.gpu_max_celsius), (None, None, None));
    let margin = now.tlimit_margin_celsius.expect("a margin");
    assert_eq!(now.margin_to_slowdown_celsius, Some(margin + 2));
    assert_eq!(telemetry.availability(0, "temperature.slowdown_celsius"), Availability::Unsupported);
}

/// Adds the GPUs of the scenario to the PCI bus of the node, with the files of the driver and of the firmware.
fn with_bus(bench: &Bench) {
    let root = bench.directory.path();
    let host = Section::data_of(&bench.facts.sections.host).expect("the host");
    for (place, gpu) in host.pci_gpus.iter().enumerate() {
        let address = gpu.pci_address.as_ref().expect("an address").sysfs();
        let folder = root.join("sys/bus/pci/devices").join(address);
        std::fs::create_dir_all(&folder).expect("a folder");
        for (file, text) in [("vendor", "0x10de"), ("device", "0x2330"), ("class", "0x030200")] {
            std::fs::write(folder.join(file), text).expect("a file");
        }
        std::os::unix::fs::symlink("../../drivers/nvidia", folder.join("driver")).expect("a link");
        let about = root.join("proc/driver/nvidia/gpus").join(address);
        std::fs::create_dir_all(&about).expect("a folder");
        std::fs::write(about.join("information"), format!("Model: \t X\nGPU UUID: \t GPU-of-{place}\n"))
            .expect("a file");
        let slot = root.join(format!("sys/bus/pci/slots/{}", 20 + place));
        std::fs::create_dir_all(&slot).expect("a folder");
        std::fs::write(slot.join("address"), address.trim_end_matches(".0")).expect("a file");
    }
}

#[test]
fn a_lost_gpu_is_listed_with_the_facts_of_the_bus_and_the_driver() {
    let bench = Bench::of("xid79-off-bus");
    with_bus(&bench);
    let sections = bench.run(&["all"], &[]).report.sections;
    let lists = [
        data(sections.inventory).lost,
        data(sections.telemetry).lost,
        data(sections.topology).lost,
        data(sections.ecc).lost,
    ];
    for list in lists {
        let [LostGpu { index, pci_address, uuid, serial, slot, code }] = list.as_slice() else { panic!("{list:?}") };
        assert_eq!((*index, code.as_str()), (Some(3), "gpu_lost"));
        assert_eq!(pci_address.as_ref().map(|address| address.sysfs()), Some("0000:5d:00.0"));
        assert_eq!((uuid.as_deref(), slot.as_deref(), serial), (Some("GPU-of-3"), Some("23"), &None));
    }
}

#[test]
fn a_gpu_that_is_lost_during_the_read_keeps_the_values_read_before() {
    let fail = [("FAKE_NVML_FAIL", "nvmlDeviceGetEccMode:1=15,nvmlDeviceGetPowerUsage:1=15")];
    let Run { report, .. } = two_gpus().run(&["telemetry"], &fail);
    let telemetry = data(report.sections.telemetry);
    assert_eq!((telemetry.gpus.len(), telemetry.lost.len()), (2, 1));
    let lost = &telemetry.lost[0];
    assert!(lost.index == Some(1) && lost.uuid.is_some() && lost.pci_address.is_some(), "{lost:?}");
    assert!(telemetry.gpus[1].temperature.gpu_celsius.is_some(), "this value was read before the GPU was lost");
    assert_eq!(telemetry.availability(1, "throttling.violations"), Availability::Unread);
    assert_eq!(telemetry.availability(0, "throttling.violations"), Availability::Read);
}

#[test]
fn a_saved_kernel_log_is_not_of_the_machine_that_reads_it() {
    let bench = Bench::of("healthy-h100-8");
    let root = bench.directory.path();
    std::fs::create_dir_all(root.join("proc/sys/kernel")).expect("a folder");
    std::fs::write(root.join("proc/sys/kernel/hostname"), "my-laptop\n").expect("a file");
    let log = root.join("bug-report.log");
    std::fs::write(&log, "[ 3600.0] NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.\n")
        .expect("a file");
    let log = log.to_str().expect("UTF-8");
    let Run { report, .. } = bench.run(&["xid", "--kernel-log", log], &[]);
    assert_eq!((report.source, report.hostname, report.boot_id), (Source::File, None, None));
    let event = &data(report.sections.xid).events[0];
    assert_eq!(
        (event.code, event.gpu_index, event.gpu_uuid.as_deref()),
        (Some(79), None, None),
        "the GPU in the log is not of this machine"
    );
    let Run { report, .. } = bench.run(&["xid"], &[]);
    assert_eq!((report.source, report.hostname.as_deref()), (Source::Hardware, Some("my-laptop")));
}

#[test]
fn the_license_of_a_vgpu_is_read_and_an_old_driver_does_not_offer_it() {
    let feature = |name: &str, enabled, licensed| LicensableFeature {
        name: name.into(),
        product: Some("NVIDIA RTX Virtual Workstation".into()),
        enabled,
        licensed,
        info: Some("Unlicensed (Unrestricted)".into()),
    };
    let license = VgpuLicense { features: vec![feature("rtx", true, false), feature("compute", false, false)] };
    let bench = Bench::with("healthy-t4-1", |report| {
        let gpu = &mut with(&mut report.sections.inventory).gpus[0];
        gpu.virtualization_mode = Some("vgpu".into());
        gpu.vgpu_license = Some(license.clone());
    });
    let read = data(bench.run(&["inventory"], &[]).report.sections.inventory);
    assert_eq!(read.gpus[0].vgpu_license, Some(license));
    let hidden = [("FAKE_NVML_HIDE", "nvmlDeviceGetGridLicensableFeatures_v4")];
    let read = data(bench.run(&["inventory"], &hidden).report.sections.inventory);
    assert_eq!(read.gpus[0].vgpu_license, None);
    assert!(unsupported_of(&read.unsupported, 0).contains("vgpu_license"), "{:?}", read.unsupported);
}

#[test]
fn before_the_recovery_action_two_fields_say_whether_to_reset() {
    use RecoveryAction::{DrainAndReset, GpuReset, None as NoAction};
    for (branch, has_fields) in [("535.54", false), ("550.54", true), ("565.57", true), ("570.86", false)] {
        for action in [NoAction, GpuReset, DrainAndReset] {
            let bench = Bench::with("healthy-h100-8", |report| {
                with(&mut report.sections.inventory).driver_version = Some(format!("{branch}.14"));
                with(&mut report.sections.ecc).gpus[2].recovery_action = Some(action);
            });
            let ecc = data(bench.run(&["ecc"], &[("FAKE_NVML_FAIL", "field 230=3")]).report.sections.ecc);
            assert_eq!(ecc.gpus[2].recovery_action, has_fields.then_some(action), "R{branch}");
        }
    }
}

#[test]
fn unrepairable_memory_is_read_in_both_layouts_and_from_a_driver_without_the_function() {
    let bench = Bench::with("healthy-h100-8", |report| {
        with(&mut report.sections.inventory).driver_version = Some("590.48.01".into());
        for gpu in &mut with(&mut report.sections.ecc).gpus {
            gpu.unrepairable_memory = Some(gpu.index == 2);
        }
    });
    let read = |settings: &[(&str, &str)]| {
        let ecc = data(bench.run(&["ecc"], settings).report.sections.ecc);
        [0, 2].map(|gpu: usize| ecc.gpus[gpu].unrepairable_memory)
    };
    assert_eq!(read(&[]), [Some(false), Some(true)]);
    assert_eq!(read(&[("FAKE_NVML_VERSIONED_FLAG", "1")]), [Some(false), Some(true)]);
    assert_eq!(read(&[("FAKE_NVML_FAIL", "nvmlDeviceGetUnrepairableMemoryFlag_v1:2=25")]), [Some(false), None]);
    assert_eq!(read(&[("FAKE_NVML_HIDE", "nvmlDeviceGetUnrepairableMemoryFlag_v1")]), [None; 2]);
}

#[test]
fn inactive_remaps_are_read_from_the_branch_that_has_the_fields() {
    for (branch, counts) in [("580.95", None), ("595.45", Some(3))] {
        let bench = Bench::with("healthy-h100-8", |report| {
            with(&mut report.sections.inventory).driver_version = Some(format!("{branch}.04"));
            let rows = with(&mut report.sections.ecc).gpus[2].remapped_rows.as_mut().expect("row remapping");
            (rows.correctable_inactive, rows.uncorrectable_inactive) = (Some(3), Some(3));
        });
        let rows = data(bench.run(&["ecc"], &[]).report.sections.ecc).gpus.swap_remove(2).remapped_rows.expect("rows");
        assert_eq!((rows.correctable_inactive, rows.uncorrectable_inactive), (counts, counts), "R{branch}");
    }
}

#[test]
fn a_gpu_that_is_excluded_or_draining_is_named_and_an_old_library_names_none() {
    let address = PciAddress::parse("00000000:ee:00.0").expect("an address");
    let bench = Bench::with("l40s-4-idle", |report| {
        let gpus = &mut with(&mut report.sections.host).pci_gpus;
        gpus.push(PciGpu { pci_address: Some(address.clone()), ..gpus[0].clone() });
        let inventory = with(&mut report.sections.inventory);
        (inventory.excluded, inventory.draining) = (vec![address.clone()], vec![address.clone()]);
    });
    let read = |hidden: &str| {
        let inventory = data(bench.run(&["inventory"], &[("FAKE_NVML_HIDE", hidden)]).report.sections.inventory);
        (inventory.excluded, inventory.draining)
    };
    let named = vec![address.clone()];
    assert_eq!(read(""), (named.clone(), vec![]), "only a GPU that is on the bus can be in the drain state");
    with_bus(&bench);
    assert_eq!(read(""), (named.clone(), named.clone()));
    assert_eq!(read("nvmlDeviceQueryDrainState"), (named.clone(), vec![]));
    assert_eq!(read("nvmlGetExcludedDeviceCount"), (vec![], named));
}

#[test]
fn c2c_links_and_links_without_traffic_are_read() {
    let bench = Bench::with("gb200-4", |report| {
        let gpus = &mut with(&mut report.sections.topology).gpus;
        let errors = [("crc", 1), ("replay", 12), ("replay_back_to_back", 4_000_000_000)];
        let errors = errors.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let links = C2cLinks { count: 10, down: vec![3, 7], megabytes_per_second: Some(44_712), errors };
        gpus[1].c2c = Some(links);
        let mut quiet = gpus[2].nvlinks[0].clone();
        quiet.links = vec![gpus[2].nvlinks[0].links.pop().expect("a link")];
        quiet.traffic_disabled = true;
        gpus[2].nvlinks.push(quiet);
    });
    let given = data(bench.facts.sections.topology.clone()).gpus;
    let read = data(bench.run(&["topology"], &[]).report.sections.topology).gpus;
    assert_eq!((&read[0].c2c, &read[1].c2c), (&None, &given[1].c2c));
    assert_eq!(read[2].nvlinks, given[2].nvlinks);
    // R570 has the links, but no fields for their errors.
    let failing = "field 231=3,field 232=2,field 233=3";
    let read = data(bench.run(&["topology"], &[("FAKE_NVML_FAIL", failing)]).report.sections.topology);
    let without = given[1].c2c.clone().map(|links| C2cLinks { errors: Default::default(), ..links });
    assert_eq!((&read.gpus[1].c2c, read.unread.len()), (&without, 0));
    // An old driver has no C2C fields.
    let read = data(bench.run(&["topology"], &[("FAKE_NVML_FAIL", "field 170=2")]).report.sections.topology);
    assert_eq!((&read.gpus[1].c2c, read.unread.len()), (&None, 0));
}
