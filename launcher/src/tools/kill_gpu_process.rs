//! `KillGpuProcess`, `KillArgs`: the tool `kill_gpu_process` (operator mode only), which kills one process on one GPU,
//! and its arguments.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use syringe_core::facts::action::{Action, KillAction, KillOutcome};
use syringe_core::probe_command::{KillCommand, NodeAction};
use syringe_core::text::clean;

use crate::answer::wire::variant_name::variant_name;
use crate::call::CallContext;
use crate::terminal::page::Page;
use crate::tools::action_answer::{self, ActionAnswer};
use crate::tools::common_args::{NODE_HELP, node_name, whole_gpu};
use crate::tools::operator_action;
use crate::tools::operator_action::{OperatorAction, Target};
use crate::tools::tool::Tool;
use kube_read::Connection;
use kube_read::Failure;
use kube_read::reads::pod_description;

/// Default time between SIGTERM and SIGKILL.
const DEFAULT_GRACE: u64 = 10;
/// Maximum time between SIGTERM and SIGKILL, which is also the limit of node-probe.
const MAX_GRACE: u64 = 60;
/// Maximum time for the checks before and after the signals, and for the wait after SIGKILL.
const CHECK_TIME: Duration = Duration::from_secs(30);

pub struct KillGpuProcess;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KillArgs {
    /// Kubernetes node
    #[arg(value_name = "NODE", help = NODE_HELP, value_parser = node_name)]
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// UUID (GPU-…) of the GPU that the process uses
    #[arg(long, value_name = "UUID")]
    #[schemars(length(min = 5, max = 80))]
    pub gpu: String,
    /// Process ID on the node
    #[arg(long, value_name = "N")]
    pub pid: u32,
    /// start_ticks of the process from a report; a later process with the same ID is rejected
    #[arg(long, value_name = "TICKS")]
    pub start_ticks: u64,
    /// Seconds between SIGTERM and SIGKILL, 10 by default
    #[arg(long, value_name = "SECONDS")]
    #[schemars(range(min = 1, max = 60))]
    pub grace_seconds: Option<u64>,
    /// Token from an earlier answer of this tool
    #[arg(skip)]
    pub token: Option<String>,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

impl Tool for KillGpuProcess {
    const NAME: &'static str = "kill_gpu_process";
    const TITLE: &'static str = "Kill a GPU process";
    const DESCRIPTION: &'static str = "Kills one process on one GPU of a node: SIGTERM, then SIGKILL. Needs pid and start_ticks from a report. \
        Rejects a recycled pid, a process not on that GPU, and processes that the node needs. The user is asked first; if the host cannot ask, show \
        plan and terminal_command to the user.";
    const PROBES: bool = true;
    const DESTRUCTIVE: bool = true;
    type Args = KillArgs;
    type Answer = ActionAnswer<KillAction>;

    async fn call(call: CallContext, args: KillArgs) -> Result<Self::Answer, Failure> {
        operator_action::run(&call, &args).await
    }

    fn page(answer: &Self::Answer) -> Page {
        action_answer::page(answer)
    }
}

impl KillArgs {
    fn grace(&self) -> u64 {
        self.grace_seconds.unwrap_or(DEFAULT_GRACE)
    }
}

impl OperatorAction for KillArgs {
    type Report = KillAction;
    const TOOL: &'static str = KillGpuProcess::NAME;

    fn target(&self) -> Target<'_> {
        let Self { node_name, token, context, .. } = self;
        Target { node_name, context: context.as_deref(), token: token.as_deref() }
    }

    fn arguments(&self) -> Value {
        let Self { gpu, pid, start_ticks, .. } = self;
        json!({ "gpu": gpu, "pid": pid, "start_ticks": start_ticks, "grace_seconds": self.grace() })
    }

    fn headline(&self) -> String {
        let Self { node_name, gpu, pid, .. } = self;
        format!("Kill process {pid} on node {node_name} ({gpu})")
    }

    fn validate(&self) -> Result<(), Failure> {
        if !(1..=MAX_GRACE).contains(&self.grace()) {
            let why = format!("grace_seconds must be from 1 to {MAX_GRACE}, but is {}", self.grace());
            return Err(Failure::usage(format!("The arguments of {}", Self::TOOL), why, "Fix the argument."));
        }
        whole_gpu(Self::TOOL, &self.gpu)
    }

    fn node_action(&self, _: &CallContext, _: &Node, plan: bool) -> NodeAction {
        let grace = Duration::from_secs(self.grace());
        NodeAction::Kill(KillCommand {
            gpu: self.gpu.clone(),
            pid: self.pid,
            start_ticks: self.start_ticks,
            grace,
            plan,
        })
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.grace()) + CHECK_TIME
    }

    fn from_action(action: Action) -> Option<KillAction> {
        match action {
            Action::Kill(kill) => Some(*kill),
            Action::Reset(_) => None,
        }
    }

    fn is_clear(done: &KillAction) -> bool {
        done.outcome == KillOutcome::Planned
    }

    fn is_done(done: &KillAction) -> bool {
        matches!(done.outcome, KillOutcome::Ended | KillOutcome::AlreadyGone | KillOutcome::Simulated)
    }

    fn state_afterwards(&self, done: &KillAction) -> String {
        let pid = self.pid;
        match (done.outcome, &done.refusal) {
            (KillOutcome::Planned, _) => format!("process {pid} is still running and uses the GPU"),
            (KillOutcome::AlreadyGone, _) => format!("process {pid} has exited"),
            (_, Some(refusal)) => format!("process {pid} no longer matches the plan: {}", refusal.why),
            (_, None) => self.outcome(done).1,
        }
    }

    fn outcome(&self, done: &KillAction) -> (String, String) {
        let pid = self.pid;
        let mut summary = match done.outcome {
            KillOutcome::Planned => format!("Process {pid} can be killed."),
            KillOutcome::Refused => match &done.refusal {
                Some(refusal) => {
                    format!("Nothing was done: {}. {}", refusal.why.trim_end_matches('.'), refusal.next_step)
                }
                None => "Nothing was done.".to_owned(),
            },
            KillOutcome::Ended => {
                let signal = done.ended_by.as_deref().unwrap_or("a signal");
                let seconds = done.waited_ms.unwrap_or(0) as f64 / 1000.0;
                format!("Process {pid} was terminated by {signal} after {seconds:.1} s.{}", freed(done))
            }
            KillOutcome::AlreadyGone => format!("Process {pid} no longer exists. Nothing was done."),
            KillOutcome::Survived => format!("Process {pid} did not exit after SIGKILL."),
            KillOutcome::Simulated => format!("Process {pid} would have been killed."),
        };
        for note in &done.notes {
            summary.push(' ');
            summary.push_str(note);
        }
        (variant_name(done.outcome), summary)
    }

    async fn plan(&self, _: &CallContext, connection: &Connection, done: &KillAction) -> String {
        let Self { node_name, gpu, pid, .. } = self;
        let mut plan = format!("Kill process {pid}");
        let process = done.process.as_ref();
        if let Some(name) = process.and_then(|process| process.name.as_deref()) {
            plan.push_str(&format!(" ({})", clean(name, 40)));
        }
        let index = done.gpu_index.map(|index| format!("GPU {index}, ")).unwrap_or_default();
        plan.push_str(&format!(" on node {node_name} ({index}{gpu}).\n"));
        if let Some(command) = process.and_then(|process| process.command.as_deref()) {
            plan.push_str(&format!("Command line (may be truncated): \"{}\"\n", clean(command, 120)));
        }
        if let Some(started) = process.and_then(|process| process.started_at) {
            plan.push_str(&format!("The process started at {}.\n", crate::terminal::table::second(started)));
        }
        if let Some(bytes) = done.memory_before_bytes {
            plan.push_str(&format!("GPU memory in use: {}.\n", gibibytes(bytes)));
        }
        if let Some(uid) = process.and_then(|process| process.pod_uid.as_deref()) {
            plan.push_str(&match pod_description::describe_pod(connection, node_name, uid).await {
                Some(pod) => format!("The process belongs to pod {pod}\n"),
                None => format!("The process belongs to the pod with UID {}.\n", clean(uid, 40)),
            });
        }
        for note in &done.notes {
            plan.push_str(note);
            plan.push('\n');
        }
        plan.push_str(&format!(
            "The process gets SIGTERM first. If it is still running after {} s, it gets SIGKILL. Unsaved work will be lost.",
            self.grace()
        ));
        plan
    }
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1_u32 << 30))
}

/// Returns the GPU memory in use before and after the kill, if both values are known.
fn freed(done: &KillAction) -> String {
    match (done.memory_before_bytes, done.memory_after_bytes) {
        (Some(before), Some(after)) => {
            format!(" GPU memory in use: {} before, {} now.", gibibytes(before), gibibytes(after))
        }
        _ => String::new(),
    }
}
