//! `LauncherSession`: the state that all probes of a process share: identity, open probes, tasks, stop token, audit.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::AuditLog;
use crate::probe::lifecycle::launcher_identity::LauncherIdentity;
use crate::probe::lifecycle::open_probes::{OpenProbe, OpenProbes};

#[derive(Clone)]
pub(crate) struct LauncherSession {
    pub(crate) identity: Arc<LauncherIdentity>,
    pub(crate) open: Arc<OpenProbes>,
    /// All tasks that may have a pod. The program waits for these tasks before it exits.
    pub(crate) tasks: TaskTracker,
    /// This token is cancelled when the program is exiting.
    pub(crate) stop: CancellationToken,
    pub(crate) audit: Arc<AuditLog>,
}

impl LauncherSession {
    /// Records a probe before the request that creates its pod or container. The probe is also written to the file of
    /// this session: if this launcher is killed, the next launcher stops the probe and writes its audit line.
    pub(crate) async fn begin(&self, open: OpenProbe) {
        self.open.add(open.clone());
        self.write_unaudited(move |all| all.push(open)).await;
    }

    /// Records that the audit line of a probe is written, and that this process has nothing more to delete or stop for
    /// the probe.
    pub(crate) async fn close(&self, open: &OpenProbe) {
        self.open.remove(open);
        let open = open.clone();
        self.write_unaudited(move |all| all.retain(|one| *one != open)).await;
    }

    async fn write_unaudited(&self, change: impl FnOnce(&mut Vec<OpenProbe>) + Send + 'static) {
        let identity = self.identity.clone();
        let written = tokio::task::spawn_blocking(move || identity.write_unaudited(change)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the file of this session could not be written");
        }
    }
}
