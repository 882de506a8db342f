//! `fit`: writes a report as JSON, without the sections that make it too large. `blank`: a report without sections.
//! `VERSION`: the version of the program in reports. `millis`: a duration in the unit of reports.

use std::time::Duration;

use syringe_core::document_size::{MAX_BYTES, largest_section};
use syringe_core::report::{Problem, Report, SCHEMA_VERSION};
use syringe_core::section_name::SectionName;

/// The version of the program in reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns a report without sections.
pub(crate) fn blank() -> Report {
    Report { schema_version: SCHEMA_VERSION, probe_version: VERSION.into(), ..Report::default() }
}

/// Returns a duration in milliseconds, the unit of reports.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Removes the sections that make the document too large, and adds a problem for each. Returns the report and the
/// document.
pub(crate) fn fit(report: Report) -> (Report, Vec<u8>) {
    fit_into(report, MAX_BYTES)
}

fn fit_into(mut report: Report, most: usize) -> (Report, Vec<u8>) {
    // Only one section is removed at a time, so that as many as possible remain.
    for _ in 0..=SectionName::ALL.len() + 2 {
        let document = write(&report);
        // One byte is reserved for the newline.
        if document.len() < most {
            return (report, document);
        }
        // The raw files are removed first, then the raw records, because the facts are more important.
        if !report.raw_files.is_empty() {
            report.raw_files.clear();
            continue;
        }
        if !report.kernel_log.is_empty() {
            report.kernel_log.clear();
            continue;
        }
        let Some((name, size)) = largest_section(&document) else { break };
        report.sections.get_mut(name).fail(too_large(name.as_str(), size, most));
    }
    let report = Report { error: Some(too_large("report", most, most)), ..blank() };
    let document = write(&report);
    (report, document)
}

fn write(report: &Report) -> Vec<u8> {
    // A report has strings, numbers, lists and maps with string keys, so writing it to memory cannot fail.
    serde_json::to_vec(report).unwrap_or_default()
}

fn too_large(name: &str, size: usize, most: usize) -> Problem {
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    Problem {
        what: name.to_owned(),
        why: format!("{:.1} MiB are more than the limit of {:.1} MiB for a report", mebibytes(size), mebibytes(most)),
        next_step:
            "Read the other sections. Check what has grown on the node: processes, device files, log lines of GPUs."
                .into(),
        gpu: None,
        code: "too_large".into(),
    }
}

#[cfg(test)]
mod tests {
    use syringe_core::facts::host::Host;
    use syringe_core::facts::inventory::Inventory;
    use syringe_core::raw_file::RawFile;
    use syringe_core::report::{Section, Sections, Status};

    use super::*;

    fn report(device_files: usize) -> Report {
        let host = Host { device_nodes: vec!["nvidia".repeat(10); device_files], ..Host::default() };
        let (host, inventory) =
            (Some(Section::read(host, Vec::new())), Some(Section::read(Inventory::default(), Vec::new())));
        Report { sections: Sections { host, inventory, ..Sections::default() }, ..Report::default() }
    }

    #[test]
    fn a_section_that_grew_is_a_problem_with_its_size_and_the_others_stay() {
        let (fitted, document) = fit(report(100_000));
        assert!(document.len() < 2000);
        let host = fitted.sections.host.expect("it is still named");
        assert_eq!((host.status, host.data.is_none()), (Status::Error, true));
        assert_eq!((host.problems[0].code.as_str(), host.problems[0].what.as_str()), ("too_large", "host"));
        assert_eq!(host.problems[0].why, "6.0 MiB are more than the limit of 4.0 MiB for a report");
        assert_eq!(fitted.sections.inventory.map(|section| section.status), Some(Status::Ok));
        assert_eq!(fitted.error, None);
    }

    #[test]
    fn a_report_that_fits_is_not_changed() {
        let report = report(1000);
        let (fitted, document) = fit(report.clone());
        assert_eq!((fitted, document), (report.clone(), serde_json::to_vec(&report).expect("JSON")));
    }

    #[test]
    fn raw_records_are_removed_before_sections() {
        let file = RawFile { path: "x".into(), lines: vec!["x".repeat(100); 1000] };
        let large = Report { kernel_log: vec!["x".repeat(100); 1000], raw_files: vec![file], ..report(1000) };
        assert_eq!(fit_into(large.clone(), 70_000).0, report(1000));
        assert_eq!(fit_into(large.clone(), 180_000).0, Report { raw_files: Vec::new(), ..large });
    }

    #[test]
    fn what_is_too_large_without_sections_is_an_error() {
        let report = Report { hostname: Some("x".repeat(10_000)), ..Report::default() };
        assert_eq!(fit_into(report, 4000).0.error.map(|error| error.code), Some("too_large".to_owned()));
    }
}
