//! Answers that are used more than once: of one GPU, by several sections, or of a product, by all GPUs of it.
//!
//! NVML is slow where a driver is busy, so no question is asked twice. What the product determines (its clock and temperature
//! limits, the number of its cores) is read from the first GPU with the same name, PCI device, subsystem and VBIOS.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::errors::{Kind, NvmlError};

/// Which answer of a function: its name, and the field for a function with arguments.
type Key = (&'static str, &'static str);

/// The answers of one GPU or product.
#[derive(Default)]
pub(super) struct KeptAnswers(Mutex<BTreeMap<Key, Box<dyn Any + Send>>>);

/// A function of NVML, and for how long its answer is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) field: &'static str,
    pub(super) lasting: Lasting,
}

/// For whom an answer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
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
    pub(super) fn of_gpu(name: &'static str) -> Self {
        Self { lasting: Lasting::OfGpu, ..name.into() }
    }

    /// A function whose answer, for this field, is the same for all GPUs of a product.
    pub(super) fn of_product(name: &'static str, field: &'static str) -> Self {
        Self { name, field, lasting: Lasting::OfProduct }
    }
}

impl KeptAnswers {
    /// The answer, if it is known.
    pub(super) fn get<T: Clone + 'static>(&self, function: Function) -> Option<Result<T, NvmlError>> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&(function.name, function.field))?.downcast_ref::<Result<T, NvmlError>>().cloned()
    }

    /// Keeps a value, or that it is not supported. A failure may be that of one call.
    pub(super) fn keep<T: Clone + Send + 'static>(&self, function: Function, answer: &Result<T, NvmlError>) {
        if answer.as_ref().is_err_and(|error| error.kind() != Kind::Absent) {
            return;
        }
        // All ones, or a negative number: a defect of one GPU.
        let number = (answer as &dyn Any).downcast_ref::<Result<u32, NvmlError>>();
        if number.is_some_and(|number| number.as_ref().is_ok_and(|number| i32::try_from(*number).is_err())) {
            return;
        }
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert((function.name, function.field), Box::new(answer.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::{Function, KeptAnswers, NvmlError};

    #[test]
    fn values_are_kept_by_field_and_failures_are_not() {
        let kept = KeptAnswers::default();
        let function = |field| Function::of_product("nvmlDeviceGetMaxClockInfo", field);
        kept.keep(function("sm"), &Ok(1980_u32));
        kept.keep(function("video"), &Err::<u32, _>(NvmlError::NOT_SUPPORTED));
        kept.keep(function("memory"), &Err::<u32, _>(NvmlError::Code(999)));
        assert_eq!(kept.get::<u32>(function("sm")), Some(Ok(1980)));
        assert_eq!(kept.get::<u32>(function("video")), Some(Err(NvmlError::NOT_SUPPORTED)));
        assert_eq!(kept.get::<u32>(function("memory")), None);
        assert_eq!(kept.get::<u64>(function("sm")), None, "another type");
        kept.keep(function("graphics"), &Ok(u32::MAX));
        assert_eq!(kept.get::<u32>(function("graphics")), None, "a defect");
    }
}
