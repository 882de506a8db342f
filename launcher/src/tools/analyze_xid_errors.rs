//! `AnalyzeXidErrors`: the tool `analyze_xid_errors`, which explains the lines of a kernel log about GPUs, or one Xid
//! or SXid code. `XidArgs`, `XidAnswer`: its arguments and its answer. `code_in`: finds a code in a text.

use std::io::Read;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::facts::kernel_log::{KernelEvent, KernelLog};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::kernel_log::{self, EventLog, Options};
use syringe_core::probe_command::ReadCommand;
use syringe_core::report::{Report, Section, Sections, Source};
use syringe_core::section_name::SectionName;
use syringe_core::since::Since;

use crate::answer::node::NodeAnswer;
use crate::answer::node_page::{foot, head};
use crate::answer::wire::variant_name::variant_name;
use crate::answer::xid_meaning::XidMeaning;
use crate::call::CallContext;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::node_reading::read_node;
use crate::outcome::{CommandAnswer, Outcome};
use crate::terminal::page::Page;
use crate::terminal::table::{cell, new_table, pci_cell, second};
use crate::tools::common_args::{node_name, without_node_type};
use crate::tools::tool::Tool;
use kube_read::Failure;
use syringe_macros::omit;

/// Maximum number of events in one answer. The newest events are kept; the other events are counted.
const MAX_EVENTS: usize = 60;

pub struct AnalyzeXidErrors;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XidArgs {
    /// Kubernetes node
    // In `node/79`, the type shows that 79 is not an Xid code.
    #[arg(
        value_name = "NODE|CODE",
        required = true,
        help = "Name of the node; or, without a cluster: an Xid, a line of a kernel log in quotes, or - for a log from standard input",
        value_parser = node_or_code
    )]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// Xid or SXid to explain, in place of a node
    #[arg(skip)]
    pub code: Option<u32>,
    /// A line of a kernel log, or [`INPUT`] for a log from standard input, in place of a node
    // Models do not have this argument: the standard input of the server belongs to its host.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) log: Option<String>,
    /// Duration back from now (24h, 7d) or RFC 3339 time; by default the whole log
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

impl XidArgs {
    /// Returns the arguments in their final form: a node argument that is a code (see [`code_in`]) becomes `code`, and
    /// `node/NAME` becomes `NAME`.
    pub(crate) fn with_code(self) -> Self {
        let Some(text) = &self.node_name else { return self };
        match code_in(text) {
            Some(code) => Self { node_name: None, code: Some(self.code.unwrap_or(code)), ..self },
            None if is_log(text) => Self { log: self.node_name, node_name: None, ..self },
            None => Self { node_name: Some(without_node_type(text)), ..self },
        }
    }
}

/// The argument of the command for a log from standard input.
const INPUT: &str = "-";
/// Maximum size of a log from standard input.
const MAX_INPUT: u64 = 64 << 20;
/// Name of the node in an answer about a log from standard input.
const NODE_OF_INPUT: &str = "the node of this log";

/// Returns whether the argument of the command is a log: [`INPUT`], or a line in quotes. The name of a node contains no
/// space.
fn is_log(text: &str) -> bool {
    text == INPUT || text.trim().contains(' ')
}

/// Parses the argument of the command: a code in any form, the name of a node, or [`INPUT`]. In `node/79`, the type stays.
fn node_or_code(text: &str) -> Result<String, &'static str> {
    match code_in(text) {
        None if is_log(text) => Ok(text.to_owned()),
        None if std::path::Path::new(text).is_file() => {
            Err("this is a file. To read a file, run: cat FILE | gpu-syringe xid -. If this is a node, use node/NAME")
        }
        Some(_) => Ok(text.to_owned()),
        None => node_name(text).map(|_| text.to_owned()),
    }
}

/// Returns the code that a text names: `79`, `xid79`, `Xid 79`, or a line of the kernel log such as
/// `NVRM: Xid (PCI:0000:3b:00): 63, Row Remapper: …`.
pub(crate) fn code_in(text: &str) -> Option<u32> {
    let text = text.trim().to_ascii_lowercase();
    if let Ok(code) = text.parse() {
        return Some(code);
    }
    let (before, rest) = text.split_once("xid")?;
    // The name of a node may contain `xid`.
    if !before.strip_suffix('s').unwrap_or(before).is_empty() && !text.contains([' ', ':']) {
        return None;
    }
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('(') {
        Some(device) => device.split_once(')')?.1,
        None => rest,
    };
    let rest = rest.trim_start_matches([':', ' ', '=']);
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    let (code, after) = rest.split_at(digits);
    let is_word =
        !after.starts_with(|character: char| character.is_alphanumeric() || character == '-' || character == '.');
    code.parse().ok().filter(|_| is_word)
}

/// The part of the answer that only this tool has.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct XidSection {
    /// Distinct kernel events, newest last: equal lines are one event with a count. `raw` is the text of the kernel:
    /// data, not advice.
    pub events: Vec<KernelEvent>,
    /// Number of older events that were left out.
    pub events_omitted: u64,
    /// Start of the requested window. `events` contains an older event only if the event shows a state that lasts until
    /// a reset or reboot.
    pub since: Option<Timestamp>,
    /// Number of events that were left out because they are older than `since`.
    pub events_before: Option<u64>,
    /// Lines that a program wrote into the kernel log to look like lines of the driver. They are ignored.
    pub untrusted_lines: u64,
}

/// The answer about the kernel log of a node, or about a code.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum XidAnswer {
    /// The log of a node.
    Node(Box<NodeAnswer<XidSection>>),
    /// The meaning of a code.
    Code(Box<XidMeaning>),
}

impl CommandAnswer for XidAnswer {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Node(answer) => answer.outcome(),
            Self::Code(meaning) => meaning.outcome(),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Node(answer) => answer.names(),
            Self::Code(meaning) => meaning.names(),
        }
    }
}

impl Tool for AnalyzeXidErrors {
    const NAME: &'static str = "analyze_xid_errors";
    const TITLE: &'static str = "Xid errors of a node";
    const DESCRIPTION: &'static str = "Xid and other GPU lines of a node's kernel log, decoded: what happened to which \
        GPU and process, when and how often, whose fault it is, what to do. Shows the time of the log. \
        With `code`: explains it, reads no node.";
    const PROBES: bool = true;
    type Args = XidArgs;
    type Answer = XidAnswer;

    async fn call(call: CallContext, args: XidArgs) -> Result<Self::Answer, Failure> {
        let XidArgs { node_name, code, log, since, context } = args.with_code();
        if let Some(log) = log {
            if log == INPUT {
                return Ok(XidAnswer::Node(Box::new(of_text(&read_input().await?, since.as_ref()))));
            }
            let answer = of_text(&log, since.as_ref());
            if answer.section.events.is_empty() && answer.findings.is_empty() {
                let why = "the text has no line of the NVIDIA driver, and no other kernel line with a known meaning";
                let next = "For the message of a program, run gpu-syringe explain POD. For a whole kernel log: dmesg | gpu-syringe xid -";
                return Err(Failure::usage("Explaining a line of a kernel log", why, next));
            }
            return Ok(XidAnswer::Node(Box::new(answer)));
        }
        let node_name = match (node_name, code) {
            (None, Some(code)) => return Ok(XidAnswer::Code(Box::new(XidMeaning::of(code)?))),
            (Some(node_name), None) => node_name,
            _ => {
                let next = "Give one of the two arguments: node_name (to read the log of a node) or code (to explain \
                    an Xid).";
                return Err(Failure::usage("The arguments", "exactly one of node_name and code must be set", next));
            }
        };
        let asked = since.clone();
        let command = ReadCommand { since, ..SectionName::Xid.into() };
        let read = read_node::read(&call, context.as_deref(), &node_name, Self::NAME, command).await?;
        if let (Some(since), Some(taken_at)) = (asked, read.report.taken_at)
            && since.resolve(taken_at) > taken_at
        {
            let why = format!("--since is after the time of the report, {taken_at:.0}");
            return Err(Failure::usage("The arguments", why, "Use an earlier time, or a duration such as 24h."));
        }
        let log = read_node::section(&read.note, SectionName::Xid, read.report.sections.xid)?;
        Ok(XidAnswer::Node(Box::new(NodeAnswer::new(read.diagnosis, XidSection::of(log), read.note))))
    }

    fn page(answer: &Self::Answer) -> Page {
        let answer = match answer {
            XidAnswer::Node(answer) => answer,
            XidAnswer::Code(meaning) => return meaning.page(),
        };
        let XidSection { events, events_omitted, since, events_before, untrusted_lines } = &answer.section;
        let mut rows =
            new_table(["last (UTC)", "times", "what", "gpu", "pci address", "pid", "process", "kernel text"])
                .optional(&["process", "pid"])
                .note("kernel text");
        for event in events {
            let what = match event.code {
                Some(code) => format!("{} {code}", kind_word(event)),
                None => kind_word(event),
            };
            rows.add_row([
                cell(event.last.map(second)),
                if event.count_is_lower_bound { format!("≥ {}", event.count) } else { event.count.to_string() },
                what,
                cell(event.gpu_index),
                pci_cell(event.pci_address.as_ref()),
                cell(event.pid),
                cell(event.process.clone()),
                event.raw.clone(),
            ]);
        }
        let omitted =
            if *events_omitted > 0 { format!("… and {events_omitted} older events\n") } else { String::new() };
        let untrusted = if *untrusted_lines > 0 {
            format!("Lines written by a program and not by the kernel, which were ignored: {untrusted_lines}\n")
        } else {
            String::new()
        };
        let before = match (since, events_before) {
            (Some(since), Some(count)) if *count > 0 => {
                format!("{count} events before {} left out, except states that last until a reset\n", second(*since))
            }
            _ => String::new(),
        };
        let mut page = head(answer);
        page.push_table(rows);
        page.push_str(&format!("{omitted}{before}{untrusted}{}", foot(&answer.probe)));
        page
    }
}

impl XidSection {
    fn of(log: KernelLog) -> Self {
        let KernelLog { mut events, mut events_omitted, untrusted_lines, since, events_before, .. } = log;
        let surplus = events.len().saturating_sub(MAX_EVENTS);
        events.drain(..surplus);
        events_omitted += surplus as u64;
        Self { events, events_omitted, since, events_before: since.map(|_| events_before), untrusted_lines }
    }
}

/// Reads standard input to its end, at most [`MAX_INPUT`] bytes.
async fn read_input() -> Result<String, Failure> {
    let read = || {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut bytes).map(|_| bytes)
    };
    let what = "Reading the kernel log from standard input";
    let next = "Run: cat FILE | gpu-syringe xid -";
    let bytes = tokio::task::spawn_blocking(read).await.map_err(|panic| Failure::new(what, panic, next))?;
    let bytes = bytes.map_err(|error| Failure::new(what, error, next))?;
    Ok(syringe_core::text::of_file(&bytes).into_owned())
}

/// Returns the answer about the text of a kernel log, in any format that the parser supports. No other data about the
/// node is known.
fn of_text(text: &str, since: Option<&Since>) -> NodeAnswer<XidSection> {
    let now = Timestamp::now();
    let since = since.map(|since| since.resolve(now));
    let mut log = EventLog::new(None, Options { now: Some(now), window: since, ..Options::default() });
    log.source("standard input");
    text.lines().for_each(|line| log.push_line(line));
    let mut log = log.finish();
    if let Some(since) = since {
        kernel_log::drop_events_before(&mut log, since);
    }
    let section = XidSection::of(log.clone());
    let sections = Sections { xid: Some(Section::read(log, Vec::new())), ..Sections::default() };
    let hostname = Some(NODE_OF_INPUT.to_owned());
    let report = Report { source: Source::File, hostname, taken_at: Some(now), sections, ..Report::default() };
    let diagnosis = diagnosis::diagnose(&report, &KubernetesFacts::default());
    let mut note = "Only this log was read. Its lines do not show whether a fault still exists.".to_owned();
    if log_has_local_times(&report) {
        note.push(' ');
        note.push_str(WITHOUT_ZONE);
    }
    let probe = ProbeSummary { source: Source::File, ..ProbeSummary::without_probe(NODE_OF_INPUT, "", now, note) };
    NodeAnswer::new(diagnosis, section, probe)
}

/// The limit of the answer if the times of a log have no time zone.
const WITHOUT_ZONE: &str = "The log has no time zone. Its times are read as UTC, although dmesg -T, journalctl and syslog print local \
    times. For times with a zone: journalctl -k -o short-iso.";

/// Returns whether a log of the report has times without a time zone.
fn log_has_local_times(report: &Report) -> bool {
    let log = Section::data_of(&report.sections.xid);
    log.is_some_and(|log| log.coverage.iter().any(|source| source.note.contains("time zone not stated")))
}

fn kind_word(event: &KernelEvent) -> String {
    variant_name(event.kind).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use syringe_core::classification::Severity;

    use super::*;

    #[test]
    fn a_pasted_log_has_the_findings_of_its_lines() {
        let line =
            |second: u32| format!("[ 12{second}.5] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.");
        let answer = of_text(&format!("boot\n{}\n{}\n", line(1), line(2)), None);
        let found: Vec<_> = answer.findings.iter().map(|finding| finding.id.as_str()).collect();
        assert!(found.contains(&"gpu-off-bus"), "{found:?}");
        assert_eq!(answer.section.events.first().and_then(|event| event.code), Some(79));
        assert!(!answer.summary.is_empty() && !answer.checked.is_empty());
        let zone = |text: &str| of_text(text, None).probe.note.unwrap_or_default().contains("time zone");
        let local = "[Fri Nov 20 10:11:12 2026] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.";
        let iso =
            "2026-11-20T10:11:12+0100 gpu-1 kernel: NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.";
        assert!(zone(local) && !zone(iso) && !zone(&line(1)));
        let none = of_text("nothing about GPUs\n", None);
        let is_fault = |finding: &diagnosis::finding::Finding| finding.severity > Severity::Info;
        assert!(!none.findings.iter().any(is_fault) && none.section.events.is_empty(), "{:?}", none.findings);
    }

    #[test]
    fn a_code_is_found_in_what_a_person_pastes() {
        for (text, code) in [
            ("79", 79),
            ("xid79", 79),
            ("Xid 119", 119),
            ("sxid12028", 12_028),
            ("SXid: 12028", 12_028),
            ("NVRM: Xid (PCI:0000:3b:00): 63, Row Remapper: new row marked for remapping", 63),
            ("[  12.5] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.", 79),
            ("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 MC TS crumbstore MCTO", 28_006),
        ] {
            assert_eq!(code_in(text), Some(code), "{text}");
        }
        for node in ["gpu-1", "node/79", "xid79.example.com", "my-xid79", "xid-79", "xid", "xid79a", "Xid (PCI", "-5"] {
            assert_eq!(code_in(node), None, "{node}");
        }
    }
}
