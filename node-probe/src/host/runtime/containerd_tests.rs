//! Tests of reading containerd configurations of distributions and of NVIDIA's toolkit.

use super::*;
use crate::testing::Tree;

/// A version 2 configuration, as `nvidia-ctk runtime configure` writes it.
const V2: &str = r#"
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  enable_cdi = true
  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "nvidia"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
      privileged_without_host_devices = false
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
        BinaryName = "/usr/bin/nvidia-container-runtime"
"#;

const V3: &str = r#"
version = 3
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
"#;

/// The toolkit's drop-in for version 3.
const DROP_IN: &str = r#"
version = 3
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia.options]
    BinaryName = "/usr/local/nvidia/toolkit/nvidia-container-runtime"
"#;

const CONFIG: &str = "/etc/containerd/config.toml";
const IN_CONF_D: &str = "etc/containerd/conf.d/99-nvidia.toml";

fn with(files: &[(&str, &str)]) -> Tree {
    let tree = Tree::new();
    for (path, text) in files {
        tree.file(path.trim_start_matches('/'), text);
    }
    tree
}

fn of(tree: &Tree) -> (ContainerRuntime, Option<Vec<String>>) {
    read(&Root::open(tree.path()).expect("there"), CONFIG)
}

fn names(facts: &ContainerRuntime) -> Vec<&str> {
    facts.handlers.iter().map(|handler| handler.name.as_str()).collect()
}

fn nvidia(facts: &ContainerRuntime) -> RuntimeHandler {
    facts.handlers.iter().find(|handler| handler.name == "nvidia").cloned().expect("nvidia's handler")
}

#[test]
fn a_version_2_file_tells_handlers_default_and_cdi() {
    let (facts, folders) = of(&with(&[(CONFIG, V2)]));
    assert_eq!((names(&facts), facts.complete, facts.config_version), (vec!["nvidia", "runc"], true, Some(2)));
    assert_eq!((facts.default_handler.as_deref(), facts.cdi_enabled), (Some("nvidia"), Some(true)));
    assert_eq!(nvidia(&facts).binary.as_deref(), Some("/usr/bin/nvidia-container-runtime"));
    assert_eq!(folders, Some(vec!["/etc/cdi".to_owned(), "/var/run/cdi".to_owned()]));
    assert!(facts.config_changed_at.is_some());
}

#[test]
fn an_imported_drop_in_adds_its_handler_and_one_that_nobody_imports_does_not() {
    let (facts, _) = of(&with(&[(CONFIG, V3), (IN_CONF_D, DROP_IN)]));
    assert_eq!((names(&facts), facts.drop_ins.len(), facts.complete), (vec!["nvidia", "runc"], 1, true));
    let (facts, _) = of(&with(&[(CONFIG, "version = 3\nimports = []\n"), (IN_CONF_D, DROP_IN)]));
    assert_eq!((names(&facts), facts.complete), (vec!["runc"], true), "imports says: nothing");
    let (facts, _) = of(&with(&[(CONFIG, "version = 3\n"), (IN_CONF_D, DROP_IN)]));
    assert_eq!((names(&facts), facts.complete), (vec!["runc"], false), "containerd may import the drop-in");
}

#[test]
fn a_drop_in_without_a_runtime_type_is_seen_as_it_is() {
    let broken = DROP_IN.replace("runtime_type = \"io.containerd.runc.v2\"", "");
    let (facts, _) = of(&with(&[(CONFIG, V3), (IN_CONF_D, &broken)]));
    assert_eq!((nvidia(&facts).runtime_type, facts.complete), (None, true));
}

#[test]
fn what_cannot_be_read_leaves_the_list_incomplete() {
    for (main, drop_in) in [
        ("[[[", DROP_IN),
        (V3, "[[["),
        ("version = 3\nimports = [\"/etc/*/x.toml\"]\n", DROP_IN),
        ("version = 2\ndisabled_plugins = [\"cri\", \"io.containerd.grpc.v1.cri\"]\n", DROP_IN),
    ] {
        let (facts, _) = of(&with(&[(CONFIG, main), (IN_CONF_D, drop_in)]));
        assert!(!facts.complete, "{main} {drop_in}");
    }
    let (facts, _) = of(&Tree::new());
    assert_eq!((names(&facts), facts.complete, &facts.config_path), (vec!["runc"], true, &None), "the defaults");
}

#[test]
fn files_that_import_each_other_are_read_once() {
    let (one, two) =
        ("version = 2\nimports = [\"two.toml\"]\n", "imports = [\"config.toml\", \"/etc/containerd/two.toml\"]\n");
    let (facts, _) = of(&with(&[(CONFIG, one), ("etc/containerd/two.toml", two)]));
    assert_eq!((facts.drop_ins.len(), facts.complete), (1, true));
}
