//! Modules that parse Xids, SXids and other kernel log lines into events, and the catalogue of their meanings.
//! `window`: the time that the logs cover.
//!
//! ```text
//!   kernel log record ──record_parser──▶ text ──line_parser──▶ Line ──event_log──▶ KernelLog (facts)
//!   (any format)                                     │
//!                                                    └─ xid_text, nvlink5, nvlink4, sxid, nvrm, pcie,
//!                                                       other_kernel_lines: one kind of line each
//! ```
//!
//! The meanings of the codes and the recommended actions are in `data/*.tsv`: [`catalogue`] reads them, [`event_meaning`]
//! applies them to one event, and `docs/xid.md` shows them.
//!
//! Frames are parsed strictly, because the name of a program must not look like a driver line. Texts are parsed
//! leniently, because their wording depends on the firmware version. This module does not read files: the caller pushes
//! the records of a log into an [`EventLog`]. The conclusions are in `diagnosis`.

pub mod catalogue;
mod drop_events_before;
mod event_group;
pub mod event_log;
pub mod event_meaning;
mod event_table;
mod harmless_lines;
pub mod host_lines;
mod iommu;
mod join_gpus;
mod journal;
mod known_text;
pub mod line;
pub mod line_parser;
mod line_time;
mod log_time;
mod module_refused;
mod multiline;
pub mod nvlink4;
pub mod nvlink5;
mod nvrm;
mod options;
mod other_kernel_lines;
mod pcie;
mod raw_lines;
pub mod record;
pub mod record_parser;
mod scan;
mod sources;
mod suppressed_lines;
mod sxid;
mod syslog;
mod text_boots;
mod value_by_address;
pub mod window;
mod xid_extra_lines;
mod xid_frame;
mod xid_text;

pub use catalogue::{Fatality, SxidEntry, XidEntry, sxid, sxids, xid, xids};
pub use drop_events_before::drop_events_before;
pub use event_log::{Clock, EventLog, Options};
pub use join_gpus::{LogOrigin, join_gpus};

/// Sub-code of a failed initialization: the auxiliary power cables of the GPU are not connected.
pub const NO_POWER: &str = "no auxiliary power";

/// Sub-code of the line about a missing file of the GSP firmware.
pub const NO_FIRMWARE_IMAGE: &str = "no_firmware_image";
