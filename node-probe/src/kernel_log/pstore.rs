//! Whether the kernel left a crash record: `/sys/fs/pstore`, or where systemd moves it.
//!
//! Noted, not read: the records are compressed and end in the middle of things.

use syringe_core::facts::kernel_log::Coverage;

use crate::paths::Paths;
use crate::{files, in_root};

/// A note on the crash records, where there are any.
pub(super) fn coverage(paths: &Paths) -> Option<Coverage> {
    let stored = in_root::find(&paths.host, "var/lib/systemd/pstore").and_then(|folder| folder.names().ok());
    let names = files::names(&paths.sys.join("fs/pstore")).into_iter().chain(stored).flatten();
    let count = names.filter(|name| !name.starts_with('.')).count();
    let places = "/sys/fs/pstore and /var/lib/systemd/pstore";
    let note = format!("crash records of earlier boots: {count}, not read; look into {places} on the node");
    (count > 0).then(|| Coverage { source: "pstore".to_owned(), note, ..Coverage::default() })
}
