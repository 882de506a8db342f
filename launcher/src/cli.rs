//! The command line: from arguments to exit status. The program ends only after every pod is deleted.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use syringe_core::text;
use tokio_util::sync::CancellationToken;

use crate::args::{self, Cli, Command, OutputFormat};
use crate::audit;
use crate::call::CallContext;
use crate::consent::{AlwaysYes, Consent, Prompt, TerminalPrompt};
use crate::error::Failure;
use crate::kubernetes::Contexts;
use crate::mcp::{Server, serve};
use crate::probe::{self, OnPhase, Prober, SETTLE_TIME};
use crate::settings::config_command::{self, SettingValue};
use crate::settings::{Mode, Settings};
use crate::setup::{self, SetupArgs, SetupOutput};
use crate::tools::{self, RenderedAnswer};

/// The command failed.
const FAILED: u8 = 1;
/// The command was interrupted twice: 128 plus SIGINT, as of a shell.
const INTERRUPTED: u8 = 130;
/// The same in operator mode: the program waits for a running action.
const ACTION_SETTLE_TIME: Duration = tools::MAX_ACTION_TIME.saturating_add(SETTLE_TIME);
/// Time for a cancelled call to send its error message after its pods are deleted.
const FINAL_MESSAGE_TIME: Duration = Duration::from_millis(200);

/// Warnings, but not kube's message for each rejected exec: a starting pod causes a few.
const DEFAULT_LOG: &str = "warn,kube_client=off,rmcp=error";

/// Runs the program.
pub fn main() -> ExitCode {
    start_logging();
    let argv: Vec<_> = std::env::args_os().collect();
    let (cli, shown) = match args::read(&argv) {
        Ok(read) => read,
        Err(failure) => return complain(&failure),
    };
    // Works without a cluster, and before anything is started.
    if matches!(cli.command, Command::Config) {
        return print(&config_text(&shown, wants_json(cli.output)))
            .map_or_else(|failure| complain(&failure), |()| ExitCode::SUCCESS);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&Failure::new("Starting", error, "Free some memory or threads.")),
    };
    let code = runtime.block_on(run(cli));
    // A blocked read of standard input must not keep the process running. Everything else has been awaited.
    runtime.shutdown_background();
    code
}

/// Outcome of a command that has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// Everything was done.
    AsAsked,
    /// An action was refused, declined or failed; a pod could not be swept.
    NotAll,
}

impl Done {
    fn all(all: bool) -> Self {
        if all { Self::AsAsked } else { Self::NotAll }
    }
}

/// Runs the command, and waits until its pods are deleted.
async fn run(cli: Cli) -> ExitCode {
    let stop = CancellationToken::new();
    let prober = Prober::new(Arc::new(cli.settings.clone()), stop.clone());
    let serves = matches!(cli.command, Command::Mcp);
    watch_signals(stop.clone(), prober.clone(), serves);
    let settle_time = if cli.settings.mode == Mode::Operator { ACTION_SETTLE_TIME } else { SETTLE_TIME };
    let code = match run_command(cli, &prober, &stop).await {
        Ok(Done::AsAsked) => ExitCode::SUCCESS,
        // The answer already says what was not done.
        Ok(Done::NotAll) => ExitCode::from(FAILED),
        // Standard error of the server is a log: JSON lines only.
        Err(failure) if serves => {
            tracing::error!(failure = %text::clean_keeping_lines(&failure.to_string()), "ended");
            ExitCode::from(FAILED)
        }
        Err(failure) => complain(&failure),
    };
    stop.cancel();
    if !serves && std::io::stderr().is_terminal() && !prober.open_probes().is_empty() {
        say("waiting until everything is deleted; interrupt to end at once", serves);
    }
    if tokio::time::timeout(settle_time, prober.settle()).await.is_err() {
        name_left(&prober, serves);
    }
    code
}

async fn run_command(cli: Cli, prober: &Prober, stop: &CancellationToken) -> Result<Done, Failure> {
    let Cli { settings, output, command } = cli;
    // The demo cluster runs until this variable is dropped.
    #[cfg(feature = "demo")]
    let demo = if settings.demo { Some(start_demo().await?) } else { None };
    #[cfg(feature = "demo")]
    let given = demo.as_ref().map(|cluster| {
        Contexts::in_memory(cluster.kubeconfig(), settings.context.clone()).with_allowed(settings.allow_context.clone())
    });
    #[cfg(not(feature = "demo"))]
    let given = None;
    let contexts = Arc::new(given.unwrap_or_else(|| Contexts::new(&settings)));
    let settings = Arc::new(settings);
    let done = dispatch(command, output, &settings, &contexts, prober, stop).await;
    // The demo cluster must outlive the pods.
    #[cfg(feature = "demo")]
    if demo.is_some() {
        stop.cancel();
        let _ = tokio::time::timeout(SETTLE_TIME, prober.settle()).await;
    }
    done
}

async fn dispatch(
    command: Command,
    output: Option<OutputFormat>,
    settings: &Arc<Settings>,
    contexts: &Arc<Contexts>,
    prober: &Prober,
    stop: &CancellationToken,
) -> Result<Done, Failure> {
    match command {
        Command::Mcp => {
            sweep_at_start(contexts.clone(), prober.clone());
            let server = Server::new(settings.clone(), contexts.clone(), prober.clone(), tools::all(settings.mode));
            serve(server, stop.clone()).await?;
        }
        Command::Config => {}
        Command::PodSpec(args) => {
            let pod = probe::printed(settings, &args.node_name)?;
            let text = serde_json::to_string_pretty(&pod.object)
                .map_err(|error| Failure::new("Writing the pod", error, "Please report this."))?;
            print(&text)?;
        }
        Command::Setup(args) => return run_setup(&args, output, settings, contexts, prober, stop).await,
        Command::Sweep => {
            let sweeping = async { prober.sweep(&contexts.connect(None).await?).await };
            let swept = until_stopped(sweeping, prober, stop).await?;
            print(&swept_text(&swept, wants_json(output), &settings.namespace))?;
            return Ok(Done::all(swept.failed.is_empty()));
        }
        Command::Audit(args) => {
            let lines = prober.audit().read(args.last).map_err(|error| {
                Failure::new("Reading the audit log", error, "Look at $XDG_STATE_HOME/gpu-syringe/audit.jsonl.")
            })?;
            if wants_json(output) {
                lines.iter().try_for_each(|line| print(&serde_json::json!(line).to_string()))?;
            } else {
                print(audit::table(&lines).trim_end())?;
            }
        }
        Command::Tool(command) => {
            let ask: Arc<dyn Prompt> = if command.says_yes() { Arc::new(AlwaysYes) } else { Arc::new(TerminalPrompt) };
            let server = command.server();
            let (name, args) = command.into_call();
            let args = args.map_err(|error| Failure::new("Reading the arguments", error, "Please report this."))?;
            let tools = tools::all(settings.mode);
            let Some(entry) = tools.iter().find(|entry| entry.name == name) else {
                let why = "this tool changes the node, and gpu-syringe is in read-only mode";
                return Err(Failure::new(format!("Running {name}"), why, "Add --mode operator."));
            };
            let consent = Consent::new(ask, Arc::default());
            let call = CallContext::new(settings.clone(), contexts.clone(), prober.clone(), consent);
            let call = CallContext { on_phase: phases_on_terminal(), cancel: stop.clone(), server, ..call };
            let answer = until_stopped(entry.call(call, args), prober, stop).await;
            clear_phase();
            let RenderedAnswer { json, table, is_done } = answer?;
            print(&if wants_json(output) { json.to_string() } else { table.trim_end().to_owned() })?;
            return Ok(Done::all(is_done));
        }
    }
    Ok(Done::AsAsked)
}

async fn run_setup(
    args: &SetupArgs,
    output: Option<OutputFormat>,
    settings: &Settings,
    contexts: &Contexts,
    prober: &Prober,
    stop: &CancellationToken,
) -> Result<Done, Failure> {
    let prompt: &dyn Prompt = if args.yes { &AlwaysYes } else { &TerminalPrompt };
    let SetupOutput { text, json, notes, is_done } =
        until_stopped(setup::run(args, settings, contexts, prompt), prober, stop).await?;
    // The manifests are YAML also in a pipe, for kubectl apply -f -.
    print(&if output == Some(OutputFormat::Json) { json.to_string() } else { text })?;
    notes.iter().for_each(|note| say(note, false));
    Ok(Done::all(is_done))
}

/// The result of `work`, or a failure after a signal to end. Waits for pods in both cases: work with a pod reports
/// its own result, and work that waits for an API server or a person is dropped.
async fn until_stopped<T>(
    work: impl Future<Output = Result<T, Failure>>,
    prober: &Prober,
    stop: &CancellationToken,
) -> Result<T, Failure> {
    let stopped = async {
        stop.cancelled().await;
        prober.settle().await;
        tokio::time::sleep(FINAL_MESSAGE_TIME).await;
    };
    tokio::select! {
        biased;
        done = work => done,
        () = stopped => Err(Failure::new("The command", "gpu-syringe was interrupted", "Run the command again to get the answer.")),
    }
}

#[cfg(feature = "demo")]
async fn start_demo() -> Result<demo_cluster::Cluster, Failure> {
    demo_cluster::Cluster::start(demo_cluster::demo()).await.map_err(|error| {
        Failure::new("Starting the demo cluster", error, "It needs a free port on the loopback interface.")
    })
}

/// Sweeps at the start. A cluster that cannot be reached is not an error here.
fn sweep_at_start(contexts: Arc<Contexts>, prober: Prober) {
    tokio::spawn(async move {
        match contexts.connect(None).await {
            Ok(connection) => prober.sweep_in_background(&connection),
            Err(failure) => tracing::debug!(%failure, "no sweep at the start"),
        }
    });
}

/// The first SIGINT or SIGTERM cancels every call, and the pods are deleted before the program ends. The second ends it at
/// once, after it named what is left.
fn watch_signals(stop: CancellationToken, prober: Prober, serves: bool) {
    tokio::spawn(async move {
        let mut signals = Signals::new();
        signals.next().await;
        stop.cancel();
        for node in prober.nodes_of_actions() {
            let why = format!(
                "waiting for the action on node {node}; interrupt again to end at once, which may interrupt it"
            );
            say(&why, serves);
        }
        signals.next().await;
        name_left(&prober, serves);
        // A call whose pod is already deleted still has to write its audit line.
        let _ = tokio::time::timeout(FINAL_MESSAGE_TIME, prober.settle()).await;
        std::process::exit(INTERRUPTED.into());
    });
}

/// Names what is left on clusters, with the commands that delete it.
fn name_left(prober: &Prober, serves: bool) {
    let left = prober.open_probes();
    let what = match left.len() {
        0 => "interrupted again, ended at once; no probe is left".to_owned(),
        count => format!("ended before everything was deleted; left: {count}"),
    };
    say(&what, serves);
    left.iter().for_each(|one| say(one, serves));
    prober.audit_open_probes();
}

/// Writes a message for the user to standard error: of the server, a line of its log.
fn say(message: &str, serves: bool) {
    let message = text::clean_keeping_lines(message);
    if serves {
        tracing::error!("{message}");
    } else {
        clear_phase();
        let _ = writeln!(std::io::stderr(), "gpu-syringe: {message}");
    }
}

/// The signals that end the program.
#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    /// A signal without a handler keeps its default action.
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let came = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if came { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Shows the phases on a terminal, and not in a pipe.
fn phases_on_terminal() -> OnPhase {
    let terminal = std::io::stderr().is_terminal();
    Arc::new(move |phase| {
        if terminal {
            let text = phase.description();
            let _ = write!(std::io::stderr(), "\r\x1b[2K{text} …");
            let (done, total) = phase.position();
            if done == total {
                clear_phase();
            }
        }
    })
}

/// Clears the line of the last phase.
fn clear_phase() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[2K");
    }
}

fn config_text(shown: &[SettingValue], json: bool) -> String {
    if json { config_command::json(shown).to_string() } else { config_command::text(shown) }
}

fn swept_text(swept: &crate::probe::SweepResult, json: bool, namespace: &str) -> String {
    let crate::probe::SweepResult { deleted, kept, ended, failed } = swept;
    if json {
        return serde_json::json!({ "namespace": namespace, "deleted": deleted, "kept": kept, "ended": ended, "failed": failed })
            .to_string();
    }
    let mut text =
        format!("namespace {namespace}: {} deleted, {} in use, {} failed", deleted.len(), kept.len(), failed.len());
    for name in deleted {
        text.push_str(&format!("\n  deleted {name}"));
    }
    for name in ended {
        text.push_str(&format!("\n  ended {name}"));
    }
    for (name, reason) in failed {
        text.push_str(&format!("\n  FAILED {name}: {reason}"));
    }
    text
}

fn wants_json(output: Option<OutputFormat>) -> bool {
    match output {
        Some(output) => output == OutputFormat::Json,
        None => !std::io::stdout().is_terminal(),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        // The reader closed the pipe.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new("Writing the answer", error, "Check where standard output goes.")),
        Ok(()) => Ok(()),
    }
}

fn complain(failure: &Failure) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "gpu-syringe: {}", text::clean_keeping_lines(&failure.to_string()));
    ExitCode::from(FAILED)
}

/// Logs are JSON lines on standard error: standard output is protocol.
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GPU_SYRINGE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(DEFAULT_LOG));
    let _ = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
