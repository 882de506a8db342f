//! `read`: reads the node that a call names, or all GPU nodes.

use crate::answer::node::NodeAnswer;
use crate::answer::one_or_many::OneOrMany;
use crate::call::CallContext;
use crate::fleet::{self, NodeSelection};
use crate::node_reading::read_node::{self, NodeReading};
use crate::tools::common_args::FleetArgs;
use kube_read::Failure;
use syringe_core::probe_command::ReadCommand;

/// Reads one node and creates the answer with `answer`, or reads all GPU nodes that `args` select.
pub(super) async fn read<T>(
    call: &CallContext,
    args: FleetArgs,
    tool: &'static str,
    command: ReadCommand,
    answer: fn(NodeReading) -> Result<NodeAnswer<T>, Failure>,
) -> Result<OneOrMany<T>, Failure> {
    args.check()?;
    let FleetArgs { node_name, selector, limit, context } = args;
    let context = context.as_deref();
    let Some(node_name) = node_name else {
        let selection = NodeSelection { context, selector: selector.as_deref(), limit };
        return Ok(OneOrMany::Many(Box::new(fleet::read_fleet(call, selection, tool, &command).await?)));
    };
    let read = read_node::read(call, context, &node_name, tool, command).await?;
    Ok(OneOrMany::One(Box::new(answer(read)?)))
}
