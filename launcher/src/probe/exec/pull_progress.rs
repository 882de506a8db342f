//! `report_pull`: reports to the caller that the node is pulling the image, which the status of a pod does not show.

use std::time::Duration;

use tokio::time::timeout;

use crate::probe::lifecycle::pod_spec::CONTAINER;
use crate::probe::probe_context::ProbeContext;
use crate::probe::request::Phase;
use crate::probe::result::ProbeContainer;
use kube_read::reads::events;

/// A container that has not started after this time may be waiting for its image.
const SLOW_START: Duration = Duration::from_secs(2);
/// Time limit of the request for the events.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// Reports once that the start is slow because the node is pulling the image.
pub(crate) async fn report_pull(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    waited: Duration,
    has_checked: &mut bool,
) {
    if *has_checked || waited < SLOW_START || probe_container.container != CONTAINER {
        return;
    }
    *has_checked = true;
    let looking = events::unfinished_pull(&context.connection, &probe_container.namespace, &probe_container.pod);
    if let Ok(Ok(Some(_))) = timeout(LOOK_TIME, looking).await {
        context.report(Phase::Pull);
    }
}
