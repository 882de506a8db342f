//! Tests that node-probe runs the `journalctl` of the node inside the root folder of the node.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{Node, facts};

const ENTRY: &str = r#"{"__REALTIME_TIMESTAMP":"1740327858123456","_BOOT_ID":"c0ffee","_TRANSPORT":"kernel","MESSAGE":"NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus."}"#;

fn read(node: &Node) -> Value {
    let (document, _) = node.probe(&["xid"]);
    document["sections"]["xid"].clone()
}

#[test]
fn the_nodes_journalctl_is_run_below_the_nodes_root_unless_others_can_change_it() {
    let Some(node) = Node::new(&facts()).with_its_own_shell() else { return };
    node.file("var/log/journal/0123456789abcdef/system.journal", "");
    node.file("usr/bin/journalctl", &format!("#!/bin/sh\necho \"$*\" > /asked\necho '{ENTRY}'\n"));
    let tool = node.path("usr/bin/journalctl");
    set_permissions(&tool, Permissions::from_mode(0o777)).expect("ours");
    let refused = read(&node);
    assert!(!refused["data"].to_string().contains("c0ffee") && !node.path("asked").exists(), "{refused}");

    set_permissions(&tool, Permissions::from_mode(0o755)).expect("ours");
    let log = read(&node);
    assert_eq!(log["data"]["events"][0]["boot_id"], json!("c0ffee"), "{log}");
    let asked = std::fs::read_to_string(node.path("asked")).expect("journalctl ran inside the tree");
    assert!(asked.contains("--output=json") && asked.contains("_TRANSPORT=kernel"), "{asked}");
}
