//! The tool `analyze_xid_errors`: explains the kernel log lines about GPUs.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::facts::kernel_log::{KernelEvent, KernelLog};
use syringe_core::probe_command::ReadCommand;
use syringe_core::section_name::SectionName;
use syringe_core::since::Since;

use crate::answer::node::NodeAnswer;
use crate::answer::node_page::{foot, head};
use crate::answer::wire::variant_name::variant_name;
use crate::call::CallContext;
use crate::node_reading::read_node;
use crate::terminal::page::Page;
use crate::terminal::table::{cell, new_table, pci_cell, second};
use crate::tools::common_args::node_name;
use crate::tools::tool::Tool;
use kube_read::Failure;
use syringe_macros::omit;

/// Maximum number of events in one answer. The newest are kept; the others are counted.
const MAX_EVENTS: usize = 60;

pub struct AnalyzeXidErrors;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XidArgs {
    /// Kubernetes node
    // In `node/79`, the type shows that 79 is not an Xid code.
    #[arg(
        value_name = "NODE|CODE",
        help = "Name of the node, or the number of an Xid to explain it without a cluster"
    )]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// Duration back from now (24h, 7d) or RFC 3339 time; by default the whole log
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,
    /// Kubeconfig context; the current one by default
    #[arg(skip)]
    pub context: Option<String>,
}

impl XidArgs {
    /// Returns the arguments with `NAME` in place of `node/NAME`.
    pub(crate) fn without_type(self) -> Self {
        let Ok(node_name) = node_name(&self.node_name);
        Self { node_name, ..self }
    }
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
    /// Start of the requested window. Older events are in `events` only if they show a state that lasts
    /// until a reset or reboot.
    pub since: Option<Timestamp>,
    /// Number of events that were left out because they are older than `since`.
    pub events_before: Option<u64>,
    /// Lines that a program wrote into the kernel log to look like lines of the driver. They are ignored.
    pub untrusted_lines: u64,
}

impl Tool for AnalyzeXidErrors {
    const NAME: &'static str = "analyze_xid_errors";
    const TITLE: &'static str = "Xid errors of a node";
    const DESCRIPTION: &'static str = "Xid and other GPU lines of a node's kernel log, decoded: what happened to which GPU and process, \
        when and how often, whose fault it is, what to do. Says which time window the log really covers.";
    const PROBES: bool = true;
    type Args = XidArgs;
    type Answer = NodeAnswer<XidSection>;

    async fn call(call: CallContext, args: XidArgs) -> Result<Self::Answer, Failure> {
        let XidArgs { node_name, since, context } = args;
        let command = ReadCommand { since, ..SectionName::Xid.into() };
        let read = read_node::read(&call, context.as_deref(), &node_name, Self::NAME, command).await?;
        let KernelLog { mut events, mut events_omitted, untrusted_lines, since, events_before, .. } =
            read_node::section(&read.note, SectionName::Xid, read.report.sections.xid)?;
        let events_before = since.map(|_| events_before);
        let surplus = events.len().saturating_sub(MAX_EVENTS);
        events.drain(..surplus);
        events_omitted += surplus as u64;
        Ok(NodeAnswer::new(
            read.diagnosis,
            XidSection { events, events_omitted, since, events_before, untrusted_lines },
            read.note,
        ))
    }

    fn page(answer: &Self::Answer) -> Page {
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

fn kind_word(event: &KernelEvent) -> String {
    variant_name(event.kind).replace('_', " ")
}
