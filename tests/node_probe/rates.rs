//! Tests of the second reading of counters, and of the activity of a GPU: their conditions, their values in the report,
//! and their duration.

use std::time::Duration;

use syringe_core::facts::Unsupported;
use syringe_core::facts::rates::{Activity, LinkGrowth, Sample};
use syringe_core::facts::telemetry::{GpuTelemetry, Telemetry, Violation};
use syringe_core::facts::topology::C2cLinks;
use syringe_core::report::{Report, Section, Status};

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
        ..Sample::default()
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
fn errors_of_c2c_links_are_read_again() {
    let bench = |new, errors: &[(&str, u64)]| {
        Bench::with("gb200-4", |report: &mut Report| {
            let errors = errors.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            let links = C2cLinks { count: 10, megabytes_per_second: Some(44_712), errors, ..C2cLinks::default() };
            with(&mut report.sections.topology).gpus[2].c2c = Some(links);
            let sample = Sample { window_ms: 900, c2c_errors: Some(new), ..Sample::default() };
            with(&mut report.sections.telemetry).gpus[2].sample = Some(sample);
        })
    };
    for new in [0, 5] {
        let sample = telemetry(&bench(new, &[("replay", 3)]), &["all"]).0.sample.expect("a sample");
        assert_eq!(sample.c2c_errors, Some(new));
    }
    assert_eq!(telemetry(&bench(5, &[]), &["all"]).0.sample, None, "no counter shows an error");
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

/// Returns a node whose GPU 2 supports the reading of the activity.
fn busy() -> (Bench, Activity) {
    let activity = Activity {
        sm_percent: Some(93.4),
        tensor_percent: Some(41.2),
        memory_bandwidth_percent: Some(0.0),
        pcie_sent_mebibytes_per_second: Some(812.5),
        pcie_received_mebibytes_per_second: Some(1290.0),
        nvlink_sent_mebibytes_per_second: Some(181_220.1),
        nvlink_received_mebibytes_per_second: None,
    };
    let sample = Sample { window_ms: 900, activity: Some(Box::new(activity.clone())), ..Sample::default() };
    (counting(Some(sample)), activity)
}

/// Reads the telemetry twice. Returns the section, and the calls about the activity.
fn sampled(bench: &Bench, args: &[&str], faults: &[(&str, &str)]) -> (Section<Telemetry>, Vec<String>) {
    let path = bench.directory.path().join("calls");
    let recorded = [("FAKE_NVML_CALLS", path.to_str().expect("UTF-8"))];
    let report = bench.run(args, &[faults, &recorded].concat()).report;
    let calls = std::fs::read_to_string(&path).expect("calls");
    std::fs::remove_file(&path).expect("calls");
    let calls = calls.lines().filter(|call| call.contains("Gpm")).map(str::to_owned).collect();
    (report.sections.telemetry.expect("the section"), calls)
}

#[test]
fn the_activity_is_read_if_the_caller_requests_a_window() {
    let (bench, activity) = busy();
    // The counters of this GPU are read twice in any case.
    for args in [&["all"][..], &["telemetry"], &["telemetry", "--sample-seconds", "0"]] {
        let (section, calls) = sampled(&bench, args, &[]);
        let read = data(Some(section)).gpus.swap_remove(2).sample;
        assert!(calls.is_empty() && read.is_none_or(|sample| sample.activity.is_none()), "{args:?}");
    }
    let (section, calls) = sampled(&bench, &["telemetry", "--sample-seconds", "1"], &[]);
    assert_eq!(section.status, Status::Ok);
    let read = data(Some(section));
    let activities: Vec<_> = read.gpus.iter().map(|gpu| gpu.sample.clone().expect("a sample").activity).collect();
    assert_eq!(activities[2].as_deref(), Some(&activity));
    assert_eq!(activities.iter().flatten().count(), 1);
    // GPUs before Hopper do not support this reading.
    let others = [0, 1, 3, 4, 5, 6, 7].to_vec();
    assert!(read.unsupported.contains(&Unsupported { gpus: others, fields: vec!["sample.activity".into()] }));
    let count = |function: &str| calls.iter().filter(|call| call.split(' ').next() == Some(function)).count();
    assert_eq!((count("nvmlGpmSampleAlloc"), count("nvmlGpmSampleFree")), (2, 2), "{calls:?}");
}

#[test]
fn an_activity_that_the_driver_refuses_is_not_a_problem_and_one_that_fails_is() {
    let (bench, _) = busy();
    let hidden = [("FAKE_NVML_HIDE", "nvmlGpmQueryDeviceSupport")];
    for (faults, is_problem) in [
        (hidden, false),
        ([("FAKE_NVML_FAIL", "nvmlGpmSampleGet=4")], false),
        ([("FAKE_NVML_FAIL", "nvmlGpmMetricsGet=999")], true),
    ] {
        let (section, calls) = sampled(&bench, &["telemetry", "--sample-seconds", "1"], &faults);
        assert_eq!(section.status == Status::Partial, is_problem, "{faults:?} {:?}", section.problems);
        let of_calls = |function| calls.iter().filter(|call| call.starts_with(function)).count();
        assert_eq!(of_calls("nvmlGpmSampleAlloc"), of_calls("nvmlGpmSampleFree"), "{faults:?}");
        let read = data(Some(section));
        let names = |gpus: &[u32], fields: &[String]| {
            gpus.contains(&2) && fields.iter().any(|field| field == "sample.activity")
        };
        let is_named = if is_problem {
            read.unread.iter().any(|one| names(&one.gpus, &one.fields))
        } else {
            read.unsupported.iter().any(|one| names(&one.gpus, &one.fields))
        };
        assert!(is_named, "{faults:?}");
        let sample = read.gpus[2].sample.clone().expect("a sample");
        assert_eq!((sample.activity, sample.pcie_replays), (None, Some(0)), "{faults:?}");
    }
}
