//! Marks untrusted text in an answer: lists the fields with text of nodes, tenants or users in `quoted`, and cleans all texts.
//!
//! Texts are cleaned where they are read. They are cleaned here again for names and labels that only the API server is expected
//! to have checked.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use syringe_core::text::clean_keeping_lines;

/// The field that names the others.
pub(crate) const QUOTED: &str = "quoted";

/// Fields whose text nodes, tenants or users of the cluster wrote, or that quote it.
const FIELDS: [&str; 100] = [
    "action_text",
    "affected",
    "annotated_uuids",
    "architecture",
    "board_id",
    "board_part_number",
    "brand",
    "capability",
    "cdi_spec",
    "chassis_serial",
    "claim",
    "command",
    "compute_mode",
    "conditions",
    "container",
    "container_toolkit",
    "cpu_affinity",
    "cuda_version",
    "details",
    "device",
    "device_nodes",
    "device_nodes_missing",
    "devices",
    "differs",
    "driver",
    "driver_version",
    "effect",
    "evidence",
    "field",
    "findings",
    "flavor",
    "gpu_conditions",
    "gpu_uuid",
    "gsp_firmware_version",
    "gsp_firmware_versions",
    "health",
    "health_issues",
    "holds",
    "hostname",
    "kernel",
    "kubernetes_problems",
    "labels",
    "left_behind",
    "library",
    "library_path",
    "link_layer",
    "loaded",
    "location",
    "log_lines",
    "message",
    "model",
    "models",
    "module_on_disk",
    "modules",
    "name",
    "namespace",
    "next_step",
    "not_read",
    "note",
    "notes",
    "nvml_library",
    "nvml_version",
    "oem",
    "open_device_files",
    "operating_system",
    "passed_over",
    "phase",
    "plan",
    "pod",
    "problems",
    "process",
    "product",
    "profile",
    "raw",
    "reason",
    "reasons",
    "reasons_against",
    "resource",
    "ruled_out",
    "said",
    "serial",
    "shared_with",
    "state",
    "status_message",
    "sub_code",
    "summary",
    "taints",
    "text",
    "troubles",
    "unhealthy_devices",
    "used_by",
    "user",
    "common",
    "uuid",
    "value",
    "vbios_version",
    "virtualization_mode",
    "visible_devices",
    "what",
    "why",
];

/// Fields that the launcher itself writes, and that must stay unchanged.
const AS_THEY_ARE: [&str; 2] = ["terminal_command", "token"];

/// Cleans the texts of an answer, and lists in `quoted` the fields with text of others.
pub(crate) fn finish(answer: &mut Value) {
    let mut found = BTreeSet::new();
    walk(answer, "", &mut found);
    if let Value::Object(answer) = answer {
        answer.insert(QUOTED.to_owned(), json!(found));
    }
}

fn walk(value: &mut Value, name: &str, found: &mut BTreeSet<&'static str>) {
    match value {
        Value::String(_) if AS_THEY_ARE.contains(&name) => {}
        Value::String(text) => {
            found.extend(known(name));
            *text = clean_keeping_lines(text);
        }
        Value::Array(list) => list.iter_mut().for_each(|entry| walk(entry, name, found)),
        Value::Object(fields) => {
            // The names of labels and of a line's details are text of others as well.
            let is_map = known(name).is_some_and(|name| matches!(name, "labels" | "details" | "models" | "common"));
            if is_map && !fields.is_empty() {
                found.extend(known(name));
            }
            for (field, value) in fields.iter_mut() {
                walk(value, if is_map { name } else { field }, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn known(name: &str) -> Option<&'static str> {
    FIELDS.iter().find(|field| **field == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_text_of_others_are_named_once_and_hidden_characters_are_removed() {
        let mut answer = json!({
            "verdict": "warning",
            "findings": [{"id": "x", "evidence": ["a\u{202e}b"]}, {"id": "y", "evidence": ["--token abc"]}],
            "labels": {"gpu.product": "H100"},
            "plan": "one\ntwo",
            "terminal_command": "gpu-syringe --token-to-model x",
        });
        finish(&mut answer);
        assert_eq!(answer[QUOTED], json!(["evidence", "labels", "plan"]));
        assert_eq!(answer["findings"][0]["evidence"][0], "a b");
        assert_eq!(answer["findings"][1]["evidence"][0], "--token [redacted]");
        assert_eq!(
            (&answer["plan"], &answer["terminal_command"]),
            (&json!("one\ntwo"), &json!("gpu-syringe --token-to-model x"))
        );
    }
}
