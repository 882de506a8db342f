//! `ExecFault`: a fault of an exec. `ExecInjection`: applies the fault to one exec.

use bytes::Bytes;

use crate::api_error::ApiError;

/// A fault of an exec.
#[derive(Clone, Debug, PartialEq)]
pub enum ExecFault {
    /// The connection is closed after a part of stdout, without a status or a close frame.
    Cut {
        /// Number of bytes of stdout that are still sent.
        after_bytes: usize,
    },
    /// stdout ends early, and the status is success.
    Truncated {
        /// Number of bytes of stdout that are still sent.
        after_bytes: usize,
    },
    /// One byte of standard input is changed.
    InputGarbled,
    /// Standard input ends early.
    InputCut {
        /// Number of bytes that are passed on before standard input ends.
        after_bytes: usize,
    },
    /// The exec is accepted, but nothing is sent until the client disconnects.
    Hang,
    /// The exec gets 403 before the upgrade.
    Forbidden,
    /// A proxy that does not support websockets responds with this HTTP code, without an upgrade and without a
    /// `Status`.
    UpgradeRefused(u16),
    /// The process is killed after a part of stdout, with exit code 137.
    Killed {
        /// Number of bytes of stdout that are still sent.
        after_bytes: usize,
    },
}

/// The fault of one exec, if there is a fault.
#[derive(Clone, Debug)]
pub(crate) struct ExecInjection(pub(super) Option<ExecFault>);

impl ExecInjection {
    /// Returns the error of a request that fails before the upgrade. `name` is the name of the pod.
    pub(crate) fn refusal(&self, name: &str) -> Option<ApiError> {
        match &self.0 {
            Some(ExecFault::Forbidden) => Some(ApiError::AdmissionDenied {
                resource: "pods",
                name: name.to_owned(),
                reason: "exec is not allowed in this namespace".to_owned(),
            }),
            Some(ExecFault::UpgradeRefused(code)) => {
                Some(ApiError::PlainText { code: *code, text: "the proxy does not pass upgrades on\n".to_owned() })
            }
            _ => None,
        }
    }

    /// Does not return while the exec hangs.
    pub(crate) async fn hang(&self) {
        if self.0 == Some(ExecFault::Hang) {
            std::future::pending::<()>().await;
        }
    }

    /// Returns the number of bytes of stdout that are sent.
    pub(crate) fn stdout_limit(&self) -> usize {
        match &self.0 {
            Some(
                ExecFault::Cut { after_bytes }
                | ExecFault::Truncated { after_bytes }
                | ExecFault::Killed { after_bytes },
            ) => *after_bytes,
            _ => usize::MAX,
        }
    }

    /// Returns whether the connection is closed without a status.
    pub(crate) fn is_disconnected(&self) -> bool {
        matches!(self.0, Some(ExecFault::Cut { .. }))
    }

    /// Returns the exit code for the status, in place of `code`.
    pub(crate) fn exit_code(&self, code: i32) -> i32 {
        match self.0 {
            Some(ExecFault::Truncated { .. }) => 0,
            Some(ExecFault::Killed { .. }) => 137,
            _ => code,
        }
    }

    /// Returns the part of `data` that the process gets on standard input, and whether standard input ends after this
    /// part.
    pub(crate) fn pass_input(&mut self, data: Bytes) -> (Bytes, bool) {
        match &mut self.0 {
            Some(ExecFault::InputGarbled) => {
                self.0 = None;
                let mut garbled = data.to_vec();
                // The changed byte is after the tar header: the archive stays valid, but the file in it is changed.
                let at = garbled.len() * 3 / 4;
                garbled[at] ^= 0x20;
                (garbled.into(), false)
            }
            Some(ExecFault::InputCut { after_bytes }) => {
                let passed = data.len().min(*after_bytes);
                *after_bytes -= passed;
                (data.slice(..passed), *after_bytes == 0)
            }
            _ => (data, false),
        }
    }
}
