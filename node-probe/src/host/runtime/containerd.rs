//! `read`: reads containerd's configuration, versions 1, 2 and 3, with `imports`.
//! `serves_no_kubelet`: whether a configuration disables the CRI plugin.
//!
//! Limits: imported files are merged key by key. containerd 1 replaces the whole section of a plugin, so a handler that
//! is listed here may be missing in containerd. No rule assumes that a listed handler works.

use std::collections::BTreeMap;

use syringe_core::facts::container_runtime::{ContainerRuntime, RuntimeHandler};
use syringe_core::text::clean;
use toml::{Table, Value};

use super::config_file;
use super::config_file::{ConfigFile, MAX_FILES, Read, at, text_at, texts_at};
use super::handlers;
use crate::in_root::Root;

/// The plugin that runs containers for the kubelet, in versions 3, 2 and 1 of the configuration.
const PLUGINS: [&str; 3] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri"];

/// The handler that containerd has without a configuration.
const BUILT_IN: &str = "runc";

/// Folder from which containerd 2.2 and newer import configuration files by default.
const DEFAULT_IMPORTS: &str = "/etc/containerd/conf.d/*.toml";

/// Returns the configuration at `path`, and the CDI folders in this configuration.
pub(in crate::host) fn read(host: &Root, path: &str) -> (ContainerRuntime, Option<Vec<String>>) {
    let mut found = Found { complete: true, ..Found::default() };
    let main = match config_file::read(host, path) {
        Read::Parsed(file) => file,
        absent => {
            // Without the file containerd uses its defaults.
            let complete = matches!(absent, Read::Absent);
            return (found.into_facts(complete, None, None, Vec::new()), None);
        }
    };
    let version =
        at(&main.table, &["version"]).and_then(Value::as_integer).and_then(|version| u32::try_from(version).ok());
    let main_path = main.path.clone();
    let imports_are_set = main.table.contains_key("imports");
    let drop_ins = imported(host, &main, &mut found.complete);
    found.take(&main);
    for file in &drop_ins {
        found.take(file);
    }
    if !imports_are_set && adds_handlers(host, &found) {
        found.complete = false;
    }
    let newest = std::iter::once(&main).chain(&drop_ins).max_by_key(|file| file.changed_at);
    let changed = newest.map(|file| (file.changed_at, file.path.clone()));
    let folders = found.cdi_folders.clone();
    let complete = found.complete && !found.disabled;
    let mut facts = found.into_facts(complete, Some(main_path), Some(version.unwrap_or(1)), drop_ins);
    (facts.config_changed_at, facts.config_changed_path) = changed.map_or((None, None), |(at, path)| (at, Some(path)));
    (facts, folders)
}

/// Returns whether this configuration disables the CRI plugin, which the kubelet uses. This is usual for a containerd
/// that serves only Docker, or only programs of the host.
pub(in crate::host) fn serves_no_kubelet(host: &Root, path: &str) -> bool {
    let Read::Parsed(file) = config_file::read(host, path) else { return false };
    disables_cri(&file.table)
}

fn disables_cri(table: &Table) -> bool {
    let disabled = texts_at(table, &["disabled_plugins"]).unwrap_or_default();
    disabled.iter().any(|plugin| PLUGINS.contains(&plugin.as_str()))
}

/// Returns the files in `imports`, and the files that they import.
fn imported(host: &Root, main: &ConfigFile, complete: &mut bool) -> Vec<ConfigFile> {
    let folder = main.path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let mut pending = texts_at(&main.table, &["imports"]).unwrap_or_default();
    pending.reverse();
    let mut files: Vec<ConfigFile> = Vec::new();
    while let Some(pattern) = pending.pop() {
        let pattern = if pattern.starts_with('/') { pattern } else { format!("{folder}/{pattern}") };
        let Some(paths) = config_file::matching(host, &pattern) else {
            *complete = false;
            continue;
        };
        for path in paths {
            if files.len() == MAX_FILES {
                *complete = false;
                return files;
            }
            if path == main.path || files.iter().any(|file| file.path == path) {
                continue;
            }
            match config_file::read(host, &path) {
                Read::Parsed(file) => {
                    pending.extend(texts_at(&file.table, &["imports"]).unwrap_or_default());
                    files.push(file);
                }
                Read::Absent | Read::Unreadable => *complete = false,
            }
        }
    }
    files
}

/// Returns whether the folder of default imports contains handlers that are not in the configuration. Only some
/// versions of containerd read this folder.
fn adds_handlers(host: &Root, found: &Found) -> bool {
    let paths = config_file::matching(host, DEFAULT_IMPORTS).unwrap_or_default();
    paths.iter().take(MAX_FILES).any(|path| match config_file::read(host, path) {
        Read::Parsed(file) => {
            let mut there = Found::default();
            there.take(&file);
            there.handlers.keys().any(|name| !found.handlers.contains_key(name))
        }
        Read::Absent | Read::Unreadable => true,
    })
}

/// The merged content of the files.
#[derive(Default)]
struct Found {
    complete: bool,
    disabled: bool,
    handlers: BTreeMap<String, RuntimeHandler>,
    default_handler: Option<String>,
    cdi_enabled: Option<bool>,
    cdi_folders: Option<Vec<String>>,
}

impl Found {
    fn take(&mut self, file: &ConfigFile) {
        self.disabled |= disables_cri(&file.table);
        for plugin in PLUGINS {
            let Some(section) = at(&file.table, &["plugins", plugin]).and_then(Value::as_table) else { continue };
            if let Some(name) =
                text_at(section, &["containerd", "default_runtime_name"]).filter(|name| !name.is_empty())
            {
                self.default_handler = Some(clean(name, 64));
            }
            self.cdi_enabled = at(section, &["enable_cdi"]).and_then(Value::as_bool).or(self.cdi_enabled);
            self.cdi_folders = texts_at(section, &["cdi_spec_dirs"]).or_else(|| self.cdi_folders.take());
            let runtimes = at(section, &["containerd", "runtimes"]).and_then(Value::as_table);
            for (name, value) in runtimes.into_iter().flatten() {
                let Some(value) = value.as_table() else { continue };
                let name = clean(name, 64);
                let handler = self.handlers.entry(name.clone()).or_default();
                handler.name = name;
                let text = |path: &[&str]| text_at(value, path).filter(|text| !text.is_empty());
                if let Some(kind) = text(&["runtime_type"]) {
                    handler.runtime_type = Some(clean(kind, 64));
                }
                // In version 1 of containerd's configuration, the name of this field is `runtime_engine`.
                if let Some(binary) = text(&["options", "BinaryName"]).or_else(|| text(&["runtime_engine"])) {
                    handler.binary = Some(clean(binary, 160));
                }
            }
        }
    }

    fn into_facts(
        mut self,
        complete: bool,
        path: Option<String>,
        version: Option<u32>,
        drop_ins: Vec<ConfigFile>,
    ) -> ContainerRuntime {
        let built_in = || RuntimeHandler {
            name: BUILT_IN.to_owned(),
            runtime_type: Some("io.containerd.runc.v2".to_owned()),
            ..RuntimeHandler::default()
        };
        let of_containerd = self.handlers.entry(BUILT_IN.to_owned()).or_insert_with(built_in);
        // Keys that are missing in the built-in handler have default values.
        of_containerd.runtime_type.get_or_insert_with(|| "io.containerd.runc.v2".to_owned());
        ContainerRuntime {
            name: "containerd".to_owned(),
            config_path: path,
            drop_ins: drop_ins.into_iter().map(|file| clean(&file.path, 160)).collect(),
            config_version: version,
            complete,
            default_handler: Some(self.default_handler.unwrap_or_else(|| BUILT_IN.to_owned())),
            handlers: handlers::capped(self.handlers),
            cdi_enabled: self.cdi_enabled,
            ..ContainerRuntime::default()
        }
    }
}

#[cfg(test)]
#[path = "containerd_tests.rs"]
mod tests;
