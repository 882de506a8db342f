//! Tests of the number of NVML calls, of the facts that are read with fewer calls, and of slow NVML calls.
//!
//! The number matters because each call may have to wait for a busy driver.

use std::collections::BTreeMap;

use syringe_core::facts::Availability;
use syringe_core::facts::topology::Topology;
use syringe_core::report::{Report, Sections, Status};

use crate::reading::{availability, calls, two_gpus, with};
use crate::{Bench, Run, data};

/// Returns the NVLink fields whose values are also returned by functions for single links.
fn link_fields() -> Vec<u32> {
    let ranges = [32..=37, 39..=44, 96..=107, 148..=159, 161..=162, 165..=166, 91..=91, 147..=147];
    ranges.into_iter().flatten().collect()
}

/// Returns the healthy H100 node with this number of GPUs, which are copies of the original eight.
fn gpus(count: u32) -> Bench {
    Bench::with("healthy-h100-8", |report| {
        let Sections { inventory, telemetry, topology, ecc, mig, processes, .. } = &mut report.sections;
        fn repeat<G: Clone>(gpus: &mut Vec<G>, count: u32, name: impl Fn(&mut G, u32)) {
            let of = |index: u32| gpus[index as usize % gpus.len()].clone();
            let mut all: Vec<G> = (0..count).map(of).collect();
            all.iter_mut().zip(0..).for_each(|(gpu, index)| name(gpu, index));
            *gpus = all;
        }
        let uuid = |index: u32| Some(format!("GPU-00000000-0000-4000-8000-{index:012x}"));
        let address = |index: u32| Some(syringe_core::pci::PciAddress::new(0, 0x10 + index, 0, 0));
        let name = |index| (index, uuid(index), address(index));
        repeat(&mut with(inventory).gpus, count, |gpu, index| {
            (gpu.index, gpu.uuid, gpu.pci_address) = name(index);
            gpu.minor_number = Some(index);
        });
        repeat(&mut with(telemetry).gpus, count, |gpu, index| (gpu.index, gpu.uuid, gpu.pci_address) = name(index));
        repeat(&mut with(ecc).gpus, count, |gpu, index| (gpu.index, gpu.uuid, gpu.pci_address) = name(index));
        repeat(&mut with(mig).gpus, count, |gpu, index| (gpu.index, gpu.uuid) = (index, uuid(index)));
        let topology: &mut Topology = with(topology);
        repeat(&mut topology.gpus, count, |gpu, index| (gpu.index, gpu.uuid, gpu.pci_address) = name(index));
        let cell = |row: u32, column: u32| if row == column { "X".to_owned() } else { "NV18".to_owned() };
        topology.matrix = (0..count).map(|row| (0..count).map(|column| cell(row, column)).collect()).collect();
        with(processes).processes.clear();
    })
}

#[test]
fn eight_gpus_are_read_with_less_than_half_of_the_calls_of_one_for_each_value() {
    let calls = calls(&gpus(8)).len();
    assert!(calls <= 1_120, "{calls} calls");
}

#[test]
fn sixty_four_gpus_are_read_with_a_bounded_number_of_calls() {
    // Three capabilities are read for 2,016 pairs, after all other values.
    let (pairs, others): (Vec<_>, Vec<_>) =
        calls(&gpus(64)).into_iter().partition(|call| call.starts_with("nvmlDeviceGetP2PStatus"));
    assert_eq!(pairs.len(), 3 * 64 * 63 / 2);
    assert!(others.len() <= 128 * 64, "{} calls", others.len());
}

#[test]
fn no_value_of_a_gpu_is_asked_for_twice() {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    calls(&gpus(8)).into_iter().for_each(|call| *times.entry(call).or_default() += 1);
    // These functions have arguments: a link, another GPU, a clock, a counter.
    let with_arguments = ["NvLink", "P2P", "Clock", "Ecc", "MemoryError", "Violation", "Threshold", "Inforom", "Field"];
    let plain = |call: &str| !with_arguments.iter().any(|word| call.contains(word)) && call.starts_with("nvmlDevice");
    let twice: Vec<_> = times.iter().filter(|(call, times)| plain(call) && **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn a_slow_nvml_costs_the_least_telling_values() {
    // All calls together take 12 s, but only 8 s are available.
    let bench = gpus(24);
    let Run { report, .. } = bench.run(&["all"], &[("FAKE_NVML_DELAY_US", "3000")]);
    let ecc = report.sections.ecc.as_ref().expect("the section");
    assert_eq!((ecc.status, ecc.data.as_ref().expect("data").gpus.len()), (Status::Ok, 24), "{:?}", ecc.problems);
    let topology = data(report.sections.topology.clone());
    let up = |gpu: &syringe_core::facts::topology::GpuTopology| {
        gpu.nvlinks.iter().filter(|group| group.active == Some(true)).map(|group| group.links.len()).sum::<usize>()
    };
    assert!(topology.gpus.iter().all(|gpu| up(gpu) == 18), "the links of all GPUs must be known");
    assert_eq!(topology.availability(23, "nvlinks.remote_pci_address"), Availability::Unread);
    let diagnosis = diagnosis::diagnose(&report, &Default::default());
    let hung: Vec<_> = diagnosis.findings.iter().filter(|finding| finding.id == "gpu-unresponsive").collect();
    assert!(hung.is_empty(), "a slow GPU must not be reported as hung: {hung:?}");
    assert_eq!(diagnosis.verdict, diagnosis::finding::Verdict::Unknown, "{}", diagnosis.summary);
}

#[test]
fn a_driver_without_the_fields_of_links_gives_the_same_facts() {
    for scenario in ["healthy-h100-8", "a100-mig-8", "gb200-4", "l40s-4-idle", "healthy-t4-1"] {
        let bench = Bench::of(scenario);
        let topology = |environment: &[(&str, &str)]| {
            let sections = bench.run(&["topology"], environment).report.sections;
            sections.topology.expect("the section").data.expect("data")
        };
        let whole = topology(&[]);
        // Code 3: not supported; 2: invalid argument, for an ID that is newer than the driver; 999: only the field fails.
        for code in [3, 2, 999] {
            let fail: Vec<String> = link_fields().iter().map(|id| format!("field {id}={code}")).collect();
            assert_eq!(topology(&[("FAKE_NVML_FAIL", &fail.join(","))]), whole, "{scenario}, code {code}");
        }
        for id in link_fields() {
            assert_eq!(topology(&[("FAKE_NVML_FAIL", &format!("field {id}=3"))]), whole, "{scenario} without {id}");
        }
    }
}

#[test]
fn what_the_product_determines_is_read_from_another_gpu_where_the_first_one_fails() {
    let bench = two_gpus();
    for (function, section, path) in [
        ("nvmlDeviceGetTemperatureThreshold", "telemetry", "temperature.slowdown_celsius"),
        ("nvmlDeviceGetMaxClockInfo", "telemetry", "clocks.max_sm_mhz"),
    ] {
        for code in [999, 4, 29] {
            let fail = format!("{function}:0={code}");
            let Run { report, .. } = bench.run(&[section], &[("FAKE_NVML_FAIL", &fail)]);
            assert_eq!(availability(&report, section, 0, path), Availability::Unread, "{fail}");
            assert_eq!(availability(&report, section, 1, path), Availability::Read, "{fail}");
        }
    }
}

#[test]
fn gpus_of_different_products_share_nothing() {
    type Change = fn(&mut Report);
    let vbios: Change = |report| with(&mut report.sections.inventory).gpus[1].vbios_version = Some("96.00.0".into());
    let name: Change = |report| with(&mut report.sections.inventory).gpus[1].name = Some("NVIDIA H200".into());
    for (what, change) in [("VBIOS", vbios), ("name", name)] {
        let bench = Bench::with("healthy-h100-8", |report| {
            change(report);
            with(&mut report.sections.telemetry).gpus[1].clocks.max_sm_mhz = Some(2_000);
        });
        let telemetry = data(bench.run(&["telemetry"], &[]).report.sections.telemetry);
        let clocks: Vec<_> = telemetry.gpus.iter().map(|gpu| gpu.clocks.max_sm_mhz).collect();
        assert_eq!((clocks[0], clocks[1], clocks[2]), (Some(1_980), Some(2_000), Some(1_980)), "{what}");
    }
}

/// Adds the driver's file about a GPU that is not initialized, because persistence mode is off and no process has the
/// GPU open.
fn with_uninitialized_gpu(bench: &Bench) {
    let folder = bench.directory.path().join("proc/driver/nvidia/gpus/0000:18:00.0");
    std::fs::create_dir_all(&folder).expect("a folder");
    let text = "GPU UUID: \t GPU-????????-????-????-????-????????????\nVideo BIOS: \t ??.??.??.??.??\n";
    std::fs::write(folder.join("information"), text).expect("a file");
}

#[test]
fn nvml_gets_more_time_where_the_driver_has_to_initialize_gpus() {
    let slow = [("FAKE_NVML_SLOW", "nvmlInit_v2=2500,nvmlInitWithFlags=2500")];
    let read = |bench: &Bench| {
        let Run { report, took, .. } = bench.run(&["all", "--timeout-ms", "2000"], &slow);
        (report.sections.inventory.expect("the section"), took)
    };
    let (inventory, took) = read(&two_gpus());
    assert_eq!((inventory.status, inventory.problems[0].code.as_str()), (Status::Error, "timeout"));
    assert!(took < std::time::Duration::from_millis(3_500), "{took:?}");
    let bench = two_gpus();
    with_uninitialized_gpu(&bench);
    let (inventory, _) = read(&bench);
    assert_eq!(inventory.status, Status::Ok, "{:?}", inventory.problems);
    assert_eq!(data(Some(inventory)).gpus.len(), 2);
}

#[test]
fn a_call_that_returns_after_all_costs_nothing() {
    let bench = two_gpus();
    let whole = bench.run(&["all"], &[]).report.sections;
    // These calls exceed the time limit of a single call, but not the time limit of the whole run.
    let slow = [("FAKE_NVML_SLOW", "nvmlDeviceGetTotalEccErrors:0=500,nvmlDeviceGetSerial:1=1300")];
    let late = bench.run(&["all"], &slow).report.sections;
    assert_eq!(data(late.ecc), data(whole.ecc));
    assert_eq!(data(late.inventory), data(whole.inventory));
    assert_eq!(data(late.topology), data(whole.topology));
    assert_eq!(data(late.telemetry), data(whole.telemetry));
}

/// NVML would open the GPUs, and the reset would fail.
#[test]
fn nvml_is_not_opened_while_a_reset_is_running() {
    use std::os::unix::fs::OpenOptionsExt;
    let bench = two_gpus();
    std::fs::create_dir_all(bench.directory.path().join("run")).expect("a folder");
    let path = bench.directory.path().join("run/gpu-syringe-reset.lock");
    let lock =
        std::fs::File::options().create(true).truncate(false).write(true).mode(0o600).open(path).expect("a file");
    lock.lock().expect("nobody has the lock");
    let sections = bench.run(&["all"], &[]).report.sections;
    let inventory = sections.inventory.expect("the section");
    assert_eq!((inventory.status, inventory.problems[0].code.as_str()), (Status::Error, "not_reached"));
    assert!(inventory.problems[0].why.contains("a GPU reset is running"), "{:?}", inventory.problems);
    assert!(sections.host.is_some() && sections.kubelet.is_some(), "the other sections are read");
    lock.unlock().expect("our lock");
    assert_eq!(bench.run(&["all"], &[]).report.sections.inventory.expect("the section").status, Status::Ok);
}
