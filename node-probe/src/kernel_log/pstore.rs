//! Whether the kernel left a crash record: `/sys/fs/pstore`, or where systemd moves it.
//!
//! Noted, not read: the records are compressed and end in the middle of things.

use syringe_core::facts::kernel_log::Coverage;

use crate::files;
use crate::paths::Paths;

/// A note on the crash records, where there are any.
pub(super) fn coverage(paths: &Paths) -> Option<Coverage> {
    let folders = [Some(paths.sys.join("fs/pstore")), files::resolve_in_root(&paths.host, "var/lib/systemd/pstore")];
    let names = folders.into_iter().flatten().flat_map(|folder| files::names(&folder).unwrap_or_default());
    let count = names.filter(|name| !name.starts_with('.')).count();
    let places = "/sys/fs/pstore and /var/lib/systemd/pstore";
    let note = format!("crash records of earlier boots: {count}, not read; look into {places} on the node");
    (count > 0).then(|| Coverage { source: "pstore".to_owned(), note, ..Coverage::default() })
}
