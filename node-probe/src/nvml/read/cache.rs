//! Answers that are used more than once: of one GPU, by several sections, or of a product, by all GPUs of it.
//!
//! NVML is slow where a driver is busy, so no question is asked twice. What the product determines (its clock and temperature
//! limits, the number of its cores) is read from the first GPU with the same name, PCI device, subsystem and VBIOS.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::nvml::errors::{Kind, NvmlError};
use crate::nvml::process::call_log::Answer;

/// Which answer of a function: its name, and the field for a function with arguments.
type Key = (&'static str, &'static str);

/// The answers of one GPU or product.
#[derive(Default)]
pub(in crate::nvml) struct KeptAnswers(Mutex<BTreeMap<Key, Answer>>);

/// A function of NVML, and for how long its answer is kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::nvml) struct Function {
    pub(in crate::nvml) name: &'static str,
    pub(in crate::nvml) field: &'static str,
    pub(in crate::nvml) lasting: Lasting,
}

/// For whom an answer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nvml) enum Lasting {
    /// It is not kept.
    Once,
    /// For the same GPU.
    OfGpu,
    /// For all GPUs of the product.
    OfProduct,
}

impl From<&'static str> for Function {
    fn from(name: &'static str) -> Self {
        Self { name, field: "", lasting: Lasting::Once }
    }
}

impl Function {
    /// A function whose answer several sections use.
    pub(in crate::nvml) fn of_gpu(name: &'static str) -> Self {
        Self { lasting: Lasting::OfGpu, ..name.into() }
    }

    /// A function whose answer, for this field, is the same for all GPUs of a product.
    pub(in crate::nvml) fn of_product(name: &'static str, field: &'static str) -> Self {
        Self { name, field, lasting: Lasting::OfProduct }
    }
}

impl KeptAnswers {
    /// The answer, if it is known.
    pub(in crate::nvml) fn get(&self, function: Function) -> Option<Answer> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&(function.name, function.field)).cloned()
    }

    /// Keeps a value, or that it is not supported. A failure may be that of one call.
    pub(in crate::nvml) fn keep(&self, function: Function, answer: Answer, error: Option<&NvmlError>) {
        if error.is_some_and(|error| error.kind() != Kind::Absent) {
            return;
        }
        // All ones, or a negative number: a defect of one GPU.
        let number = answer.downcast_ref::<Result<u32, NvmlError>>();
        if number.is_some_and(|number| number.as_ref().is_ok_and(|number| i32::try_from(*number).is_err())) {
            return;
        }
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert((function.name, function.field), answer);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Function, KeptAnswers, NvmlError};

    #[test]
    fn values_are_kept_by_field_and_failures_are_not() {
        let kept = KeptAnswers::default();
        let function = |field| Function::of_product("nvmlDeviceGetMaxClockInfo", field);
        let keep = |field, answer: Result<u32, NvmlError>| {
            let error = answer.clone().err();
            kept.keep(function(field), Arc::new(answer), error.as_ref());
        };
        let get = |field| kept.get(function(field))?.downcast_ref::<Result<u32, NvmlError>>().cloned();
        keep("sm", Ok(1980));
        keep("video", Err(NvmlError::NOT_SUPPORTED));
        keep("memory", Err(NvmlError::Code(999)));
        keep("graphics", Ok(u32::MAX));
        assert_eq!((get("sm"), get("video")), (Some(Ok(1980)), Some(Err(NvmlError::NOT_SUPPORTED))));
        assert_eq!((get("memory"), get("graphics")), (None, None), "a failure, a defect");
    }
}
