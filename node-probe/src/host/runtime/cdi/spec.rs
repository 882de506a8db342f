//! `parse`: parses a CDI specification (`Spec`): the kind, device names, device files with their numbers, mounted
//! files.
//!
//! A specification is JSON or YAML. Only the block style of YAML is supported, which NVIDIA's tools write
//! (`nvidia-ctk`, the device plugin, the DRA driver): one `key: value` per line, lists with `- `. Files with other
//! syntax, such as flow style or anchors, are reported as unsupported.

use serde::Deserialize;

/// The parts of a specification that are compared with the node.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(in crate::host) struct Spec {
    #[serde(default)]
    pub(in crate::host) kind: String,
    #[serde(default)]
    pub(in crate::host) devices: Vec<Device>,
    #[serde(rename = "containerEdits", default)]
    pub(in crate::host) edits: Edits,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(in crate::host) struct Device {
    #[serde(default)]
    pub(in crate::host) name: String,
    #[serde(rename = "containerEdits", default)]
    pub(in crate::host) edits: Edits,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(in crate::host) struct Edits {
    #[serde(rename = "deviceNodes", default)]
    pub(in crate::host) nodes: Vec<DeviceNode>,
    #[serde(default)]
    pub(in crate::host) mounts: Vec<Mount>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(in crate::host) struct DeviceNode {
    /// Path in the container.
    #[serde(default)]
    pub(in crate::host) path: String,
    /// Path on the host; empty if the path is the same as in the container.
    #[serde(rename = "hostPath", default)]
    pub(in crate::host) host_path: Option<String>,
    #[serde(default)]
    pub(in crate::host) major: Option<u32>,
    #[serde(default)]
    pub(in crate::host) minor: Option<u32>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(in crate::host) struct Mount {
    #[serde(rename = "hostPath", default)]
    pub(in crate::host) host_path: String,
}

/// Parses a specification; `None` if its syntax is not supported.
pub(in crate::host) fn parse(text: &str) -> Option<Spec> {
    let spec = if text.trim_start().starts_with('{') { serde_json::from_str(text).ok()? } else { parse_yaml(text)? };
    (!spec.kind.is_empty()).then_some(spec)
}

/// A parent key of a line, with its indentation.
struct Above {
    indent: usize,
    key: String,
}

/// Parses block-style YAML line by line, with the parent keys of each line.
fn parse_yaml(text: &str) -> Option<Spec> {
    let mut spec = Spec::default();
    let mut above: Vec<Above> = Vec::new();
    for line in text.lines() {
        let line = line.trim_end();
        let content = line.trim_start_matches(' ');
        if content.is_empty() || content == "---" || content.starts_with('#') {
            continue;
        }
        let mut indent = line.len() - content.len();
        let mut content = content;
        let mut begins_entry = false;
        while let Some(rest) = content.strip_prefix("- ") {
            // All keys of an entry have the indentation of its first key. The key of the list may have the indentation of
            // the dash.
            above.retain(|key| key.indent < indent || (key.indent == indent && !is_entry(key)));
            begins_entry = true;
            if above.len() > MAX_LEVELS {
                return None;
            }
            above.push(Above { indent, key: ENTRY.to_owned() });
            indent += content.len() - rest.trim_start_matches(' ').len();
            content = rest.trim_start_matches(' ');
        }
        if content.starts_with(['{', '[', '&', '*', '!', '?', '\t', '%']) {
            return None;
        }
        let Some((key, value)) = key_and_value(content) else {
            // The line is a scalar entry of a list, such as an option or an argument.
            continue;
        };
        if !begins_entry {
            above.retain(|key| key.indent < indent);
        }
        let path: Vec<&str> = above.iter().map(|above| above.key.as_str()).collect();
        take(&mut spec, &path, begins_entry, &key, value)?;
        if value.is_empty() {
            if above.len() > MAX_LEVELS {
                return None;
            }
            above.push(Above { indent, key });
        }
    }
    Some(spec)
}

/// Maximum number of nested levels. A specification has seven.
const MAX_LEVELS: usize = 24;

/// The parent key that represents an entry of a list.
const ENTRY: &str = "-";

fn is_entry(above: &Above) -> bool {
    above.key == ENTRY
}

/// Splits a line of the form `key: value` or `key:`.
fn key_and_value(content: &str) -> Option<(String, &str)> {
    let (key, value) = content.split_once(':')?;
    let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-\"'".contains(&byte));
    let separated = value.is_empty() || value.starts_with(' ');
    (plain && separated).then(|| (key.trim_matches(['"', '\'']).to_owned(), value.trim()))
}

/// Stores one `key: value`; `None` if the syntax of the value is not supported.
fn take(spec: &mut Spec, path: &[&str], begins_entry: bool, key: &str, value: &str) -> Option<()> {
    let scalar = || scalar(value);
    match (path, key) {
        ([], "kind") => spec.kind = scalar()?,
        ([], "devices" | "containerEdits") if !matches!(value, "" | "[]" | "{}" | "null") => return None,
        (["devices", "-"], key) => {
            if begins_entry {
                spec.devices.push(Device::default());
            }
            let device = spec.devices.last_mut()?;
            match key {
                "name" => device.name = scalar()?,
                "containerEdits" if !matches!(value, "" | "{}" | "null") => return None,
                _ => {}
            }
        }
        (["devices", "-", "containerEdits", rest @ ..], key) => {
            edit(&mut spec.devices.last_mut()?.edits, rest, begins_entry, key, value)?
        }
        (["containerEdits", rest @ ..], key) => edit(&mut spec.edits, rest, begins_entry, key, value)?,
        _ => {}
    }
    Some(())
}

fn edit(edits: &mut Edits, path: &[&str], begins_entry: bool, key: &str, value: &str) -> Option<()> {
    match path {
        [] if matches!(key, "deviceNodes" | "mounts") && !matches!(value, "" | "[]" | "null") => None,
        ["deviceNodes", "-"] => {
            if begins_entry {
                edits.nodes.push(DeviceNode::default());
            }
            let node = edits.nodes.last_mut()?;
            match key {
                "path" => node.path = scalar(value)?,
                "hostPath" => node.host_path = Some(scalar(value)?),
                "major" => node.major = Some(value.parse().ok()?),
                "minor" => node.minor = Some(value.parse().ok()?),
                _ => {}
            }
            Some(())
        }
        ["mounts", "-"] => {
            if begins_entry {
                edits.mounts.push(Mount::default());
            }
            if key == "hostPath" {
                edits.mounts.last_mut()?.host_path = scalar(value)?;
            }
            Some(())
        }
        _ => Some(()),
    }
}

/// Parses a plain or quoted value. Values with several lines or escapes are not supported.
fn scalar(value: &str) -> Option<String> {
    let plain = match value.as_bytes().first()? {
        b'"' => value.strip_prefix('"')?.strip_suffix('"').filter(|text| !text.contains(['\\', '"']))?,
        b'\'' => value.strip_prefix('\'')?.strip_suffix('\'').filter(|text| !text.contains('\''))?,
        b'|' | b'>' | b'[' | b'{' | b'&' | b'*' | b'!' => return None,
        _ => value.split(" #").next().unwrap_or(value).trim_end(),
    };
    (!plain.is_empty()).then(|| plain.to_owned())
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
