//! `DiagnoseGpuNode`: the tool `diagnose_gpu_node`, which reads every section of one node with one probe, and applies
//! every rule. `DiagnoseArgs`, `DiagnosisSection`: its arguments and its section of the answer.

use std::collections::BTreeMap;

use diagnosis::Diagnosis;
use diagnosis::health::{GpuHealth, HealthStatus};
use diagnosis::stack_stage::StackStage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use syringe_core::probe_command::ReadCommand;
use syringe_core::report::{Section, Sections, Status};
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

use crate::answer::node::NodeAnswer;
use crate::answer::node_page::{foot, head, stack_line};
use crate::call::CallContext;
use crate::node_reading::read_node;
use crate::terminal::page::Page;
use crate::terminal::style::named;
use crate::terminal::table::{cell, new_table, pci_cell};
use crate::tools::common_args::{NODE_HELP, node_name};
use crate::tools::tool::Tool;
use kube_read::Failure;
use syringe_macros::omit;

/// The reason why CUDA was not started, although the call requested the start.
const NOT_STARTED: &str = "CUDA was not started: the host was not read, the time that was left was not enough (--call-timeout), \
     or the answer is from an archive without a start of CUDA";

pub struct DiagnoseGpuNode;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiagnoseArgs {
    /// Kubernetes node
    #[arg(value_name = "NODE", help = NODE_HELP, value_parser = node_name)]
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// Also return all facts (9,000 tokens)
    #[arg(long, help = "Also return every fact that was read, in JSON and YAML")]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detail: bool,
    /// Also start CUDA (cuInit)
    #[arg(long, help = "Also start CUDA (cuInit, no context) in a process without privileges on the node")]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deep: bool,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

/// The part of the answer that only this tool has.
#[omit(Option, stack, detail_omitted)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DiagnosisSection {
    /// Sections that were read, with their status.
    pub sections_read: Vec<SectionStatus>,
    /// Number of GPUs that NVML lists or that are on the PCI bus.
    pub gpus: u32,
    /// Score of the node, 0 to 100. Absent if nothing was checked.
    pub score: Option<u32>,
    /// Status of the node.
    pub status: HealthStatus,
    /// The stages from the GPUs on the PCI bus to the scheduler. Repair the first stage that is `broken`.
    pub stack: Vec<StackStage>,
    /// GPUs that are not healthy, with the reasons for lost points.
    pub affected_gpus: Vec<GpuHealth>,
    /// Every fact that was read, by section. Only with `detail`. `detail_omitted` names the sections that are left out.
    #[schemars(with = "Option<BTreeMap<String, Value>>")]
    pub detail: Option<Value>,
    /// Sections that are left out of `detail` for space.
    #[schemars(extend("x-text" = "own"))]
    pub detail_omitted: Vec<String>,
}

/// A section that was read.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SectionStatus {
    /// Name of the section.
    pub section: SectionName,
    /// Status of the section.
    pub status: Status,
}

impl Tool for DiagnoseGpuNode {
    const NAME: &'static str = "diagnose_gpu_node";
    const TITLE: &'static str = "Diagnose a GPU node";
    const DESCRIPTION: &'static str = "What is wrong with a GPU node: Xid, lost GPU, ECC, NVLink, throttling, stuck process, driver or device plugin. \
        Ranked findings with actions. Start here for a node.";
    const PROBES: bool = true;
    type Args = DiagnoseArgs;
    type Answer = NodeAnswer<DiagnosisSection>;

    async fn call(call: CallContext, args: DiagnoseArgs) -> Result<Self::Answer, Failure> {
        let DiagnoseArgs { node_name, detail, deep, context } = args;
        let command = ReadCommand { deep, ..ReadCommand::everything() };
        let mut read = read_node::read(&call, context.as_deref(), &node_name, Self::NAME, command).await?;
        let sections = read.report.sections;
        let host = Section::data_of(&sections.host);
        if deep && host.is_none_or(|host| host.cuda.is_none()) {
            read.diagnosis.unknown.push(Unknown::new(SectionName::Host, NOT_STARTED));
        }
        let section = DiagnosisSection::of(sections, &read.diagnosis, detail);
        Ok(NodeAnswer::new(read.diagnosis, section, read.note))
    }

    fn page(answer: &Self::Answer) -> Page {
        let section = &answer.section;
        let of = |label: &str, status: Status| {
            let read = section.sections_read.iter().filter(|one| one.status == status);
            let names: Vec<_> = read.map(|one| one.section.as_str()).collect();
            if names.is_empty() { String::new() } else { format!("{label}: {}\n", names.join(", ")) }
        };
        let (complete, partial) = (of("Complete", Status::Ok), of("Partial", Status::Partial));
        let mut text = head(answer);
        text.push_str(&format!("\n{complete}{partial}{}", of("Failed", Status::Error)));
        text.push_str(&stack_line(&section.stack));
        if !section.affected_gpus.is_empty() {
            let mut rows =
                new_table(["gpu", "pci address", "score", "status", "pods", "because of"]).note("because of");
            for gpu in &section.affected_gpus {
                let because: Vec<_> =
                    gpu.deductions.iter().map(|lost| format!("{} (-{})", lost.finding, lost.points)).collect();
                rows.add_row([
                    cell(gpu.index),
                    pci_cell(gpu.pci_address.as_ref()),
                    gpu.score.to_string(),
                    named(gpu.status),
                    gpu.pods.join(", "),
                    because.join(", "),
                ]);
            }
            text.push_table(rows);
        }
        text.push_str(&foot(&answer.probe));
        text
    }
}

impl DiagnosisSection {
    fn of(sections: Sections, diagnosis: &Diagnosis, with_detail: bool) -> Self {
        let sections_read =
            sections.statuses().into_iter().map(|(section, status)| SectionStatus { section, status }).collect();
        let health = diagnosis.health.clone();
        let gpus = u32::try_from(health.gpus.len()).unwrap_or(u32::MAX);
        let affected_gpus = health.gpus.into_iter().filter(|gpu| gpu.status != HealthStatus::Healthy).collect();
        let detail = if with_detail { detail_of(sections) } else { None };
        Self {
            sections_read,
            gpus,
            score: health.score,
            status: health.status,
            stack: diagnosis.stack.clone(),
            affected_gpus,
            detail,
            detail_omitted: Vec::new(),
        }
    }
}

/// Returns the sections as the probe printed them. If the answer would be too long, the largest sections are left out.
fn detail_of(sections: Sections) -> Option<Value> {
    serde_json::to_value(sections).ok()
}
