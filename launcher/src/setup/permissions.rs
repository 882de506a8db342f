//! `GRANTS`, `permissions`: the permissions that gpu-syringe uses (`Grant`, `Permission`), for each Role (`GrantedBy`).
//! `rules`, `table`: write the permissions as YAML for a role, and as a table for the documentation.
//!
//! `GRANTS` is the source of the Roles in `deploy/rbac.yaml`, of the table in `docs/permissions.md` and of the checks of
//! `gpu-syringe doctor`.

use std::fmt::Write;
use std::sync::LazyLock;

use serde::Deserialize;
use syringe_core::tsv::{parts, rows, word};

/// Maximum line length of a generated file.
const WIDTH: usize = 120;

/// A Role or ClusterRole of the set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GrantedBy {
    /// Role `gpu-syringe-reader` in the namespace of the probes.
    Reader,
    /// Role `gpu-syringe-operator` in the namespace of the probes.
    Operator,
    /// ClusterRole `gpu-syringe-read`.
    ClusterRead,
    /// ClusterRole `gpu-syringe-ephemeral`, which has no binding.
    Ephemeral,
}

impl GrantedBy {
    /// Returns the name of the object, without the suffix for a namespace that is not the default.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Self::Reader => "gpu-syringe-reader",
            Self::Operator => "gpu-syringe-operator",
            Self::ClusterRead => "gpu-syringe-read",
            Self::Ephemeral => "gpu-syringe-ephemeral",
        }
    }

    /// Returns the kind of the object.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Reader | Self::Operator => "Role",
            Self::ClusterRead | Self::Ephemeral => "ClusterRole",
        }
    }

    /// Returns the scope, for the table.
    fn place(self) -> &'static str {
        match self {
            Self::Reader | Self::Operator => "namespace of the probes",
            Self::ClusterRead => "cluster",
            Self::Ephemeral => "namespaces that an administrator chooses",
        }
    }
}

/// Permissions on some resources.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) by: GrantedBy,
    /// API group; empty for the core group.
    pub(crate) group: &'static str,
    /// Resources, with subresources such as `pods/exec`.
    pub(crate) resources: Vec<&'static str>,
    /// The name of the only object that the permission covers, without the suffix of the namespace. `None` for all
    /// objects.
    pub(crate) name: Option<&'static str>,
    pub(crate) verbs: Vec<&'static str>,
    /// Purpose of the permissions.
    pub(crate) why: &'static str,
    /// Effect of a missing permission.
    pub(crate) without: &'static str,
    /// Whether gpu-syringe works without the permission, but with a less complete answer or by another method.
    pub(crate) optional: bool,
}

/// One verb on one resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permission {
    pub(crate) grant: &'static Grant,
    pub(crate) resource: &'static str,
    pub(crate) verb: &'static str,
}

impl Permission {
    /// Returns the resource without the subresource, and the subresource.
    pub(crate) fn parts(&self) -> (&'static str, Option<&'static str>) {
        self.resource.split_once('/').map_or((self.resource, None), |(resource, sub)| (resource, Some(sub)))
    }
}

/// Every permission, in the order of the manifest.
pub(crate) static GRANTS: LazyLock<Vec<Grant>> =
    LazyLock::new(|| rows(include_str!("permissions.tsv")).filter_map(grant).collect());

fn grant(row: Vec<&'static str>) -> Option<Grant> {
    let [by, group, resources, name, verbs, optional, why, without] = row[..] else { return None };
    let group = if group == "-" { "" } else { group };
    let (resources, verbs) = (parts(resources), parts(verbs));
    let name = Some(name).filter(|name| *name != "-");
    Some(Grant { by: word(by)?, group, resources, name, verbs, why, without, optional: optional == "optional" })
}

/// Returns the permissions of these roles, one entry per verb and resource.
pub(crate) fn permissions(of: &[GrantedBy]) -> Vec<Permission> {
    let grants = GRANTS.iter().filter(|grant| of.contains(&grant.by));
    let each = |grant: &'static Grant| {
        grant
            .resources
            .iter()
            .flat_map(move |&resource| grant.verbs.iter().map(move |&verb| Permission { grant, resource, verb }))
    };
    grants.flat_map(each).collect()
}

/// Returns the rules of a role in YAML, each with its purpose as a comment.
pub(super) fn rules(of: GrantedBy) -> String {
    let mut text = String::from("rules:\n");
    for Grant { group, resources, name, verbs, why, .. } in GRANTS.iter().filter(|grant| grant.by == of) {
        let group = if group.is_empty() { "\"\"" } else { group };
        text.push_str(&comment(why, "  "));
        let _ = writeln!(text, "  - apiGroups: [{group}]");
        let _ = writeln!(text, "    resources: [{}]", resources.join(", "));
        if let Some(name) = name {
            let _ = writeln!(text, "    resourceNames: [{name}@SUFFIX@]");
        }
        let _ = writeln!(text, "    verbs: [{}]", verbs.join(", "));
    }
    text
}

/// Returns the text as lines of a YAML comment.
fn comment(text: &str, indent: &str) -> String {
    let mut lines = vec![format!("{indent}#")];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => *line = format!("{line} {word}"),
            _ => lines.push(format!("{indent}# {word}")),
        }
    }
    lines.join("\n") + "\n"
}

/// Returns the table of `docs/permissions.md`.
pub(super) fn table() -> String {
    let mut text =
        String::from("| role | where | resource | verbs | used for | without it |\n|---|---|---|---|---|---|\n");
    for Grant { by, group, resources, name, verbs, why, without, .. } in GRANTS.iter() {
        let resources: Vec<_> = resources
            .iter()
            .map(|name| if group.is_empty() { format!("`{name}`") } else { format!("`{name}.{group}`") })
            .collect();
        let (role, place, verbs) = (by.role(), by.place(), verbs.join(", "));
        let only = name.map(|name| format!(" `{name}`")).unwrap_or_default();
        let resources = resources.join(", ") + &only;
        let _ = writeln!(text, "| `{role}` | {place} | {resources} | {verbs} | {why} | {without} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_on_each_resource_is_one_permission() {
        let named = |of| permissions(of).iter().map(|one| format!("{} {}", one.verb, one.resource)).collect::<Vec<_>>();
        assert_eq!(named(&[GrantedBy::Operator]), ["create actions"]);
        let cluster = named(&[GrantedBy::ClusterRead]);
        assert_eq!(cluster[..3], ["get nodes", "list nodes", "get pods"]);
        assert_eq!(permissions(&[GrantedBy::Reader])[4].parts(), ("pods", Some("exec")));
    }

    #[test]
    fn a_comment_has_no_line_over_the_width_and_loses_no_word() {
        for grant in GRANTS.iter() {
            let comment = comment(grant.why, "  ");
            assert!(comment.lines().all(|line| line.starts_with("  # ") && line.len() <= WIDTH), "{comment}");
            assert_eq!(comment.replace('#', " ").split_whitespace().collect::<Vec<_>>().join(" "), grant.why);
        }
    }
}
