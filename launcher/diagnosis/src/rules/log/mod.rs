//! Rules about Xids and other lines of the kernel log, and about how much of the log was read.

pub(crate) mod coverage;
pub(crate) mod other_devices;
#[cfg(test)]
mod past_events_tests;
pub(crate) mod xid;
pub(crate) mod xid_history;
