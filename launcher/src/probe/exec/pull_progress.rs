//! Reports a pull of the image to the caller: the status of a pod does not show it.

use std::time::Duration;

use tokio::time::timeout;

use crate::probe::lifecycle::pod_spec::CONTAINER;
use crate::probe::probe_context::ProbeContext;
use crate::probe::request::Phase;
use crate::probe::result::ProbeContainer;
use kube_read::reads::events;

/// A container that has not started by then may wait for its image.
const SLOW_START: Duration = Duration::from_secs(2);
/// Time for the request.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// Reports, once, whether a slow start is a pull of the image.
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
