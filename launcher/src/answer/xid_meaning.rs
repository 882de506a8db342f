//! `XidMeaning`: the meaning of an Xid or SXid code from the catalogue (`XidRow`, `SxidRow`), as JSON and as text. No
//! cluster is read.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::classification::Severity;
use syringe_core::kernel_log::event_meaning::{Kind, kinds};
use syringe_core::kernel_log::{SxidEntry, XidEntry, sxid, xid};
use syringe_macros::omit;

use crate::outcome::{CommandAnswer, Outcome};
use crate::terminal::page::Page;
use crate::terminal::style;
use crate::terminal::style::Paint;
use kube_read::Failure;

/// The catalogue entries for a number. An Xid and an SXid may have the same number.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct XidMeaning {
    /// One sentence.
    pub summary: String,
    /// The code.
    pub code: u32,
    /// The Xid.
    pub xid: Option<XidRow>,
    /// The SXid: an error of an NVSwitch.
    pub sxid: Option<SxidRow>,
}

/// The meaning of an Xid.
#[omit(Option, Vec)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct XidRow {
    /// Meaning in a few words.
    #[schemars(extend("x-text" = "own"))]
    pub name: &'static str,
    /// Name in the driver.
    #[schemars(extend("x-text" = "own"))]
    pub mnemonic: &'static str,
    /// Usual cause; `info` for a message that reports no fault.
    #[schemars(extend("x-text" = "own"))]
    pub class: String,
    /// Severity of a new event.
    pub severity: Severity,
    /// The action on a Kubernetes node.
    #[schemars(extend("x-text" = "own"))]
    pub action: &'static str,
    /// NVIDIA's immediate action.
    #[schemars(extend("x-text" = "own"))]
    pub nvidia_action: Option<&'static str>,
    /// NVIDIA's action for the later investigation.
    #[schemars(extend("x-text" = "own"))]
    pub nvidia_investigation: Option<&'static str>,
    /// Why the severity or the action differs from NVIDIA's recommendation.
    #[schemars(extend("x-text" = "own"))]
    pub differs_from_nvidia_because: Option<&'static str>,
    /// Whether drivers also log an Xid 154 with the recovery action.
    pub followed_by_xid_154: bool,
    /// A note about this code.
    #[schemars(extend("x-text" = "own"))]
    pub note: Option<&'static str>,
    /// Kinds of this Xid. The first condition that matches the line of the kernel log applies.
    pub kinds: Vec<XidKindRow>,
}

/// A kind of an Xid, which is recognized by the text of the kernel log line.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct XidKindRow {
    /// What the line must contain.
    #[schemars(extend("x-text" = "own"))]
    pub condition: &'static str,
    /// Severity of a new event.
    pub severity: Severity,
    /// The action on a Kubernetes node.
    #[schemars(extend("x-text" = "own"))]
    pub action: &'static str,
}

/// The meaning of an SXid.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SxidRow {
    /// Meaning in a few words.
    #[schemars(extend("x-text" = "own"))]
    pub name: String,
    /// Name in the driver.
    #[schemars(extend("x-text" = "own"))]
    pub mnemonic: &'static str,
    /// Effect of the error, if the code alone determines it.
    #[schemars(extend("x-text" = "own"))]
    pub fatality: Option<String>,
    /// Severity if the line does not contain Fatal or Non-fatal.
    pub severity: Severity,
    /// The action on a Kubernetes node.
    #[schemars(extend("x-text" = "own"))]
    pub action: &'static str,
    /// NVIDIA's action.
    #[schemars(extend("x-text" = "own"))]
    pub nvidia_action: Option<&'static str>,
}

impl From<&XidEntry> for XidRow {
    fn from(entry: &XidEntry) -> Self {
        let kind = |kind: &Kind| XidKindRow {
            condition: kind.condition,
            severity: kind.meaning.severity,
            action: kind.meaning.advice,
        };
        let kinds = kinds().iter().filter(|kind| (kind.codes.0..=kind.codes.1).contains(&entry.code)).map(kind);
        Self {
            name: entry.name,
            mnemonic: entry.mnemonic,
            class: entry.class_name(),
            severity: entry.severity,
            action: entry.sre_action,
            nvidia_action: entry.nvidia_action,
            nvidia_investigation: entry.nvidia_investigation,
            differs_from_nvidia_because: entry.differs,
            followed_by_xid_154: entry.raises_recovery_action,
            note: entry.note,
            kinds: kinds.collect(),
        }
    }
}

impl From<&SxidEntry> for SxidRow {
    fn from(entry: &SxidEntry) -> Self {
        Self {
            name: entry.words.clone(),
            mnemonic: entry.mnemonic,
            fatality: entry.fatality.map(lower),
            severity: entry.severity,
            action: entry.sre_action(),
            nvidia_action: entry.nvidia_action,
        }
    }
}

impl CommandAnswer for XidMeaning {
    fn outcome(&self) -> Outcome {
        Outcome::NothingFound
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl XidMeaning {
    pub(crate) fn of(code: u32) -> Result<Self, Failure> {
        let (xid, sxid) = (xid(code).map(XidRow::from), sxid(code).map(SxidRow::from));
        let names = [xid.as_ref().map(|row| ("Xid", row.name)), sxid.as_ref().map(|row| ("SXid", row.name.as_str()))];
        let names: Vec<_> = names.into_iter().flatten().map(|(kind, name)| format!("{kind} {code}: {name}")).collect();
        if names.is_empty() {
            let why = "the catalogue has no Xid and no SXid with this number";
            let next = "docs/xid.md lists all codes. If this is the name of a node, run: gpu-syringe xid node/NAME.";
            return Err(Failure::new(format!("Looking up {code}"), why, next));
        }
        Ok(Self { summary: names.join("; "), code, xid, sxid })
    }

    pub(crate) fn page(&self) -> Page {
        let mut text = Page::default();
        let code = self.code;
        if let Some(row) = &self.xid {
            let XidRow { mnemonic, name, severity, nvidia_action, nvidia_investigation, class, action, .. } = row;
            text.push_str(&format!("[{}] Xid {code}: {name} ({mnemonic})\n", painted(*severity)));
            text.push_str(&format!("  Usual cause: {class}\n"));
            text.push_str(&format!("  → {action}\n"));
            for (label, value) in [
                ("NVIDIA, immediate action", nvidia_action),
                ("NVIDIA, investigation", nvidia_investigation),
                ("Differs from NVIDIA because", &row.differs_from_nvidia_because),
                ("Note", &row.note),
            ] {
                text.push_str(&value.map(|value| format!("  {label}: {value}\n")).unwrap_or_default());
            }
        }
        let kinds = self.xid.iter().flat_map(|row| &row.kinds);
        if kinds.clone().next().is_some() {
            text.push_str("\nThe first condition that matches the kernel log line decides:\n");
        }
        for XidKindRow { condition, severity, action } in kinds {
            text.push_str(&format!("  [{}] {condition}\n    → {action}\n", painted(*severity)));
        }
        if let Some(SxidRow { mnemonic, name, severity, action, nvidia_action, .. }) = &self.sxid {
            text.push_str(&format!("[{}] SXid {code}: {name} ({mnemonic})\n  → {action}\n", painted(*severity)));
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
            let found = XidMeaning::of(code).expect("a code");
            let text = found.page().print(&Layout::default());
            assert!(text.contains(&format!("id {code}: ")) && text.contains("→ "), "{text}");
            assert!(found.xid.is_some() || found.sxid.is_some());
        }
        assert!(XidMeaning::of(99_999).is_err());
    }

    #[test]
    fn a_code_whose_line_decides_lists_the_kinds() {
        let text = XidMeaning::of(154).expect("a code").page().print(&Layout::default());
        assert!(text.contains("decides") && text.matches("    → ").count() > 1, "{text}");
    }
}
