//! `ContainerConfig`: the image and the command line of a container, and how long its main process sleeps.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use syringe_core::probe_command::{NODE_PROBE, ProbeCommand};

use crate::programs::base_name;

/// The image and the main process of a container.
pub(super) struct ContainerConfig {
    pub(super) name: String,
    pub(super) image: String,
    /// Whether the pull policy is `Never`.
    pub(super) never_pull: bool,
    pub(super) argv: Vec<String>,
}

impl ContainerConfig {
    pub(super) fn of(container: &Container) -> Self {
        let Container { name, image, command, args, image_pull_policy, .. } = container;
        let config = Self::new(name, image.as_ref(), command.as_deref(), args.as_deref());
        Self { never_pull: image_pull_policy.as_deref() == Some("Never"), ..config }
    }

    /// Returns the configuration of an ephemeral container; `None` if the pod has no such container.
    pub(super) fn ephemeral(spec: &PodSpec, name: &str) -> Option<Self> {
        let container = spec.ephemeral_containers.as_ref()?.iter().find(|container| container.name == name)?;
        Some(Self::new(name, container.image.as_ref(), container.command.as_deref(), container.args.as_deref()))
    }

    fn new(name: &str, image: Option<&String>, command: Option<&[String]>, args: Option<&[String]>) -> Self {
        let image = image.cloned().unwrap_or_default();
        let entrypoint = vec![NODE_PROBE.to_owned()];
        let mut argv = command.filter(|command| !command.is_empty()).map_or(entrypoint, <[String]>::to_vec);
        argv.extend(args.unwrap_or_default().iter().cloned());
        Self { name: name.to_owned(), image, never_pull: false, argv }
    }

    pub(super) fn is_probe(&self) -> bool {
        self.argv.first().is_some_and(|program| base_name(program) == NODE_PROBE)
    }

    /// Returns how long the main process sleeps, if the program is `sleep`, `pause` or `node-probe hold`.
    pub(super) fn hold_time(&self) -> Option<Duration> {
        let arguments = &self.argv[1..];
        match (base_name(self.argv.first()?), arguments.first().map(String::as_str)) {
            ("pause", _) | ("sleep", Some("infinity")) => Some(Duration::MAX),
            ("sleep", Some(time)) => duration(time),
            (NODE_PROBE, _) => match node_probe::parse(arguments)? {
                ProbeCommand::Hold(hold) => Some(Duration::from_secs(hold.seconds)),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Parses `90`, `90s`, `5m` or `1h`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold_time(argv: &[&str]) -> Option<Duration> {
        let argv: Vec<_> = argv.iter().map(|word| (*word).to_owned()).collect();
        ContainerConfig::new("main", None, Some(&argv), None).hold_time()
    }

    #[test]
    fn a_hold_ends_after_its_argument() {
        assert_eq!(hold_time(&["node-probe", "hold", "--seconds", "90"]), Some(Duration::from_secs(90)));
        assert_eq!(hold_time(&["/usr/bin/node-probe", "hold"]), Some(Duration::from_secs(120)));
        assert_eq!(hold_time(&["sleep", "5"]), Some(Duration::from_secs(5)));
        assert_eq!(hold_time(&["sleep", "infinity"]), Some(Duration::MAX));
        assert_eq!(hold_time(&["node-probe", "xid", "--since", "24h"]), None);
    }
}
