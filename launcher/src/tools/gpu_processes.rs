//! `GpuProcesses`: the command `gpu-syringe processes`, which lists the processes on the GPUs of a node, each with the
//! command that kills it. The command is not a tool, because models get the same facts from `get_pod_gpu_allocation`
//! and `diagnose_gpu_node`.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use syringe_core::facts::inventory::Inventory;
use syringe_core::facts::processes::Processes;
use syringe_core::probe_command::ReadCommand;
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;
use syringe_core::unknown::Unknown;

use crate::answer::node_page::foot;
use crate::call::CallContext;
use crate::consent;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::node_reading::read_node::{self, NodeToRead};
use crate::outcome::{CommandAnswer, Outcome};
use crate::settings::{Mode, Settings};
use crate::terminal::page::Page;
use crate::terminal::style::{Paint, paint};
use crate::terminal::table::{cell, new_table};
use crate::tools::common_args::NodeArgs;
use crate::tools::get_pod_gpu_allocation::{self, GetPodGpuAllocation};
use crate::tools::kill_gpu_process::KillGpuProcess;
use crate::tools::tool::Tool;
use kube_read::Failure;
use kube_read::objects::name_validation;
use kube_read::reads::existing_pods::ExistingPods;
use syringe_macros::omit;

pub struct GpuProcesses;

#[omit(unknown)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProcessList {
    /// Summary in one sentence.
    pub summary: String,
    /// The node.
    pub node: String,
    /// Processes by GPU. A process on two GPUs is listed twice.
    pub processes: Vec<ProcessOnGpu>,
    /// Data that could not be read.
    pub unknown: Vec<Unknown>,
    /// How the node was read.
    pub probe: ProbeSummary,
}

/// A process on a GPU.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProcessOnGpu {
    /// NVML index of the GPU. Absent if the process only has a device file of a GPU open.
    pub gpu: Option<u32>,
    /// UUID of the GPU.
    pub uuid: Option<String>,
    /// Process ID on the node.
    pub pid: u32,
    /// Start time in clock ticks since boot. Together with the pid, this time identifies the process.
    pub start_ticks: Option<u64>,
    /// Name of the process.
    pub name: Option<String>,
    /// Scheduler state. No signal kills a process in state D.
    pub state: Option<String>,
    /// `namespace/name` of the pod of the process, or the UID of a pod that no longer exists.
    pub pod: Option<String>,
    /// GPU memory that the process uses, in bytes.
    pub memory_bytes: Option<u64>,
    /// The command that kills the process after asking the user.
    pub terminal_command: Option<String>,
}

impl Tool for GpuProcesses {
    const NAME: &'static str = "gpu_processes";
    const TITLE: &'static str = "Processes on the GPUs of a node";
    const DESCRIPTION: &'static str =
        "Processes on the GPUs of a node, with their pods, and the commands to kill them.";
    const PROBES: bool = true;
    type Args = NodeArgs;
    type Answer = ProcessList;

    async fn call(call: CallContext, args: NodeArgs) -> Result<ProcessList, Failure> {
        let NodeArgs { node_name, context } = args;
        let what = format!("Looking at node {}", clean(&node_name, name_validation::MAX_LENGTH));
        let connection = call.with_deadline(&what, call.contexts.connect(context.as_deref())).await?;
        let kubernetes = read_node::read_node_object(&call, &connection, &node_name).await?;
        let existing_pods = Some(ExistingPods::on_node(&connection, &node_name, call.time_left()).await);
        let known = NodeToRead::new(&call, &connection, &kubernetes, existing_pods, None);
        let command = ReadCommand::of(get_pod_gpu_allocation::SECTIONS);
        // The request has the name of a tool, because the admission policy admits only the requests of tools.
        let mut read = read_node::read_with_object(&call, known, GetPodGpuAllocation::NAME, command).await?;
        if let Some(existing_pods) = &read.existing_pods {
            existing_pods.replace_static_pod_uids(&mut read.report.sections);
        }
        let inventory = read.report.sections.inventory.and_then(|section| section.data).unwrap_or_default();
        let processes = read_node::section(&read.note, SectionName::Processes, read.report.sections.processes)?;
        let names = read.existing_pods.as_ref().map(|pods| pods.names().clone()).unwrap_or_default();
        let pod_of = |uid: &String| names.get(uid).unwrap_or(uid).clone();
        let mut listed = list(&inventory, &processes, pod_of);
        for one in &mut listed {
            one.terminal_command = kill_command(&call, &node_name, one);
        }
        let unknown: Vec<_> =
            read.diagnosis.unknown.into_iter().filter(|one| one.is_of(SectionName::Processes)).collect();
        let summary = match (listed.is_empty(), unknown.first()) {
            (true, Some(reason)) => {
                format!(
                    "The processes on the GPUs of {node_name} could not be read: {}.",
                    reason.why.trim_end_matches('.')
                )
            }
            (false, Some(_)) => {
                format!("At least {} on the GPUs of {node_name}; the list is incomplete.", processes_of(&listed))
            }
            (_, None) => format!("{} on the GPUs of {node_name}.", processes_of(&listed)),
        };
        Ok(ProcessList { summary, node: node_name, processes: listed, unknown, probe: read.note })
    }

    fn page(answer: &ProcessList) -> Page {
        let mut page = Page::from(format!("{}\n", answer.summary));
        let mut rows = new_table(["gpu", "pid", "name", "state", "used MiB", "pod"]).optional(&["state", "name"]);
        for one in &answer.processes {
            let hangs = one.state.as_deref() == Some("D");
            rows.add_row([
                cell(one.gpu),
                one.pid.to_string(),
                cell(one.name.as_deref().map(shown_name)),
                one.state.as_deref().map_or("-".to_owned(), |state| paint(state, hangs.then_some(Paint::Critical))),
                cell(one.memory_bytes.map(|bytes| bytes >> 20)),
                cell(one.pod.as_deref().map(shown_pod)),
            ]);
        }
        page.push_table(rows);
        // Without a process, the summary contains the first reason.
        let in_summary = usize::from(answer.processes.is_empty());
        answer.unknown.iter().skip(in_summary).for_each(|unknown| page.push_unknown(unknown));
        if answer.processes.iter().any(|one| one.state.as_deref() == Some("D")) {
            page.push_str(
                "\nNo signal ends a process in state D: the kernel waits for the driver. See gpu-syringe diagnose.\n",
            );
        }
        if answer.processes.iter().any(|one| one.terminal_command.is_some()) {
            page.push_str("\nTo kill one of these processes, run its command (gpu-syringe asks first):\n");
        }
        for one in &answer.processes {
            one.terminal_command.iter().for_each(|line| page.push_command(line));
        }
        page.push_str(&foot(&answer.probe));
        page
    }
}

impl CommandAnswer for ProcessList {
    fn outcome(&self) -> Outcome {
        // This list has no verdict. If the list is empty and some data is unknown, no process was read.
        if self.processes.is_empty() && !self.unknown.is_empty() { Outcome::Unknown } else { Outcome::NothingFound }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.processes.iter().filter_map(|one| Some(format!("pod/{}", one.pod.as_ref()?))).collect();
        names.dedup();
        names
    }
}

/// Maximum length of a process name. The kernel truncates longer names.
const KERNEL_NAME: usize = 15;

/// Marks a process name that the kernel has probably truncated.
fn shown_name(name: &str) -> String {
    let mark = if name.len() == KERNEL_NAME { "…" } else { "" };
    format!("{name}{mark}")
}

/// Returns `namespace/name`, or the UID of a pod whose name is not known.
fn shown_pod(pod: &str) -> String {
    if pod.contains('/') { pod.to_owned() } else { format!("UID {pod}, not in the list of pods") }
}

fn processes_of(listed: &[ProcessOnGpu]) -> String {
    let mut pids: Vec<_> = listed.iter().map(|one| one.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    format!("{} process{}", pids.len(), if pids.len() == 1 { "" } else { "es" })
}

fn list(inventory: &Inventory, processes: &Processes, pod_of: impl Fn(&String) -> String) -> Vec<ProcessOnGpu> {
    let uuid_of = |gpu: u32| inventory.gpus.iter().find(|one| one.index == gpu).and_then(|one| one.uuid.clone());
    let mut listed = Vec::new();
    for process in &processes.processes {
        let row = |gpu: Option<u32>, memory_bytes: Option<u64>| ProcessOnGpu {
            gpu,
            uuid: gpu.and_then(uuid_of),
            pid: process.pid,
            start_ticks: process.start_ticks,
            name: process.name.clone(),
            state: process.state.clone(),
            pod: process.pod_uid.as_ref().map(&pod_of),
            memory_bytes,
            terminal_command: None,
        };
        match process.uses.is_empty() {
            true => listed.push(row(None, None)),
            false => listed.extend(process.uses.iter().map(|of| row(Some(of.gpu), of.memory_bytes))),
        }
    }
    listed.sort_by_key(|one| (one.gpu.is_none(), one.gpu, one.pid));
    listed
}

/// Returns the command that kills the process. `None` if no signal kills the process or the process cannot be identified.
fn kill_command(call: &CallContext, node: &str, process: &ProcessOnGpu) -> Option<String> {
    let (uuid, ticks) = (process.uuid.as_ref()?, process.start_ticks?);
    if matches!(process.state.as_deref(), Some("D" | "X" | "Z")) {
        return None;
    }
    let settings = Settings { mode: Mode::Operator, ..Settings::clone(&call.settings) };
    let arguments = json!({ "gpu": uuid, "pid": process.pid, "start_ticks": ticks });
    let kubeconfig = call.contexts.kubeconfig_variable();
    Some(consent::terminal_command_line(&settings, kubeconfig.as_deref(), KillGpuProcess::NAME, node, &arguments, None))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_process_on_two_gpus_is_listed_for_each() {
        let inventory = json!({"gpus": [{"index": 0, "uuid": "GPU-a"}, {"index": 1, "uuid": "GPU-b"}]});
        let processes = json!({"host_pid_namespace": true, "processes": [
            {"pid": 7, "start_ticks": 99, "pod_uid": "u", "uses": [
                {"gpu": 1, "kind": "compute", "memory_bytes": 1048576}, {"gpu": 0, "kind": "compute"}]},
            {"pid": 8, "uses": [], "open_device_files": ["/dev/nvidia0"]}
        ]});
        let inventory: Inventory = serde_json::from_value(inventory).expect("an inventory");
        let processes: Processes = serde_json::from_value(processes).expect("processes");
        let listed = list(&inventory, &processes, |uid| format!("ml/{uid}"));
        let found: Vec<_> = listed.iter().map(|one| (one.gpu, one.uuid.as_deref(), one.pid)).collect();
        assert_eq!(found, [(Some(0), Some("GPU-a"), 7), (Some(1), Some("GPU-b"), 7), (None, None, 8)]);
        assert_eq!((listed[0].pod.as_deref(), listed[1].memory_bytes), (Some("ml/u"), Some(1 << 20)));
        assert_eq!(processes_of(&listed), "2 processes");
    }

    #[test]
    fn a_cell_says_what_its_text_is() {
        assert_eq!(shown_pod("ml/train-0"), "ml/train-0");
        let uid = "11111111-2222-3333-4444-555555555555";
        assert_eq!(shown_pod(uid), format!("UID {uid}, not in the list of pods"));
        assert_eq!((shown_name("nvidia-persiste"), shown_name("python")), ("nvidia-persiste…".into(), "python".into()));
    }
}
