//! `gpu-syringe xid CODE`: explains an Xid or SXid from the catalogue, without a cluster.

use serde_json::{Value, json};
use syringe_core::classification::Severity;
use syringe_core::kernel_log::event_meaning::{Kind, kinds};
use syringe_core::kernel_log::{SxidEntry, XidEntry, sxid, xid};

use crate::terminal::page::Page;
use crate::terminal::style;
use crate::terminal::style::Paint;
use kube_read::Failure;

/// The catalogue entries for a number. An Xid and an SXid may have the same number.
pub(super) struct XidCode {
    code: u32,
    xid: Option<&'static XidEntry>,
    kinds: Vec<&'static Kind>,
    sxid: Option<&'static SxidEntry>,
}

impl XidCode {
    pub(super) fn of(code: u32) -> Result<Self, Failure> {
        let kinds = kinds().iter().filter(|kind| (kind.codes.0..=kind.codes.1).contains(&code)).collect();
        let found = Self { code, xid: xid(code), kinds, sxid: sxid(code) };
        if found.xid.is_none() && found.sxid.is_none() {
            let why = "the catalogue has no Xid and no SXid with this number";
            let next = "docs/xid.md lists all codes. For a node with this name: gpu-syringe xid node/NAME.";
            return Err(Failure::new(format!("Looking up {code}"), why, next));
        }
        Ok(found)
    }

    pub(super) fn json(&self) -> Value {
        let kind = |kind: &&Kind| {
            json!({
                "condition": kind.condition,
                "severity": lower(kind.meaning.severity),
                "action": kind.meaning.advice,
            })
        };
        let xid = self.xid.map(|entry| {
            let XidEntry { mnemonic, name, severity, nvidia_action, nvidia_investigation, .. } = entry;
            json!({
                "name": name, "mnemonic": mnemonic, "class": entry.class_name(), "severity": lower(severity),
                "action": entry.sre_action, "nvidia_action": nvidia_action,
                "nvidia_investigation": nvidia_investigation, "differs_from_nvidia_because": entry.differs,
                "note": entry.note, "kinds": self.kinds.iter().map(kind).collect::<Vec<_>>(),
            })
        });
        let sxid = self.sxid.map(|entry| {
            let SxidEntry { mnemonic, words, fatality, severity, nvidia_action, .. } = entry;
            json!({
                "name": words, "mnemonic": mnemonic, "fatality": fatality.map(lower), "severity": lower(severity),
                "action": entry.sre_action(), "nvidia_action": nvidia_action,
            })
        });
        json!({ "code": self.code, "xid": xid, "sxid": sxid })
    }

    pub(super) fn page(&self) -> Page {
        let mut text = Page::default();
        let code = self.code;
        if let Some(entry) = self.xid {
            let XidEntry { mnemonic, name, severity, nvidia_action, nvidia_investigation, .. } = entry;
            text.push_str(&format!("[{}] Xid {code}: {name} ({mnemonic})\n", painted(*severity)));
            text.push_str(&format!("  Usual cause: {}\n", entry.class_name()));
            text.push_str(&format!("  → {}\n", entry.sre_action));
            for (label, value) in [
                ("NVIDIA, immediate action", nvidia_action),
                ("NVIDIA, investigation", nvidia_investigation),
                ("Differs from NVIDIA because", &entry.differs),
                ("Note", &entry.note),
            ] {
                text.push_str(&value.map(|value| format!("  {label}: {value}\n")).unwrap_or_default());
            }
        }
        if !self.kinds.is_empty() {
            text.push_str("\nThe first condition that matches the kernel log line decides:\n");
        }
        for kind in &self.kinds {
            let (severity, advice) = (painted(kind.meaning.severity), kind.meaning.advice);
            text.push_str(&format!("  [{severity}] {}\n    → {advice}\n", kind.condition));
        }
        if let Some(entry) = self.sxid {
            let SxidEntry { mnemonic, words, severity, nvidia_action, .. } = entry;
            let advice = entry.sre_action();
            text.push_str(&format!("[{}] SXid {code}: {words} ({mnemonic})\n  → {advice}\n", painted(*severity)));
            text.push_str(&nvidia_action.map(|action| format!("  NVIDIA: {action}\n")).unwrap_or_default());
        }
        text
    }
}

fn painted(severity: Severity) -> String {
    let paint = match severity {
        Severity::Info => None,
        Severity::Warning => Some(Paint::Warning),
        Severity::Critical => Some(Paint::Critical),
        Severity::Fatal => Some(Paint::Fatal),
    };
    style::paint(&lower(severity), paint)
}

/// Returns the name of a variant as in the tables of the catalogue.
fn lower(variant: impl std::fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use syringe_core::kernel_log::{sxids, xids};

    use super::*;
    use crate::terminal::layout::Layout;

    #[test]
    fn every_code_of_the_catalogue_is_explained() {
        let codes = xids().map(|entry| entry.code).chain(sxids().map(|entry| entry.code));
        for code in codes {
            let found = XidCode::of(code).expect("a code");
            let text = found.page().print(&Layout::default());
            assert!(text.contains(&format!("id {code}: ")) && text.contains("→ "), "{text}");
            assert!(found.json()["xid"].is_object() || found.json()["sxid"].is_object());
        }
        assert!(XidCode::of(99_999).is_err());
    }

    #[test]
    fn a_code_whose_line_decides_lists_the_kinds() {
        let text = XidCode::of(154).expect("a code").page().print(&Layout::default());
        assert!(text.contains("decides") && text.matches("    → ").count() > 1, "{text}");
    }
}
