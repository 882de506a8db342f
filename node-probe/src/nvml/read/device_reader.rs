//! Makes the NVML calls of one GPU and notes which fields could not be read.
//!
//! A lost GPU returns an error for every call. It is reported once and not called again, because each further call could block.
//! A reader can also repeat the recorded calls of a step that did not end (see `call_log`).

use std::cell::Cell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use super::cache::{Function, KeptAnswers, Lasting};
use crate::nvml::current_call::{CallRecorder, CurrentCall};
use crate::nvml::errors::{Kind, NvmlError};
use crate::nvml::process::call_log::{Answer, CallLog};

/// Where the answers of a step come from.
pub(in crate::nvml) enum Calls<'a> {
    /// From NVML. They are recorded.
    Made(&'a CallLog),
    /// From the record of a step that did not end; every later call has this error.
    Repeated(&'a CallLog, &'a NvmlError),
}

/// What the readers of one GPU share.
#[derive(Clone, Copy)]
pub(in crate::nvml) struct Context<'a> {
    /// NVML index; `None` for calls about the installation as a whole.
    pub(in crate::nvml) gpu: Option<u32>,
    pub(in crate::nvml) recorder: &'a CallRecorder,
    /// Set when the GPU no longer responds.
    pub(in crate::nvml) gone: &'a OnceLock<NvmlError>,
    /// Answers that several sections use.
    pub(in crate::nvml) kept: &'a KeptAnswers,
    /// Answers that are the same for all GPUs of the product.
    pub(in crate::nvml) of_product: Option<&'a KeptAnswers>,
}

/// Makes NVML calls on one GPU and notes the fields that could not be read.
pub(in crate::nvml) struct DeviceReader<'a> {
    pub(in crate::nvml) context: Context<'a>,
    calls: Calls<'a>,
    /// Number of recorded answers that were repeated.
    repeated: Cell<usize>,
    /// Fields that are not supported.
    pub(in crate::nvml) unsupported: Vec<&'static str>,
    /// Fields that failed, by cause.
    pub(in crate::nvml) failed: Vec<Failure>,
}

/// The calls and fields that failed with one error.
pub(in crate::nvml) struct Failure {
    pub(in crate::nvml) error: NvmlError,
    pub(in crate::nvml) functions: Vec<&'static str>,
    pub(in crate::nvml) fields: Vec<&'static str>,
}

impl<'a> DeviceReader<'a> {
    pub(in crate::nvml) fn new(context: Context<'a>, calls: Calls<'a>) -> Self {
        Self { context, calls, repeated: Cell::new(0), unsupported: Vec::new(), failed: Vec::new() }
    }

    /// NVML index of the GPU.
    pub(in crate::nvml) fn gpu(&self) -> u32 {
        self.context.gpu.unwrap_or_default()
    }

    /// The value of one NVML call, or `None` and a note that `fields` (paths inside the GPU's entry) are missing.
    pub(in crate::nvml) fn call<T: Clone + Send + Sync + 'static, E: Into<NvmlError>>(
        &mut self,
        function: impl Into<Function>,
        fields: &[&'static str],
        call: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        let function = function.into();
        match self.try_call(function, call) {
            Ok(value) => Some(value),
            Err(error) => {
                self.note_error(function.name, &error, fields);
                None
            }
        }
    }

    /// The same for a value that some GPUs do not support: only a failure is noted.
    pub(in crate::nvml) fn call_if_supported<T: Clone + Send + Sync + 'static, E: Into<NvmlError>>(
        &mut self,
        function: impl Into<Function>,
        fields: &[&'static str],
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, NvmlError> {
        let function = function.into();
        self.try_call(function, call).inspect_err(|error| {
            if error.kind() == Kind::Failed {
                self.note_failure(function.name, error, fields);
            }
        })
    }

    /// The value if it is in the range; otherwise `None` and a note that `field` is invalid.
    pub(in crate::nvml) fn check_range<T: PartialOrd + Copy + Display>(
        &mut self,
        function: &'static str,
        field: &'static str,
        value: Option<T>,
        possible: RangeInclusive<T>,
    ) -> Option<T> {
        let value = value?;
        if possible.contains(&value) {
            return Some(value);
        }
        self.note_failure(function, &NvmlError::impossible(value), &[field]);
        None
    }

    /// The value of one NVML call whose errors are ignored, e.g. the remote end of an NVLink that is down.
    pub(in crate::nvml) fn call_ignoring_errors<T: Clone + Send + Sync + 'static, E: Into<NvmlError>>(
        &self,
        function: impl Into<Function>,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        self.try_call(function, call).ok()
    }

    /// One NVML call whose error the caller handles. A lost GPU is not called.
    pub(in crate::nvml) fn try_call<T: Clone + Send + Sync + 'static, E: Into<NvmlError>>(
        &self,
        function: impl Into<Function>,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, NvmlError> {
        let function = function.into();
        match self.known(function) {
            Some(Ok(answer)) => {
                // A record of another type is one of another call.
                let answer = answer.downcast_ref::<Result<T, NvmlError>>().cloned();
                self.checked(answer.unwrap_or_else(|| Err(NvmlError::NotReached("not recorded".into()))))
            }
            Some(Err(error)) => self.checked(Err(error)),
            None => {
                let answer = {
                    let _under_way = self.begin(function.name);
                    call().map_err(Into::into)
                };
                self.end(function, Arc::new(answer.clone()), answer.as_ref().err());
                self.checked(answer)
            }
        }
    }

    /// The answer without a call: the GPU is gone, or it was recorded or kept. `None` if NVML has to be called.
    #[inline(never)]
    fn known(&self, function: Function) -> Option<Result<Answer, NvmlError>> {
        if let Some(error) = self.context.gone.get() {
            return Some(Err(error.clone()));
        }
        let kept = || self.kept(function).and_then(|kept| kept.get(function));
        match self.calls {
            Calls::Made(log) => {
                let answer = kept()?;
                log.note(Arc::clone(&answer));
                Some(Ok(answer))
            }
            Calls::Repeated(log, then) => {
                let place = self.repeated.replace(self.repeated.get() + 1);
                Some(log.answer(place).or_else(kept).ok_or_else(|| then.clone()))
            }
        }
    }

    /// Where the answers of a function are kept.
    fn kept(&self, function: Function) -> Option<&'a KeptAnswers> {
        match function.lasting {
            Lasting::Once => None,
            Lasting::OfGpu => Some(self.context.kept),
            // Without the identity of the product, it is the GPU's.
            Lasting::OfProduct => Some(self.context.of_product.unwrap_or(self.context.kept)),
        }
    }

    #[inline(never)]
    fn begin(&self, function: &'static str) -> CurrentCall<'a> {
        if let Calls::Made(log) = self.calls {
            log.begin(function);
        }
        self.context.recorder.record(function, self.context.gpu)
    }

    #[inline(never)]
    fn end(&self, function: Function, answer: Answer, error: Option<&NvmlError>) {
        if let Calls::Made(log) = self.calls {
            log.end(Arc::clone(&answer));
        }
        if let Some(kept) = self.kept(function) {
            kept.keep(function, answer, error);
        }
    }

    /// Notes the loss of the GPU.
    fn checked<T>(&self, answer: Result<T, NvmlError>) -> Result<T, NvmlError> {
        if let Err(error) = &answer
            && error.kind() == Kind::Gone
        {
            // Already set if another call detected the loss first.
            let _ = self.context.gone.set(error.clone());
        }
        answer
    }

    /// Notes that `fields` are missing because `function` answered with `error`.
    pub(in crate::nvml) fn note_error(&mut self, function: &'static str, error: &NvmlError, fields: &[&'static str]) {
        match error.kind() {
            Kind::Gone => {}
            Kind::Absent => self.note_unsupported(fields),
            Kind::Failed => self.note_failure(function, error, fields),
        }
    }

    /// Notes that the hardware or the driver does not support `fields`.
    pub(in crate::nvml) fn note_unsupported(&mut self, fields: &[&'static str]) {
        add(&mut self.unsupported, fields);
    }

    /// Notes that `fields` are missing, as a failure even if `error` only means that they are not supported.
    pub(in crate::nvml) fn note_failure(&mut self, function: &'static str, error: &NvmlError, fields: &[&'static str]) {
        match self.failed.iter_mut().find(|known| known.error == *error) {
            Some(known) => {
                add(&mut known.functions, &[function]);
                add(&mut known.fields, fields);
            }
            None => {
                let (functions, fields) = (vec![function], fields.to_vec());
                self.failed.push(Failure { error: error.clone(), functions, fields });
            }
        }
    }

    /// Whether it was noted that `field` could not be read.
    pub(in crate::nvml) fn has_failed(&self, field: &str) -> bool {
        self.failed.iter().any(|failure| failure.fields.contains(&field))
    }
}

/// Appends the fields that are not in the list.
pub(in crate::nvml) fn add(list: &mut Vec<&'static str>, fields: &[&'static str]) {
    for field in fields {
        if !list.contains(field) {
            list.push(field);
        }
    }
}
