//! `list`, `templates`, `read`: the MCP resources `xid://` and `sxid://`, with the meaning of an Xid or SXid code.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde::Serialize;
use serde_json::{Value, json};
use syringe_core::kernel_log::catalogue::{XidEntry, xids};

use crate::answer::xid_meaning::XidMeaning;

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
        code.parse().ok().and_then(|code| Some(entry(code, XidMeaning::of(code).ok()?.xid?)))
    } else {
        let code = uri.strip_prefix("sxid://").and_then(|code| code.parse().ok());
        code.and_then(|code| Some(entry(code, XidMeaning::of(code).ok()?.sxid?)))
    };
    let Some(value) = found else {
        let next = match uri.split_once("://") {
            Some(("xid", _)) => "xid://catalogue lists all Xids of NVIDIA's catalogue",
            Some(("sxid", _)) => "NVIDIA's catalogue has no such SXid; analyze_xid_errors reads the SXids of a node",
            _ => "there are xid://catalogue, xid://CODE (such as xid://79) and sxid://CODE (such as sxid://20034)",
        };
        let uri = syringe_core::text::clean(uri, 80);
        return Err(ErrorData::resource_not_found(format!("no resource '{uri}': {next}"), None));
    };
    Ok(ReadResourceResult::new(vec![ResourceContents::text(value.to_string(), uri).with_mime_type(JSON)]))
}

fn entry(code: u32, row: impl Serialize) -> Value {
    let mut entry = json!(row);
    entry["code"] = code.into();
    entry["reference"] = "https://docs.nvidia.com/deploy/xid-errors/".into();
    entry
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
