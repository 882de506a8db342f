//! `GetPodGpuAllocation`: the tool `get_pod_gpu_allocation`, which lists the pods with GPUs of a node or namespace,
//! optionally with the GPUs of each pod. `AllocationArgs`, `PodAllocation`: its arguments and its answer.

use std::collections::BTreeMap;

use diagnosis::finding::Finding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::probe_command::ReadCommand;
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;
use syringe_core::unknown::Unknown;

use crate::answer::node_page::foot;
use crate::answer::pod_tables::{pods_table, resources_table};
use crate::call::CallContext;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::node_reading::read_node;
use crate::node_reading::read_node::NodeToRead;
use crate::outcome::{CommandAnswer, Outcome};
use crate::terminal::page::Page;
use crate::tools::common_args::node_name;
use crate::tools::tool::Tool;
use kube_read::client::api_error::section_unknown;
use kube_read::objects::gpu_pod::Pod;
use kube_read::objects::gpu_requests::ResourceUse;
use kube_read::objects::name_validation;
use kube_read::objects::pod_rows::{self, PodRow};
use kube_read::objects::resolve_devices;
use kube_read::objects::resolve_devices::Leftovers;
use kube_read::reads::existing_pods::ExistingPods;
use kube_read::reads::node_with_pods::NodeWithPods;
use kube_read::reads::{node_with_pods, pods, resource_claims};
use kube_read::{Connection, Failure};
use syringe_macros::omit;

/// The sections that show which container has which device.
pub(super) const SECTIONS: [SectionName; 4] =
    [SectionName::Inventory, SectionName::Mig, SectionName::Kubelet, SectionName::Processes];

pub struct GetPodGpuAllocation;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllocationArgs {
    /// Kubernetes node; without it, the pods with GPUs of a namespace, which needs no permission on nodes
    #[arg(value_name = "NODE", help = "Name of the node, or node/NAME; by default the pods of the namespace", value_parser = node_name)]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// Only the pods of this namespace (the totals are for the whole node); without a node: that of the context
    #[arg(
        short = 'n',
        long,
        value_name = "NAMESPACE",
        help = "Only the pods of this namespace; without a node: that of the context"
    )]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Also read, with a probe, which GPU each container has and which processes run on it
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resolve_devices: bool,
    /// Pods of all namespaces, which is the default with a node
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_namespaces: bool,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

#[omit(Option, findings, unknown)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PodAllocation {
    /// Summary in one or two sentences.
    pub summary: String,
    /// The node. Absent in an answer about a namespace.
    pub node: Option<String>,
    /// The kubeconfig context.
    pub context: String,
    /// The time when the Kubernetes API was read. The time of the facts from the probe is in `probe`.
    pub taken_at: jiff::Timestamp,
    /// Findings of the probe about the allocation. Only with `resolve_devices`.
    pub findings: Vec<Finding>,
    /// Data that could not be read.
    pub unknown: Vec<Unknown>,
    /// Use of each GPU resource of the node by all pods.
    pub resources: Vec<ResourceUse>,
    /// Pods that request or use GPUs, those with the most GPUs first.
    pub pods: Vec<PodRow>,
    /// Number of pods with GPUs in namespaces other than the requested namespace.
    pub pods_in_other_namespaces: Option<usize>,
    /// Device allocations and processes that belong to no pod of the node. Only with `resolve_devices`.
    #[serde(skip_serializing_if = "Leftovers::is_empty")]
    pub leftovers: Leftovers,
    /// How the probe ran or failed. Absent without `resolve_devices`.
    pub probe: Option<ProbeSummary>,
}

impl Tool for GetPodGpuAllocation {
    const NAME: &'static str = "get_pod_gpu_allocation";
    const TITLE: &'static str = "Pods that use the GPUs of a node";
    const DESCRIPTION: &'static str = "Which pods use the GPUs of a node, or of a namespace: requests of whole, MIG, shared and DRA devices, init and \
        sidecar containers, totals. Needs no probe, except with resolve_devices, which shows the GPU of each container.";
    const PROBES: bool = true;
    type Args = AllocationArgs;
    type Answer = PodAllocation;

    async fn call(call: CallContext, args: AllocationArgs) -> Result<PodAllocation, Failure> {
        let AllocationArgs { node_name, namespace, resolve_devices, all_namespaces, context } = args;
        namespace.as_deref().map_or(Ok(()), name_validation::check_namespace)?;
        let Some(node_name) = node_name else {
            let place = Place { namespace, all_namespaces, context };
            return if resolve_devices { Err(no_node()) } else { read_namespace(&call, place).await };
        };
        let what = format!("Looking at node {}", clean(&node_name, name_validation::MAX_LENGTH));
        let connection = call.with_deadline(&what, call.contexts.connect(context.as_deref())).await?;
        let mut view = call.with_deadline(&what, node_with_pods::read(&connection, &node_name)).await?;
        let node = node_name.clone();
        let mut answer = PodAllocation::of(&view, node_name, &connection);
        answer.unknown.append(&mut view.unknown);
        if resolve_devices {
            call.prober.sweep_in_background(&connection);
            let known = NodeToRead::new(&call, &connection, &view.node, Some(view.existing_pods()), None);
            let command = ReadCommand::of(SECTIONS);
            match read_node::read_with_object(&call, known, Self::NAME, command).await {
                Ok(mut read) => {
                    if let Some(existing_pods) = &read.existing_pods {
                        existing_pods.replace_static_pod_uids(&mut read.report.sections);
                    }
                    let existing_pods = read.existing_pods.as_ref().map(ExistingPods::names);
                    answer.leftovers = resolve_devices::resolve(&mut answer.pods, existing_pods, &read.report.sections);
                    answer.findings = read.diagnosis.findings;
                    answer.unknown.extend(read.diagnosis.unknown);
                    answer.probe = Some(read.note);
                }
                Err(failure) => {
                    answer.unknown.push(section_unknown("devices", &failure));
                    answer.probe = ProbeSummary::of_failed_probe(call.settings.via, &node, &connection, &failure);
                }
            }
        }
        answer.narrow(namespace.as_deref());
        Ok(answer)
    }

    fn page(answer: &PodAllocation) -> Page {
        let mut text = Page::from(format!("{}\n", answer.summary));
        answer.unknown.iter().for_each(|unknown| text.push_unknown(unknown));
        if !answer.resources.is_empty() || answer.node.is_some() {
            text.push_table(resources_table(&answer.resources));
        }
        text.push_table(pods_table(&answer.pods));
        if answer.has_unread_devices() {
            text.push_str("\nTo see which GPU each container has, add --resolve-devices.\n");
        }
        if answer.node.is_none() && !answer.pods.is_empty() {
            text.push_str("\nTo see why a pod fails, hangs or is Pending, run: gpu-syringe explain NAMESPACE/POD\n");
        }
        for gone in &answer.leftovers.allocated_to_deleted_pods {
            let pod = gone.pod.as_ref().unwrap_or(&gone.pod_uid);
            text.push_str(&format!("allocated to a pod that no longer exists ({pod}): {}\n", gone.devices.join(", ")));
        }
        for stray in &answer.leftovers.processes {
            let pod = stray.pod.as_deref().unwrap_or("no pod");
            text.push_str(&format!(
                "process {} of {pod} on {}, which is not allocated to its container\n",
                stray.process.pid, stray.uuid
            ));
        }
        text.push_str(&answer.probe.as_ref().map(foot).unwrap_or_default());
        text
    }
}

impl CommandAnswer for PodAllocation {
    fn outcome(&self) -> Outcome {
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        worst.map_or(Outcome::NothingFound, Outcome::Found)
    }

    fn names(&self) -> Vec<String> {
        self.pods.iter().map(|pod| format!("pod/{}", pod.name)).collect()
    }
}

/// The namespaces of an answer without a node.
struct Place {
    namespace: Option<String>,
    all_namespaces: bool,
    context: Option<String>,
}

fn no_node() -> Failure {
    Failure::usage(
        "The arguments",
        "the devices of containers can only be read on one node",
        "Specify the node, or leave out resolve_devices.",
    )
}

/// Reads the pods with GPUs of a namespace. The user needs no permission on nodes.
async fn read_namespace(call: &CallContext, place: Place) -> Result<PodAllocation, Failure> {
    let what = "Listing the pods";
    let connection = call.with_deadline(what, call.contexts.connect(place.context.as_deref())).await?;
    let default = || connection.client.default_namespace().to_owned();
    let namespace = if place.all_namespaces { None } else { Some(place.namespace.unwrap_or_else(default)) };
    let pods = call.with_deadline(what, pods::of_namespace(&connection, namespace.as_deref())).await?;
    let mut unknown = Vec::new();
    let dra = if pods.iter().any(|pod| !pod.spec.resource_claims.is_empty()) {
        let claims = resource_claims::read(&connection, None, &mut unknown);
        call.with_deadline("Reading the resource claims", claims).await?
    } else {
        None
    };
    let row = |pod: &Pod| Some(PodRow { node: pod.spec.node_name.clone(), ..pod_rows::row(pod, dra.as_ref())? });
    let mut rows: Vec<_> = pods.iter().filter_map(row).collect();
    rows.sort_by_key(|row| (row.phase == "Succeeded", row.namespace.clone(), row.name.clone()));
    let mut phases = BTreeMap::<&str, usize>::new();
    rows.iter().for_each(|row| *phases.entry(row.phase.as_str()).or_default() += 1);
    let each: Vec<_> = phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    let place = namespace.map_or_else(|| "All namespaces".to_owned(), |name| format!("Namespace {name}"));
    let summary = match rows.len() {
        0 => format!("{place}: no pod requests or has a GPU."),
        count => format!("{place}: {count} pod{} with GPUs ({}).", if count == 1 { "" } else { "s" }, each.join(", ")),
    };
    let mut answer = PodAllocation {
        summary,
        node: None,
        context: connection.context.clone(),
        taken_at: connection.now(),
        findings: Vec::new(),
        unknown,
        resources: Vec::new(),
        pods: rows,
        pods_in_other_namespaces: None,
        leftovers: Leftovers::default(),
        probe: None,
    };
    answer.narrow(None);
    Ok(answer)
}

impl PodAllocation {
    fn of(view: &NodeWithPods, node: String, connection: &Connection) -> Self {
        let resources = view.uses();
        let pods = view.rows();
        let parts: Vec<_> = resources
            .iter()
            .filter_map(|one| Some(format!("{} of {} {} allocated", one.allocated?, one.allocatable, one.resource)))
            .collect();
        let holding = pods.iter().filter(|pod| !pod.holds.is_empty() || !pod.claims.is_empty()).count();
        let summary = match (&view.pods, parts.is_empty()) {
            (Err(_), _) => format!("The pods of node {node} could not be read: the allocation is unknown."),
            (_, true) => format!("Node {node} advertises no GPU resource; pods that request one: {holding}."),
            _ => format!("Node {node}: {}; pods with GPUs: {holding}.", parts.join(", ")),
        };
        Self {
            summary,
            node: Some(node),
            context: connection.context.clone(),
            taken_at: connection.now(),
            findings: Vec::new(),
            unknown: Vec::new(),
            resources,
            pods,
            pods_in_other_namespaces: None,
            leftovers: Leftovers::default(),
            probe: None,
        }
    }

    /// Returns whether a probe could show the devices of the pods, but the call did not request a probe.
    fn has_unread_devices(&self) -> bool {
        let holds_unknown =
            |pod: &PodRow| !pod.holds.is_empty() && pod.containers.iter().all(|one| one.devices.is_empty());
        self.node.is_some() && self.probe.is_none() && self.pods.iter().any(holds_unknown)
    }

    /// Keeps the pods of one namespace, and only as many as fit into the answer.
    fn narrow(&mut self, namespace: Option<&str>) {
        if let Some(namespace) = namespace {
            let all = self.pods.len();
            self.pods.retain(|pod| pod.namespace == namespace);
            self.pods_in_other_namespaces = Some(all - self.pods.len()).filter(|others| *others > 0);
            self.summary.push_str(&format!(" {} of these pods in namespace {namespace}.", self.pods.len()));
        }
    }
}
