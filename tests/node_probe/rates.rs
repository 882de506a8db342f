//! Tests of the second reading of counters: its conditions, its values in the report, and its duration.

use std::time::Duration;

use syringe_core::facts::rates::{LinkGrowth, Sample};
use syringe_core::facts::telemetry::{GpuTelemetry, Violation};
use syringe_core::report::{Report, Status};

use crate::reading::{calls, with};
use crate::{Bench, Run, data};

fn violation(policy: &str, duration_ms: u64) -> Violation {
    Violation { policy: policy.into(), duration_ms }
}

/// Returns the telemetry of GPU 2, and the time of the run.
fn telemetry(bench: &Bench, args: &[&str]) -> (GpuTelemetry, Duration) {
    let Run { report, took, .. } = bench.run(args, &[]);
    let section = report.sections.telemetry.expect("the section");
    assert_eq!(section.status, Status::Ok, "{:?}", section.problems);
    (data(Some(section)).gpus.swap_remove(2), took)
}

/// Returns a node whose GPU 2 has these counters.
fn counting(sample: Option<Sample>) -> Bench {
    Bench::with("healthy-h100-8", |report| {
        let gpu = &mut with(&mut report.sections.telemetry).gpus[2];
        (gpu.pcie.replays, gpu.sample) = (Some(5), sample);
        gpu.throttling.violations = vec![violation("thermal", 5000)];
        with(&mut report.sections.ecc).gpus[2].volatile.corrected = Some(3);
        let link = &mut with(&mut report.sections.topology).gpus[2].nvlinks[0];
        link.errors.insert("crc_flit".into(), 7);
    })
}

#[test]
fn counters_that_are_not_zero_are_read_again_within_about_a_second() {
    let links =
        |links: &[u32], counter: &str, added| LinkGrowth { links: links.into(), counter: counter.into(), added };
    // CRC errors of links above 11 have no field.
    let grown = Sample {
        window_ms: 950,
        pcie_replays: Some(4),
        corrected_memory_errors: Some(2),
        nvlink_errors: vec![links(&[3, 14], "crc_flit", 200), links(&[1], "replay", 6)],
        throttled: vec![violation("power", 100), violation("thermal", 400)],
    };
    let (gpu, took) = telemetry(&counting(Some(grown.clone())), &["all"]);
    let sample = gpu.sample.expect("a sample");
    assert!((900..2000).contains(&sample.window_ms), "{sample:?}");
    assert_eq!(Sample { window_ms: 950, ..sample }, grown);
    assert!(took < Duration::from_secs(4), "{took:?}");
    // The values in the report are those of the first reading.
    assert_eq!((gpu.pcie.replays, gpu.throttling.violations), (Some(5), vec![violation("thermal", 5000)]));

    let still = telemetry(&counting(None), &["all"]).0.sample.expect("a sample");
    let none = Sample { pcie_replays: Some(0), corrected_memory_errors: Some(0), ..Sample::default() };
    assert_eq!(Sample { window_ms: 0, ..still }, none);
}

#[test]
fn nothing_is_read_twice_on_a_healthy_node_or_if_the_caller_does_not_want_it() {
    let healthy = Bench::of("healthy-h100-8");
    let ecc = calls(&healthy).iter().filter(|call| call.starts_with("nvmlDeviceGetTotalEccErrors")).count();
    assert_eq!(ecc, 8 * 4, "two kinds of errors and two counters of eight GPUs");
    assert_eq!(telemetry(&healthy, &["telemetry"]).0.sample, None);
    assert_eq!(telemetry(&counting(None), &["telemetry", "--sample-seconds", "0"]).0.sample, None);
    let asked = telemetry(&healthy, &["telemetry", "--sample-seconds", "1"]).0.sample.expect("a sample");
    assert_eq!((asked.pcie_replays, asked.corrected_memory_errors), (Some(0), Some(0)));
    assert!((1000..2000).contains(&asked.window_ms), "{asked:?}");
}

#[test]
fn without_time_for_a_second_reading_the_first_one_is_complete() {
    let (gpu, took) = telemetry(&counting(None), &["all", "--timeout-ms", "1300"]);
    assert_eq!((gpu.sample, gpu.pcie.replays), (None, Some(5)));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn times_are_read_from_the_fields_of_the_branch() {
    let of_fields =
        [violation("software_thermal", 30), violation("hardware_thermal", 20), violation("power_brake", 10)];
    let of_function = violation("thermal", 40);
    for (branch, fields) in [("550.54", false), ("570.86", true), ("575.57", true), ("580.95", false), ("590.48", true)]
    {
        let bench = Bench::with("healthy-h100-8", |report: &mut Report| {
            with(&mut report.sections.inventory).driver_version = Some(format!("{branch}.14"));
            let violations = [std::slice::from_ref(&of_function), &of_fields[..]].concat();
            with(&mut report.sections.telemetry).gpus[2].throttling.violations = violations;
        });
        let read = telemetry(&bench, &["telemetry"]).0.throttling.violations;
        let expected = [std::slice::from_ref(&of_function), if fields { &of_fields[..] } else { &[] }].concat();
        assert_eq!(read, expected, "R{branch}");
    }
}

#[test]
fn bit_error_rates_and_pcie_errors_are_read_if_there_are_errors() {
    for branch in ["575.57", "580.95", "610.20"] {
        let bench = Bench::with("gb200-4", |report: &mut Report| {
            with(&mut report.sections.inventory).driver_version = Some(format!("{branch}.02"));
            let gpu = &mut with(&mut report.sections.topology).gpus[2];
            let mut poor = gpu.nvlinks[0].clone();
            let link = gpu.nvlinks[0].links.pop().expect("a link");
            let raw = (!branch.starts_with("610")).then(|| ("raw".to_owned(), 3e-4));
            let rates = [("effective".to_owned(), 1.5e-6), ("symbol".to_owned(), 2e-12)];
            (poor.links, poor.bit_error_rates) = (vec![link], rates.into_iter().chain(raw).collect());
            gpu.nvlinks.push(poor);
            let errors = [("lcrc", 3), ("naks_sent", 70_000), ("recoveries", 9)];
            with(&mut report.sections.telemetry).gpus[2].pcie.errors =
                errors.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        });
        let sections = bench.run(&["all"], &[]).report.sections;
        let (facts, read) = (data(bench.facts.sections.topology.clone()), data(sections.topology));
        assert_eq!(read.gpus[2].nvlinks, facts.gpus[2].nvlinks, "R{branch}");
        let (facts, read) = (data(bench.facts.sections.telemetry.clone()), data(sections.telemetry));
        assert_eq!(read.gpus[2].pcie.errors, facts.gpus[2].pcie.errors, "R{branch}");
    }
}

#[test]
fn the_fields_of_thirty_six_links_are_read_in_two_calls() {
    let bench = Bench::with("gb200-4", |report: &mut Report| {
        let gpu = &mut with(&mut report.sections.topology).gpus[2];
        gpu.nvlinks.truncate(1);
        gpu.nvlinks[0].links = (0..36).collect();
    });
    let all = calls(&bench);
    assert!(!all.iter().any(|call| call.starts_with("nvmlDeviceGetNvLinkState ")), "no state is read one by one");
    let read = data(bench.run(&["topology"], &[]).report.sections.topology);
    assert_eq!(read.gpus[2].nvlinks[0].links.len(), 36);
}

#[test]
fn every_counter_of_nvlink_5_is_read() {
    let bench = Bench::with("gb200-4", |report: &mut Report| {
        let group = &mut with(&mut report.sections.topology).gpus[2].nvlinks[0];
        let table = include_str!("../../node-probe/src/nvml/read/nvlink5_counters.tsv").lines();
        let names = table.filter_map(|row| row.split_once('\t')).map(|(_, name)| name.to_owned());
        group.errors = names.zip(1..).collect();
    });
    let read = data(bench.run(&["topology"], &[]).report.sections.topology);
    assert_eq!(read.gpus[2].nvlinks, data(bench.facts.sections.topology.clone()).gpus[2].nvlinks);
}
