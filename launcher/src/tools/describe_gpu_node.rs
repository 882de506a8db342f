//! `DescribeGpuNode`: the tool `describe_gpu_node`, which returns facts about one node from Kubernetes and from a
//! probe. If no probe is possible, the answer has only the facts from Kubernetes, and the reason.

use diagnosis::health::HealthStatus;
use syringe_core::classification::Severity;
use syringe_core::probe_command::ReadCommand;
use syringe_core::report::Source;
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;
use syringe_core::unknown::Unknown;

use crate::answer::node_description::NodeDescription;
use crate::answer::node_description_page;
use crate::call::CallContext;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::node_reading::read_node::{self, NodeToRead};
use crate::outcome::{CommandAnswer, Outcome};
use crate::terminal::page::Page;
use crate::tools::common_args::NodeArgs;
use crate::tools::tool::Tool;
use kube_read::Failure;
use kube_read::client::api_error::section_unknown;
use kube_read::objects::name_validation;
use kube_read::reads::api_only_facts::needs_optional_permission;
use kube_read::reads::{daemon_sets, events, node_with_pods};

/// Maximum number of events in one answer. The newest events are kept.
const MAX_EVENTS: usize = 15;

pub struct DescribeGpuNode;

impl Tool for DescribeGpuNode {
    const NAME: &'static str = "describe_gpu_node";
    const TITLE: &'static str = "Describe a GPU node";
    const DESCRIPTION: &'static str = "One GPU node in Kubernetes (labels, taints, conditions, capacity, pods, events) and from a probe \
        (driver, health of each GPU). If no probe is possible, the answer says so and has the Kubernetes part.";
    const PROBES: bool = true;
    type Args = NodeArgs;
    type Answer = NodeDescription;

    async fn call(call: CallContext, args: NodeArgs) -> Result<NodeDescription, Failure> {
        let NodeArgs { node_name, context } = args;
        let what = format!("Looking at node {}", clean(&node_name, name_validation::MAX_LENGTH));
        let connection = call.with_deadline(&what, call.contexts.connect(context.as_deref())).await?;
        let (view, events, daemon_sets) = tokio::join!(
            call.with_deadline(&what, node_with_pods::read(&connection, &node_name)),
            call.with_deadline(&what, events::of_node(&connection, &node_name)),
            daemon_sets::list(&connection, call.time_left())
        );
        let view = view?;
        let mut answer = NodeDescription::of(&view, &connection);
        match events {
            Ok(mut events) => {
                let omitted = events.len().saturating_sub(MAX_EVENTS);
                events.truncate(MAX_EVENTS);
                (answer.events, answer.events_omitted) = (events, (omitted > 0).then_some(omitted));
            }
            Err(failure) => answer.unknown.push(section_unknown("events", &failure)),
        }
        call.prober.sweep_in_background(&connection);
        if let Ok(pods) = &view.pods {
            match call.with_deadline(&what, events::warnings_of_pods(&connection, pods)).await {
                Ok(warnings) => answer.pod_events = warnings,
                // If reading the events of the node also failed, `unknown` already has an entry for the events.
                Err(failure) if answer.unknown.iter().all(|unknown| unknown.section != "events") => {
                    answer.unknown.push(section_unknown("events", &failure));
                }
                Err(_) => {}
            }
        }
        let known = NodeToRead::new(&call, &connection, &view.node, Some(view.existing_pods()), Some(&daemon_sets));
        let read = read_node::read_with_object(&call, known, Self::NAME, ReadCommand::everything()).await;
        // Without a probe, the state of NVIDIA's pods is used, as in a diagnosis.
        let (daemon_sets, pods) = (Some(&daemon_sets), Some(view.existing_pods()));
        match read_node::with_kubernetes(&connection, &view.node, daemon_sets, pods, read, call.time_left()).await {
            Ok((mut read, failure)) => {
                if read.report.source == Source::Api
                    && let Err(why) = read.add_kernel_log(&call, &connection, &view.node, None).await
                    && !needs_optional_permission(&why)
                {
                    answer.unknown.push(Unknown::new(SectionName::Xid, why));
                }
                answer.add(read);
                if let Some(failure) = failure {
                    answer.unknown.push(section_unknown("probe", &failure));
                }
            }
            Err(failure) => {
                answer.unknown.push(section_unknown("probe", &failure));
                answer.probe = ProbeSummary::of_failed_probe(call.settings.via, &answer.node, &connection, &failure);
            }
        }
        answer.set_summary();
        Ok(answer)
    }

    fn page(answer: &NodeDescription) -> Page {
        node_description_page::page(answer)
    }
}

impl CommandAnswer for NodeDescription {
    fn outcome(&self) -> Outcome {
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        let found = match (self.overall_health, worst) {
            (_, Some(severity @ (Severity::Critical | Severity::Fatal))) => Outcome::Found(severity),
            (HealthStatus::Unhealthy, _) => Outcome::Found(Severity::Critical),
            (HealthStatus::Degraded, _) => Outcome::Found(Severity::Warning),
            (HealthStatus::Unknown, _) => Outcome::Unknown,
            (HealthStatus::Healthy, _) => Outcome::NothingFound,
        };
        if self.undecided { found.of_incomplete() } else { found }
    }

    fn names(&self) -> Vec<String> {
        vec![format!("node/{}", self.node)]
    }
}
