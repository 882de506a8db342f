//! Modules of the audit log (`$XDG_STATE_HOME/gpu-syringe/audit.jsonl`): a JSON line for every probe pod, action and
//! saved archive.
//!
//! ```text
//!   probe::AuditRecord (one call; a line per pod) ─▶ AuditLine ─▶ AuditLog (append, mode 0600, rotate) ─▶ audit.jsonl, audit.jsonl.1, …
//!          └─▶ annotations of the pod: the audit log of the cluster contains the same
//! ```
//!
//! A probe runs even if its line cannot be written. An action does not run in that case.

mod file;
mod line;
mod show;

pub use file::AuditLog;
pub use line::{AuditEvent, AuditLine};
pub use show::table;
