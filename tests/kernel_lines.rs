//! Tests that the kernel lines in `kernel_lines.jsonl` are parsed as each sample specifies.
//!
//! Most lines are from public reports, vendors' documentation and tests (`source`); a few lines are fictitious.

use serde_json::Value;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind, KernelLog};
use syringe_core::kernel_log::line::{Line, Parsed};
use syringe_core::kernel_log::record::Origin;
use syringe_core::kernel_log::{EventLog, Options};
use syringe_core::kernel_log::{line_parser, record_parser};
use syringe_core::pci::PciAddress;

/// Fields of a sample that do not contain expected values.
const NO_ANSWERS: [&str; 5] = ["line", "then", "note", "source", "sample_kind"];

fn samples() -> Vec<Value> {
    let samples: Vec<Value> = include_str!("kernel_lines.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a sample is JSON"))
        .collect();
    assert_eq!(samples.len(), 60, "the number of samples has changed");
    samples
}

fn text<'a>(sample: &'a Value, name: &str) -> &'a str {
    sample[name].as_str().unwrap_or_default()
}

/// Returns the log that contains only this sample.
fn log_of(sample: &Value) -> KernelLog {
    let mut log = EventLog::new(None, Options::default());
    log.push_line(text(sample, "line"));
    for line in sample["then"].as_array().into_iter().flatten() {
        log.push_line(line.as_str().unwrap_or_default());
    }
    log.finish()
}

/// Parses the line of a sample without an [`EventLog`].
fn parsed(sample: &Value) -> Option<Parsed> {
    let mut whole = text(sample, "line").to_owned();
    for line in sample["then"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let rest = record_parser::parse_line(line).expect("a record").text.into_owned();
        whole = format!("{whole} {}", rest.trim_start_matches("NVRM: "));
    }
    let record = record_parser::parse_line(&whole)?;
    let plain = record.plain_text();
    (record.origin == Origin::Kernel).then(|| line_parser::parse(&plain)).flatten()
}

fn kind_of(name: &str) -> KernelEventKind {
    match name {
        "xid" | "kmsg_record" => KernelEventKind::Xid,
        "sxid" | "sxid_detail" => KernelEventKind::Sxid,
        "oom" => KernelEventKind::OomKill,
        other => serde_json::from_value(Value::from(other)).expect("a kind of event"),
    }
}

/// Formats an expected value in the same way as the details of an event.
fn written(answer: &Value) -> String {
    match answer {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(written).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[test]
fn every_answer_of_every_sample_is_found() {
    for sample in samples() {
        let line = text(&sample, "line");
        match text(&sample, "kind") {
            "none" => assert_eq!(parsed(&sample), None, "{line}"),
            "kmsg_record" => {
                check_record(&sample);
                if sample["trusted"] != false {
                    check_event(&sample);
                }
            }
            "gpu_uuid_map" => {
                let pci = PciAddress::parse(text(&sample, "pci_bdf")).expect("an address");
                let uuid = text(&sample, "uuid").to_owned();
                assert_eq!(parsed(&sample), Some(Parsed::GpuUuid { pci, uuid }), "{line}");
            }
            "gpu_serial" => {
                let serial = text(&sample, "serial").to_owned();
                assert_eq!(parsed(&sample), Some(Parsed::GpuSerial { pci: None, serial }), "{line}");
            }
            "sxid_detail" => {
                let Some(Parsed::Companion(found)) = parsed(&sample) else { panic!("not a companion line: {line}") };
                check_line(&sample, &found);
                assert!(log_of(&sample).events.is_empty(), "a companion line must not be an event: {line}");
            }
            _ => check_event(&sample),
        }
    }
}

/// Checks the parsed line, and the event that an [`EventLog`] creates from the line.
fn check_event(sample: &Value) {
    let line = text(sample, "line");
    let Some(Parsed::Event(found)) = parsed(sample) else { panic!("not an event: {line}") };
    check_line(sample, &found);
    let log = log_of(sample);
    let [event] = &log.events[..] else { panic!("expected exactly one event: {line}: {:?}", log.events) };
    let KernelEvent { kind, code, pci_address, pid, process, details, sub_code, count, raw, .. } = event;
    assert_eq!(
        (*kind, *code, pci_address, *pid, process),
        (found.kind, found.code, &found.pci, found.pid, &found.process)
    );
    assert_eq!((sub_code, *count), (&found.sub_code, 1), "{line}");
    // The `EventLog` adds further details, such as the locations of a graphics exception.
    assert!(found.details.iter().all(|(name, value)| details.get(*name) == Some(value)), "{line}: {details:?}");
    assert!(raw.ends_with(text(sample, "message")), "{line}: {raw}");
    assert_eq!(event.name.is_some(), code.is_some() && sample["known"] != false, "{line}");
}

fn check_line(sample: &Value, found: &Line) {
    let line = text(sample, "line");
    assert_eq!(found.kind, kind_of(text(sample, "kind")), "{line}");
    assert_eq!(found.code.map(u64::from), sample["code"].as_u64(), "{line}");
    assert_eq!(found.pci, sample["pci_bdf"].as_str().and_then(PciAddress::parse), "{line}");
    assert_eq!(found.pid.map(u64::from), sample["pid"].as_u64(), "{line}");
    assert_eq!(found.process.as_deref(), sample["process"].as_str(), "{line}");
    assert_eq!(found.gpu_instance.map(u64::from), sample["mig_gi"].as_u64(), "{line}");
    assert_eq!(found.compute_instance.map(u64::from), sample["mig_ci"].as_u64(), "{line}");
    let elsewhere = [
        "kind", "code", "pci_bdf", "pid", "process", "mig_gi", "mig_ci", "message", "known", "prio", "facility", "seq",
        "usec", "flags", "caller", "trusted",
    ];
    for (name, answer) in sample.as_object().into_iter().flatten() {
        if elsewhere.contains(&name.as_str()) || NO_ANSWERS.contains(&name.as_str()) {
            continue;
        }
        assert_eq!(found.details.get(name.as_str()), Some(&written(answer)), "{name} of {line}");
    }
}

fn check_record(sample: &Value) {
    let line = text(sample, "line");
    let record = record_parser::parse_line(line).expect("a record");
    assert_eq!(record.level.map(u64::from), sample["prio"].as_u64(), "{line}");
    assert_eq!(record.facility.map(u64::from), sample["facility"].as_u64(), "{line}");
    assert_eq!((record.seq, record.uptime_us), (sample["seq"].as_u64(), sample["usec"].as_u64()), "{line}");
    assert_eq!(record.flags, Some(sample["flags"].as_str().unwrap_or("-")), "{line}");
    assert_eq!(record.caller, sample["caller"].as_str(), "{line}");
    let trusted = sample["trusted"] != false;
    assert_eq!(record.origin == Origin::Kernel, trusted, "{line}");
    let log = log_of(sample);
    assert_eq!((log.events.len(), log.untrusted_lines), if trusted { (1, 0) } else { (0, 1) }, "{line}");
}

#[test]
fn all_samples_together_are_one_log_with_their_gpus_known_by_uuid() {
    let mut log = EventLog::new(None, Options::default());
    log.source("samples");
    for sample in samples() {
        log.push_line(text(&sample, "line"));
    }
    let log = log.finish();
    let lost = log.events.iter().find(|event| event.pci_address == PciAddress::parse("0000:91:00.0"));
    let lost = lost.expect("the GPU that fell off the bus");
    assert_eq!(lost.gpu_uuid.as_deref(), Some("GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b"));
    assert_eq!(lost.details.get("board_serial").map(String::as_str), Some("1653723052734"));
    assert_eq!(log.coverage.len(), 1);
    // One of the 60 lines was written by a program.
    assert_eq!(log.coverage[0].records, 59);
}
