//! A fault that happens always, or a number of times.

/// A fault, and how many times it still happens.
#[derive(Clone, Debug, PartialEq)]
pub struct CountedFault<T> {
    fault: T,
    left: Option<u32>,
}

impl<T: Clone> CountedFault<T> {
    /// Every time, until the faults are changed.
    pub fn always(fault: T) -> Self {
        Self { fault, left: None }
    }

    /// Once.
    pub fn once(fault: T) -> Self {
        Self::times(fault, 1)
    }

    /// This many times.
    pub fn times(fault: T, times: u32) -> Self {
        Self { fault, left: Some(times) }
    }

    /// The fault, if it still happens; counts down.
    pub(super) fn take(&mut self) -> Option<T> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        Some(self.fault.clone())
    }
}

impl<T: Clone> From<T> for CountedFault<T> {
    fn from(fault: T) -> Self {
        Self::always(fault)
    }
}
