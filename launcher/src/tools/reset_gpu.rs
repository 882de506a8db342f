//! `ResetGpu`, `ResetArgs`: the tool `reset_gpu` (operator mode only), which resets one GPU that no process or pod
//! uses, and its arguments.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use syringe_core::facts::action::{Action, Obstacle, ResetAction, ResetOutcome};
use syringe_core::facts::kubernetes::lifecycle::Decision;
use syringe_core::probe_command::{NodeAction, RESET_TIME, ResetCommand};

use crate::answer::wire::variant_name::variant_name;
use crate::call::CallContext;
use crate::settings::DrainCheck;
use crate::terminal::page::Page;
use crate::tools::action_answer::{self, ActionAnswer};
use crate::tools::common_args::{NODE_HELP, node_name, whole_gpu};
use crate::tools::operator_action;
use crate::tools::operator_action::{OperatorAction, Target};
use crate::tools::tool::Tool;
use kube_read::Connection;
use kube_read::Failure;
use kube_read::objects::node_conditions::is_cordoned;
use kube_read::objects::platform_signals;

/// Time limit: nvidia-smi may take 5 minutes for the reset and 2 minutes for persistence mode. The rest is for the
/// checks before and after.
const TIME: Duration = Duration::from_secs(480);

pub struct ResetGpu;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetArgs {
    /// Kubernetes node
    #[arg(value_name = "NODE", help = NODE_HELP, value_parser = node_name)]
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// UUID of the GPU (GPU-…)
    #[arg(long, value_name = "UUID")]
    #[schemars(length(min = 5, max = 80))]
    pub gpu: String,
    /// Token from an earlier answer of this tool
    #[arg(skip)]
    pub token: Option<String>,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

impl Tool for ResetGpu {
    const NAME: &'static str = "reset_gpu";
    const TITLE: &'static str = "Reset a GPU";
    const DESCRIPTION: &'static str = "Resets one GPU of a cordoned node with nvidia-smi, and verifies the result. Refused, with all reasons, while \
        processes or pods use the GPU or a platform repairs the node, if the GPU has MIG instances, if its NVLink group must be reset too, or if only a \
        reboot helps. The user is asked first; if the host cannot ask, show plan and terminal_command to the user. Takes minutes.";
    const PROBES: bool = true;
    const DESTRUCTIVE: bool = true;
    type Args = ResetArgs;
    type Answer = ActionAnswer<ResetAction>;

    async fn call(call: CallContext, args: ResetArgs) -> Result<Self::Answer, Failure> {
        operator_action::run(&call, &args).await
    }

    fn page(answer: &Self::Answer) -> Page {
        action_answer::page(answer)
    }
}

impl OperatorAction for ResetArgs {
    type Report = ResetAction;
    const TOOL: &'static str = ResetGpu::NAME;

    fn target(&self) -> Target<'_> {
        let Self { node_name, token, context, .. } = self;
        Target { node_name, context: context.as_deref(), token: token.as_deref() }
    }

    fn arguments(&self) -> Value {
        json!({ "gpu": self.gpu })
    }

    fn headline(&self) -> String {
        let Self { node_name, gpu, .. } = self;
        format!("Reset {gpu} on node {node_name}")
    }

    fn validate(&self) -> Result<(), Failure> {
        whole_gpu(Self::TOOL, &self.gpu)
    }

    fn node_action(&self, call: &CallContext, kubernetes: &Node, plan: bool) -> NodeAction {
        NodeAction::Reset(ResetCommand {
            gpu: self.gpu.clone(),
            plan,
            cordoned: is_cordoned(kubernetes),
            drain_check: call.settings.drain_check == DrainCheck::On,
            time: RESET_TIME,
        })
    }

    fn obstacle(&self, kubernetes: &Node) -> Option<Obstacle> {
        let Decision { owner, signal, next, .. } = platform_signals::running_repair(kubernetes)?;
        let why = format!("{owner} repairs or maintains the node ({signal}): {next}");
        let next = format!("Wait until {owner} has finished, or end its repair first, and try again.");
        Some(Obstacle::new("in_repair", why, next))
    }

    fn refuse(planned: &mut ResetAction, obstacle: Obstacle) {
        planned.plan.blockers.insert(0, obstacle);
        planned.plan.steps.clear();
        planned.outcome = ResetOutcome::Refused;
        planned.summary = planned.plan.refusal();
    }

    fn time(&self) -> Duration {
        TIME
    }

    fn from_action(action: Action) -> Option<ResetAction> {
        match action {
            Action::Reset(reset) => Some(*reset),
            Action::Kill(_) => None,
        }
    }

    fn is_clear(done: &ResetAction) -> bool {
        done.outcome == ResetOutcome::Planned && done.plan.is_clear()
    }

    fn is_done(done: &ResetAction) -> bool {
        matches!(done.outcome, ResetOutcome::Reset | ResetOutcome::Simulated)
    }

    fn state_afterwards(&self, done: &ResetAction) -> String {
        let plan = &done.plan;
        let listed = match plan.index {
            Some(index) => format!("NVML lists the GPU as GPU {index}"),
            None => "NVML does not list the GPU".to_owned(),
        };
        let reasons = match plan.reasons.as_slice() {
            [] => "no reason for a reset is known".to_owned(),
            reasons => format!("reasons for a reset: {}", reasons.join("; ")),
        };
        let blockers: Vec<_> = plan.blockers.iter().map(|one| one.why.trim_end_matches('.')).collect();
        let blockers = if blockers.is_empty() { String::new() } else { format!("; blockers: {}", blockers.join("; ")) };
        format!("{listed}; {reasons}{blockers}")
    }

    fn outcome(&self, done: &ResetAction) -> (String, String) {
        (variant_name(done.outcome), done.summary.clone())
    }

    async fn plan(&self, _: &CallContext, _: &Connection, done: &ResetAction) -> String {
        let Self { node_name, gpu, .. } = self;
        let plan = &done.plan;
        let index = plan.index.map(|index| format!("GPU {index}, ")).unwrap_or_default();
        let name = plan.name.as_deref().map(|name| format!("{name}, ")).unwrap_or_default();
        let place = plan.pci_address.as_ref().map(|pci| format!("{}, ", pci.sysfs())).unwrap_or_default();
        let mut text = format!("Reset {index}{name}{place}{gpu} on node {node_name}.\n");
        let sections = [
            (
                "Blockers",
                plan.blockers
                    .iter()
                    .map(|one| format!("{}. {}", one.why.trim_end_matches('.'), one.next_step))
                    .collect(),
            ),
            ("Reasons", plan.reasons.clone()),
            ("Notes", plan.notes.clone()),
            ("Steps", plan.steps.clone()),
        ];
        for (head, lines) in sections.into_iter().filter(|(_, lines): &(_, Vec<String>)| !lines.is_empty()) {
            text.push_str(&format!("{head}:\n"));
            for line in lines {
                text.push_str(&format!("- {}\n", line.trim_end()));
            }
        }
        if plan.is_clear() {
            text.push_str(
                "The contents of the GPU memory will be lost. A reset can fail; the node may then need a reboot.",
            );
        }
        text
    }
}
