//! The common part of every report: versions and units.

use std::time::Duration;

use syringe_core::report::{Report, SCHEMA_VERSION};

/// The version in reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A report without any section.
pub(crate) fn blank() -> Report {
    Report { schema_version: SCHEMA_VERSION, probe_version: VERSION.into(), ..Report::default() }
}

/// A duration in milliseconds, the unit of reports.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
