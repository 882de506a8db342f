//! Tests of the rules about rates: the growth of a counter between two readings is converted to a rate and judged.
//!
//! A reading without growth leads to no finding.

use diagnosis::diagnose;
use diagnosis::finding::Diagnosis;
use syringe_core::classification::Severity;
use syringe_core::facts::rates::{LinkGrowth, Sample};
use syringe_core::facts::telemetry::{GpuTelemetry, Violation};

use super::scenarios;

/// The GPU whose counters are changed.
const GPU: usize = 2;

/// Returns the diagnosis of a healthy node after a change of the telemetry of one GPU.
fn judged(change: impl FnOnce(&mut GpuTelemetry)) -> Diagnosis {
    let (mut report, expected) = scenarios().remove("whole-h100-8").expect("a scenario");
    let telemetry = report.sections.telemetry.as_mut().and_then(|section| section.data.as_mut()).expect("telemetry");
    change(&mut telemetry.gpus[GPU]);
    diagnose(&report, &expected.cluster)
}

fn sample(change: impl FnOnce(&mut Sample)) -> Sample {
    let mut sample = Sample { window_ms: 1000, ..Sample::default() };
    change(&mut sample);
    sample
}

/// Returns the severity of a finding about the GPU.
fn severity(diagnosis: &Diagnosis, id: &str) -> Option<Severity> {
    let mut of_gpu = diagnosis.findings.iter().filter(|one| one.id == id && one.scope.gpu == u32::try_from(GPU).ok());
    of_gpu.next().map(|finding| finding.severity)
}

fn throttled(policy: &str, duration_ms: u64) -> Sample {
    sample(|sample| sample.throttled = vec![Violation { policy: policy.into(), duration_ms }])
}

fn link(counter: &str, added: u64) -> Sample {
    sample(|sample| sample.nvlink_errors = vec![LinkGrowth { links: vec![3], counter: counter.into(), added }])
}

#[test]
fn growth_is_judged_by_its_rate() {
    use Severity::{Info, Warning};
    let replays = |added| sample(|sample| sample.pcie_replays = Some(added));
    let corrected = |added| sample(|sample| sample.corrected_memory_errors = Some(added));
    for (id, sample, expected) in [
        // DCGM's limit for 16 lanes of generation 5 is 30.7 per minute. Two replays in a second can occur by chance.
        ("pcie-replays-high", replays(40), Some(Warning)),
        ("pcie-replays-high", replays(3), Some(Warning)),
        ("pcie-replays-high", replays(2), None),
        ("pcie-replays-high", Sample { window_ms: 10_000, ..replays(5) }, None),
        ("pcie-replays-high", replays(0), None),
        ("nvlink-errors", link("crc_flit", 100), Some(Warning)),
        ("nvlink-errors", link("crc_flit", 99), None),
        ("nvlink-errors", link("replay", 1), Some(Warning)),
        ("nvlink-errors", link("recovery", 1), Some(Warning)),
        ("nvlink-errors", link("link_recovery_failed", 1), Some(Warning)),
        ("nvlink-errors", sample(|_| {}), None),
        ("ecc-correctable-storm", corrected(10), Some(Warning)),
        ("ecc-correctable-storm", corrected(9), None),
        ("thermal-slowdown-frequent", throttled("hardware_thermal", 50), Some(Warning)),
        ("thermal-slowdown-frequent", throttled("hardware_thermal", 49), None),
        ("thermal-slowdown-frequent", throttled("power", 1000), None),
        ("clocks-limited-long", throttled("power_brake", 50), Some(Warning)),
        ("clocks-limited-long", throttled("reliability", 500), Some(Info)),
        ("clocks-limited-long", throttled("power_brake", 49), None),
        ("clocks-limited-long", throttled("power", 1000), None),
    ] {
        let diagnosis = judged(|gpu| gpu.sample = Some(sample.clone()));
        assert_eq!(severity(&diagnosis, id), expected, "{id}: {sample:?}");
    }
}

#[test]
fn heat_that_the_driver_trims_without_a_loss_is_no_finding() {
    for (policy, slower, expected) in [
        ("thermal", false, None),
        ("software_thermal", false, None),
        ("software_thermal", true, Some(Severity::Warning)),
        ("hardware_thermal", false, Some(Severity::Warning)),
    ] {
        let diagnosis = judged(|gpu| {
            gpu.sample = Some(throttled(policy, 600));
            gpu.utilization.gpu_percent = Some(0);
            gpu.clocks.sm_mhz = gpu.clocks.sm_mhz.map(|clock| if slower { clock / 2 } else { clock });
        });
        assert_eq!(severity(&diagnosis, "thermal-slowdown-frequent"), expected, "{policy}, slower: {slower}");
    }
}

#[test]
fn replays_that_have_ended_are_information() {
    let many = |sample: Option<Sample>| judged(|gpu| (gpu.pcie.replays, gpu.sample) = (Some(900_000_000), sample));
    let none = sample(|sample| sample.pcie_replays = Some(0));
    assert_eq!(severity(&many(None), "pcie-replays-high"), Some(Severity::Warning));
    assert_eq!(severity(&many(Some(none)), "pcie-replays-high"), Some(Severity::Info));
}

#[test]
fn the_answer_says_how_far_apart_the_counters_were_read() {
    let entry = |diagnosis: Diagnosis| {
        diagnosis.not_checked.into_iter().find(|entry| entry.contains("counters")).expect("an entry about counters")
    };
    assert!(entry(judged(|_| {})).contains("read once"));
    assert!(entry(judged(|gpu| gpu.sample = Some(sample(|_| {})))).contains("twice, 1.0 s apart"));
}
