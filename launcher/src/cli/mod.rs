//! `main`: runs the command line, from arguments to exit status. The program exits only after every pod is deleted.
//! Submodules: the commands compare, doctor and setup, output, progress, signals, logging.

mod compare_command;
mod doctor_command;
mod logging;
mod output;
mod progress;
mod setup_command;
mod signals;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use syringe_core::text;
use tokio_util::sync::CancellationToken;

use crate::archives::{self, Opened};
use crate::args::{self, Arguments, Cli, Command, Read, ToolCall};
use crate::audit;
use crate::call::CallContext;
use crate::cli::output::Output;
use crate::cli::signals::Signals;
use crate::completion;
use crate::consent::{AlwaysYes, Consent, Prompt, TerminalPrompt};
use crate::incident;
use crate::mcp::{Server, serve};
use crate::outcome::{INTERRUPTED, NOT_KNOWN, NOTHING_FOUND, Outcome, USAGE};
use crate::probe::{self, Prober, SETTLE_TIME, SweepResult};
use crate::return_report;
use crate::settings::{Mode, OutputFormat, OutputSettings, Settings, config_command};
use crate::terminal::command_names::{command_of, with_commands};
use crate::terminal::page::Page;
use crate::tools::{self, RenderedAnswer};
use kube_read::Contexts;
use kube_read::Failure;

/// Maximum time that the program waits for a running action before it exits, in operator mode.
const ACTION_SETTLE_TIME: Duration = tools::MAX_ACTION_TIME.saturating_add(SETTLE_TIME);
/// Maximum time that a cancelled call has to send its error message after its pods are deleted.
const FINAL_MESSAGE_TIME: Duration = Duration::from_millis(200);

pub fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    if completion::answer(args::command, &argv) {
        return ExitCode::SUCCESS;
    }
    let Arguments { cli, settings } = match args::read(&argv) {
        Ok(Read::Command(arguments)) => *arguments,
        Ok(Read::Text(text)) => {
            return ended(output::print(text.trim_end()), Output::new(&OutputSettings::default()));
        }
        Err(failure) => {
            let format =
                args::wants_json(&argv).map(|json| if json { OutputFormat::Json } else { OutputFormat::Table });
            let settings = OutputSettings { output: format, ..OutputSettings::default() };
            return ExitCode::from(Output::new(&settings).complain(&failure));
        }
    };
    let output = Output::new(&cli.output);
    logging::start(&cli.output, matches!(cli.command, Command::Mcp(_)));
    if !cli.output.quiet {
        progress::show();
        for name in args::unknown_variables() {
            let name = text::clean(&name, 80);
            tracing::warn!("{name} is not a setting and has no effect; gpu-syringe help settings lists the variables");
        }
    }
    // These commands need no cluster, and run before anything is started.
    if let Command::Config = cli.command {
        let names: Vec<_> = settings.iter().map(|setting| setting.name().to_owned()).collect();
        let printed = output.print_document(&config_command::json(&settings), &names, config_command::text(&settings));
        return ended(printed, output);
    }
    match &cli.command {
        Command::Completion(args) => {
            return ended(completion::script(&args.shell).and_then(|script| output::print(script.trim_end())), output);
        }
        Command::Man(args) => {
            let written = args::man::write(&args.folder);
            return ended(
                written.and_then(|names| output.print(&json!(names), &names, || Page::from(names.join("\n")))),
                output,
            );
        }
        _ => {}
    }
    // Without a limit, a call about many nodes starts a thread for the audit line of each probe, and each thread keeps
    // memory.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(8).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new("Starting", error, "Free some memory or threads.");
            return ExitCode::from(output.complain(&failure));
        }
    };
    let code = runtime.block_on(run(cli, output));
    // A blocked read of standard input must not keep the process running. All other tasks have ended.
    runtime.shutdown_background();
    ExitCode::from(code)
}

fn ended(printed: Result<(), Failure>, output: Output) -> ExitCode {
    ExitCode::from(printed.map_or_else(|failure| output.complain(&failure), |()| NOTHING_FOUND))
}

/// Runs the command, and waits until its pods are deleted.
async fn run(cli: Cli, output: Output) -> u8 {
    let Cli { settings, output: OutputSettings { fail_on, .. }, namespace, command } = cli;
    let serves = matches!(command, Command::Mcp(_));
    // The standard error of the server is a log that contains only JSON lines.
    let log = |failure: &Failure| {
        tracing::error!(failure = %text::clean_keeping_lines(&failure.to_string()), "ended");
        if failure.is_usage() { USAGE } else { NOT_KNOWN }
    };
    let opened = match archives::open(settings).await {
        Ok(opened) => opened,
        Err(failure) => return if serves { log(&failure) } else { output.complain(&failure) },
    };
    let stop = CancellationToken::new();
    let interrupted = CancellationToken::new();
    let prober = Prober::new(Arc::new(opened.settings.clone()), stop.clone());
    watch_signals([stop.clone(), interrupted.clone()], prober.clone(), serves);
    let settle_time = if opened.settings.mode == Mode::Operator { ACTION_SETTLE_TIME } else { SETTLE_TIME };
    let code = match run_command(opened, namespace, command, output, &prober, &stop).await {
        Ok(outcome) => outcome.exit_status(fail_on),
        Err(failure) if serves => log(&failure),
        Err(failure) => {
            let code = output.complain(&failure);
            if interrupted.is_cancelled() { INTERRUPTED } else { code }
        }
    };
    stop.cancel();
    if !serves && std::io::stderr().is_terminal() && !prober.open_probes().is_empty() {
        say("waiting until everything is deleted; interrupt to exit at once", serves);
    }
    if tokio::time::timeout(settle_time, prober.settle()).await.is_err() {
        name_left(&prober, serves);
    }
    prober.end_session();
    code
}

async fn run_command(
    opened: Opened,
    namespace: Option<String>,
    command: Command,
    output: Output,
    prober: &Prober,
    stop: &CancellationToken,
) -> Result<Outcome, Failure> {
    let Opened { settings, contexts, cluster, nodes: _, unread: _ } = opened;
    let (settings, contexts) = (Arc::new(settings), Arc::new(contexts));
    let done = dispatch(command, namespace, output, &settings, &contexts, prober, stop).await;
    // The embedded cluster must exist until the pods are deleted.
    if cluster.is_some() {
        stop.cancel();
        let _ = tokio::time::timeout(SETTLE_TIME, prober.settle()).await;
    }
    // The process ends now. Freeing each object of a large archive would take longer than the rest of the exit.
    let _ = std::mem::ManuallyDrop::new(cluster);
    done
}

async fn dispatch(
    command: Command,
    namespace: Option<String>,
    output: Output,
    settings: &Arc<Settings>,
    contexts: &Arc<Contexts>,
    prober: &Prober,
    stop: &CancellationToken,
) -> Result<Outcome, Failure> {
    refuse_on_archive(&command, settings)?;
    match command {
        Command::Mcp(args) => {
            if std::io::stdin().is_terminal() {
                let hint = "gpu-syringe: this is an MCP server, which an AI host starts; it waits for JSON on standard input. Ctrl-D stops \
                     the server. The configuration for hosts is in README.md. To see the commands for a terminal, run: gpu-syringe help.";
                let _ = writeln!(progress::Messages, "{hint}");
            }
            sweep_at_start(contexts.clone(), prober.clone());
            // The embedded cluster of the archive must exist until the server stops.
            let (earlier, _cluster) = match &args.earlier {
                Some(path) => {
                    compare_command::open_earlier(path, settings, stop).await.map(|(state, it)| (Some(state), it))?
                }
                None => (None, None),
            };
            let of_archive = earlier.as_ref().map(|state| state.prober.clone());
            let offered = tools::all(settings.offered_mode());
            let server = Server::new(settings.clone(), contexts.clone(), prober.clone(), offered);
            let served = serve(server.with_earlier(earlier), stop.clone()).await;
            if let Some(prober) = of_archive {
                let _ = tokio::time::timeout(SETTLE_TIME, prober.settle()).await;
                prober.end_session();
            }
            served?;
        }
        // These commands were handled before anything was started.
        Command::Config | Command::Help(_) | Command::Completion(_) | Command::Man(_) => {}
        Command::PodSpec(args) => {
            let node = args.node.as_deref().unwrap_or("NODE");
            output.print_manifest(&json!(probe::printed(settings, node)?.object))?;
        }
        Command::Doctor(args) => {
            let work = doctor_command::run(&args, output, settings, contexts, prober);
            return until_stopped(work, prober, stop).await;
        }
        Command::Setup(args) => {
            return until_stopped(setup_command::run(&args, output, settings, contexts), prober, stop).await;
        }
        Command::Save(args) => {
            let call = call_context(Arc::new(TerminalPrompt), settings, contexts, prober, stop);
            let saved = until_stopped(archives::save(call, args), prober, stop).await?;
            output.print(&json!(saved), &saved.names(), || saved.page())?;
            return Ok(saved.outcome());
        }
        Command::Incident(args) => {
            let call = call_context(Arc::new(TerminalPrompt), settings, contexts, prober, stop);
            let incident = until_stopped(incident::incident(call, args), prober, stop).await?;
            output.print(&incident.json(), &incident.names(), || incident.page())?;
            return Ok(incident.outcome());
        }
        Command::ReturnReport(args) => {
            let call = call_context(Arc::new(TerminalPrompt), settings, contexts, prober, stop);
            let report = until_stopped(return_report::return_report(call, args), prober, stop).await?;
            output.print_document(&report.json(), &report.names(), report.markdown())?;
            return Ok(report.outcome());
        }
        Command::Compare(args) => return compare_command::run(&args, output, settings, contexts, prober, stop).await,
        Command::Sweep => {
            let sweeping = async { prober.sweep(&contexts.connect(None).await?).await };
            let swept = until_stopped(sweeping, prober, stop).await?;
            let namespace = &settings.probe_namespace;
            let names: Vec<_> = swept.deleted.iter().map(|name| format!("pod/{name}")).collect();
            output.print(&swept_json(&swept, namespace), &names, || Page::from(swept_text(&swept, namespace)))?;
            return Ok(if swept.failed.is_empty() { Outcome::NothingFound } else { Outcome::Unknown });
        }
        Command::Audit(args) => {
            let lines = prober.audit().read(args.last).map_err(|error| {
                Failure::new("Reading the audit log", error, "Check $XDG_STATE_HOME/gpu-syringe/audit.jsonl.")
            })?;
            output.print_lines(&lines, || audit::table(&lines))?;
        }
        Command::Tool(command) => {
            return run_tool(command.into_call(namespace)?, output, settings, contexts, prober, stop).await;
        }
    }
    Ok(Outcome::NothingFound)
}

/// Rejects a command about the set-up of a cluster if the cluster is an archive. The answer would be about the embedded
/// cluster.
fn refuse_on_archive(command: &Command, settings: &Settings) -> Result<(), Failure> {
    let name = match command {
        Command::Setup(_) => "setup",
        Command::Doctor(_) => "doctor",
        Command::Sweep => "sweep",
        Command::Save(_) => "save",
        _ => return Ok(()),
    };
    if !settings.refuses_actions() {
        return Ok(());
    }
    let why = "--from names an archive, and this command is about a cluster";
    Err(Failure::usage(format!("Running {name}"), why, "Run the command without --from."))
}

/// Runs a tool and prints its answer.
async fn run_tool(
    call: ToolCall,
    output: Output,
    settings: &Arc<Settings>,
    contexts: &Arc<Contexts>,
    prober: &Prober,
    stop: &CancellationToken,
) -> Result<Outcome, Failure> {
    let ToolCall { tool, destructive, run, says_yes, server, watch, arguments: _ } = call;
    if destructive && settings.mode != Mode::Operator {
        let why = "this command changes the node, and gpu-syringe is in read-only mode";
        return Err(Failure::usage(format!("Running {}", command_of(tool)), why, "Add --mode operator."));
    }
    let ask: Arc<dyn Prompt> = if says_yes { Arc::new(AlwaysYes) } else { Arc::new(TerminalPrompt) };
    let mut is_first = true;
    loop {
        let call = call_context(ask.clone(), settings, contexts, prober, stop);
        let call = CallContext { server: server.clone(), ..call };
        let answer = until_stopped(run(call), prober, stop).await;
        let RenderedAnswer { json, page, names, outcome } = match answer {
            Ok(answer) => answer,
            // The answers of the earlier readings are already printed.
            Err(_) if stop.is_cancelled() && !is_first => return Ok(Outcome::Interrupted),
            Err(failure) => return Err(failure),
        };
        if let Some(pause) = watch {
            output.begin_reading(pause, is_first)?;
        }
        output.print(&json, &names, || page)?;
        is_first = false;
        // Each reading creates pods, so a watch ends when nobody reads its output.
        let Some(pause) = watch.filter(|_| !output::is_reader_gone()) else { return Ok(outcome) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(Outcome::Interrupted),
        }
    }
}

/// Returns the context of one call, which shows its progress and is cancelled by a signal.
fn call_context(
    ask: Arc<dyn Prompt>,
    settings: &Arc<Settings>,
    contexts: &Arc<Contexts>,
    prober: &Prober,
    stop: &CancellationToken,
) -> CallContext {
    let consent = Consent::new(ask, Arc::default());
    let call = CallContext::new(settings.clone(), contexts.clone(), prober.clone(), consent);
    let on_phase = progress::of_phases(settings.probe_image());
    CallContext { on_phase, cancel: stop.clone(), limits_size: false, ..call }
}

/// Returns the result of `work`, or a failure after a signal, and removes the progress line. In both cases, the
/// function waits for the deletion of pods. If `work` has a pod, the result of `work` is returned. If `work` is waiting
/// for an API server or a person, `work` is dropped.
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
    let done = tokio::select! {
        biased;
        done = work => done,
        () = stopped => Err(Failure::new("The command", "gpu-syringe was interrupted", "Run the command again to get the answer.")),
    };
    progress::clear();
    done
}

/// Deletes leftover pods when the program starts. An unreachable cluster is not an error of this step.
fn sweep_at_start(contexts: Arc<Contexts>, prober: Prober) {
    tokio::spawn(async move {
        match contexts.connect(None).await {
            Ok(connection) => prober.sweep_in_background(&connection),
            Err(failure) => tracing::debug!(%failure, "no cleanup at the start"),
        }
    });
}

/// The first SIGINT or SIGTERM cancels every call, and the pods are deleted before the program exits. After the
/// second signal, the program prints what is left and exits at once.
fn watch_signals([stop, interrupted]: [CancellationToken; 2], prober: Prober, serves: bool) {
    tokio::spawn(async move {
        let mut signals = Signals::new();
        signals.next().await;
        interrupted.cancel();
        stop.cancel();
        for node in prober.nodes_of_actions() {
            let why = format!(
                "waiting for the action on node {node}; interrupt again to exit at once, which may interrupt the action"
            );
            say(&why, serves);
        }
        signals.next().await;
        name_left(&prober, serves);
        // A call whose pod is already deleted must still write its audit line.
        let _ = tokio::time::timeout(FINAL_MESSAGE_TIME, prober.settle()).await;
        std::process::exit(INTERRUPTED.into());
    });
}

/// Prints the names of the objects that are left on clusters, and the commands that delete them.
fn name_left(prober: &Prober, serves: bool) {
    let left = prober.open_probes();
    let what = match left.len() {
        0 => "exited at once after the second interrupt; no probe is left".to_owned(),
        count => format!("exited before all probes were deleted; number of probes that are left: {count}"),
    };
    say(&what, serves);
    left.iter().for_each(|one| say(one, serves));
    prober.audit_open_probes();
}

/// Writes a message for the user to standard error. For the server, the message is a line of its log.
fn say(message: &str, serves: bool) {
    let message = text::clean_keeping_lines(message);
    let message = with_commands(&message);
    if serves {
        tracing::error!("{message}");
    } else {
        let _ = writeln!(progress::Messages, "gpu-syringe: {message}");
    }
}

fn swept_json(swept: &SweepResult, namespace: &str) -> Value {
    let SweepResult { deleted, kept, ended, failed } = swept;
    json!({ "namespace": namespace, "deleted": deleted, "kept": kept, "ended": ended, "failed": failed })
}

fn swept_text(swept: &SweepResult, namespace: &str) -> String {
    let SweepResult { deleted, kept, ended, failed } = swept;
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
