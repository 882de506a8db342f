//! Tests of explanations for a CDI device that the runtime does not find, from the CDI specifications of the node.
//! The messages are those of containerd 2.3.4. They are the same in all these cases.

use crate::explanation::tests::{Cause, ContainerFacts, ContainerState, PodFacts, cause_of, failed, node};
use crate::explanation::types::Explanation;
use syringe_core::classification::ActionCode;
use syringe_core::facts::cdi::{Cdi, CdiSpec};
use syringe_core::facts::host::Host;
use syringe_core::report::Section;

const DEVICE: &str = "GPU-f632d18c-0e6a-418b-a0c2-b2d54a0e1ddd";

fn spec(path: &str, devices: &[&str]) -> CdiSpec {
    let devices = devices.iter().map(|device| (*device).to_owned()).collect();
    CdiSpec { path: path.into(), kind: "nvidia.com/gpu".into(), devices, ..CdiSpec::default() }
}

/// Returns the explanation of a pod whose device the runtime does not find, on a node with these specifications.
fn explained(specs: Vec<CdiSpec>, unread: &[&str]) -> Explanation {
    let message = format!(
        "failed to create containerd container: CDI device injection failed: unresolvable CDI devices nvidia.com/gpu={DEVICE}"
    );
    let state = ContainerState::Waiting { reason: "CreateContainerError".into(), message };
    let main = ContainerFacts { name: "main".into(), state, ..ContainerFacts::default() };
    let pod = PodFacts { phase: "Pending".into(), containers: vec![main], ..failed(1, "Error") };
    let cdi = Cdi {
        folders: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        specs,
        unread: unread.iter().map(|file| (*file).to_owned()).collect(),
        claim_specs: 0,
    };
    let mut report = node(Vec::new());
    let host = Host { cdi: Some(cdi), ..Host::default() };
    report.sections.host = Some(Section::read(host, Vec::new()));
    cause_of(&pod, &report)
}

#[test]
fn the_specifications_of_the_node_explain_an_unknown_device() {
    let (etc, run) = ("/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml");
    for (specs, unread, why, advice) in [
        (
            vec![],
            vec![],
            "no specification in /etc/cdi, /var/run/cdi has devices of the kind nvidia.com/gpu",
            "generate",
        ),
        (
            vec![],
            vec![etc],
            "/etc/cdi/nvidia.yaml could not be read, or is not a valid specification",
            "nvidia-ctk cdi list",
        ),
        (vec![spec(run, &["0"])], vec![etc], "/etc/cdi/nvidia.yaml could not be read", "nvidia-ctk cdi list"),
        (
            vec![spec(etc, &[DEVICE, "all"]), spec("/etc/cdi/other.yaml", &[DEVICE])],
            vec![],
            "both /etc/cdi/nvidia.yaml and /etc/cdi/other.yaml define it",
            "remove the other",
        ),
        (
            vec![spec(etc, &["0", "1", "2", "3", "all"])],
            vec![],
            "/etc/cdi/nvidia.yaml defines devices with other names: 0, 1, 2 and 2 more",
            "deviceIDStrategy",
        ),
    ] {
        let explained = explained(specs, &unread);
        assert!(explained.summary.contains(why), "{why}: {}", explained.summary);
        assert!(explained.summary.contains(DEVICE), "{}", explained.summary);
        assert!(explained.action.text.contains(advice), "{why}: {}", explained.action.text);
        assert_eq!((explained.cause, explained.action.code), (Cause::Node, ActionCode::UpdateSoftware), "{why}");
    }
}

#[test]
fn specifications_that_have_the_device_explain_nothing() {
    let (etc, run) = ("/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml");
    let many: Vec<String> = (0..64).map(|number| format!("gpu{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for specs in [
        // The specification was written after the last attempt.
        vec![spec(etc, &[DEVICE])],
        // If specifications in two folders define the device, the later folder is used.
        vec![spec(etc, &[DEVICE]), spec(run, &[DEVICE])],
        // The node has more devices than the probe lists, so the device may be one of the others.
        vec![spec(etc, &many)],
    ] {
        let explained = explained(specs, &[]);
        let end = format!("of the requested name: nvidia.com/gpu={DEVICE}.");
        assert!(explained.summary.ends_with(&end), "{}", explained.summary);
    }
}
