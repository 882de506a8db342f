//! `AuditRecord`: collects the audit data of one call, and writes one line for each pod after the pod is deleted.
//! For an action (`ActionDetails`), it also writes a line before the action, or about a declined action.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use syringe_core::facts::action::Action;
use syringe_core::text::clean;

use crate::audit::{AuditEvent, AuditLine, AuditLog};
use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::request::ProbeRequest;
use crate::probe::result::ProbeResult;
use kube_read::Connection;
use kube_read::Failure;

/// Maximum length of an annotation. Kubernetes allows 256 KiB.
const MAX_ANNOTATION: usize = 1500;

/// The data that only the record of an action has.
#[derive(Clone, Debug, Default)]
pub struct ActionDetails {
    pub arguments: Value,
    /// The plan as text.
    pub plan: String,
    /// The plan in one line, without text from the node.
    pub headline: String,
    /// Who consented, and how.
    pub consent: String,
}

/// The record of one call.
#[derive(Debug)]
pub struct AuditRecord {
    audit: Arc<AuditLog>,
    line: AuditLine,
    headline: Option<String>,
    is_action: bool,
    /// The current pod.
    pod: Mutex<Option<Used>>,
    /// The image of the current pod.
    image: Mutex<Option<String>>,
}

/// A pod that was created or may have been created, or the pod to which an ephemeral container was added.
#[derive(Debug)]
struct Used {
    open: OpenProbe,
    uid: Option<String>,
}

impl AuditRecord {
    /// Returns a record of a call that reads a node, or with `action`, of a call that changes a node.
    pub(crate) fn new(
        audit: Arc<AuditLog>,
        connection: &Connection,
        namespace: &str,
        request: &ProbeRequest,
        action: Option<ActionDetails>,
    ) -> Self {
        let is_action = action.is_some();
        let note = action.unwrap_or_default();
        let line = AuditLine {
            context: connection.context.clone(),
            server: connection.server.clone(),
            user: connection.user.clone(),
            node: request.node.clone(),
            tool: request.tool.to_owned(),
            arguments: if is_action { note.arguments } else { json!(request.command.to_args()) },
            namespace: namespace.to_owned(),
            plan: Some(note.plan).filter(|plan| !plan.is_empty()),
            consent: Some(note.consent).filter(|consent| !consent.is_empty()),
            ..AuditLine::default()
        };
        let headline = Some(note.headline).filter(|headline| !headline.is_empty());
        Self { audit, line, headline, is_action, pod: Mutex::default(), image: Mutex::default() }
    }

    /// Returns the record as annotations of the pod, which the audit log of the API server keeps together with the user. The
    /// annotations contain no text from the node, because every user who may list pods can read them.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        let AuditLine { context, user, tool, arguments, consent, .. } = &self.line;
        let entries = [
            ("tool", Some(tool.clone())),
            ("arguments", Some(arguments.to_string())),
            ("context", Some(context.clone())),
            ("user", user.clone()),
            ("plan", self.headline.clone()),
            ("consent", consent.clone()),
        ];
        entries
            .into_iter()
            .filter_map(|(name, text)| Some((format!("gpu-syringe.dev/{name}"), clean(&text?, MAX_ANNOTATION))))
            .collect()
    }

    /// Records that the pod was created. Without a UID, the pod may have been created.
    pub(super) fn created(&self, open: &OpenProbe, uid: Option<&str>) {
        let used = Used { open: open.clone(), uid: uid.map(str::to_owned) };
        *self.pod.lock().unwrap_or_else(PoisonError::into_inner) = Some(used);
    }

    /// Records the image of the pod that is about to be created.
    pub(super) fn uses_image(&self, image: &str) {
        *self.image.lock().unwrap_or_else(PoisonError::into_inner) = Some(image.to_owned());
    }

    /// Writes the line before an action. If writing fails, the action is not done.
    pub(crate) async fn action_starts(&self) -> Result<(), Failure> {
        let line = AuditLine { event: AuditEvent::ActionStarted, ..self.line.clone() };
        self.audit.append(line).await.map_err(|error| {
            Failure::new(
                format!("Writing the audit log before {} on node {}", self.line.tool, self.line.node),
                format!("{error}; nothing was done"),
                "Make the state directory writable ($XDG_STATE_HOME/gpu-syringe), and call again.",
            )
        })
    }

    /// Writes the line of an action that a person declined.
    pub(crate) async fn declined(&self, why: &str) {
        self.not_begun(AuditEvent::ActionDeclined, format!("declined: {why}")).await;
    }

    /// Writes the line of an action whose consent is not valid.
    pub(crate) async fn refused(&self, why: &str) {
        self.not_begun(AuditEvent::ActionRefused, format!("refused: {why}")).await;
    }

    async fn not_begun(&self, event: AuditEvent, outcome: String) {
        self.audit.append_or_warn(AuditLine { event, outcome: Some(outcome), ..self.line.clone() }).await;
    }

    /// Writes the line of a pod that was created after the client gave up, or that was never created.
    pub(super) async fn late(&self, open: &OpenProbe, uid: Option<String>, outcome: &str, deleted: Option<bool>) {
        let OpenProbe { namespace, pod, container, .. } = open.clone();
        let outcome = Some(outcome.to_owned());
        let line = AuditLine { event: AuditEvent::Sweep, namespace, outcome, deleted, ..self.line.clone() };
        self.audit.append_or_warn(AuditLine { pod: Some(pod), pod_uid: uid, container, ..line }).await;
    }

    /// Writes the line of a deleted pod, or of a call that created no pod. A second pod of the same call gets its own line.
    pub(crate) async fn ended(&self, result: &Result<ProbeResult, Failure>, took: Duration) {
        let used = self.pod.lock().unwrap_or_else(PoisonError::into_inner).take();
        let deleted = match result {
            Ok(probed) => Some(probed.deleted),
            Err(failure) => used.as_ref().map(|_| failure.left_behind.is_none()),
        };
        let mut line = AuditLine {
            event: if self.is_action { AuditEvent::ActionEnded } else { AuditEvent::Probe },
            outcome: Some(outcome(result)),
            deleted,
            duration_ms: Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            ..self.line.clone()
        };
        let image = self.image.lock().unwrap_or_else(PoisonError::into_inner).take();
        line.via = match result {
            Ok(probed) => Some(probed.via.as_str().to_owned()),
            Err(failure) => failure.via.map(str::to_owned),
        };
        if let Some(Used { open: OpenProbe { namespace, pod, container, .. }, uid }) = used {
            (line.namespace, line.pod, line.pod_uid, line.container) = (namespace, Some(pod), uid, container);
            line.image = image;
        }
        self.audit.append_or_warn(line).await;
    }
}

fn outcome(result: &Result<ProbeResult, Failure>) -> String {
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    match result {
        Err(failure) => clean(&format!("failed: {}: {}", failure.what, failure.why), 600),
        Ok(ProbeResult { report, .. }) => match (&report.error, &report.action) {
            (Some(problem), _) => clean(&format!("failed: {}: {}", problem.what, problem.why), 600),
            (None, Some(Action::Kill(kill))) => {
                let by = kill.ended_by.as_deref().map(|signal| format!(" by {signal}")).unwrap_or_default();
                let why = kill.refusal.as_ref().map(|refusal| format!(": {}", refusal.why)).unwrap_or_default();
                clean(&format!("{}{by}{why}", word(json!(kill.outcome))), 600)
            }
            (None, Some(Action::Reset(reset))) => {
                clean(&format!("{}: {}", word(json!(reset.outcome)), reset.summary), 600)
            }
            (None, None) => "answered".to_owned(),
        },
    }
}
