//! `DeviceReader`: makes the NVML calls for one GPU, and notes which fields could not be read.
//!
//! A lost GPU returns an error for every call. The loss is reported once and no more calls are made, because each call could
//! block. After the deadline no call is made: the remaining fields are noted as not read.

use std::cell::{Cell, OnceCell};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Instant;

use super::cache::{Answer, Cache, Cached, Function};
use crate::nvml::current_call::CallRecorder;
use crate::nvml::errors::{Kind, NvmlError};

/// The values that all readers of one GPU share.
#[derive(Clone, Copy)]
pub(in crate::nvml) struct Context<'a> {
    /// NVML index; `None` for calls about the installation as a whole.
    pub(in crate::nvml) gpu: Option<u32>,
    pub(in crate::nvml) recorder: &'a CallRecorder,
    /// The error that shows that the GPU no longer responds.
    pub(in crate::nvml) gone: &'a OnceCell<NvmlError>,
    /// Cached answers that several sections use.
    pub(in crate::nvml) cache: &'a Cache,
    /// Cached answers that are the same for all GPUs of the product.
    pub(in crate::nvml) of_product: Option<&'a Cache>,
    /// Time after which no call is made.
    pub(in crate::nvml) deadline: Instant,
}

/// Makes NVML calls on one GPU and notes the fields that could not be read.
pub(in crate::nvml) struct DeviceReader<'a> {
    pub(in crate::nvml) context: Context<'a>,
    /// The second GPU, if a call is about two GPUs.
    pub(in crate::nvml) other: Option<u32>,
    /// Whether a call was not made because of the deadline.
    pub(in crate::nvml) is_late: Cell<bool>,
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
    pub(in crate::nvml) fn new(context: Context<'a>) -> Self {
        let (unsupported, failed) = (Vec::new(), Vec::new());
        Self { context, other: None, is_late: Cell::new(false), unsupported, failed }
    }

    /// Returns the NVML index of the GPU.
    pub(in crate::nvml) fn gpu(&self) -> u32 {
        self.context.gpu.unwrap_or_default()
    }

    /// Returns the value of one NVML call. If it fails, notes that `fields` (paths in the entry) are missing.
    pub(in crate::nvml) fn call<T: Clone + 'static, E: Into<NvmlError>>(
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

    /// Returns the answer to one NVML call that some GPUs do not support. Only a failure is noted.
    pub(in crate::nvml) fn call_if_supported<T: Clone + 'static, E: Into<NvmlError>>(
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

    /// Returns the value if it is in the range. Otherwise, returns `None` and notes that `field` is invalid.
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

    /// Returns the value of one NVML call whose errors are ignored, e.g. for the remote end of an NVLink that is down.
    pub(in crate::nvml) fn call_ignoring_errors<T: Clone + 'static, E: Into<NvmlError>>(
        &self,
        function: impl Into<Function>,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        self.try_call(function, call).ok()
    }

    /// Makes one NVML call whose error the caller handles. No call is made if the GPU is lost.
    pub(in crate::nvml) fn try_call<T: Clone + 'static, E: Into<NvmlError>>(
        &self,
        function: impl Into<Function>,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, NvmlError> {
        let function = function.into();
        let known = self.known(function)?;
        let answer = match known.and_then(|answer| answer.downcast_ref::<Result<T, NvmlError>>().cloned()) {
            Some(answer) => answer,
            None => {
                let answer = {
                    let _current = self.context.recorder.record(function.name, self.context.gpu, self.other);
                    call().map_err(Into::into)
                };
                if let Some(cache) = self.cache(function) {
                    cache.keep(function, Rc::new(answer.clone()), answer.as_ref().err());
                }
                answer
            }
        };
        self.checked(answer)
    }

    /// Returns the cached answer, if there is one. Fails if NVML must not be called: the GPU is gone, or the time limit
    /// is reached.
    #[inline(never)]
    fn known(&self, function: Function) -> Result<Option<Answer>, NvmlError> {
        if let Some(error) = self.context.gone.get() {
            return Err(error.clone());
        }
        let cached = self.cache(function).and_then(|cache| cache.get(function));
        if cached.is_none() && Instant::now() >= self.context.deadline {
            self.is_late.set(true);
            return Err(NvmlError::NotReached("not read in time: NVML answers slowly".to_owned()));
        }
        Ok(cached)
    }

    /// Returns the cache for the result of a function.
    fn cache(&self, function: Function) -> Option<&'a Cache> {
        match function.cached {
            Cached::No => None,
            Cached::ForGpu => Some(self.context.cache),
            // If the product is not identified, the cache of the GPU is used.
            Cached::ForProduct => Some(self.context.of_product.unwrap_or(self.context.cache)),
        }
    }

    /// Notes the loss of the GPU.
    fn checked<T>(&self, answer: Result<T, NvmlError>) -> Result<T, NvmlError> {
        if let Err(error) = &answer
            && error.kind() == Kind::Gone
        {
            // The value is already set if another call detected the loss first.
            let _ = self.context.gone.set(error.clone());
        }
        answer
    }

    /// Notes that `fields` are missing because `function` returned `error`.
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

    /// Notes a failure for `fields`, even if `error` only means that they are not supported.
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

    /// Returns whether it was noted that `field` could not be read.
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
