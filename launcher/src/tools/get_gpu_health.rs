//! `GetGpuHealth`, `HealthSection`: the tool `get_gpu_health`: health of all GPU nodes, or of one node with the score
//! of each GPU.

use diagnosis::health::Health;
use schemars::JsonSchema;
use serde::Serialize;

use crate::answer::fleet_page as fleet_answer;
use crate::answer::node::NodeAnswer;
use crate::answer::node_page::{foot, head};
use crate::answer::one_or_many::OneOrMany;
use crate::call::CallContext;
use crate::node_reading::read_node::NodeReading;
use crate::terminal::page::Page;
use crate::terminal::style::named;
use crate::terminal::table::{cell, new_table, pci_cell};
use crate::tools::common_args::FleetArgs;
use crate::tools::one_or_many;
use crate::tools::tool::Tool;
use kube_read::Failure;
use syringe_core::probe_command::ReadCommand;

pub struct GetGpuHealth;

/// The part of the answer that only this tool has.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HealthSection {
    /// Score and status of the node and of each GPU.
    pub health: Health,
}

impl Tool for GetGpuHealth {
    const NAME: &'static str = "get_gpu_health";
    const TITLE: &'static str = "Health of GPUs";
    const DESCRIPTION: &'static str = "Health of all GPU nodes in one call, or of one node: findings, outliers, nodes that could not be read; for one \
        node a score per GPU with the reason for each lost point. Start here for a cluster.";
    const PROBES: bool = true;
    type Args = FleetArgs;
    type Answer = OneOrMany<HealthSection>;

    async fn call(call: CallContext, args: FleetArgs) -> Result<Self::Answer, Failure> {
        let answer = |read: NodeReading| {
            let health = read.diagnosis.health.clone();
            Ok(NodeAnswer::new(read.diagnosis, HealthSection { health }, read.note))
        };
        one_or_many::read(&call, args, Self::NAME, ReadCommand::everything(), answer).await
    }

    fn page(answer: &Self::Answer) -> Page {
        let answer = match answer {
            OneOrMany::One(answer) => answer,
            OneOrMany::Many(answer) => return fleet_answer::page(answer),
        };
        let health = &answer.section.health;
        let mut rows = new_table(["gpu", "pci address", "status", "score", "points lost"]).note("points lost");
        for gpu in &health.gpus {
            let lost: Vec<_> = gpu.deductions.iter().map(|one| format!("{} {}", one.points, one.finding)).collect();
            rows.add_row([
                cell(gpu.index),
                pci_cell(gpu.pci_address.as_ref()),
                named(gpu.status),
                gpu.score.to_string(),
                lost.join(", "),
            ]);
        }
        let score = health.score.map_or_else(|| "not checked".to_owned(), |score| format!("{score} of 100"));
        let mut page = head(answer);
        page.push_str(&format!("\nnode: {score}\n"));
        page.push_table(rows);
        page.push_str(&foot(&answer.probe));
        page
    }
}
