//! Tests of the dependencies between the crates of the workspace, and of the crates in the program `node-probe`.
//!
//! `node-probe` runs as root on other people's nodes. Therefore it links neither the diagnosis rules nor crates for
//! Kubernetes, TLS or an asynchronous runtime.

use std::collections::BTreeSet;
use std::process::Command;

/// The crates of the workspace, each with the crates of the workspace that it links.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("syringe-macros", &[]),
    ("syringe-core", &["syringe-macros"]),
    ("node-probe", &["syringe-core"]),
    ("diagnosis", &["syringe-core"]),
    ("kube-read", &["syringe-core", "syringe-macros"]),
    ("archive", &["syringe-core"]),
    ("demo-cluster", &["archive", "node-probe", "syringe-core"]),
    ("gpu-syringe", &["archive", "demo-cluster", "diagnosis", "kube-read", "syringe-core", "syringe-macros"]),
    ("fake-cuda", &[]),
    ("fake-nvml", &["syringe-core"]),
];

/// Names, or prefixes of names, of crates that must not be in the dependency tree of `node-probe`.
const NOT_ON_NODES: [&str; 14] = [
    "kube",
    "k8s-openapi",
    "prost",
    "rmcp",
    "rustls",
    "ring",
    "aws-lc",
    "openssl",
    "native-tls",
    "tokio",
    "async-",
    "smol",
    "futures",
    "hyper",
];

/// Returns the crates that a build of this crate for this machine links, except those of tests and build scripts.
fn linked(name: &str, more: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").expect("cargo runs this test");
    let arguments = ["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut command = Command::new(cargo);
    let output = command.args(arguments).args(["--manifest-path", manifest, "--package", name]).args(more).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.filter(|other| *other != name).map(str::to_owned).collect()
}

#[test]
fn each_crate_links_only_the_crates_below_it() {
    for (name, allowed) in ALLOWED {
        let linked = linked(name, &["--depth", "1"]);
        let of_workspace =
            linked.iter().map(String::as_str).filter(|linked| ALLOWED.iter().any(|(name, _)| name == linked));
        assert_eq!(of_workspace.collect::<BTreeSet<_>>(), allowed.iter().copied().collect(), "{name}");
    }
}

#[test]
fn node_probe_links_no_kubernetes_tls_or_asynchronous_runtime() {
    let tree = linked("node-probe", &[]);
    assert!(tree.contains("serde_json") && tree.len() > 20, "{tree:?}");
    let found: Vec<_> = tree.iter().filter(|name| NOT_ON_NODES.iter().any(|start| name.starts_with(start))).collect();
    assert!(found.is_empty(), "{found:?}");
}
