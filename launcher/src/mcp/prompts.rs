//! `list`, `get`: the MCP prompts for common tasks of an SRE: which tools to call in which order, and what to answer.

use rmcp::ErrorData;
use rmcp::model::{GetPromptRequestParams, GetPromptResult, Prompt, PromptArgument, PromptMessage, Role};
use syringe_core::text::clean;

struct PromptTemplate {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    /// Name, description, required.
    arguments: &'static [(&'static str, &'static str, bool)],
    /// Text of the prompt. `{name}` is replaced by the argument `name`.
    text: &'static str,
}

const PROMPTS: &[PromptTemplate] = &[
    PromptTemplate {
        name: "node_triage",
        title: "Triage a GPU node",
        description: "What is wrong with this node, and what to do next",
        arguments: &[("node_name", "Kubernetes node", true)],
        text: "Triage GPU node {node_name}.\n\
            1. Call diagnose_gpu_node. Lead with its verdict and the worst finding; quote its evidence with times.\n\
            2. For each critical or fatal finding give its one action, and say whether pods can stay on the node meanwhile \
            (get_pod_gpu_allocation shows who holds its GPUs).\n\
            3. Say what is unknown and why. Unknown does not mean healthy.\n\
            Do not infer a hardware fault from an application Xid (13, 31, 43, 45, 68) alone. Change nothing.",
    },
    PromptTemplate {
        name: "why_did_my_training_pod_die",
        title: "Why did my training pod die?",
        description: "Cause (application, GPU, node or cluster), evidence and next step",
        arguments: &[
            ("pod", "Pod, or its owner as job/NAME", true),
            ("namespace", "Namespace of the pod; by default the namespace of the context", false),
        ],
        text: "Explain why pod {pod} (namespace {namespace}) failed, hangs or waits.\n\
            1. Call explain_gpu_pod. State the cause and how certain it is, then the evidence from its timeline.\n\
            2. If the cause is gpu or node, call diagnose_gpu_node for the pod's node to see whether other pods are in danger.\n\
            3. Say plainly whether the owner of the code or the owner of the node has to act, and what they do next.\n\
            If the evidence is not sufficient, say what is missing (a log, a longer window). Do not guess.",
    },
    PromptTemplate {
        name: "is_this_gpu_to_be_returned",
        title: "Does this GPU need an RMA?",
        description: "Collects the facts that a vendor asks for, and decides whether to return the GPU",
        arguments: &[("node_name", "Kubernetes node", true), ("gpu", "GPU index, UUID, serial or PCI address", true)],
        text: "Decide whether to return GPU {gpu} of node {node_name} to the vendor.\n\
            1. Call get_gpu_inventory for serial, part number, VBIOS and driver; snapshot_ecc for remapped rows, spare rows, \
            SRAM threshold and the driver's recovery action; analyze_xid_errors for its Xids.\n\
            2. Return it when a row remap failed, the SRAM threshold is exceeded, the GPU fell off the bus again after a power \
            cycle, or the same hardware error came back after a reset. A pending remap, contained errors and lifetime counts \
            from long ago are not a reason.\n\
            3. Give the list of facts for the vendor's ticket, and which of them could not be read.",
    },
];

pub(super) fn list() -> Vec<Prompt> {
    PROMPTS
        .iter()
        .map(|prompt| {
            let argument = |(name, what, required): &(&str, &str, bool)| {
                PromptArgument::new(*name).with_description(*what).with_required(*required)
            };
            let arguments = prompt.arguments.iter().map(argument).collect();
            Prompt::new(prompt.name, Some(prompt.description), Some(arguments)).with_title(prompt.title)
        })
        .collect()
}

/// Returns one prompt with its arguments filled in.
pub(super) fn get(request: &GetPromptRequestParams) -> Result<GetPromptResult, ErrorData> {
    let Some(prompt) = PROMPTS.iter().find(|prompt| prompt.name == request.name) else {
        let known: Vec<_> = PROMPTS.iter().map(|prompt| prompt.name).collect();
        let name = clean(&request.name, 80);
        return Err(ErrorData::invalid_params(format!("no prompt '{name}'; there are: {}", known.join(", ")), None));
    };
    let mut text = prompt.text.to_owned();
    for (name, _, required) in prompt.arguments {
        let given = request.arguments.as_ref().and_then(|arguments| arguments.get(*name));
        let value = match given.and_then(|value| value.as_str()) {
            Some(value) if !value.is_empty() => clean(value, 253),
            _ if *required => {
                return Err(ErrorData::invalid_params(format!("prompt {} needs argument {name}", prompt.name), None));
            }
            // The only optional argument is a namespace.
            _ => "of the context".to_owned(),
        };
        text = text.replace(&format!("{{{name}}}"), &value);
    }
    Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).with_description(prompt.description))
}
