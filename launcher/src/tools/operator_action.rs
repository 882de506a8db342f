//! `OperatorAction`, `run`: the steps of an action: check the node, make a plan, get consent, write the audit log, act.
//! `Target`: the node, context and token of the call. `MAX_ACTION_TIME`: the time limit of its pod.
//!
//! A tool implements [`OperatorAction`]. All actions share the safety checks in this module.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use serde_json::Value;
use syringe_core::facts::action::{Action, Obstacle};
use syringe_core::probe_command::{ActionCommand, NodeAction, ProbeCommand};
use syringe_core::text::clean;
use tokio_util::sync::CancellationToken;

use crate::call::CallContext;
use crate::consent;
use crate::consent::{ConsentAnswer, PendingQuestion, Redeemer, TOKEN_LIFETIME};
use crate::node_reading::node_problem;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::node_reading::read_node::RESERVED_FOR_DELETION;
use crate::probe::{ActionDetails, AuditRecord, ProbeRequest, ProbeResult, random_suffix};
use crate::settings::{Mode, Settings};
use crate::tools::action_answer::ActionAnswer;
use kube_read::Connection;
use kube_read::Failure;
use kube_read::client::connection::IN_CLUSTER;
use kube_read::failure::Cause;
use kube_read::reads::nodes;

/// Maximum lifetime of the pod of an action. deploy/admission-policy.yaml allows at most 15 minutes.
pub(crate) const MAX_ACTION_TIME: Duration = Duration::from_secs(840);
/// Time limit for reading the node after an action whose outcome is not known.
const TIME_TO_LOOK_AFTERWARDS: Duration = Duration::from_secs(20);

/// An action on a node.
pub(super) trait OperatorAction: Sync {
    /// The report of the node about the action.
    type Report: Clone + Send;
    const TOOL: &'static str;

    /// Returns the node, the context and the token of the call.
    fn target(&self) -> Target<'_>;
    /// Returns the arguments to which the consent is bound: all arguments except those of [`Self::target`].
    fn arguments(&self) -> Value;
    /// Describes the action in one line for an annotation of the pod. Uses only the arguments.
    fn headline(&self) -> String;
    /// Rejects invalid arguments before anything is created.
    fn validate(&self) -> Result<(), Failure>;
    /// Returns the action of node-probe, or only the plan of this action.
    fn node_action(&self, call: &CallContext, kubernetes: &Node, plan: bool) -> NodeAction;
    /// Returns why the state of the node in the API forbids the action.
    fn obstacle(&self, _kubernetes: &Node) -> Option<Obstacle> {
        None
    }
    /// Changes the report about a plan: the action is refused because of this obstacle.
    fn refuse(_planned: &mut Self::Report, _obstacle: Obstacle) {}
    /// Returns the time limit of the action on the node.
    fn time(&self) -> Duration;
    /// Returns the report of the node, if the report is about this action.
    fn from_action(action: Action) -> Option<Self::Report>;
    /// Returns the outcome and the summary for the report of the node.
    fn outcome(&self, done: &Self::Report) -> (String, String);
    /// Returns whether the plan has no blockers, so that the user can be asked.
    fn is_clear(done: &Self::Report) -> bool;
    /// Returns whether the action was done.
    fn is_done(done: &Self::Report) -> bool;
    /// Describes the state of the GPU, from a plan that was made after an action with an unknown outcome.
    fn state_afterwards(&self, done: &Self::Report) -> String;
    /// Returns the plan as text for the user.
    fn plan(
        &self,
        call: &CallContext,
        connection: &Connection,
        done: &Self::Report,
    ) -> impl Future<Output = String> + Send;
}

/// The target of an action.
pub(super) struct Target<'a> {
    pub(super) node_name: &'a str,
    pub(super) context: Option<&'a str>,
    pub(super) token: Option<&'a str>,
}

/// A plan to which the user agreed.
struct AgreedPlan {
    plan: String,
    how: String,
}

/// Creates the plan, asks for consent and does the action.
pub(super) async fn run<D: OperatorAction>(call: &CallContext, action: &D) -> Result<ActionAnswer<D::Report>, Failure> {
    let Target { node_name, context, token } = action.target();
    if call.settings.mode != Mode::Operator {
        let why = "gpu-syringe is in read-only mode";
        return Err(Failure::new(format!("Running {}", D::TOOL), why, "Start gpu-syringe with --mode operator."));
    }
    if call.settings.refuses_actions() {
        let why = "the answers come from an archive, in which nothing can be changed";
        return Err(Failure::new(
            format!("Running {}", D::TOOL),
            why,
            "Run the command on the cluster, without --from.",
        ));
    }
    action.validate().map_err(|failure| failure.because_of(Cause::Usage))?;
    let what = format!("Looking at node {}", clean(node_name, 253));
    let connection = call.with_deadline(&what, call.contexts.connect(context)).await?;
    check_server(call, &connection, D::TOOL)?;
    call.prober.sweep_in_background(&connection);
    let kubernetes = call.with_deadline(&what, read_actionable_node(call, &connection, node_name)).await?;
    let content =
        consent::token_binding(D::TOOL, &connection.server, &connection.context, node_name, &action.arguments());
    let mut session = ActionSession { call, action, connection: &connection, kubernetes, content };
    let agreed = match session.redeem(token).await? {
        Some(Ok(agreed)) => agreed,
        Some(Err(declined)) => return Ok(declined),
        None => match session.ask().await? {
            Ok(agreed) => agreed,
            Err(answer) => return Ok(*answer),
        },
    };
    // A call that is cancelled while the user is asked counts as declined, even if the user agrees.
    if call.cancel.is_cancelled() {
        return Ok(session.declined(agreed.plan, "the call was cancelled", None).await);
    }
    // The node may have changed while the user was asked: for example, it may no longer be cordoned.
    session.kubernetes = read_actionable_node(call, &connection, node_name).await?;
    if let Some(Obstacle { why, next_step, .. }) = action.obstacle(&session.kubernetes) {
        session.record(agreed.plan).refused(&why).await;
        return Err(Failure::new(format!("Running {}", D::TOOL), why, next_step));
    }
    session.act(agreed).await
}

/// Rejects an API server other than the server set by `--server`.
fn check_server(call: &CallContext, connection: &Connection, tool: &str) -> Result<(), Failure> {
    let Some(server) = call.server.as_deref().filter(|server| *server != connection.address()) else { return Ok(()) };
    let why =
        format!("context {} uses API server {}, not {}", connection.context, connection.address(), clean(server, 300));
    Err(Failure::new(format!("Running {tool}"), why, "Check the kubeconfig, and request a new plan."))
}

/// Reads the node. Fails if no action is possible on the node.
async fn read_actionable_node(call: &CallContext, connection: &Connection, name: &str) -> Result<Node, Failure> {
    let node = nodes::read(connection, name).await?;
    call.settings.check_node_allowed(&node)?;
    nodes::must_be_ready(&node)?;
    Ok(node)
}

/// One action on a node.
struct ActionSession<'a, D> {
    call: &'a CallContext,
    action: &'a D,
    connection: &'a Connection,
    kubernetes: Node,
    content: String,
}

impl<D: OperatorAction> ActionSession<'_, D> {
    /// Checks the consent in the call: a token, or the answer of the host's user.
    async fn redeem(
        &self,
        token: Option<&str>,
    ) -> Result<Option<Result<AgreedPlan, ActionAnswer<D::Report>>>, Failure> {
        let answer = self.call.consent.answer();
        let Some(token) = answer.map(|answer| answer.token.as_str()).or(token) else { return Ok(None) };
        let redeemer = if answer.is_some() { Redeemer::Host } else { Redeemer::Model };
        let redeemed = match redeemer {
            Redeemer::Model if !self.call.settings.token_to_model => {
                Err("tokens from a model are not accepted (--token-to-model is not set)".to_owned())
            }
            _ => self.call.consent.tokens().redeem(token, &consent::redeemer_binding(redeemer, &self.content)),
        };
        let granted = match redeemed {
            Ok(granted) => granted,
            Err(why) => {
                self.record(String::new()).refused(&why).await;
                let next = "Call again without a token to get a new plan.";
                return Err(Failure::new(format!("Running {}", D::TOOL), why, next));
            }
        };
        Ok(Some(match answer {
            Some(answer) if !answer.accepted => Err(self.declined(granted.plan, "the user declined", None).await),
            Some(_) => Ok(AgreedPlan { plan: granted.plan, how: "user (input required)".to_owned() }),
            None => Ok(AgreedPlan { plan: granted.plan, how: "token".to_owned() }),
        }))
    }

    /// Creates the plan on the node, and asks for consent.
    async fn ask(&self) -> Result<Result<AgreedPlan, Box<ActionAnswer<D::Report>>>, Failure> {
        let consent = &self.call.consent;
        let (done, note) = self.plan_on_node().await?;
        let Connection { context, server, .. } = self.connection;
        let plan = self.action.plan(self.call, self.connection, &done).await;
        let plan = format!("Context {context}, API server {server}.\n{plan}");
        let (outcome, summary) = self.action.outcome(&done);
        let answer = ActionAnswer {
            outcome,
            summary,
            plan: plan.clone(),
            terminal_command: None,
            token: None,
            token_valid_seconds: None,
            consent: None,
            action: Some(done.clone()),
            probe: Some(note),
            is_done: false,
        };
        if !D::is_clear(&done) {
            return Ok(Err(Box::new(answer)));
        }
        let asked = tokio::select! {
            asked = consent.ask(&plan) => asked,
            () = self.call.cancel.cancelled() => ConsentAnswer::No("the call was cancelled".to_owned()),
        };
        match asked {
            ConsentAnswer::Yes(how) => return Ok(Ok(AgreedPlan { plan, how: how.to_owned() })),
            ConsentAnswer::No(why) => return Ok(Err(Box::new(self.declined(plan, &why, answer.probe).await))),
            ConsentAnswer::Nobody if !self.call.settings.token_to_model => {
                return Ok(Err(Box::new(ActionAnswer {
                    outcome: "awaiting_consent".to_owned(),
                    summary:
                        "Nothing was done: this host cannot ask its user. Show plan and terminal_command to the user, who can run that \
                         command in a terminal to confirm."
                            .to_owned(),
                    terminal_command: Some(self.terminal_command()),
                    ..answer
                })));
            }
            ConsentAnswer::Nobody | ConsentAnswer::Deferred => {}
        }
        let answer = self.await_consent(answer, plan, asked == ConsentAnswer::Deferred)?;
        Ok(Err(Box::new(answer)))
    }

    /// Returns the answer with a token: for the host, which asks its user (`later`), or for the model.
    fn await_consent(
        &self,
        answer: ActionAnswer<D::Report>,
        plan: String,
        later: bool,
    ) -> Result<ActionAnswer<D::Report>, Failure> {
        let consent = &self.call.consent;
        let redeemer = if later { Redeemer::Host } else { Redeemer::Model };
        let token = consent
            .tokens()
            .issue(consent::redeemer_binding(redeemer, &self.content), &plan)
            .map_err(|why| Failure::new("Creating a token", why, "Run the command in a terminal instead."))?;
        if later {
            consent.set_pending(PendingQuestion { token: token.clone(), plan });
        }
        Ok(ActionAnswer {
            outcome: "awaiting_consent".to_owned(),
            summary: format!(
                "Nothing was done. Show the plan to the user. Only if the user agrees, call {} again with the same arguments \
                 and this token within {} s.",
                D::TOOL,
                TOKEN_LIFETIME.as_secs()
            ),
            token: Some(token),
            token_valid_seconds: Some(TOKEN_LIFETIME.as_secs()),
            ..answer
        })
    }

    /// Returns the command that carries out this action in a terminal.
    fn terminal_command(&self) -> String {
        let CallContext { settings, contexts, .. } = self.call;
        let Connection { context, .. } = self.connection;
        let mut settings = Settings::clone(settings);
        // The command uses only the context of the plan. With a service account, there is no context.
        settings.context = Some(context.clone()).filter(|context| context != IN_CLUSTER);
        settings.allow_context.clear();
        // The address of the demo cluster changes with each start.
        let server = Some(self.connection.address()).filter(|_| !settings.names_archive());
        let kubeconfig = contexts.kubeconfig_variable();
        let node = self.action.target().node_name;
        consent::terminal_command_line(
            &settings,
            kubeconfig.as_deref(),
            D::TOOL,
            node,
            &self.action.arguments(),
            server,
        )
    }

    fn note(&self, plan: String, consent: String) -> ActionDetails {
        ActionDetails { arguments: self.action.arguments(), plan, headline: self.action.headline(), consent }
    }

    /// Returns the audit record of an action that was not started.
    fn record(&self, plan: String) -> AuditRecord {
        let request = self.request(None, Duration::ZERO);
        let audit = std::sync::Arc::new(self.call.prober.audit().clone());
        let note = self.note(plan, String::new());
        AuditRecord::new(audit, self.connection, &self.call.settings.probe_namespace, &request, Some(note))
    }

    async fn declined(&self, plan: String, why: &str, probe: Option<ProbeSummary>) -> ActionAnswer<D::Report> {
        self.record(plan.clone()).declined(why).await;
        ActionAnswer {
            outcome: "declined".to_owned(),
            summary: format!("Nothing was done: {why}."),
            plan,
            terminal_command: None,
            token: None,
            token_valid_seconds: None,
            consent: None,
            action: None,
            probe,
            is_done: false,
        }
    }

    /// Returns the request for the action with this ID, or the request for the plan if there is no ID.
    fn request(&self, once: Option<String>, deadline: Duration) -> ProbeRequest {
        let action = self.action.node_action(self.call, &self.kubernetes, once.is_none());
        ProbeRequest {
            node: self.action.target().node_name.to_owned(),
            command: ProbeCommand::Act(ActionCommand { action, once }),
            tool: D::TOOL,
            target: None,
            deadline,
            upload_time: Duration::ZERO,
        }
    }

    /// Creates the plan from the current state of the node.
    async fn plan_on_node(&self) -> Result<(D::Report, ProbeSummary), Failure> {
        let deadline = self.call.time_left().saturating_sub(RESERVED_FOR_DELETION);
        let request = self.request(None, deadline);
        let CallContext { prober, on_phase, cancel, .. } = self.call;
        let probed = prober.probe(self.connection, request, on_phase.clone(), cancel.clone()).await?;
        let (mut planned, probe) = self.read(probed)?;
        if let Some(obstacle) = self.action.obstacle(&self.kubernetes) {
            D::refuse(&mut planned, obstacle);
        }
        Ok((planned, probe))
    }

    async fn act(&self, agreed: AgreedPlan) -> Result<ActionAnswer<D::Report>, Failure> {
        let AgreedPlan { plan, how } = agreed;
        let deadline = (self.call.settings.call_time() + self.action.time()).min(MAX_ACTION_TIME);
        let request = self.request(Some(random_suffix()?), deadline);
        let note = self.note(plan.clone(), how.clone());
        let CallContext { prober, on_phase, .. } = self.call;
        let probed = match prober.act(self.connection, request, on_phase.clone(), note).await {
            Err(failure) if failure.cause == Cause::ActionSent => {
                return Err(self.with_state_afterwards(failure).await);
            }
            probed => probed?,
        };
        let (done, note) = self.read(probed)?;
        let (outcome, summary) = self.action.outcome(&done);
        Ok(ActionAnswer {
            outcome,
            summary,
            plan,
            terminal_command: None,
            token: None,
            token_valid_seconds: None,
            consent: Some(how),
            is_done: D::is_done(&done),
            action: Some(done),
            probe: Some(note),
        })
    }

    /// Adds the current state of the node to the failure of an action that may have been done. The state is read by
    /// making a plan, which changes nothing on the node.
    async fn with_state_afterwards(&self, failure: Failure) -> Failure {
        let node = self.action.target().node_name;
        let request = self.request(None, TIME_TO_LOOK_AFTERWARDS);
        let CallContext { prober, on_phase, .. } = self.call;
        let looked = prober.probe(self.connection, request, on_phase.clone(), CancellationToken::new()).await;
        let state = match looked.and_then(|probed| self.read(probed)) {
            Ok((done, _)) => format!("the state of the node afterwards: {}", self.action.state_afterwards(&done)),
            Err(look) => format!("the state of the node could not be read afterwards: {}", look.why),
        };
        failure.with_state_afterwards(node, &clean(&state, 900))
    }

    fn read(&self, mut probed: ProbeResult) -> Result<(D::Report, ProbeSummary), Failure> {
        let node = self.action.target().node_name;
        let what = format!("Running {} on node {node}", D::TOOL);
        if let Some(problem) = &probed.report.error {
            return Err(node_problem::failure(what, problem).deleted(probed.deleted).leaving(probed.left_behind));
        }
        let note = ProbeSummary::of_pod(node, &self.connection.context, &probed);
        match probed.report.action.take().and_then(D::from_action) {
            Some(done) => Ok((done, note)),
            None => Err(Failure::new(
                what,
                "the probe did not report the action",
                "The image of the probe may be older than this gpu-syringe: use a newer image with --image.",
            )
            .deleted(probed.deleted)
            .leaving(probed.left_behind)),
        }
    }
}
