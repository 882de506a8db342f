//! How to read a kernel log.

use jiff::Timestamp;

/// How to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Start of the window that is asked for: see [`syringe_core::xid::since`].
    pub(crate) since: Option<Timestamp>,
    /// Whether the host's `journalctl` may be run for what the kernel's buffer no longer holds.
    pub(crate) journal: bool,
}
