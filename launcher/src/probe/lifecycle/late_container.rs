//! Looks in the background for an ephemeral container that may still start, and ends it when it does. Its creation was not
//! answered, its image is still being pulled, or it could not be told to end.

use tokio::time::{Duration, Instant, sleep};

use crate::probe::lifecycle::end_container::{AddedContainer, FinalState};
use crate::probe::lifecycle::late_pod::{LATE_TIME, LATE_TIME_AT_END};
use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::probe_context::ProbeContext;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Starts the task that looks for the container. The program waits for it before it ends.
pub(crate) fn look_in_background(context: &ProbeContext, added: AddedContainer, open: OpenProbe) {
    let (session, record) = (context.session.clone(), context.record.clone());
    context.leave_to_background(&open);
    context.session.tasks.spawn(async move {
        let mut end = Instant::now() + LATE_TIME;
        let mut is_ending = false;
        let state = loop {
            let state = added.end(false).await;
            if matches!(state, FinalState::Gone | FinalState::Ended) || Instant::now() >= end {
                break state;
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = session.stop.cancelled(), if !is_ending => {
                    is_ending = true;
                    end = end.min(Instant::now() + LATE_TIME_AT_END);
                }
            }
        };
        let outcome = match state {
            FinalState::Ended => "the container came late, and has ended".to_owned(),
            FinalState::Gone => "the pod of the container was deleted".to_owned(),
            FinalState::NotAdded => "its creation was not answered, and it was not created".to_owned(),
            FinalState::Stuck | FinalState::Waits => {
                format!("it has not started; if it starts, it exits on its own within {} s", open.lifetime_seconds)
            }
            FinalState::Unknown => {
                format!("it could not be ended; it exits on its own within {} s of its start", open.lifetime_seconds)
            }
        };
        record.late(&open, added.uid.clone(), &outcome, None).await;
        // What may still run stays in the file of this session: the next launcher ends it.
        if matches!(state, FinalState::Gone | FinalState::Ended | FinalState::NotAdded) {
            session.close(&open).await;
        } else {
            session.open.remove(&open);
        }
    });
}
