//! `output`: returns a stored document, without parsing its sections, as the output of a node-probe command that
//! reads everything. Returns `None` if node-probe must replay the document.
//!
//! The replay of a complete document prints the same document with another source. Parsing and writing the document
//! takes longer than all other steps of a probe of an archive.

use std::collections::BTreeMap;

use node_probe::VERSION;
use serde::Deserialize;
use serde::de::IgnoredAny;
use syringe_core::document_size::MAX_BYTES;
use syringe_core::probe_command::{ProbeCommand, ReadCommand};
use syringe_core::report::{SCHEMA_VERSION, Status};
use syringe_core::section_name::SectionName;

/// The source in a replayed document.
const REPLAYED: &str = "file";

/// The fields of a document that show whether a replay would change the document.
#[derive(Deserialize)]
struct Head<'a> {
    schema_version: u32,
    probe_version: &'a str,
    source: &'a str,
    sections: BTreeMap<SectionName, Section>,
    /// A replay parses raw records, omits the files, and repeats an error in a new document.
    kernel_log: Option<IgnoredAny>,
    raw_files: Option<IgnoredAny>,
    nccl: Option<IgnoredAny>,
    scope: Option<IgnoredAny>,
    action: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Section {
    status: Status,
    data: Option<Data>,
}

/// A replay omits the results of CUDA, unless the command requests them.
#[derive(Deserialize)]
struct Data {
    cuda: Option<IgnoredAny>,
}

/// Returns the output of a command that reads everything; `None` if node-probe must replay the document. For
/// example, a replay changes a document of another version of node-probe.
pub(crate) fn output(document: &[u8], arguments: &[String]) -> Option<Vec<u8>> {
    let is_whole = |read: &ReadCommand| {
        read.is_of_everything() && read.since.is_none() && !read.raw_log && read.nccl_ras.is_none() && !read.deep
    };
    // The command line of almost every probe is compared as text, because creating the parser for each probe is slow.
    let is_whole = arguments == ["all"]
        || matches!(node_probe::parse(arguments), Some(ProbeCommand::Read(read)) if is_whole(&read));
    let document = document.trim_ascii();
    if !is_whole || document.len() + REPLAYED.len() >= MAX_BYTES {
        return None;
    }
    let Head { schema_version, probe_version, source, sections, kernel_log, raw_files, nccl, scope, action, error } =
        serde_json::from_slice(document).ok()?;
    let is_own = schema_version == SCHEMA_VERSION && probe_version == VERSION;
    // A replay adds the missing sections, and has another exit code if nothing was read.
    let is_complete = sections.len() == SectionName::ALL.len();
    let has_cuda = sections.values().any(|section| section.data.as_ref().is_some_and(|data| data.cuda.is_some()));
    let is_read = sections.values().any(|section| section.status != Status::Error);
    if !(is_own && is_complete && is_read && !has_cuda)
        || [kernel_log, raw_files, nccl, scope, action, error].iter().any(Option::is_some)
    {
        return None;
    }
    let at = source.as_ptr().addr() - document.as_ptr().addr();
    let (before, after) = (&document[..at], &document[at + source.len()..]);
    Some([before, REPLAYED.as_bytes(), after, b"\n"].concat())
}

#[cfg(test)]
mod tests {
    use syringe_core::report::{Extent, Report, ReportScope};

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Returns the report that the launcher reads from an output.
    fn read(output: &[u8]) -> Report {
        Report::from_node(output).expect("a document")
    }

    #[test]
    fn a_stored_document_is_answered_as_its_replay() {
        let all = words(&["all"]);
        let mut stored = 0;
        for scenario in scenarios::all() {
            let name = scenario.name;
            let document = node_probe::run(&all, Some(&scenario.report())).stdout;
            let Some(answered) = output(&document, &all) else { continue };
            let replayed = node_probe::run(&all, Some(&read(&document)));
            assert_eq!(replayed.exit_code, 0, "{name}");
            assert_eq!(read(&answered), read(&replayed.stdout), "{name}");
            stored += 1;
        }
        assert!(stored > 100, "{stored} scenarios were answered from their documents");
    }

    #[test]
    fn a_start_of_cuda_that_was_measured_is_in_every_answer() {
        let (all, deep) = (words(&["all"]), words(&["all", "--deep"]));
        let stored = scenarios::named("cuda-starts").expect("a scenario").report();
        let document = node_probe::run(&deep, Some(&stored)).stdout;
        assert_eq!((output(&document, &all), output(&document, &deep)), (None, None));
        let has_cuda = |arguments: &[String]| {
            let report = read(&node_probe::run(arguments, Some(&read(&document))).stdout);
            report.sections.host.and_then(|host| host.data).is_some_and(|host| host.cuda.is_some())
        };
        assert!(has_cuda(&deep) && has_cuda(&all));
    }

    #[test]
    fn an_archive_knows_what_part_of_the_node_the_probe_saw() {
        let scope = ReportScope { files: Extent::Container, ..ReportScope::default() };
        let stored = scenarios::named("healthy-h100-8").expect("a scenario").report();
        let of_container = Report { scope: Some(scope), ..stored };
        let replayed = node_probe::run(&words(&["all"]), Some(&of_container));
        assert_eq!(read(&replayed.stdout).scope, Some(scope));
    }

    #[test]
    fn only_a_complete_document_of_this_version_is_answered() {
        let all = words(&["all"]);
        let report = syringe_core::scenarios::named("healthy-h100-8").expect("a scenario").report();
        let document = String::from_utf8(node_probe::run(&all, Some(&report)).stdout).expect("text");
        let of_node = document.replacen(r#""source":"file""#, r#""source":"hardware""#, 1);
        assert_eq!(output(of_node.as_bytes(), &all), Some(document.clone().into_bytes()));
        for (from, to) in [
            (VERSION, "0.0.1"),
            (r#""sections":{"#, r#""kernel_log":["x"],"sections":{"#),
            (r#""sections":{"#, r#""scope":{"gpus":"container"},"sections":{"#),
            (r#""inventory":{"status""#, r#""other":{"status""#),
        ] {
            let other = document.replacen(from, to, 1);
            assert_ne!(other, document, "{to}");
            assert_eq!(output(other.as_bytes(), &all), None, "{to}");
        }
        for arguments in
            [&["inventory"] as &[_], &["all", "--raw-log"], &["all", "--deep"], &["all", "--since", "1h"], &["hold"]]
        {
            assert_eq!(output(document.as_bytes(), &words(arguments)), None, "{arguments:?}");
        }
    }
}
