//! `Fixes`: creates the commands that fix the problems that the doctor checks find.

use super::check::Fix;
use crate::consent::shell_quoted;
use crate::settings::Settings;

/// Creates commands with the namespace and context of this launcher.
pub(super) struct Fixes<'a> {
    settings: &'a Settings,
    /// Name of the user, as reported by the API server.
    user: Option<&'a str>,
}

/// Note for a command that an administrator has to run.
const ADMINISTRATOR: &str = "this command must be run by an administrator of the cluster";

impl<'a> Fixes<'a> {
    pub(super) fn new(settings: &'a Settings, user: Option<&'a str>) -> Self {
        Self { settings, user }
    }

    /// Returns the namespace of the probes.
    pub(super) fn namespace(&self) -> &str {
        &self.settings.probe_namespace
    }

    /// Creates a fix from any command, with a note.
    pub(super) fn run(command: impl Into<String>, note: impl Into<String>) -> Fix {
        Fix { command: command.into(), note: note.into() }
    }

    /// Returns the program with the settings that select the cluster and the namespace.
    pub(super) fn program(&self) -> String {
        crate::setup::program(self.settings)
    }

    /// Creates the fix `gpu-syringe setup --apply` with these arguments.
    pub(super) fn setup(&self, words: &str, note: &str) -> Fix {
        let words = if words.is_empty() { String::new() } else { format!(" {words}") };
        let note = if note.is_empty() { ADMINISTRATOR.to_owned() } else { format!("{ADMINISTRATOR}: {note}") };
        Self::run(format!("{} setup --apply{words}", self.program()), note)
    }

    /// Creates the fix that grants the permissions to this user.
    pub(super) fn grant(&self, operator: bool) -> Fix {
        let user = self.user.map_or_else(|| "NAME".to_owned(), shell_quoted);
        let operator = if operator { " --operator" } else { "" };
        self.setup(&format!("--user {user}{operator}"), "the command grants every permission of docs/permissions.md")
    }

    /// Creates the fix that installs the policy, or sets its image to the image of this launcher.
    pub(super) fn harden(&self) -> Fix {
        let image = crate::setup::manifests::pinned_image(self.settings);
        let image = image.map_or_else(|| "REGISTRY/PATH@sha256:DIGEST".to_owned(), |image| shell_quoted(&image));
        self.setup(
            &format!("--profile hardened --image {image}"),
            "the policy then admits the probe of this image and no other pod",
        )
    }

    /// Creates the fix that allows privileged pods in the namespace.
    pub(super) fn label(&self) -> Fix {
        let namespace = self.namespace();
        Self::run(
            format!("kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=privileged"),
            format!("{ADMINISTRATOR}; the probe reads devices and processes of the node, so its pod is privileged"),
        )
    }

    /// Returns the command in the text of a next step. The command starts with the name of a program, at the start of
    /// the text, after a colon or after "run".
    pub(super) fn command_in(next: &str) -> Option<String> {
        let is_command = |start: &usize| {
            let before = &next[..*start];
            before.is_empty() || [": ", "un "].iter().any(|end| before.ends_with(end))
        };
        let starts = |program: &&str| next.match_indices(*program).map(|(start, _)| start).find(is_command);
        let start = ["kubectl ", "oc ", "gpu-syringe "].iter().filter_map(starts).min()?;
        let rest = &next[start..];
        let end = [" (", ")", ";", ". "].iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
        Some(rest[..end].trim_end_matches('.').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_next_step_is_found() {
        let cases = [
            ("Do it: kubectl label namespace x a=b (see y).", Some("kubectl label namespace x a=b")),
            (
                "Grant it: oc adm policy add-scc-to-user privileged -z default -n ns",
                Some("oc adm policy add-scc-to-user privileged -z default -n ns"),
            ),
            ("Ask an administrator.", None),
            ("Ask an administrator to exempt namespace gpu-syringe in the policy of the webhook.", None),
        ];
        for (next, command) in cases {
            assert_eq!(Fixes::command_in(next).as_deref(), command, "{next}");
        }
    }
}
