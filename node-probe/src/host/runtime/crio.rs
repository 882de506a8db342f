//! `read`: reads CRI-O's configuration with its drop-ins.

use std::collections::BTreeMap;

use syringe_core::facts::container_runtime::{ContainerRuntime, RuntimeHandler};
use syringe_core::text::clean;
use toml::Value;

use super::config_file;
use super::config_file::{ConfigFile, MAX_FILES, Read, at, text_at, texts_at};
use super::handlers;
use crate::in_root::Root;

/// Paths of the main file, and of the folders for drop-ins.
const MAIN: &str = "/etc/crio/crio.conf";
const DROP_INS: &str = "/etc/crio/crio.conf.d/*";

/// Handlers that CRI-O has without a configuration: `runc` in older versions, `crun` since 1.31.
const BUILT_IN: [&str; 2] = ["runc", "crun"];

/// Returns the configuration, and the CDI folders in this configuration.
pub(in crate::host) fn read(host: &Root) -> (ContainerRuntime, Option<Vec<String>>) {
    let mut complete = true;
    let mut files: Vec<ConfigFile> = Vec::new();
    let drop_ins = config_file::matching(host, DROP_INS);
    complete &= drop_ins.as_ref().is_some_and(|drop_ins| drop_ins.len() < MAX_FILES);
    let paths = std::iter::once(MAIN.to_owned()).chain(drop_ins.unwrap_or_default());
    for path in paths.take(MAX_FILES) {
        match config_file::read(host, &path) {
            Read::Parsed(file) => files.push(file),
            Read::Absent => {}
            Read::Unreadable => complete = false,
        }
    }
    // If none of these files exists, the configuration is at another path.
    complete &= !files.is_empty();
    let mut found: BTreeMap<String, RuntimeHandler> = BTreeMap::new();
    let (mut default_handler, mut folders) = (None, None);
    for file in &files {
        if let Some(name) =
            text_at(&file.table, &["crio", "runtime", "default_runtime"]).filter(|name| !name.is_empty())
        {
            default_handler = Some(clean(name, 64));
        }
        folders = texts_at(&file.table, &["crio", "runtime", "cdi_spec_dirs"]).or(folders);
        let runtimes = at(&file.table, &["crio", "runtime", "runtimes"]).and_then(Value::as_table);
        for (name, value) in runtimes.into_iter().flatten() {
            let name = clean(name, 64);
            let text = |key| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
            // A drop-in replaces the whole handler.
            let handler = RuntimeHandler {
                name: name.clone(),
                runtime_type: Some(clean(text("runtime_type").unwrap_or("oci"), 64)),
                binary: text("runtime_path").map(|path| clean(path, 160)),
                binary_exists: None,
            };
            found.insert(name, handler);
        }
    }
    for name in BUILT_IN {
        let handler =
            || RuntimeHandler { name: name.to_owned(), runtime_type: Some("oci".to_owned()), ..Default::default() };
        found.entry(name.to_owned()).or_insert_with(handler);
    }
    let newest = files.iter().max_by_key(|file| file.changed_at);
    let facts = ContainerRuntime {
        name: "cri-o".to_owned(),
        config_path: files.first().filter(|file| file.path == MAIN).map(|file| file.path.clone()),
        drop_ins: files.iter().filter(|file| file.path != MAIN).map(|file| clean(&file.path, 160)).collect(),
        complete,
        default_handler,
        handlers: handlers::capped(found),
        config_changed_at: newest.and_then(|file| file.changed_at),
        config_changed_path: newest.map(|file| file.path.clone()),
        ..ContainerRuntime::default()
    };
    (facts, folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_drop_in_of_openshift_adds_nvidias_handler() {
        let tree = Tree::new();
        tree.file("etc/crio/crio.conf.d/00-default", "[crio.runtime]\ndefault_runtime = \"crun\"\n");
        tree.file(
            "etc/crio/crio.conf.d/99-nvidia.conf",
            "[crio]\n[crio.runtime]\n[crio.runtime.runtimes.nvidia]\nruntime_path = \
             \"/usr/local/nvidia/toolkit/nvidia-container-runtime\"\nruntime_type = \"oci\"\n",
        );
        let (facts, _) = read(&Root::open(tree.path()).expect("there"));
        let names: Vec<&str> = facts.handlers.iter().map(|handler| handler.name.as_str()).collect();
        assert_eq!((names, facts.complete), (vec!["crun", "nvidia", "runc"], true));
        assert_eq!((facts.default_handler.as_deref(), facts.drop_ins.len()), (Some("crun"), 2));
        tree.file("etc/crio/crio.conf.d/zz", "[[[");
        assert!(!read(&Root::open(tree.path()).expect("there")).0.complete, "a file is not TOML");
    }

    #[test]
    fn a_configuration_in_another_place_is_not_taken_for_none() {
        assert!(!read(&Root::open(Tree::new().path()).expect("there")).0.complete);
    }
}
