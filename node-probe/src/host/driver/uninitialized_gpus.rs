//! `uninitialized_gpus`: counts the GPUs that the driver must initialize before NVML can read them.
//!
//! Without persistence mode, the driver closes a GPU when its last user exits. The initialization takes one to three seconds
//! per GPU.
//!
//! The driver's own files show the state (`/proc/driver/nvidia/gpus/*/information`): a GPU that is not initialized has
//! question marks instead of its UUID and of its VBIOS version.

use crate::files;
use crate::paths::Paths;

/// Folder in `/proc` with the driver's information about each GPU.
const INFORMATION: &str = "driver/nvidia/gpus";
/// Lines whose value the driver can only read from an initialized GPU.
const READ_FROM_GPU: [&str; 2] = ["GPU UUID:", "Video BIOS:"];
/// Maximum number of GPUs. No node has more.
const MAX_GPUS: usize = 128;

/// Returns the number of GPUs that are not initialized. A file that cannot be read stops the search: the next files may
/// block too.
pub(crate) fn uninitialized_gpus(paths: &Paths) -> u32 {
    let gpus = paths.proc.join(INFORMATION);
    let folders = files::names(&gpus).unwrap_or_default();
    let texts = folders.iter().take(MAX_GPUS).map_while(|name| files::text(&gpus.join(name).join("information")));
    u32::try_from(texts.filter(|text| is_uninitialized(text)).count()).unwrap_or_default()
}

fn is_uninitialized(information: &str) -> bool {
    let value = |line: &str| READ_FROM_GPU.iter().find_map(|key| line.strip_prefix(key).map(str::to_owned));
    information.lines().filter_map(value).any(|value| value.contains('?'))
}

#[cfg(test)]
mod tests {
    use super::uninitialized_gpus;
    use crate::testing::Tree;

    #[test]
    fn a_gpu_with_question_marks_is_not_initialized() {
        let tree = Tree::new();
        assert_eq!(uninitialized_gpus(&tree.paths()), 0, "no driver");
        let information = |bus: &str, uuid: &str, bios: &str| {
            let text =
                format!("Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\nVideo BIOS: \t {bios}\nBus Type: \t PCIe\n");
            tree.file(&format!("proc/driver/nvidia/gpus/0000:{bus}:00.0/information"), text);
        };
        information("18", "GPU-5b2c0a4e-0000-4000-8000-000000000001", "96.00.99.00.01");
        assert_eq!(uninitialized_gpus(&tree.paths()), 0);
        information("2a", "GPU-????????-????-????-????-????????????", "??.??.??.??.??");
        information("3a", "GPU-5b2c0a4e-0000-4000-8000-000000000002", "??.??.??.??.??");
        assert_eq!(uninitialized_gpus(&tree.paths()), 2);
    }
}
