//! `Injector`, `StartInjection`, `ExecInjection` for builds without `test-support`.
//! They have the same functions as in the module `faults`, and inject no faults.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio_util::sync::CancellationToken;

use crate::api_error::ApiError;
use crate::negotiation::Accepted;
use crate::request_info::RequestInfo;
use crate::response::Body;

#[derive(Default)]
pub(crate) struct Injector;

impl Injector {
    pub(crate) async fn intercept(
        &self,
        _: Option<&RequestInfo>,
        _: &CancellationToken,
        _: &CancellationToken,
        serving: impl Future<Output = Result<Response<Body>, ApiError>>,
    ) -> Result<Response<Body>, ApiError> {
        serving.await
    }

    pub(crate) fn accepted(&self, accepted: Accepted) -> Result<Accepted, ApiError> {
        Ok(accepted)
    }

    pub(crate) fn clock_behind(&self) -> Duration {
        Duration::ZERO
    }

    pub(crate) fn pod_security_level(&self) -> Option<String> {
        None
    }

    pub(crate) fn take_continue_expiry(&self) -> bool {
        false
    }

    pub(crate) fn start(&self, _: &str) -> StartInjection {
        StartInjection
    }

    pub(crate) fn exec(&self, _: &str) -> ExecInjection {
        ExecInjection
    }

    pub(crate) async fn main_process_killed(&self, _: &str) {
        std::future::pending().await
    }
}

pub(crate) struct StartInjection;

impl StartInjection {
    pub(crate) fn rejection(&self) -> Option<(String, String)> {
        None
    }

    pub(crate) fn is_image_pull_failing(&self) -> bool {
        false
    }

    pub(crate) fn is_runtime_hanging(&self) -> bool {
        false
    }

    pub(crate) fn is_pull_hanging(&self) -> bool {
        false
    }

    pub(crate) fn sandbox_error(&self) -> Option<&str> {
        None
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::ZERO
    }
}

#[derive(Clone)]
pub(crate) struct ExecInjection;

impl ExecInjection {
    pub(crate) fn refusal(&self, _: &str) -> Option<ApiError> {
        None
    }

    pub(crate) async fn hang(&self) {}

    pub(crate) fn stdout_limit(&self) -> usize {
        usize::MAX
    }

    pub(crate) fn is_disconnected(&self) -> bool {
        false
    }

    pub(crate) fn exit_code(&self, code: i32) -> i32 {
        code
    }

    pub(crate) fn pass_input(&mut self, data: Bytes) -> (Bytes, bool) {
        (data, false)
    }
}
