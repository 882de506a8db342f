//! `read`: reads the configuration of NVIDIA's container runtime, which determines how containers get GPUs.

use syringe_core::facts::container_runtime::{RuntimeHandler, ToolkitConfig};
use syringe_core::text::clean;

use super::config_file;
use super::config_file::{Read, text_at};
use crate::in_root::Root;

/// Path of the configuration that NVIDIA's packages install.
const OF_HOST: &str = "/etc/nvidia-container-runtime/config.toml";
/// Path of the configuration that the GPU Operator's toolkit installs.
const OF_OPERATOR: &str = "/usr/local/nvidia/toolkit/.config/nvidia-container-runtime/config.toml";

/// Returns the first configuration that can be read. The order is: the file next to a program of NVIDIA's handlers, the
/// file of NVIDIA's packages, the file of the GPU Operator.
pub(in crate::host) fn read(host: &Root, handlers: &[RuntimeHandler]) -> Option<ToolkitConfig> {
    let binaries =
        handlers.iter().filter(|handler| handler.is_nvidia()).filter_map(|handler| handler.binary.as_deref());
    let beside = binaries.filter_map(|binary| Some(binary.rsplit_once('/')?.0));
    let beside = beside.map(|folder| format!("{folder}/.config/nvidia-container-runtime/config.toml"));
    let places = beside.chain([OF_HOST.to_owned(), OF_OPERATOR.to_owned()]);
    let file = places.take(8).find_map(|path| match config_file::read(host, &path) {
        Read::Parsed(file) => Some(file),
        Read::Absent | Read::Unreadable => None,
    })?;
    let text = |path: &[&str]| text_at(&file.table, path).map(|text| clean(text, 64)).filter(|text| !text.is_empty());
    Some(ToolkitConfig {
        mode: text(&["nvidia-container-runtime", "mode"]),
        default_kind: text(&["nvidia-container-runtime", "modes", "cdi", "default-kind"]),
        path: clean(&file.path, 160),
    })
}
