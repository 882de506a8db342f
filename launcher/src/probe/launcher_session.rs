//! What all probes of this process share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::launcher_identity::LauncherIdentity;
use super::open_probes::OpenProbes;
use crate::audit::AuditLog;

/// What all probes of this process share.
#[derive(Clone)]
pub(super) struct LauncherSession {
    pub(super) identity: Arc<LauncherIdentity>,
    pub(super) open: Arc<OpenProbes>,
    /// Every task that may have a pod. The program waits for them before it ends.
    pub(super) tasks: TaskTracker,
    /// The program is ending.
    pub(super) stop: CancellationToken,
    pub(super) audit: Arc<AuditLog>,
}
