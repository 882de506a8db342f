//! The type `Bed`: a cluster, a server in this process, and a client of either protocol version with a simulated user.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use demo_cluster::{
    Cluster, Fixture, Invocation, NodeFacts, NodeFixture, NodeProbe, Process, Programs, Streams, Timing,
};
use gpu_syringe::audit::{AuditLine, AuditLog};
use gpu_syringe::consent::Tokens;
use gpu_syringe::mcp::Server;
use gpu_syringe::probe::Prober;
use gpu_syringe::settings::Settings;
use gpu_syringe::tools;
use kube_read::Contexts;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
    ElicitationAction, ElicitationCapability, ErrorData, Implementation, ProtocolVersion,
};
use rmcp::service::{RequestContext, RunningService};
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient, ServiceExt};
use serde_json::{Value, json};
use syringe_core::report::Report;
use syringe_core::scenarios;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Process ID of a job on the busy node.
pub(crate) const PID: u32 = 41_210;
pub(crate) const START_TICKS: u64 = 418_000;
/// UUID of the GPU that the job uses.
pub(crate) const BUSY_GPU: &str = "GPU-f632d18c-0e6a-418b-a0c2-b2d54a0e1ddd";
/// UUID of a GPU of the idle, cordoned node.
pub(crate) const IDLE_GPU: &str = "GPU-0ef073d2-8b0d-4220-a630-44b3db6f98bb";

/// The reaction of the host's user to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// The user agrees.
    Agrees,
    /// The user answers the form with "no".
    SaysNo,
    /// The user closes the form.
    Declines,
    /// The host cannot ask.
    CannotBeAsked,
}

/// The version of the protocol that the client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// The MCP host, with a simulated user.
#[derive(Clone)]
pub(crate) struct Host {
    user: User,
    /// All questions to the user.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// Runs before the simulated user answers the next question.
    pub(crate) meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

/// A function that runs once, while the question to the user is open.
type Meanwhile = Box<dyn FnOnce() + Send>;

impl ClientHandler for Host {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        if self.user != User::CannotBeAsked {
            capabilities.elicitation = Some(ElicitationCapability::default());
        }
        ClientConfig::new(capabilities, Implementation::new("test", "1"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let ElicitRequestParams::FormElicitationParams { message, .. } = request else {
            panic!("expected a form: {request:?}")
        };
        self.asked.lock().unwrap().push(message);
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        let agree = |agree: bool| ElicitResult::new(ElicitationAction::Accept).with_content(json!({ "agree": agree }));
        Ok(match self.user {
            User::Agrees => agree(true),
            User::SaysNo => agree(false),
            User::Declines | User::CannotBeAsked => ElicitResult::new(ElicitationAction::Decline),
        })
    }
}

/// Records the command lines that run on nodes, and delays actions.
#[derive(Clone, Default)]
struct Watched {
    ran: Arc<Mutex<Vec<Vec<String>>>>,
    linger: Duration,
    asked_in_vain: u32,
}

/// The response of a probe to a repeated request for an action that is still running.
const UNDER_WAY: &str =
    "{\"error\":{\"what\":\"action\",\"why\":\"it was started before\",\"code\":\"already_run\"}}\n";

impl Programs for Watched {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        if invocation.argv.iter().any(|word| word == "hold") {
            return NodeProbe.start(invocation, streams);
        }
        self.ran.lock().unwrap().push(invocation.argv.clone());
        let is_action = |argv: &&Vec<String>| argv.iter().any(|word| word == "--once");
        let asked = self.ran.lock().unwrap().iter().filter(is_action).count();
        if is_action(&&invocation.argv) && (2..2 + self.asked_in_vain as usize).contains(&asked) {
            return Some(Box::pin(async move {
                let _ = streams.stdout.send(UNDER_WAY.into()).await;
                1
            }));
        }
        let process = NodeProbe.start(invocation, streams)?;
        let linger = self.linger;
        Some(Box::pin(async move {
            tokio::time::sleep(linger).await;
            process.await
        }))
    }
}

/// The cluster, server, client and logs of one test.
pub(crate) struct Bed {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) state: TempDir,
    pub(crate) host: Host,
    pub(crate) client: RunningService<RoleClient, Host>,
    ran: Arc<Mutex<Vec<Vec<String>>>>,
}

/// Options of a test that differ from the default.
pub(crate) struct Setup {
    pub(crate) era: Era,
    pub(crate) user: User,
    pub(crate) words: &'static [&'static str],
    pub(crate) tokens: Tokens,
    /// Whether the folder of the audit log is missing.
    pub(crate) no_audit: bool,
    pub(crate) linger: Duration,
    /// Number of repeated requests for an action that get the response "already run", because the action is still
    /// running. Used if the response to the first request is lost.
    pub(crate) asked_in_vain: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            era: Era::Legacy,
            user: User::CannotBeAsked,
            words: &["--mode", "operator", "--token-to-model"],
            tokens: Tokens::default(),
            no_audit: false,
            linger: Duration::ZERO,
            asked_in_vain: 0,
        }
    }
}

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    settings: Settings,
}

/// Returns the settings of a launcher that was started with these arguments.
pub(crate) fn settings(words: &[&str]) -> Settings {
    let parsed = Words::parse_from([&["gpu-syringe"], words].concat());
    parsed.settings.with_released_digest(demo_cluster::probe_image_digest())
}

pub(crate) fn facts(scenario: &str) -> Report {
    scenarios::named(scenario).unwrap().report()
}

/// Returns the cluster: node `busy` has jobs on its GPUs, `idle` is empty and cordoned, `open` is empty and not cordoned.
fn fixture(programs: Watched) -> Fixture {
    let mut empty = facts("l40s-4-idle");
    empty.sections.processes.as_mut().unwrap().data.as_mut().unwrap().processes.clear();
    let mut busy = NodeFixture::from_facts("busy", facts("healthy-h100-8"));
    let mut idle = NodeFixture::from_facts("idle", empty.clone());
    idle.unschedulable = true;
    let mut open = NodeFixture::from_facts("open", empty);
    for node in [&mut busy, &mut idle, &mut open] {
        let facts = (*node.facts.report()).clone();
        node.facts = NodeFacts::Known(Arc::new(Report { hostname: Some(node.name.clone()), ..facts }));
    }
    Fixture {
        cluster_name: "test".to_owned(),
        user: "alice".to_owned(),
        programs: Arc::new(programs),
        timing: Timing::fast(),
        ..Fixture::of([busy, idle, open])
    }
}

impl Bed {
    pub(crate) async fn new(setup: Setup) -> Self {
        let Setup { era, user, words, tokens, no_audit, linger, asked_in_vain } = setup;
        let programs = Watched { linger, asked_in_vain, ..Watched::default() };
        let ran = programs.ran.clone();
        let cluster = Arc::new(Cluster::start(fixture(programs)).await.unwrap());
        let state = tempfile::tempdir().unwrap();
        let folder = if no_audit { state.path().join("absent") } else { state.path().to_owned() };
        let settings = Arc::new(settings(&[&["--probe-namespace", "default"], words].concat()));
        let contexts = Arc::new(Contexts::in_memory(cluster.kubeconfig(), None));
        let prober = Prober::new(settings.clone(), CancellationToken::new()).with_audit(AuditLog::at(&folder));
        let all = tools::all(settings.mode);
        let server = Server::new(settings, contexts, prober, all).with_tokens(tokens);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let running = server.serve(ours).await.unwrap();
            let _ = running.waiting().await;
        });
        let host = Host { user, asked: Arc::default(), meanwhile: Arc::default() };
        let lifecycle = match era {
            Era::Legacy => ClientLifecycleMode::Initialize,
            Era::Modern => ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
        };
        let client = host.clone().serve_with_lifecycle(theirs, lifecycle).await.unwrap();
        Self { cluster, state, host, client, ran }
    }

    /// Calls a tool. The library forwards questions of the server to the host's user.
    pub(crate) async fn call(&self, tool: &'static str, arguments: &Value) -> CallToolResult {
        self.client.call_tool(params(tool, arguments)).await.unwrap()
    }

    /// Calls a tool and returns the answer. The call must succeed.
    pub(crate) async fn answer(&self, tool: &'static str, arguments: &Value) -> Value {
        let result = self.call(tool, arguments).await;
        assert_ne!(result.is_error, Some(true), "{result:?}");
        result.structured_content.unwrap()
    }

    /// Calls a tool and returns the error text. The call must fail.
    pub(crate) async fn failure(&self, tool: &'static str, arguments: &Value) -> String {
        let result = self.call(tool, arguments).await;
        assert_eq!(result.is_error, Some(true), "{result:?}");
        serde_json::to_string(&result.content).unwrap()
    }

    /// Returns the command lines of actions that ran on nodes, without plans.
    pub(crate) fn done(&self) -> Vec<String> {
        let ran = self.ran.lock().unwrap();
        let acts = ran.iter().filter(|argv| argv.iter().any(|word| word == "--operator"));
        acts.filter(|argv| !argv.iter().any(|word| word == "--plan")).map(|argv| argv.join(" ")).collect()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.host.asked.lock().unwrap().clone()
    }

    pub(crate) fn audit(&self) -> Vec<AuditLine> {
        AuditLog::at(self.state.path()).read(100).unwrap()
    }
}

pub(crate) fn params(tool: &'static str, arguments: &Value) -> CallToolRequestParams {
    CallToolRequestParams::new(tool).with_arguments(arguments.as_object().unwrap().clone())
}

/// Returns arguments for the job on the busy node.
pub(crate) fn kill() -> Value {
    json!({"node_name": "busy", "gpu": BUSY_GPU, "pid": PID, "start_ticks": START_TICKS})
}

/// Returns arguments for the idle GPU.
pub(crate) fn reset() -> Value {
    json!({"node_name": "idle", "gpu": IDLE_GPU})
}

/// Adds an argument to these arguments.
pub(crate) fn with(mut arguments: Value, name: &str, value: Value) -> Value {
    arguments[name] = value;
    arguments
}
