//! `coverage`: detects crash records of the kernel in `/sys/fs/pstore`, or in the folder of systemd-pstore.
//!
//! The records are counted but not read, because they are compressed and truncated.

use syringe_core::facts::kernel_log::Coverage;

use crate::paths::Paths;
use crate::{files, in_root};

/// Returns a note about crash records, if there are any.
pub(super) fn coverage(paths: &Paths) -> Option<Coverage> {
    let stored = in_root::find(&paths.host, "var/lib/systemd/pstore").and_then(|folder| folder.names().ok());
    let names = files::names(&paths.sys.join("fs/pstore")).into_iter().chain(stored).flatten();
    let count = names.filter(|name| !name.starts_with('.')).count();
    let places = "/sys/fs/pstore and /var/lib/systemd/pstore";
    let note = format!("crash records of earlier boots: {count}, not read; see {places} on the node");
    (count > 0).then(|| Coverage { source: "pstore".to_owned(), note, ..Coverage::default() })
}
