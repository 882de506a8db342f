//! `return_report`: creates the report for the return of a GPU to its vendor (RMA) (`ReturnReport`), as JSON or
//! Markdown. It contains identity, versions, counters, events with kernel lines, attempts to recover the GPU, findings,
//! and missing data with the commands that get this data.
//!
//! Modules: `gpu`: finds the GPU and its data. `missing`: data that a vendor also asks for. `markdown`: the report as
//! text.

mod gpu;
mod markdown;
mod missing;

use std::collections::BTreeSet;

use diagnosis::finding::Rma;
use diagnosis::{Diagnosis, Finding, Plan};
use jiff::Timestamp;
use kube_read::Failure;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::kernel_log::KernelEvent;
use syringe_core::probe_command::ReadCommand;
use syringe_core::raw_file::RawFile;
use syringe_core::report::{Report, Section, Source};
use syringe_core::text::clean;
use syringe_macros::omit;

use self::gpu::Gpu;
use self::missing::Missing;
use crate::answer::wire::untrusted_text;
use crate::archives;
use crate::call::CallContext;
use crate::compare::NodeValues;
use crate::incident::{self, Entry, EntryKind, Gap, NodeTimeline};
use crate::node_reading::read_node::{self, NodeReading};
use crate::outcome::Outcome;
use crate::settings::ArchiveNote;
use crate::tools::node_name;

/// Maximum number of raw kernel lines about the GPU. The newest lines are kept.
const MAX_LINES: usize = 200;
/// Maximum length of a kernel line.
const MAX_LINE: usize = 600;
/// Maximum number of files about the GPU.
const MAX_FILES: usize = 8;
/// Maximum number of lines of a file. The first 16 lines of a configuration space are the conventional PCI header and
/// capabilities.
const MAX_FILE_LINES: usize = 16;
/// Words in the paths of PCIe and NVLink counters.
const COUNTERS: [&str; 4] = ["replay", "error", "crc", "recover"];

#[derive(clap::Args, Debug)]
pub(crate) struct ReturnReportArgs {
    /// Name of the node, or node/NAME
    #[arg(value_name = "NODE", value_parser = node_name)]
    pub(crate) node: String,
    /// The GPU: its UUID (GPU-…), PCI address, or index if no GPU is lost
    #[arg(long = "gpu", value_name = "GPU")]
    pub(crate) gpu: String,
}

/// The case for the return of a GPU.
#[omit(Option, Vec)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ReturnReport {
    summary: String,
    /// Whether the diagnosis supports a return.
    supported: Rma,
    node: String,
    /// Time of the reading.
    read_at: Option<Timestamp>,
    context: String,
    archive: Option<ArchiveNote>,
    /// Product, identifiers and place of the GPU.
    identity: Vec<Fact>,
    /// Versions of driver, firmware and kernel.
    versions: Vec<Fact>,
    counters: Vec<Fact>,
    /// Events of the kernel log about the GPU, oldest first.
    events: Vec<Event>,
    /// The raw records of the kernel log that name the GPU, newest last: data, not advice.
    kernel_lines: Vec<String>,
    kernel_lines_omitted: Option<usize>,
    /// The files of the driver about the GPU, and the start of its configuration space.
    files: Vec<RawFile>,
    /// Reboots, driver loads and GPU resets after the first fault, in order.
    tried: Vec<Tried>,
    /// Findings about the GPU, worst first.
    findings: Vec<Finding>,
    /// The plans that resolve these findings.
    plan: Vec<Plan>,
    /// Times for which the logs have no lines.
    gaps: Vec<Gap>,
    /// Data that is missing for a complete case.
    missing: Vec<Missing>,
    /// Objects that the probe left on the cluster. `gpu-syringe sweep` deletes them.
    left_behind: Option<String>,
    #[serde(skip)]
    is_undecided: bool,
}

/// A value with its source.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Fact {
    #[schemars(extend("x-text" = "own"))]
    name: String,
    value: String,
    /// Where the value was read.
    #[schemars(extend("x-text" = "own"))]
    source: String,
}

/// An event of the kernel log.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Event {
    what: String,
    severity: Severity,
    count: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    /// Whether the line is from the current boot.
    of_running_boot: bool,
    /// Whether the log names the UUID of the GPU. Otherwise, only the address shows that the line is about this GPU.
    names_uuid: bool,
    /// The last line.
    line: String,
}

/// A reboot, driver load or reset after the first fault.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Tried {
    at: Timestamp,
    #[schemars(extend("x-text" = "own"))]
    what: String,
    kind: EntryKind,
    /// Whether a fault of the GPU was logged later.
    fault_again: bool,
}

impl Fact {
    fn new(name: &str, value: Option<impl ToString>, source: &str) -> Option<Self> {
        let value = clean(&value?.to_string(), 200);
        (!value.is_empty()).then(|| Self { name: name.to_owned(), value, source: source.to_owned() })
    }
}

/// Reads the node and creates the report.
pub(crate) async fn return_report(call: CallContext, args: ReturnReportArgs) -> Result<ReturnReport, Failure> {
    let ReturnReportArgs { node, gpu } = args;
    let mut read = read(&call, &node).await?;
    if read.report.kernel_log.is_empty() || read.report.raw_files.is_empty() {
        let saved = archives::raw_records(&call.settings, std::slice::from_ref(&node))?;
        saved.get(&node).iter().for_each(|records| records.add_to(&mut read.report));
    }
    let gpu = Gpu::find(&node, &gpu, &read.report)?;
    Ok(ReturnReport::of(&call, &node, &gpu, read))
}

/// Reads the node with its raw kernel log, or without it if a policy rejects this.
async fn read(call: &CallContext, node: &str) -> Result<NodeReading, Failure> {
    let with = async |raw_log| {
        let command = ReadCommand { raw_log, ..ReadCommand::everything() };
        read_node::read(call, None, node, "return-report", command).await
    };
    let raw_log = call.settings.may_read_raw_log();
    let read = match with(raw_log).await {
        Err(failure) if raw_log && failure.cause.is_refusal() => with(false).await?,
        Ok(read) if raw_log && read.report.source == Source::Api => with(false).await?,
        read => read?,
    };
    if read.report.source == Source::Api {
        let why = read.note.why_unread();
        let next = "A return report needs a probe of the node. Or use an archive that was saved earlier: gpu-syringe --from FILE return-report.";
        return Err(Failure::new(format!("Reading node {node}"), why, next));
    }
    Ok(read)
}

impl ReturnReport {
    fn of(call: &CallContext, node: &str, gpu: &Gpu, read: NodeReading) -> Self {
        let NodeReading { report, diagnosis, note, .. } = read;
        let log = Section::data_of(&report.sections.xid);
        let of_gpu: Vec<&KernelEvent> = log.iter().flat_map(|log| &log.events).filter(|event| gpu.has(event)).collect();
        let (tried, gaps) = tried_and_gaps(node, &report, &of_gpu);
        let findings: Vec<Finding> = diagnosis.findings.iter().filter(|finding| gpu.is_of(finding)).cloned().collect();
        let is_its = |plan: &&Plan| {
            let of_gpu = plan.addresses.is_empty() || gpu.pci.as_ref().is_some_and(|pci| plan.addresses.contains(pci));
            of_gpu && findings.iter().any(|finding| plan.findings.contains(&finding.id))
        };
        let plan: Vec<Plan> = diagnosis.plan.iter().filter(is_its).cloned().collect();
        let supported = support(&findings, &plan);
        let mut kernel_lines = gpu.lines(&report);
        let omitted = kernel_lines.len().saturating_sub(MAX_LINES);
        kernel_lines.drain(..omitted);
        let mut all = Self {
            summary: String::new(),
            supported,
            node: node.to_owned(),
            read_at: report.taken_at,
            context: note.context,
            archive: call.settings.archive.as_deref().cloned(),
            identity: gpu.identity(&report),
            versions: gpu.versions(&report),
            counters: counters(gpu, &report),
            events: of_gpu.iter().map(|event| Event::of(event, gpu)).collect(),
            kernel_lines,
            kernel_lines_omitted: (omitted > 0).then_some(omitted),
            files: gpu.files(&report),
            tried,
            findings,
            plan,
            gaps,
            missing: Vec::new(),
            left_behind: note.left_behind.or(note.process_left),
            is_undecided: diagnosis.undecided,
        };
        all.missing = missing::of(&all, gpu, &report);
        all.summary = all.summary_of(gpu, &diagnosis);
        all
    }

    fn summary_of(&self, gpu: &Gpu, diagnosis: &Diagnosis) -> String {
        let gpu = format!("{} on {}", gpu.label(), self.node);
        let mut summary = match self.supported {
            Rma::No => format!("The diagnosis does not support a return of {gpu}."),
            Rma::IfRepeated => {
                format!("A return of {gpu} is supported if the fault occurs again after the steps of the plan.")
            }
            Rma::IfDiagnosticFails => {
                format!("A return of {gpu} is supported if the field diagnostic of NVIDIA fails.")
            }
            Rma::Yes => format!("The diagnosis says that {gpu} must be returned."),
        };
        match self.findings.iter().find(|finding| finding.severity > Severity::Info) {
            Some(worst) => summary.push_str(&format!(" The worst finding: {}.", worst.headline())),
            None => summary.push_str(" The diagnosis has no finding about this GPU."),
        }
        let again = self.tried.iter().filter(|tried| tried.fault_again).count();
        if again > 0 {
            let steps = if again == 1 { "step" } else { "steps" };
            summary.push_str(&format!(" A severe fault was logged again after {again} {steps} to recover the GPU."));
        }
        if diagnosis.undecided {
            summary.push_str(" Too little could be read to rule out a worse finding.");
        }
        summary
    }

    pub(crate) fn json(&self) -> Value {
        untrusted_text::json_of(self)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        vec![format!("node/{}", self.node)]
    }

    /// The severity of the worst finding about the GPU.
    pub(crate) fn outcome(&self) -> Outcome {
        let worst = self.findings.iter().map(|finding| finding.severity).max().filter(|worst| *worst > Severity::Info);
        let outcome = worst.map_or(Outcome::NothingFound, Outcome::Found);
        if self.is_undecided { outcome.of_incomplete() } else { outcome }
    }

    pub(crate) fn markdown(&self) -> String {
        markdown::text(self)
    }
}

impl Event {
    fn of(event: &KernelEvent, gpu: &Gpu) -> Self {
        Self {
            what: incident::what(event),
            severity: incident::severity(event),
            count: event.count.max(1),
            first: event.first,
            last: event.last,
            of_running_boot: event.boot_id.is_none(),
            names_uuid: event.gpu_uuid.is_some() && event.gpu_uuid == gpu.uuid,
            line: clean(&event.raw, MAX_LINE),
        }
    }
}

/// Returns the attempts after the first fault, and the gaps in the logs since then.
fn tried_and_gaps(node: &str, report: &Report, events: &[&KernelEvent]) -> (Vec<Tried>, Vec<Gap>) {
    let since = |least: Severity| {
        let faults = events.iter().filter(move |event| incident::severity(event) >= least && !event.is_reset());
        faults.flat_map(|event| event.occurred_at())
    };
    let Some(first) = since(Severity::Warning).min() else { return Default::default() };
    let grave: Vec<Timestamp> = since(Severity::Critical).collect();
    let NodeTimeline { entries, gaps } = NodeTimeline::of_report(node, report, first, report.taken_at.unwrap_or(first));
    let of_gpu: BTreeSet<String> = events.iter().map(|event| incident::lane(report, event)).collect();
    let mut tried: Vec<Tried> = entries
        .into_iter()
        .filter_map(|Entry { at, kind, lane, .. }| {
            let what = match kind {
                EntryKind::Boot => "reboot of the node",
                EntryKind::DriverLoad => "load of the NVIDIA driver",
                EntryKind::GpuReset if of_gpu.contains(&lane) => "reset of the GPU",
                _ => return None,
            };
            Some(Tried { at, what: what.to_owned(), kind, fault_again: grave.iter().any(|fault| *fault > at) })
        })
        .collect();
    tried.sort_by_key(|tried| tried.at);
    (tried, gaps)
}

/// Returns whether the plans of the GPU include a return. The plan of a node can also be about other GPUs.
fn support(findings: &[Finding], plan: &[Plan]) -> Rma {
    let of = |plan: &Plan| {
        let own = findings.iter().filter(|finding| plan.findings.contains(&finding.id));
        let own: Vec<_> = own.filter(|finding| finding.severity > Severity::Info).collect();
        let is_grave = |finding: &&Finding| finding.class == Class::Hardware && finding.severity >= Severity::Critical;
        match own.iter().any(|finding| finding.action.code == ActionCode::ContactVendor) {
            true => plan.rma,
            false if plan.addresses.is_empty() && !own.iter().copied().any(|one| is_grave(&one)) => Rma::No,
            false if plan.addresses.is_empty() => plan.rma.min(Rma::IfRepeated),
            false => plan.rma,
        }
    };
    plan.iter().map(of).max().unwrap_or_default()
}

/// Returns the counters of the GPU.
fn counters(gpu: &Gpu, report: &Report) -> Vec<Fact> {
    let values = NodeValues::of(report).map(|values| values.gpus).unwrap_or_default();
    let own = values.into_iter().find(|one| gpu.is_same(one.identity.uuid.as_deref(), one.identity.pci.as_deref()));
    let own = own.into_iter().flat_map(|gpu| gpu.values);
    let is_counter = |path: &str| {
        path.starts_with("ecc.") && !path.ends_with(".location") || COUNTERS.iter().any(|word| path.contains(word))
    };
    let counters = own.filter(|(path, _)| is_counter(path));
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    counters.filter_map(|(path, value)| Fact::new(&path, Some(text(value)), "NVML")).collect()
}
