//! `text`: formats the report in Markdown. Third-party texts are printed as code, in which characters have no Markdown
//! meaning.

use diagnosis::{Finding, Plan};
use jiff::Timestamp;
use syringe_core::raw_file::RawFile;
use syringe_core::text::clean_keeping_lines;

use super::missing::Missing;
use super::{Event, Fact, ReturnReport, Tried};
use crate::answer::wire::variant_name::variant_name;
use crate::incident::Gap;
use crate::settings::ArchiveNote;
use crate::terminal::table::second;

pub(super) fn text(report: &ReturnReport) -> String {
    let ReturnReport {
        summary, supported, node, read_at, context, archive, identity, versions, counters, events, ..
    } = report;
    let ReturnReport {
        kernel_lines,
        kernel_lines_omitted,
        files,
        tried,
        findings,
        plan,
        gaps,
        missing,
        left_behind,
        ..
    } = report;
    let origin = archive.as_ref().map_or_else(|| format!("Context: {context}."), ArchiveNote::line);
    let read_at = read_at.map(second).unwrap_or_default();
    let mut text = format!(
        "# Return report: GPU of {node}\n\n{}\n\n- supported: {}\n- read at: {read_at}\n- {}\n",
        plain(summary),
        variant_name(*supported).replace('_', " "),
        plain(&origin)
    );
    for (title, facts) in [("Identity", identity), ("Versions", versions), ("Counters", counters)] {
        let rows = facts.iter().map(|Fact { name, value, source }| {
            [if name.contains('.') { code(name) } else { plain(name) }, code(value), plain(source)]
        });
        table(&mut text, title, ["value of", "value", "source"], rows.collect());
    }
    let rows =
        events.iter().map(|Event { what, severity, count, first, last, of_running_boot, names_uuid, line: _ }| {
            let boot = if *of_running_boot { "running" } else { "earlier" };
            let by = if *names_uuid { "UUID" } else { "address" };
            [
                time(*first),
                time(*last),
                count.to_string(),
                variant_name(*severity),
                plain(what),
                boot.to_owned(),
                by.to_owned(),
            ]
        });
    table(
        &mut text,
        "Events",
        ["first (UTC)", "last (UTC)", "times", "severity", "event", "boot", "GPU named by"],
        rows.collect(),
    );
    let of_events: Vec<&String> = events.iter().map(|event| &event.line).collect();
    let lines: Vec<&String> = if kernel_lines.is_empty() { of_events } else { kernel_lines.iter().collect() };
    if !lines.is_empty() {
        text.push_str("\n## Kernel lines\n\n");
        text.push_str(
            &kernel_lines_omitted.map(|omitted| format!("{omitted} older lines are left out.\n\n")).unwrap_or_default(),
        );
        lines.iter().for_each(|line| text.push_str(&format!("    {}\n", clean_keeping_lines(line).replace('\n', " "))));
    }
    if !files.is_empty() {
        text.push_str("\n## Files of the driver and the kernel\n");
    }
    for RawFile { path, lines } in files {
        text.push_str(&format!("\n{}\n\n", code(path)));
        lines.iter().for_each(|line| text.push_str(&format!("    {}\n", clean_keeping_lines(line).replace('\n', " "))));
    }
    let again = |tried: &Tried| if tried.fault_again { "yes" } else { "no" };
    let rows = tried.iter().map(|tried| [second(tried.at), plain(&tried.what), again(tried).to_owned()]);
    table(&mut text, "Tried after the first fault", ["time (UTC)", "step", "fault logged again"], rows.collect());
    if !findings.is_empty() {
        text.push_str("\n## Diagnosis\n");
    }
    for finding in findings {
        let Finding { id, severity, evidence, action, .. } = finding;
        text.push_str(&format!(
            "\n### {}\n\n{id}, {}. {}\n\n",
            plain(&finding.headline()),
            variant_name(*severity),
            plain(&action.text)
        ));
        evidence.iter().for_each(|line| text.push_str(&format!("- {}\n", code(line))));
    }
    for Plan { subject, rma, steps, .. } in plan {
        text.push_str(&format!(
            "\n### Plan for {} (RMA: {})\n\n",
            plain(subject),
            variant_name(*rma).replace('_', " ")
        ));
        steps.iter().zip(1..).for_each(|(step, number)| text.push_str(&format!("{number}. {}\n", plain(step))));
    }
    let rows = gaps.iter().map(|Gap { from, to, why, .. }| [time(*from), time(*to), plain(why)]);
    table(&mut text, "Gaps in the logs", ["from", "to", "why"], rows.collect());
    let rows = missing.iter().map(|Missing { what, why, command }| {
        [plain(what), plain(why), command.as_deref().map(code).unwrap_or_default()]
    });
    table(&mut text, "Missing for a complete case", ["what", "why", "command"], rows.collect());
    text.push_str(
        &left_behind.as_ref().map(|left| format!("\nLeft behind by the probe: {}\n", plain(left))).unwrap_or_default(),
    );
    text
}

fn table<const N: usize>(text: &mut String, title: &str, heads: [&str; N], rows: Vec<[String; N]>) {
    if rows.is_empty() {
        return;
    }
    text.push_str(&format!("\n## {title}\n\n| {} |\n|{}\n", heads.join(" | "), "---|".repeat(N)));
    rows.iter().for_each(|row| text.push_str(&format!("| {} |\n", row.join(" | "))));
}

fn time(time: Option<Timestamp>) -> String {
    time.map(second).unwrap_or_default()
}

/// Returns a text without line breaks, in which all Markdown characters are escaped.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in clean_keeping_lines(text).chars() {
        match character {
            '\n' => plain.push(' '),
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '\\' => plain.extend(['\\', character]),
            other => plain.push(other),
        }
    }
    plain
}

/// Returns a text as code. A vertical bar is replaced, because it would end a table cell even after a backslash.
fn code(text: &str) -> String {
    let text = clean_keeping_lines(text).replace(['\n', '`'], "'").replace('|', "\u{a6}");
    if text.is_empty() { text } else { format!("`{text}`") }
}
