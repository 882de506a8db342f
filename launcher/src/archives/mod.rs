//! Modules for archives: `save` collects one, `open` starts the embedded cluster on one.

#[cfg(feature = "demo")]
mod open;
#[cfg(not(feature = "demo"))]
#[path = "open_disabled.rs"]
mod open;
mod save;

pub(crate) use self::open::{EmbeddedCluster, Opened, kernel_logs, open, open_file};
pub(crate) use self::save::{SaveArgs, save};
