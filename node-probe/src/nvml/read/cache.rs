//! `Cache`: stores answers of NVML that several sections of one GPU, or all GPUs of one product, need.
//! `Function`: a function of NVML, and where its answer is stored.
//!
//! NVML is slow if a driver is busy, so no value is read twice. Values that depend on the product (clock and temperature
//! limits, the number of cores) are read from the first GPU with the same name, PCI device, subsystem and VBIOS.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::nvml::errors::{Kind, NvmlError};

/// Identifies an answer: the name of the function, and the field for a function with arguments.
type Key = (&'static str, &'static str);

/// The result of a call: a `Result<T, NvmlError>`. The type is erased, so that the cache code exists only once.
pub(in crate::nvml) type Answer = Rc<dyn Any>;

/// The cached answers of one GPU or product.
#[derive(Default)]
pub(in crate::nvml) struct Cache(RefCell<BTreeMap<Key, Answer>>);

/// A function of NVML, and where its answer is cached.
#[derive(Clone, Copy, Debug)]
pub(in crate::nvml) struct Function {
    pub(in crate::nvml) name: &'static str,
    pub(in crate::nvml) field: &'static str,
    pub(in crate::nvml) cached: Cached,
}

/// The scope in which an answer is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nvml) enum Cached {
    No,
    ForGpu,
    ForProduct,
}

impl From<&'static str> for Function {
    fn from(name: &'static str) -> Self {
        Self { name, field: "", cached: Cached::No }
    }
}

impl Function {
    /// Returns a function whose answer is used in several sections.
    pub(in crate::nvml) fn of_gpu(name: &'static str) -> Self {
        Self { cached: Cached::ForGpu, ..name.into() }
    }

    /// Returns a function whose answer for this field is the same for all GPUs of a product.
    pub(in crate::nvml) fn of_product(name: &'static str, field: &'static str) -> Self {
        Self { name, field, cached: Cached::ForProduct }
    }
}

impl Cache {
    /// Returns the answer, if it is in the cache.
    pub(in crate::nvml) fn get(&self, function: Function) -> Option<Answer> {
        self.0.borrow().get(&(function.name, function.field)).cloned()
    }

    /// Stores a value, or the information that one GPU does not support it. A failure is not stored, because the next call
    /// may work. Another GPU of the product may support what this GPU refuses.
    pub(in crate::nvml) fn keep(&self, function: Function, answer: Answer, error: Option<&NvmlError>) {
        if error.is_some_and(|error| function.cached == Cached::ForProduct || error.kind() != Kind::Absent) {
            return;
        }
        // A value with all bits set, or a negative number, is a defect of one GPU and is not stored for other GPUs.
        let number = answer.downcast_ref::<Result<u32, NvmlError>>();
        if number.is_some_and(|number| number.as_ref().is_ok_and(|number| i32::try_from(*number).is_err())) {
            return;
        }
        self.0.borrow_mut().insert((function.name, function.field), answer);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{Cache, Function, NvmlError};

    #[test]
    fn values_are_kept_by_field_and_failures_are_not() {
        let cache = Cache::default();
        let function = |field| Function::of_product("nvmlDeviceGetMaxClockInfo", field);
        let keep = |field, answer: Result<u32, NvmlError>| {
            let error = answer.clone().err();
            cache.keep(function(field), Rc::new(answer), error.as_ref());
        };
        let get = |field| cache.get(function(field))?.downcast_ref::<Result<u32, NvmlError>>().cloned();
        keep("sm", Ok(1980));
        keep("video", Err(NvmlError::NOT_SUPPORTED));
        keep("memory", Err(NvmlError::Code(999)));
        keep("graphics", Ok(u32::MAX));
        assert_eq!((get("sm"), get("video")), (Some(Ok(1980)), None), "another GPU may support it");
        assert_eq!((get("memory"), get("graphics")), (None, None), "a failure and a defect are not kept");
    }
}
