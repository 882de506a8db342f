//! One container: its main process, from start to end, and what the API learns of it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use node_probe::RELEASE_FILE;
use tokio::sync::mpsc;

use super::status::{self, End};
use super::{Placed, Shared};
use crate::programs::{Invocation, Streams, base_name};

/// How long `node-probe hold` holds without an argument.
const DEFAULT_HOLD: Duration = Duration::from_secs(120);
/// Pieces of output that wait for a reader.
const PIPE: usize = 16;

/// What a container is to run.
pub(super) struct Launch {
    pub(super) name: String,
    pub(super) image: String,
    /// Whether the image must be on the node already.
    pub(super) never_pull: bool,
    argv: Vec<String>,
}

impl Launch {
    pub(super) fn of(container: &Container) -> Self {
        let Container { name, image, command, args, image_pull_policy, .. } = container;
        let launch = Self::new(name, image.as_ref(), command.as_deref(), args.as_deref());
        Self { never_pull: image_pull_policy.as_deref() == Some("Never"), ..launch }
    }

    /// The launch of an ephemeral container; `None` if the pod has none of this name.
    pub(super) fn ephemeral(spec: &PodSpec, name: &str) -> Option<Self> {
        let container = spec.ephemeral_containers.as_ref()?.iter().find(|container| container.name == name)?;
        Some(Self::new(name, container.image.as_ref(), container.command.as_deref(), container.args.as_deref()))
    }

    fn new(name: &str, image: Option<&String>, command: Option<&[String]>, args: Option<&[String]>) -> Self {
        let image = image.cloned().unwrap_or_default();
        let entrypoint = vec!["node-probe".to_owned()];
        let mut argv = command.filter(|command| !command.is_empty()).map_or(entrypoint, <[String]>::to_vec);
        argv.extend(args.unwrap_or_default().iter().cloned());
        Self { name: name.to_owned(), image, never_pull: false, argv }
    }

    fn is_probe(&self) -> bool {
        self.argv.first().is_some_and(|program| base_name(program) == "node-probe")
    }

    /// How long the main process only holds the container open; `None` for one that does something.
    fn holds(&self) -> Option<Duration> {
        let arguments = &self.argv[1..];
        match (base_name(self.argv.first()?), arguments.first().map(String::as_str)) {
            ("pause", _) | ("sleep", Some("infinity")) => Some(Duration::MAX),
            ("sleep", Some(time)) => duration(time),
            ("node-probe", Some("hold")) => {
                let words = arguments[1..].iter().flat_map(|argument| argument.split('='));
                Some(words.filter_map(duration).next().unwrap_or(DEFAULT_HOLD))
            }
            _ => None,
        }
    }
}

/// `90`, `90s`, `5m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

/// Runs a container from its start to its end, and publishes both after the lag of the kubelet's relist.
pub(super) async fn run(shared: &Shared, placed: &Placed, launch: &Launch) {
    shared.runtime.started(&placed.uid, &launch.name);
    let main = main_process(shared, placed, launch);
    tokio::pin!(main);
    let end = tokio::select! {
        end = &mut main => end,
        () = tokio::time::sleep(shared.timing.status_lag) => {
            placed.publish(shared, |pod| status::running(pod, &launch.name));
            main.await
        }
    };
    shared.runtime.exited(&placed.uid, &launch.name);
    tokio::time::sleep(shared.timing.status_lag).await;
    placed.publish(shared, |pod| status::terminated(pod, &launch.name, &end));
}

async fn main_process(shared: &Shared, placed: &Placed, launch: &Launch) -> End {
    let killed = shared.faults(|faults| faults.take_main_process_killed(&placed.node));
    let killed = async {
        match killed {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    let process = async {
        match launch.holds() {
            Some(Duration::MAX) => std::future::pending().await,
            // Pods of others hold with whatever they have; a probe that is not there starts nothing.
            Some(time) if !launch.is_probe() || shared.programs.have_probe(&launch.image) => {
                let files = shared.runtime.files_of(&placed.uid, &launch.name);
                let _ = tokio::time::timeout(time, files.appears(RELEASE_FILE)).await;
                End::exit(0)
            }
            Some(_) | None => execute(shared, placed, launch).await,
        }
    };
    tokio::select! {
        () = killed => End { exit_code: 137, reason: "OOMKilled", message: None },
        end = process => end,
    }
}

/// Runs a main process that does something; its output becomes the container's log.
async fn execute(shared: &Shared, placed: &Placed, launch: &Launch) -> End {
    let Some(host) = shared.host(&placed.node) else { return End::exit(1) };
    let invocation = Invocation {
        argv: launch.argv.clone(),
        image: launch.image.clone(),
        node: placed.node.clone(),
        facts: host.facts.clone(),
        files: shared.runtime.files_of(&placed.uid, &launch.name),
    };
    let (stdout, mut out) = mpsc::channel(PIPE);
    let (stderr, mut err) = mpsc::channel(PIPE);
    let (_, stdin) = mpsc::channel(1);
    let Some(process) = shared.programs.start(&invocation, Streams { stdin, stdout, stderr }) else {
        let program = launch.argv.first().map_or("", String::as_str);
        let message = format!(
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create \
             failed: unable to start container process: error during container init: exec: \"{program}\": \
             executable file not found in $PATH"
        );
        return End { exit_code: 128, reason: "StartError", message: Some(message) };
    };
    let log = async {
        while let Some(output) = tokio::select! {
            Some(output) = out.recv() => Some(output),
            Some(output) = err.recv() => Some(output),
            else => None,
        } {
            shared.runtime.write_log(&placed.uid, &launch.name, &output);
        }
    };
    let (code, ()) = tokio::join!(process, log);
    End::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(argv: &[&str]) -> Option<Duration> {
        let argv: Vec<_> = argv.iter().map(|word| (*word).to_owned()).collect();
        Launch::new("main", None, Some(&argv), None).holds()
    }

    #[test]
    fn a_hold_ends_after_its_argument() {
        assert_eq!(holds(&["node-probe", "hold", "--seconds", "90"]), Some(Duration::from_secs(90)));
        assert_eq!(holds(&["/usr/bin/node-probe", "hold", "--for=2m"]), Some(Duration::from_secs(120)));
        assert_eq!(holds(&["sleep", "5"]), Some(Duration::from_secs(5)));
        assert_eq!(holds(&["sleep", "infinity"]), Some(Duration::MAX));
        assert_eq!(holds(&["node-probe", "xid", "--since", "24h"]), None);
    }
}
