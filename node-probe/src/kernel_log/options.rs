//! `Options`: the start of the time window for the kernel log, and whether to read the journal.

use jiff::Timestamp;

/// Options of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Start of the requested window: see [`syringe_core::kernel_log::drop_events_before`].
    pub(crate) since: Option<Timestamp>,
    /// Whether `journalctl` of the host may be run for records that the kernel's buffer no longer has.
    pub(crate) journal: bool,
}
