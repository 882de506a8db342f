//! `GRANTS`: the table of the permissions that gpu-syringe uses.
//! It is the source of the Roles in `deploy/rbac.yaml`, of the table in `docs/permissions.md` and of the checks of
//! `gpu-syringe doctor`.

use std::fmt::Write;

/// Maximum line length of a generated file.
const WIDTH: usize = 120;

/// A Role or ClusterRole of the set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) by: GrantedBy,
    /// API group; empty for the core group.
    pub(crate) group: &'static str,
    /// Resources, with subresources such as `pods/exec`.
    pub(crate) resources: &'static [&'static str],
    pub(crate) verbs: &'static [&'static str],
    /// Purpose.
    pub(crate) why: &'static str,
    /// Effect of a missing permission.
    pub(crate) without: &'static str,
    /// Whether gpu-syringe also works without the permission, with a less complete answer or by another method.
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
pub(crate) const GRANTS: [Grant; 9] = [
    Grant {
        by: GrantedBy::Reader,
        group: "",
        resources: &["pods"],
        verbs: &["create", "get", "list", "delete"],
        why: "create, delete: the probe pod. get: its status. list: the sweep of pods that a killed launcher did not delete.",
        without: "no probe: only what the Kubernetes API knows (`--via none`)",
        optional: false,
    },
    Grant {
        by: GrantedBy::Reader,
        group: "",
        resources: &["pods/exec"],
        verbs: &["get", "create"],
        why: "A websocket exec is a GET; since Kubernetes 1.35 it also needs create.",
        without: "only `--via logs`, which needs the image of the probe",
        optional: false,
    },
    Grant {
        by: GrantedBy::Reader,
        group: "",
        resources: &["pods/log"],
        verbs: &["get"],
        why: "If websockets are not possible, the answer is read from the log of the pod (--via logs).",
        without: "no answer where a proxy refuses websockets",
        optional: true,
    },
    Grant {
        by: GrantedBy::Operator,
        group: "gpu-syringe.dev",
        resources: &["actions"],
        verbs: &["create"],
        why: "deploy/admission-policy.yaml requires it for a probe that kills a process or resets a GPU. The resource does not \
              exist in the API; only the permission is used.",
        without: "no kill and no reset where the policy is installed",
        optional: false,
    },
    Grant {
        by: GrantedBy::ClusterRead,
        group: "",
        resources: &["nodes"],
        verbs: &["get", "list"],
        why: "get: whether a probe can run on the node. list: list_gpu_nodes.",
        without: "no answer about a node (get), no list of GPU nodes (list)",
        optional: false,
    },
    Grant {
        by: GrantedBy::ClusterRead,
        group: "",
        resources: &["pods", "events"],
        verbs: &["get", "list"],
        why: "Which pods use GPUs, and their events.",
        without: "pods, free GPUs and events are unknown",
        optional: true,
    },
    Grant {
        by: GrantedBy::ClusterRead,
        group: "resource.k8s.io",
        resources: &["resourceclaims", "resourceslices"],
        verbs: &["get", "list"],
        why: "Devices allocated by Dynamic Resource Allocation.",
        without: "GPUs that DRA allocated are unknown",
        optional: true,
    },
    Grant {
        by: GrantedBy::Ephemeral,
        group: "",
        resources: &["pods/ephemeralcontainers"],
        verbs: &["patch"],
        why: "Adds the container of `--via ephemeral` to a pod.",
        without: "no `--via ephemeral`",
        optional: true,
    },
    Grant {
        by: GrantedBy::Ephemeral,
        group: "",
        resources: &["pods/exec"],
        verbs: &["get", "create"],
        why: "Reads from it.",
        without: "no `--via ephemeral`",
        optional: true,
    },
];

/// Returns the permissions of these roles, one entry per verb and resource.
pub(crate) fn permissions(of: &[GrantedBy]) -> Vec<Permission> {
    let grants = GRANTS.iter().filter(|grant| of.contains(&grant.by));
    let each = |grant: &'static Grant| {
        let resources: &'static [&'static str] = grant.resources;
        resources
            .iter()
            .flat_map(move |&resource| grant.verbs.iter().map(move |&verb| Permission { grant, resource, verb }))
    };
    grants.flat_map(each).collect()
}

/// Returns the rules of a role in YAML, each with its purpose as a comment.
pub(super) fn rules(of: GrantedBy) -> String {
    let mut text = String::from("rules:\n");
    for Grant { group, resources, verbs, why, .. } in GRANTS.iter().filter(|grant| grant.by == of) {
        let group = if group.is_empty() { "\"\"" } else { group };
        text.push_str(&comment(why, "  "));
        let _ = writeln!(text, "  - apiGroups: [{group}]");
        let _ = writeln!(text, "    resources: [{}]", resources.join(", "));
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
    for Grant { by, group, resources, verbs, why, without, .. } in &GRANTS {
        let resources: Vec<_> = resources
            .iter()
            .map(|name| if group.is_empty() { format!("`{name}`") } else { format!("`{name}.{group}`") })
            .collect();
        let (role, place, resources, verbs) = (by.role(), by.place(), resources.join(", "), verbs.join(", "));
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
        for grant in &GRANTS {
            let comment = comment(grant.why, "  ");
            assert!(comment.lines().all(|line| line.starts_with("  # ") && line.len() <= WIDTH), "{comment}");
            assert_eq!(comment.replace('#', " ").split_whitespace().collect::<Vec<_>>().join(" "), grant.why);
        }
    }
}
