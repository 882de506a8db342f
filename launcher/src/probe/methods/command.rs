//! The command line that runs the probe in a container.

/// Next step if the image does not contain node-probe.
pub(super) const NO_PROBE: &str =
    "The image does not contain node-probe: use the right image with --image (deploy/Containerfile builds it).";

/// The command for an image that has node-probe in its path.
pub(super) fn node_probe(command: &[String]) -> Vec<String> {
    std::iter::once("node-probe".to_owned()).chain(command.iter().cloned()).collect()
}
