//! The command line that runs the probe in a container.

/// What to do when the image does not hold node-probe.
pub(super) const NO_PROBE: &str =
    "The image holds no node-probe: name the right one with --image (deploy/Containerfile builds it).";

/// The words that run the probe where its image has it in the path.
pub(super) fn node_probe(command: &[String]) -> Vec<String> {
    std::iter::once("node-probe".to_owned()).chain(command.iter().cloned()).collect()
}
