//! `CountedFault`: a fault that happens every time, a given number of times, or only after a number of requests.

/// A fault, and how many more times the fault happens.
#[derive(Clone, Debug, PartialEq)]
pub struct CountedFault<T> {
    fault: T,
    /// Number of requests before the first fault.
    skip: u32,
    left: Option<u32>,
}

impl<T: Clone> CountedFault<T> {
    /// Returns a fault that happens every time, until the faults are changed.
    pub fn always(fault: T) -> Self {
        Self { fault, skip: 0, left: None }
    }

    pub fn once(fault: T) -> Self {
        Self::times(fault, 1)
    }

    pub fn times(fault: T, times: u32) -> Self {
        Self { fault, skip: 0, left: Some(times) }
    }

    /// Returns a fault that happens every time except the first `skip` times.
    pub fn after(skip: u32, fault: T) -> Self {
        Self { fault, skip, left: None }
    }

    /// Returns the fault if the current request gets it, and decrements the counters of the fault.
    pub(super) fn take(&mut self) -> Option<T> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
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
