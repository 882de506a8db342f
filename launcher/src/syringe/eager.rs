//! Exec as soon as the container can take it: tried again and again, with an eye on the pod for reasons to stop.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::exec::{self, Command, Ended, ExecError, Output};
use super::life::Life;
use super::own_pod::retry_after;
use super::{Phase, Timings, hopeless};
use crate::error::{Failure, Obstacle, kube_reason};

/// Time for an exec request to be upgraded.
const UPGRADE_TIME: Duration = Duration::from_secs(10);
/// First pause between two tries to exec; a container on a warm node runs after some 170 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(30);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// How often the pod itself is looked at for reasons that end the wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Answers that no API server and no kubelet gives, in a row, until a proxy is taken to be the one who speaks.
const MOST_STRANGE_ANSWERS: u32 = 4;

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

/// What a refused exec means.
enum Refused {
    /// The container is not there yet, perhaps: try again, after this.
    Wait(Duration),
    /// An answer that nobody of Kubernetes gives.
    Strange,
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
        let mut strange = 0;
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
                        timings.start += attempt - waiting;
                        timings.exec += attempt.elapsed();
                        return Ok(output);
                    }
                },
                Ok(Err(error)) => {
                    last = error.to_string();
                    match self.refused(place, &error)? {
                        Refused::Wait(wait) => (strange, pause) = (0, pause.max(wait)),
                        Refused::Strange if strange >= MOST_STRANGE_ANSWERS => return Err(self.no_websocket(&last)),
                        Refused::Strange => strange += 1,
                    }
                }
            }
            if looked.elapsed() >= LOOK_EVERY || pause >= LOOK_EVERY {
                looked = Instant::now();
                self.look(place).await?;
            }
            sleep(pause).await;
            pause = (pause.min(LONGEST_PAUSE) * 3 / 2).min(LONGEST_PAUSE);
        }
        self.look(place).await?;
        Err(self.out_of_time(&format!("its container did not start within {:?} ({last})", self.settings.start_time())))
    }

    /// Whether an exec that was refused may succeed later.
    fn refused(&self, place: &Place, error: &ExecError) -> Result<Refused, Failure> {
        let ExecError::Kube(error) = error else { return Ok(Refused::Wait(FIRST_PAUSE)) };
        let why = kube_reason(error);
        let kube::Error::Api(status) = error else {
            let upgrade = matches!(error, kube::Error::UpgradeConnection(_));
            return if upgrade { Err(self.no_websocket(&why)) } else { Ok(Refused::Wait(FIRST_PAUSE)) };
        };
        if not_yet(&why) {
            return Ok(Refused::Wait(FIRST_PAUSE));
        }
        match (status.code, is_foreign(status)) {
            (429, _) => Ok(Refused::Wait(retry_after(status))),
            (500.., true) => Ok(Refused::Strange),
            (500.., false) => Ok(Refused::Wait(FIRST_PAUSE)),
            (_, true) => Err(self.no_websocket(&why)),
            (401 | 403, false) => Err(Failure::new(
                format!("Running the probe in pod {}/{}", place.namespace, place.pod),
                why,
                "Your user needs get and create on pods/exec in that namespace (deploy/rbac.yaml); --via logs does without.",
            )),
            (404, false) => Err(self.not_run(place, &why)),
            (_, false) => Err(self.no_websocket(&why)),
        }
    }

    fn no_websocket(&self, why: &str) -> Failure {
        Failure::new(
            format!("Opening a websocket to node {} through {}", self.order.node, self.connection.server),
            why,
            "A proxy or load balancer before the API server refuses websockets: allow them, connect to the API server \
             directly, or use --via logs, which needs none.",
        )
        .because_of(Obstacle::Websockets)
    }

    /// Looks at the pod for what makes waiting useless.
    pub(super) async fn look(&self, place: &Place) -> Result<(), Failure> {
        match timeout(Duration::from_secs(3), self.pods(&place.namespace).get_opt(&place.pod)).await {
            Ok(Ok(Some(pod))) => match hopeless::reason(&pod, place, &self.settings) {
                Some((why, next)) => Err(self.not_started(place, &why, next)),
                None => Ok(()),
            },
            Ok(Ok(None)) => Err(self.not_run(place, "somebody deleted the pod")),
            // A look that fails proves nothing; the next exec will tell.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    pub(super) fn not_started(&self, place: &Place, why: &str, next: String) -> Failure {
        Failure::new(format!("Starting the probe on node {} (image {})", self.order.node, place.image), why, next)
    }

    pub(super) fn not_run(&self, place: &Place, why: &str) -> Failure {
        let next = if is_missing_program(why) {
            place.if_missing
        } else {
            "Look at the node's kubelet and container runtime, and try again."
        };
        Failure::new(format!("Running the probe on node {}", self.order.node), why, next)
    }
}

/// The runtime's words for a program that the image does not hold.
pub(super) fn is_missing_program(why: &str) -> bool {
    why.contains("executable file not found") || why.contains("no such file or directory")
}

/// Whether the answer is no `Status` of Kubernetes: the client says so of a body that it could not read.
fn is_foreign(status: &kube::core::Status) -> bool {
    status.reason.contains("Failed to parse error data")
}

/// The words of API server, kubelet and runtime for a container that does not run yet.
pub(super) fn not_yet(why: &str) -> bool {
    const WORDS: [&str; 7] = [
        "container not found",
        "pod does not exist",
        "does not have a host assigned",
        "CONTAINER_CREATED",
        "is not created or running",
        "unable to upgrade connection",
        "dial tcp",
    ];
    WORDS.iter().any(|words| why.contains(words))
}
