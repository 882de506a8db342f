//! `capped`: limits the list of runtime handlers. `look_for_binaries`: checks that the handlers' programs exist.

use std::collections::BTreeMap;

use syringe_core::facts::container_runtime::RuntimeHandler;

use crate::bounded;
use crate::in_root::Root;

/// Maximum number of handlers. A node with Kata, gVisor and NVIDIA's handlers has about ten.
const MAX_HANDLERS: usize = 32;

/// Returns the handlers in order. If there are more than [`MAX_HANDLERS`], NVIDIA's handlers come first, and the last
/// handlers are left out.
pub(in crate::host) fn capped(handlers: BTreeMap<String, RuntimeHandler>) -> Vec<RuntimeHandler> {
    let mut handlers: Vec<RuntimeHandler> = handlers.into_values().collect();
    if handlers.len() > MAX_HANDLERS {
        handlers.sort_by_key(|handler| !handler.is_nvidia());
        bounded::cut(&mut handlers, MAX_HANDLERS, "handlers of the container runtime");
    }
    handlers
}

/// Checks the program of each handler. A name without a folder is not checked, because the `PATH` of the runtime is unknown.
pub(in crate::host) fn look_for_binaries(host: &Root, handlers: &mut [RuntimeHandler]) {
    for handler in handlers {
        let path = handler.binary.as_deref().filter(|path| path.starts_with('/'));
        handler.binary_exists = path.and_then(|path| host.exists(path));
    }
}
