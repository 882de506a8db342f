//! The MCP resources `xid://` and `sxid://`: the meaning of an Xid or SXid code.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::{Value, json};
use syringe_core::kernel_log::catalogue::{SxidEntry, XidEntry, sxid, xid, xids};

/// URI of the table of all codes.
const INDEX: &str = "xid://catalogue";
const JSON: &str = "application/json";

/// Returns the resources without a parameter.
pub(super) fn list() -> Vec<Resource> {
    vec![
        Resource::new(INDEX, "xid-catalogue")
            .with_title("Xid catalogue")
            .with_description("Every known Xid: code, name, class, severity")
            .with_mime_type(JSON),
    ]
}

/// Returns the resources with a code as a parameter.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new("xid://{code}", "xid")
            .with_title("Xid by code")
            .with_description("Meaning, class, severity and actions (of NVIDIA and of an operator) of one Xid")
            .with_mime_type(JSON),
        ResourceTemplate::new("sxid://{code}", "sxid")
            .with_title("SXid by code")
            .with_description("Meaning and action for one NVSwitch error")
            .with_mime_type(JSON),
    ]
}

pub(super) fn read(uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let found = if uri == INDEX {
        Some(index())
    } else if let Some(code) = uri.strip_prefix("xid://") {
        code.parse().ok().and_then(xid).map(xid_entry)
    } else {
        uri.strip_prefix("sxid://").and_then(|code| code.parse().ok()).and_then(sxid).map(sxid_entry)
    };
    let Some(value) = found else {
        let uri = syringe_core::text::clean(uri, 80);
        let next =
            "xid://catalogue lists the known Xids; a code that it does not list is not in NVIDIA's catalogue either";
        return Err(ErrorData::resource_not_found(format!("no resource '{uri}': {next}"), None));
    };
    Ok(ReadResourceResult::new(vec![ResourceContents::text(value.to_string(), uri).with_mime_type(JSON)]))
}

fn index() -> Value {
    let row = |entry: &XidEntry| {
        json!({
            "code": entry.code,
            "name": entry.name,
            "class": entry.class_name(),
            "severity": entry.severity,
        })
    };
    xids().map(row).collect()
}

fn xid_entry(entry: &XidEntry) -> Value {
    let XidEntry {
        code,
        mnemonic,
        name,
        class: _,
        severity,
        nvidia_action,
        nvidia_investigation,
        action: _,
        ageing: _,
        sre_action,
        differs,
        raises_recovery_action,
        note,
    } = entry;
    json!({
        "code": code,
        "name": name,
        "mnemonic": mnemonic,
        "class": entry.class_name(),
        "severity": severity,
        "action": sre_action,
        "nvidia_action": nvidia_action,
        "nvidia_investigation": nvidia_investigation,
        "why_it_differs_from_nvidia": differs,
        "followed_by_xid_154": raises_recovery_action,
        "note": note,
        "reference": "https://docs.nvidia.com/deploy/xid-errors/",
    })
}

fn sxid_entry(entry: &SxidEntry) -> Value {
    json!({
        "code": entry.code,
        "mnemonic": entry.mnemonic,
        "meaning": entry.words,
        "fatality": entry.fatality.map(|fatality| format!("{fatality:?}").to_lowercase()),
        "action": entry.sre_action(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(uri: &str) -> String {
        let read = read(uri).expect("a resource");
        serde_json::to_string(&read.contents).expect("JSON")
    }

    #[test]
    fn an_xid_is_read_by_its_code() {
        assert!(text("xid://79").contains("fell off the PCIe bus"));
        assert!(text("sxid://20034").contains("20034"));
        assert!(text(INDEX).contains("119"));
    }

    #[test]
    fn an_unknown_code_has_no_resource() {
        for uri in ["xid://99999", "xid://", "xid://79x", "sxid://1", "file:///etc/passwd", ""] {
            assert!(read(uri).is_err(), "{uri}");
        }
    }
}
