//! Exec as soon as the container can take it: tried again and again, with an eye on the pod for reasons to stop.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::exec::{self, Command, Ended, ExecError, Output};
use super::life::Life;
use super::{CONTAINER, Phase, Timings, hopeless, policy};
use crate::error::{Failure, Obstacle, kube_reason};
use crate::kubernetes::client::retry::retry_after;
use crate::kubernetes::read::events;
use crate::settings::Via;

/// Time for an exec request to be upgraded.
const UPGRADE_TIME: Duration = Duration::from_secs(10);
/// First pause between two tries to exec; a container on a warm node runs after some 170 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(30);
/// Longest pause between two tries while a pod is young: most start within a second, and a try that comes late is time lost.
const YOUNG_PAUSE: Duration = Duration::from_millis(60);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// A pause may be this part of the wait so far, so that no try comes later than by a sixteenth.
const PART_OF_WAIT: u32 = 16;
/// How often the pod itself is looked at for reasons that end the wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time for one look at the pod or its events.
const LOOK_TIME: Duration = Duration::from_secs(3);
/// How long an exec may be refused once the container is seen to run: then it is not the container that refuses.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// kube's reason for an answer that is no `Status`.
const FOREIGN: &str = "Failed to parse error data";

/// A container in which the probe runs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) image: String,
    /// What to do when the image does not hold the program that is run in it.
    pub(super) if_missing: &'static str,
}

impl Life {
    /// One exec that ran. Tries until the container can take it; looks at the pod beside it.
    pub(super) async fn exec(
        &self,
        place: &Place,
        argv: &[String],
        input: &[u8],
        timings: &mut Timings,
    ) -> Result<Output, Failure> {
        let waiting = Instant::now();
        let start_end = self.end.min(waiting + self.settings.start_time());
        let Place { namespace, pod, container, .. } = place;
        let command = Command { namespace, pod, container, argv, input };
        (self.on_phase)(Phase::Start);
        let mut pause = FIRST_PAUSE;
        let mut looked = waiting;
        let mut seen_running: Option<Instant> = None;
        let mut last = String::from("no try was made");
        while Instant::now() < start_end {
            let attempt = Instant::now();
            let on_phase = self.on_phase.clone();
            let run = exec::run(&self.connection.client, &command, UPGRADE_TIME, move || on_phase(Phase::Read));
            match timeout(self.end.saturating_duration_since(attempt), run).await {
                Err(_) => return Err(self.out_of_time("the probe did not finish")),
                Ok(Ok(output)) => match output.ended {
                    // Up to Kubernetes 1.35 a container that is not there yet is a status on the stream.
                    Ended::Refused(ref why) if not_yet(why) => last = why.clone(),
                    Ended::Refused(ref why) => return Err(self.not_run(place, why)),
                    _ => {
                        self.accepted.store(true, Ordering::Relaxed);
                        timings.start += attempt - waiting;
                        timings.exec += attempt.elapsed();
                        return Ok(output);
                    }
                },
                Ok(Err(error)) => {
                    last = error.to_string();
                    pause = pause.max(self.may_try_again(place, &error)?);
                }
            }
            if looked.elapsed() >= LOOK_EVERY || pause >= LOOK_EVERY {
                looked = Instant::now();
                if self.look(place).await? {
                    let since = *seen_running.get_or_insert(looked);
                    if since.elapsed() >= REFUSED_FOR {
                        return Err(self.no_websocket(&last));
                    }
                }
            }
            sleep(pause).await;
            let longest = (waiting.elapsed() / PART_OF_WAIT).clamp(YOUNG_PAUSE, LONGEST_PAUSE);
            pause = (pause * 3 / 2).min(longest);
        }
        if self.look(place).await? {
            return Err(self.no_websocket(&last));
        }
        Err(self.not_started_in_time(place, waiting.elapsed(), &last).await)
    }

    /// A container that did not start in time: `last` is what was heard last, and the pod's newest warning may say why.
    pub(super) async fn not_started_in_time(&self, place: &Place, waited: Duration, last: &str) -> Failure {
        let late = self.not_started_after(waited);
        match self.newest_warning(place).await {
            Some(warning) => {
                let next = if warning.contains("no runtime for") {
                    "The node's container runtime does not know that RuntimeClass: name another one with --runtime-class."
                } else {
                    "Mend on the node what the warning names."
                };
                let why = format!("{late}; the pod's newest warning is {warning}");
                Failure { next_step: next.to_owned(), ..self.out_of_time(&why) }
            }
            None => self.out_of_time(&format!("{late} ({last})")),
        }
    }

    /// What no status of a pod says: a sandbox that cannot be created, a volume that cannot be mounted. Of a pod of ours alone:
    /// the warnings of somebody else's pod are about its own troubles.
    async fn newest_warning(&self, place: &Place) -> Option<String> {
        if place.container != CONTAINER {
            return None;
        }
        let looking = events::newest_warning(&self.connection, &place.namespace, &place.pod);
        let warning = timeout(LOOK_TIME, looking).await.ok()?.ok()??;
        Some(format!("{}: {}", warning.reason, warning.message))
    }

    /// That the container did not start, how long that was waited for, and which limit ended the wait.
    fn not_started_after(&self, waited: Duration) -> String {
        let limit = if waited >= self.settings.start_time() {
            format!("--start-timeout {}", self.settings.start_timeout)
        } else {
            "the time of this call or node".to_owned()
        };
        format!("its container did not start within {:.1} s, the limit of {limit}", waited.as_secs_f64())
    }

    /// Whether an exec that was refused may succeed later, and how long to wait before.
    fn may_try_again(&self, place: &Place, error: &ExecError) -> Result<Duration, Failure> {
        let ExecError::Kube(error) = error else { return Ok(FIRST_PAUSE) };
        let why = kube_reason(error);
        match error {
            kube::Error::Api(_) if not_yet(&why) => Ok(FIRST_PAUSE),
            // Not a word of the API server: somebody before it answers, or a kubelet behind it.
            kube::Error::Api(status) if status.reason == FOREIGN && is_final(status.code) => {
                Err(self.no_websocket(&why))
            }
            kube::Error::Api(status) => match status.code {
                403 if let Some((who, change)) = policy::behind(&why, &place.namespace) => {
                    let what = format!("Running the probe in pod {}/{}", place.namespace, place.pod);
                    Err(Failure::new(what, format!("{who} forbids it: {why}"), change)
                        .because_of(Obstacle::Policy(who)))
                }
                401 | 403 => Err(Failure::new(
                    format!("Running the probe in pod {}/{}", place.namespace, place.pod),
                    why,
                    "Your user needs get and create on pods/exec in that namespace (deploy/rbac.yaml); --via logs does \
                     without.",
                )
                .because_of(Obstacle::EveryNode)),
                429 => Ok(retry_after(status)),
                404 => Err(self.not_run(place, &why)),
                400..500 => Err(self.no_websocket(&why)),
                _ => Ok(FIRST_PAUSE),
            },
            kube::Error::UpgradeConnection(_) => Err(self.no_websocket(&why)),
            _ => Ok(FIRST_PAUSE),
        }
    }

    fn no_websocket(&self, why: &str) -> Failure {
        let what = format!("Opening a websocket to node {} through {}", self.order.node, self.connection.server);
        if why.contains("dial") {
            // The log is read through the kubelet as well: no other way helps.
            let next = "The API server cannot reach the node's kubelet (port 10250): look at the firewall between them, or \
                        at konnectivity.";
            return Failure::new(what, why, next);
        }
        let next = "A proxy or load balancer before the API server refuses websockets: allow them, connect to the API \
                    server directly, or use --via logs, which needs none.";
        Failure::new(what, why, next).because_of(Obstacle::Websockets)
    }

    /// Looks at the pod for what makes waiting useless. Says whether its container is seen to run.
    pub(super) async fn look(&self, place: &Place) -> Result<bool, Failure> {
        match timeout(LOOK_TIME, self.pods(&place.namespace).get_opt(&place.pod)).await {
            Ok(Ok(Some(pod))) => match hopeless::reason(&pod, place, &self.settings) {
                Some((why, next)) => Err(self.not_started(place, &why, next)),
                None => Ok(hopeless::state(&pod, &place.container).is_some_and(|state| state.running.is_some())),
            },
            Ok(Ok(None)) => Err(self.not_run(place, "somebody deleted the pod")),
            // A look that fails proves nothing; the next exec will tell.
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }

    pub(super) fn not_started(&self, place: &Place, why: &str, next: String) -> Failure {
        let what = format!("Starting the probe on node {} (image {})", self.order.node, place.image);
        let failure = Failure::new(what, why, next);
        let no_image = self.settings.via != Via::Inject && hopeless::is_no_image(why);
        if no_image { failure.because_of(Obstacle::EveryNode) } else { failure }
    }

    pub(super) fn not_run(&self, place: &Place, why: &str) -> Failure {
        let next = if is_missing_program(why) {
            place.if_missing
        } else if why == exec::FLOOD {
            "The image holds another program of that name: name the right one with --image."
        } else {
            "Look at the node's kubelet and container runtime, and try again."
        };
        Failure::new(format!("Running the probe on node {}", self.order.node), why, next)
    }
}

/// The runtime's words for a program that the image does not hold.
pub(super) fn is_missing_program(why: &str) -> bool {
    // Not every missing file is the program: a hook of the runtime may miss the driver's libraries.
    let program = why.contains("executable file") && why.contains("not found");
    program || why.contains("exec: \"") && why.contains("no such file or directory")
}

/// Whether a proxy that answers so will go on doing it: it does not know websockets. A bad gateway may mend.
fn is_final(code: u16) -> bool {
    code < 500 || code == 501
}

/// The words of API server, kubelet and runtime for a container that does not run yet.
pub(super) fn not_yet(why: &str) -> bool {
    // "unable to upgrade connection" stands before "container not found" and "pod does not exist", and before what lasts.
    const WORDS: [&str; 6] = [
        "container not found",
        "pod does not exist",
        "does not have a host assigned",
        "CONTAINER_CREATED",
        "is not created or running",
        "dial tcp",
    ];
    WORDS.iter().any(|words| why.contains(words))
}

#[cfg(test)]
mod tests {
    use super::is_missing_program;

    #[test]
    fn a_missing_program_is_told_from_a_missing_driver() {
        for words in [
            "exec: \"node-probe\": executable file not found in $PATH",
            "exec: \"/usr/bin/node-probe\": stat /usr/bin/node-probe: no such file or directory",
            "crun: executable file `node-probe` not found in $PATH: No such file or directory",
        ] {
            assert!(is_missing_program(words), "{words}");
        }
        let hook = "error running prestart hook #0: exit status 1: nvidia-container-cli: initialization error: load library \
                    failed: libnvidia-ml.so.1: cannot open shared object file: no such file or directory";
        assert!(!is_missing_program(hook));
    }
}
