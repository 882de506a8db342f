//! `load`: reads a facts file. `replay`: makes a report from these facts instead of reading hardware.
//!
//! The time of the facts is used as the current time, so that the same file always results in the same report.

use std::fs;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::facts::topology;
use syringe_core::gpu_names::gpu_addresses;
use syringe_core::kernel_log as xid;
use syringe_core::kernel_log::{Clock, EventLog, LogOrigin, Options};
use syringe_core::report::{Problem, Report, SCHEMA_VERSION, Section, Source};
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;

use crate::document::{VERSION, blank};
use crate::request::Request;

/// Maximum size of a facts file. A full report of 16 GPUs has 100 KB; saved kernel logs can be long.
const LARGEST_FILE_BYTES: u64 = 256 << 20;

/// Reads a facts file.
pub(crate) fn load(path: &Path) -> Result<Report, Problem> {
    let failed = |why: String, next_step: &str| Problem {
        what: format!("facts file {}", path.display()),
        why,
        next_step: next_step.into(),
        code: "facts_file".into(),
        gpu: None,
    };
    let size = fs::metadata(path).map_err(|error| failed(error.to_string(), "Use a readable file."))?.len();
    if size > LARGEST_FILE_BYTES {
        return Err(failed(
            format!("the file has {size} bytes, more than the maximum of {LARGEST_FILE_BYTES}"),
            "Use a report of node-probe.",
        ));
    }
    let text = fs::read(path).map_err(|error| failed(error.to_string(), "Use a readable file."))?;
    const MAKE_ONE: &str = "Create a report with: node-probe all > FILE";
    let facts: Report = Report::from_json(&text).map_err(|error| failed(format!("not a report: {error}"), MAKE_ONE))?;
    if let Some(why) = facts.other_version() {
        let next = if facts.schema_version > SCHEMA_VERSION {
            "Use a version of node-probe that is not older than the version that wrote the file."
        } else {
            "Use the version of node-probe that wrote the file, or read the node again."
        };
        return Err(failed(why, next));
    }
    // A document without sections would replay as a node without faults.
    if facts.sections.statuses().is_empty() && facts.kernel_log.is_empty() {
        return Err(failed(format!("not a report: {}", what_instead(&text, &facts)), MAKE_ONE));
    }
    Ok(facts)
}

/// Describes a JSON document that contains no facts.
fn what_instead(text: &[u8], facts: &Report) -> String {
    let names = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(text).unwrap_or_default();
    if let Some(problem) = &facts.error {
        return format!("the file has no sections, because the probe failed: {}", clean(&problem.why, 200));
    }
    if names.contains_key("verdict") || names.contains_key("structuredContent") {
        return "the file is output of gpu-syringe: it contains conclusions, but not the facts".to_owned();
    }
    "the file has no known section and no kernel_log".to_owned()
}

/// Returns the requested sections of `facts`, with the kernel log parsed and the window applied.
pub(crate) fn replay(facts: &Report, request: &Request) -> Report {
    if let Some(problem) = &facts.error {
        return Report { source: Source::File, error: Some(problem.clone()), ..blank() };
    }
    let mut sections = facts.sections.clone();
    for name in SectionName::ALL {
        let section = sections.get_mut(name);
        if !request.read.sections.contains(&name) {
            section.remove();
        } else if section.status().is_none() {
            section.fail(not_in_facts(name));
        }
    }
    if request.read.sections.contains(&SectionName::Xid) {
        sections.xid = Some(kernel_log(facts, request));
    }
    let (kernel_log, raw_files) = match request.read.raw_log {
        true => (facts.kernel_log.clone(), facts.raw_files.clone()),
        false => Default::default(),
    };
    let probe_version = if facts.probe_version.is_empty() { VERSION } else { &facts.probe_version };
    Report {
        probe_version: probe_version.to_owned(),
        source: Source::File,
        hostname: facts.hostname.clone(),
        boot_id: facts.boot_id.clone(),
        kernel: facts.kernel.clone(),
        taken_at: facts.taken_at,
        duration_ms: facts.duration_ms,
        // Rules conclude less from a probe that saw only its container.
        scope: facts.scope,
        sections,
        kernel_log,
        raw_files,
        nccl: facts
            .nccl
            .clone()
            .filter(|nccl| request.read.nccl_ras.as_ref().is_some_and(|uid| uid.as_str() == nccl.pod_uid)),
        ..blank()
    }
}

fn not_in_facts(name: SectionName) -> Problem {
    Problem {
        what: name.to_string(),
        why: format!("the facts file has no {name} section"),
        next_step: "Take the facts again with: node-probe all".into(),
        code: "not_in_facts".into(),
        gpu: None,
    }
}

/// Returns the `xid` section: parsed from the raw records if the file has them, otherwise as it was saved.
fn kernel_log(facts: &Report, request: &Request) -> Section<KernelLog> {
    let since = request.read.since.as_ref().map(|since| since.resolve(facts.taken_at.unwrap_or(Timestamp::MAX)));
    let mut section = if let Some(path) = &request.files.kernel_log {
        from_file(path, since)
    } else if facts.kernel_log.is_empty() {
        let absent = || Section::failed(not_in_facts(SectionName::Xid));
        let mut saved = facts.sections.xid.clone().unwrap_or_else(absent);
        if let (Some(since), Some(log)) = (since, &mut saved.data) {
            xid::drop_events_before(log, since);
        }
        saved
    } else {
        let mut log = parse(facts, since);
        if let Some(since) = since {
            xid::drop_events_before(&mut log, since);
        }
        Section::read(log, Vec::new())
    };
    if let Some(log) = &mut section.data {
        let links = Section::data_of(&facts.sections.topology);
        let ports = links.map(|links| topology::ports_above_one_gpu(&links.gpus)).unwrap_or_default();
        let whose = if request.files.kernel_log.is_some() { LogOrigin::AnyNode } else { LogOrigin::ThisNode };
        xid::join_gpus(log, whose, &gpu_addresses(facts), &ports);
    }
    section
}

#[cfg(target_os = "linux")]
fn from_file(path: &Path, since: Option<Timestamp>) -> Section<KernelLog> {
    crate::kernel_log::read_file(path, &crate::kernel_log::Options { since, journal: false })
}

#[cfg(not(target_os = "linux"))]
fn from_file(_: &Path, _: Option<Timestamp>) -> Section<KernelLog> {
    Section::failed(not_in_facts(SectionName::Xid))
}

fn parse(facts: &Report, window: Option<Timestamp>) -> KernelLog {
    let host = Section::data_of(&facts.sections.host);
    let uptime = host.and_then(|host| host.uptime_seconds);
    let boot = facts.taken_at.zip(uptime).and_then(|(taken_at, uptime)| {
        taken_at.checked_sub(SignedDuration::from_secs(i64::try_from(uptime).ok()?)).ok()
    });
    let running_boot_id = facts.boot_id.clone();
    let options = Options { running_boot_id, now: facts.taken_at, window, ..Options::default() };
    let mut log = EventLog::new(boot.map(|boot_wall_time| Clock { boot_wall_time }), options);
    log.source("facts file");
    for record in &facts.kernel_log {
        log.push_line(record);
    }
    log.finish()
}
