//! What both tools of operator mode do: look at the node, plan, get consent, write the audit log, act.
//!
//! A tool says what it would do (a [`OperatorAction`]); everything that makes doing it safe is here, once.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use syringe_core::facts::action::Action;
use syringe_core::report::Problem;
use syringe_core::text::clean;

use crate::call::Call;
use crate::consent;
use crate::consent::{ConsentAnswer, Bearer, LIFETIME, Pending};
use crate::error::Failure;
use crate::kubernetes::read::nodes;
use crate::kubernetes::{Connection, IN_CLUSTER};
use crate::probe::{ActionNote, ProbeRequest, ProbeResult, Record, random_suffix};
use crate::reading::probe_note::ProbeNote;
use crate::reading::read_node::KEPT_FOR_REMOVAL;
use crate::settings::{Mode, Settings};

/// Longest that an action's pod may live: deploy/admission-policy.yaml admits none that lives longer than 15 minutes.
pub(crate) const MAX_ACTION_TIME: Duration = Duration::from_secs(840);

/// The answer of a tool that changes something. `T` is what the node reports of it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ActionAnswer<T> {
    /// `awaiting_consent` (nothing was done: see `terminal_command` or `token`), `declined`, `refused`, or what became of the
    /// action.
    pub outcome: String,
    /// One or two sentences.
    pub summary: String,
    /// What was to be done, in plain words: to be shown to the user.
    pub plan: String,
    /// What the user types in a terminal of their own to see the plan again and carry it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_command: Option<String>,
    /// Bring it with the same arguments in a second call, once the user has agreed to the plan. Good once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// How long the token is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_valid_seconds: Option<u64>,
    /// Who agreed, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consent: Option<String>,
    /// What the node reports: before and after.
    pub action: Option<T>,
    /// The probe that brought the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeNote>,
    /// Whether it was done.
    #[serde(skip)]
    #[schemars(skip)]
    pub(super) is_done: bool,
}

/// Something to be done on a node.
pub(super) trait OperatorAction: Sync {
    /// What the node reports of it.
    type Done: Clone + Send;
    /// Name of the tool.
    const TOOL: &'static str;

    /// The node, the context and the token that the caller gave.
    fn target(&self) -> Target<'_>;
    /// The arguments that consent is bound to: all but those of [`Self::target`].
    fn arguments(&self) -> Value;
    /// What is to be done in one line, of the arguments alone: it goes into the pod's annotations.
    fn headline(&self) -> String;
    /// Refuses arguments that make no sense, before anything is created.
    fn validate(&self) -> Result<(), Failure>;
    /// Words after `node-probe --operator`.
    fn words(&self, call: &Call, kubernetes: &Node) -> Vec<String>;
    /// Time for the action on the node.
    fn time(&self) -> Duration;
    /// The node's report, if it is of this action.
    fn of(action: Action) -> Option<Self::Done>;
    /// Word and sentence for what the node reports.
    fn outcome(&self, done: &Self::Done) -> (String, String);
    /// Whether the planned action may be asked for.
    fn is_clear(done: &Self::Done) -> bool;
    /// Whether what was asked for is so now.
    fn is_done(done: &Self::Done) -> bool;
    /// The plan in plain words.
    fn plan(&self, call: &Call, connection: &Connection, done: &Self::Done) -> impl Future<Output = String> + Send;
}

/// Where a action is to be done.
pub(super) struct Target<'a> {
    pub(super) node_name: &'a str,
    pub(super) context: Option<&'a str>,
    pub(super) token: Option<&'a str>,
}

/// A plan that was agreed to.
struct AgreedPlan {
    plan: String,
    how: String,
}

/// Plans, asks, acts.
pub(super) async fn run<D: OperatorAction>(call: &Call, action: &D) -> Result<ActionAnswer<D::Done>, Failure> {
    let Target { node_name, context, token } = action.target();
    if call.settings.mode != Mode::Operator {
        let why = "this launcher is read-only";
        return Err(Failure::new(format!("Running {}", D::TOOL), why, "Start it with --mode operator."));
    }
    action.validate()?;
    let what = format!("Looking at node {}", clean(node_name, 253));
    let connection = call.within(&what, call.contexts.connect(context)).await?;
    meant(call, &connection, D::TOOL)?;
    call.prober.sweep_in_background(&connection);
    let kubernetes = call.within(&what, ready(call, &connection, node_name)).await?;
    let content = consent::content(D::TOOL, &connection.server, &connection.context, node_name, &action.arguments());
    let mut session = ActionSession { call, action, connection: &connection, kubernetes, content };
    let agreed = match session.brought(token)? {
        Some(Ok(agreed)) => agreed,
        Some(Err(declined)) => return Ok(declined),
        None => match session.ask().await? {
            Ok(agreed) => agreed,
            Err(answer) => return Ok(*answer),
        },
    };
    // Whoever takes the call back while the question is open has said no, whatever the answer to it.
    if call.cancel.is_cancelled() {
        return Ok(session.declined(agreed.plan, "the call was cancelled", None));
    }
    // While the question was open the node may have become another: no longer Ready, or no longer cordoned.
    session.kubernetes = ready(call, &connection, node_name).await?;
    session.act(agreed).await
}

/// Refuses another API server than the one that was named.
fn meant(call: &Call, connection: &Connection, tool: &str) -> Result<(), Failure> {
    let Some(server) = call.server.as_deref().filter(|server| *server != connection.address()) else { return Ok(()) };
    let why =
        format!("context {} leads to {}, not to {}", connection.context, connection.address(), clean(server, 300));
    Err(Failure::new(format!("Running {tool}"), why, "Look at the kubeconfig, and ask for a new plan."))
}

/// The node as it is now; refused where it could not be acted on.
async fn ready(call: &Call, connection: &Connection, name: &str) -> Result<Node, Failure> {
    let node = nodes::read(connection, name).await?;
    call.settings.may_probe(&node)?;
    nodes::must_be_ready(&node)?;
    Ok(node)
}

/// One action on its node.
struct ActionSession<'a, D> {
    call: &'a Call,
    action: &'a D,
    connection: &'a Connection,
    kubernetes: Node,
    content: String,
}

impl<D: OperatorAction> ActionSession<'_, D> {
    /// The consent that the call brings: a token, or the answer of the host's user.
    #[expect(clippy::type_complexity, reason = "nothing brought; or agreed, or declined")]
    fn brought(&self, token: Option<&str>) -> Result<Option<Result<AgreedPlan, ActionAnswer<D::Done>>>, Failure> {
        let answer = self.call.consent.answer();
        let Some(token) = answer.map(|answer| answer.token.as_str()).or(token) else { return Ok(None) };
        let bearer = if answer.is_some() { Bearer::Host } else { Bearer::Model };
        let redeemed = match bearer {
            Bearer::Model if !self.call.settings.token_to_model => {
                Err("this launcher takes no token from a model (--token-to-model is not set)".to_owned())
            }
            _ => self.call.consent.tokens().redeem(token, &consent::borne(bearer, &self.content)),
        };
        let granted = redeemed.map_err(|why| {
            self.record(String::new()).refused(&why);
            Failure::new(
                format!("Running {}", D::TOOL),
                why,
                "Call again without a token: the answer has a new plan, and what the user can do with it.",
            )
        })?;
        Ok(Some(match answer {
            Some(answer) if !answer.accepted => Err(self.declined(granted.plan, "the user declined", None)),
            Some(_) => Ok(AgreedPlan { plan: granted.plan, how: "user (input required)".to_owned() }),
            None => Ok(AgreedPlan { plan: granted.plan, how: "token".to_owned() }),
        }))
    }

    /// Plans on the node, and asks whoever can be asked.
    async fn ask(&self) -> Result<Result<AgreedPlan, Box<ActionAnswer<D::Done>>>, Failure> {
        let consent = &self.call.consent;
        let (done, note) = self.look().await?;
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
            ConsentAnswer::No(why) => return Ok(Err(Box::new(self.declined(plan, &why, answer.probe)))),
            ConsentAnswer::Nobody if !self.call.settings.token_to_model => {
                return Ok(Err(Box::new(ActionAnswer {
                    outcome: "awaiting_consent".to_owned(),
                    summary:
                        "Nothing was done: this host cannot ask its user. Show the plan and terminal_command to the \
                              user, who runs that command in their own terminal if they agree."
                            .to_owned(),
                    terminal_command: Some(self.terminal_command()),
                    ..answer
                })));
            }
            ConsentAnswer::Nobody | ConsentAnswer::Later => {}
        }
        let bearer = if asked == ConsentAnswer::Later { Bearer::Host } else { Bearer::Model };
        let token = consent
            .tokens()
            .give(consent::borne(bearer, &self.content), &plan)
            .map_err(|why| Failure::new("Making a token", why, "Run the command in a terminal instead."))?;
        if asked == ConsentAnswer::Later {
            consent.leave(Pending { token: token.clone(), plan });
        }
        Ok(Err(Box::new(ActionAnswer {
            outcome: "awaiting_consent".to_owned(),
            summary: format!(
                "Nothing was done. Show the plan to the user; only if they agree, call {} again with the same arguments and \
                 this token within {} s.",
                D::TOOL,
                LIFETIME.as_secs()
            ),
            token: Some(token),
            token_valid_seconds: Some(LIFETIME.as_secs()),
            ..answer
        })))
    }

    /// The command that does the same from the user's own terminal.
    fn terminal_command(&self) -> String {
        let Call { settings, contexts, .. } = self.call;
        let Connection { context, .. } = self.connection;
        let mut settings = Settings::clone(settings);
        // Only the context that the plan is about; a service account has none.
        settings.context = Some(context.clone()).filter(|context| context != IN_CLUSTER);
        settings.allow_context.clear();
        // The built-in cluster has another address each time it is started.
        let server = Some(self.connection.address()).filter(|_| !settings.demo);
        let kubeconfig = contexts.of_environment();
        let node = self.action.target().node_name;
        consent::for_terminal(&settings, kubeconfig.as_deref(), D::TOOL, node, &self.action.arguments(), server)
    }

    fn note(&self, plan: String, consent: String) -> ActionNote {
        ActionNote { arguments: self.action.arguments(), plan, headline: self.action.headline(), consent }
    }

    /// The record of what was not begun.
    fn record(&self, plan: String) -> Record {
        let request = self.request(Vec::new(), Duration::ZERO);
        let audit = std::sync::Arc::new(self.call.prober.audit().clone());
        let note = self.note(plan, String::new());
        Record::new(audit, self.connection, &self.call.settings.namespace, &request, Some(note))
    }

    fn declined(&self, plan: String, why: &str, probe: Option<ProbeNote>) -> ActionAnswer<D::Done> {
        self.record(plan.clone()).declined(why);
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

    fn request(&self, command: Vec<String>, deadline: Duration) -> ProbeRequest {
        ProbeRequest { node: self.action.target().node_name.to_owned(), command, tool: D::TOOL, target: None, deadline }
    }

    fn command(&self, more: &[&str]) -> Vec<String> {
        let words = self.action.words(self.call, &self.kubernetes);
        std::iter::once("--operator".to_owned())
            .chain(words)
            .chain(more.iter().map(|word| (*word).to_owned()))
            .collect()
    }

    /// What would be done, as the node sees it now.
    async fn look(&self) -> Result<(D::Done, ProbeNote), Failure> {
        let deadline = self.call.left().saturating_sub(KEPT_FOR_REMOVAL);
        let request = self.request(self.command(&["--plan"]), deadline);
        let Call { prober, on_phase, cancel, .. } = self.call;
        let probed = prober.probe(self.connection, request, on_phase.clone(), cancel.clone()).await?;
        self.read(probed)
    }

    /// Does it.
    async fn act(&self, agreed: AgreedPlan) -> Result<ActionAnswer<D::Done>, Failure> {
        let AgreedPlan { plan, how } = agreed;
        let id = random_suffix();
        let deadline = (self.call.settings.call_time() + self.action.time()).min(MAX_ACTION_TIME);
        let request = self.request(self.command(&["--once", &id]), deadline);
        let note = self.note(plan.clone(), how.clone());
        let Call { prober, on_phase, .. } = self.call;
        let probed = prober.act(self.connection, request, on_phase.clone(), note).await?;
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

    fn read(&self, mut probed: ProbeResult) -> Result<(D::Done, ProbeNote), Failure> {
        let node = self.action.target().node_name;
        let what = format!("Running {} on node {node}", D::TOOL);
        if let Some(Problem { why, next_step, .. }) = &probed.report.error {
            return Err(Failure::new(what, why, next_step).leaving(probed.left_behind));
        }
        let note = ProbeNote::of_pod(node, &self.connection.context, &probed);
        match probed.report.action.take().and_then(D::of) {
            Some(done) => Ok((done, note)),
            None => Err(Failure::new(
                what,
                "the probe did not report the action",
                "The probe's image may be older than this launcher: name a newer one with --image.",
            )
            .leaving(probed.left_behind)),
        }
    }
}

/// Refuses what is no UUID of a whole GPU.
pub(super) fn whole_gpu(tool: &str, uuid: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if uuid.starts_with("GPU-") && uuid.len() <= 80 && uuid.bytes().all(plain) {
        return Ok(());
    }
    let uuid = clean(uuid, 80);
    Err(Failure::new(
        format!("The arguments of {tool}"),
        format!("'{uuid}' is no UUID of a GPU"),
        "Take the exact UUID (GPU-…) from get_gpu_inventory: an index changes when a GPU is lost.",
    ))
}

/// An answer for a person.
pub(super) fn text<T>(answer: &ActionAnswer<T>) -> String {
    let ActionAnswer { outcome, summary, plan, terminal_command, consent, probe, .. } = answer;
    let mut text = format!("{}  {summary}\n\n{plan}\n", outcome.to_uppercase().replace('_', " "));
    if let Some(command) = terminal_command {
        text.push_str(&format!("\n{command}\n"));
    }
    if let Some(how) = consent {
        text.push_str(&format!("\nagreed by: {how}\n"));
    }
    if let Some(note) = probe {
        text.push_str(&crate::text::node_answer::foot(note));
    }
    text
}
