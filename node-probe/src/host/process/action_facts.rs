//! `held_by`: the GPU device files that a process has open. `describe`: one process with its stuck threads.
//! `gpu_minor`: the minor number of a GPU.

use std::collections::BTreeSet;
use std::io;

use syringe_core::facts::processes::GpuProcess;

use super::ProcContext;
use super::{blocked_threads, open_device_files};
use crate::files;
use crate::host::driver::device_files;
use crate::host::process;
use crate::paths::Paths;

/// Returns the minor numbers of the GPU device files that a process has open.
pub(crate) fn held_by(paths: &Paths, pid: u32) -> io::Result<BTreeSet<u32>> {
    open_device_files::held_by(paths, pid)
}

/// Describes one process and its stuck threads; `None` if the process does not exist.
pub(crate) fn describe(paths: &Paths, pid: u32) -> Option<GpuProcess> {
    let mut process = process::describe(&paths.proc, pid, &ProcContext::read(paths))?;
    blocked_threads::add(&paths.proc, std::slice::from_mut(&mut process));
    Some(process)
}

/// Returns N of `/dev/nvidiaN` for a GPU, from the kernel module's own files, which also exist if NVML does not work.
pub(crate) fn gpu_minor(paths: &Paths, uuid: &str) -> Option<u32> {
    let addresses = files::names(&paths.proc.join(device_files::GPUS)).ok()?;
    let named = addresses
        .into_iter()
        .find(|address| device_files::driver_information(paths, address, "GPU UUID").is_some_and(|of| of == uuid))?;
    device_files::driver_information(paths, &named, "Device Minor")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::gpu_minor;
    use crate::testing::Tree;

    #[test]
    fn the_kernel_module_names_uuid_and_minor_number() {
        let tree = Tree::new();
        let text = "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-1\nBus Type: \t PCIe\nDevice Minor: \t 4\n";
        tree.file("proc/driver/nvidia/gpus/0000:3b:00.0/information", text);
        assert_eq!(gpu_minor(&tree.paths(), "GPU-1"), Some(4));
        assert_eq!(gpu_minor(&tree.paths(), "GPU-2"), None);
    }
}
