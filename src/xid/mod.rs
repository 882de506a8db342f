//! What is known of Xid, SXid and the other kernel lines that speak of GPUs.
//!
//! ```text
//!   kernel log record ──record──▶ text ──line──▶ what it says ──events──▶ KernelLog (facts)
//!   (any spelling)                       │
//!                                        └─ xid_text, nvlink5, nvlink4, sxid, nvrm, pcie, host: one family each
//! ```
//!
//! What a code means and what to do about it stands in `data/*.tsv`: [`catalogue`] reads it, [`judgement`] applies it to
//! one event, `docs/xid.md` shows it.
//!
//! Frames are read strictly (a program's name must not be able to pose as a driver line), texts loosely (their wording
//! belongs to a firmware version). Nothing here reads a file: whoever has a log pushes its records into an
//! [`events::EventLog`]. Nothing here concludes anything either: that is the work of `diagnosis`.

pub mod catalogue;
mod date_words;
mod event_group;
pub mod events;
mod harmless;
mod host;
pub mod identity;
mod journal;
pub mod judgement;
mod known_text;
pub mod line;
pub mod line_parser;
mod log_time;
mod moment;
mod multiline;
pub mod nvlink4;
pub mod nvlink5;
mod nvrm;
mod pcie;
pub mod record;
pub mod record_parser;
mod scan;
mod sources;
mod suppressed;
mod sxid;
mod syslog;
mod value_by_address;
pub mod window;
mod wrapped;
mod xid_frame;
mod xid_text;

pub use catalogue::{Class, Fatality, Severity, SxidEntry, XidEntry, sxid, sxids, xid, xids};
pub use events::{Clock, EventLog, Options};
pub use identity::{LogOf, join, since};
