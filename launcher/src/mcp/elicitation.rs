//! `consent`: asks the user of an MCP host for consent. `input_required`: the result that contains the question.
//! Up to protocol version 2025-11-25, the question is a request while the call waits (elicitation). In version
//! 2026-07-28, the question is the result of the call, and the host sends the user's answer with a second call.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rmcp::model::{
    CallToolRequestParams, ElicitRequest, ElicitRequestParams, ElicitationCapability, ElicitationSchema, InputRequest,
    InputRequests, InputRequiredResult,
};
use rmcp::service::{ElicitationError, ElicitationMode, Peer, RequestContext};
use rmcp::{ErrorData, RoleServer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consent::{Consent, ConsentAnswer, HostAnswer, NoPrompt, PendingQuestion, Prompt, TOKEN_LIFETIME, Tokens};

/// Key of the question. A call asks at most one question.
const QUESTION: &str = "consent";

/// The form of the question.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Agreement {
    /// Carry out the plan
    agree: bool,
}

rmcp::elicit_safe!(Agreement);

/// Returns the `Consent` for a request, with the user's answer if the request contains it.
pub(super) fn consent(
    context: &RequestContext<RoleServer>,
    request: &CallToolRequestParams,
    tokens: Arc<Tokens>,
) -> Consent {
    let modern = context.protocol_version().is_some_and(|version| !version.has_initialize());
    // A host that specifies no kind of elicitation supports forms. A host that only opens links cannot ask the question.
    let forms = |can: ElicitationCapability| can.form.is_some() || can.url.is_none();
    let elicits = context.client_capabilities().and_then(|client| client.elicitation).is_some_and(forms);
    let ask: Arc<dyn Prompt> = match (modern, elicits) {
        (true, true) => Arc::new(DeferredPrompt),
        (true, false) => Arc::new(NoPrompt),
        (false, _) => Arc::new(Elicit { peer: context.peer.clone(), time: TOKEN_LIFETIME }),
    };
    Consent::new(ask, tokens).with_answer(answer(request))
}

/// Returns the answer of the host's user. Everything except `agree: true` means no.
fn answer(request: &CallToolRequestParams) -> Option<HostAnswer> {
    let token = request.request_state.clone()?;
    let response = request.input_responses.as_ref().and_then(|responses| responses.get(QUESTION));
    let accepted =
        response.is_some_and(|response| response["action"] == "accept" && response["content"]["agree"] == true);
    Some(HostAnswer { token, accepted })
}

/// Returns the result of a call that requires the consent of the user.
pub(super) fn input_required(pending: &PendingQuestion) -> Result<InputRequiredResult, ErrorData> {
    let requested_schema = ElicitationSchema::from_type::<Agreement>()
        .map_err(|error| ErrorData::internal_error(format!("the question's schema: {error}"), None))?;
    let form =
        ElicitRequestParams::FormElicitationParams { meta: None, message: pending.plan.clone(), requested_schema };
    let requests = InputRequests::from([(QUESTION.to_owned(), InputRequest::Elicitation(ElicitRequest::new(form)))]);
    Ok(InputRequiredResult::new(Some(requests), Some(pending.token.clone())))
}

/// The prompt for the newer protocol: the question is in the result of the call.
struct DeferredPrompt;

impl Prompt for DeferredPrompt {
    fn ask<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ConsentAnswer> {
        Box::pin(async { ConsentAnswer::Deferred })
    }
}

/// The prompt for the older protocol: a request to the host while the call waits.
struct Elicit {
    peer: Peer<RoleServer>,
    time: Duration,
}

impl Prompt for Elicit {
    fn ask<'a>(&'a self, plan: &'a str) -> BoxFuture<'a, ConsentAnswer> {
        Box::pin(async move {
            if !self.peer.supported_elicitation_modes().contains(&ElicitationMode::Form) {
                return ConsentAnswer::Nobody;
            }
            match self.peer.elicit_with_timeout::<Agreement>(plan, Some(self.time)).await {
                Ok(Some(Agreement { agree: true })) => ConsentAnswer::Yes("user (elicitation)"),
                Ok(_) | Err(ElicitationError::UserDeclined) => ConsentAnswer::No("the user declined".to_owned()),
                Err(ElicitationError::UserCancelled) => ConsentAnswer::No("the user cancelled".to_owned()),
                Err(ElicitationError::CapabilityNotSupported) => ConsentAnswer::Nobody,
                Err(error) => ConsentAnswer::No(format!("the user could not be asked: {error}")),
            }
        })
    }
}
