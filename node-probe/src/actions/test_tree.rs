//! A saved tree that a test lets stand for the machine.

/// Set by tests whose tree stands for the machine that they run on. Read for a saved tree alone, which the shipped program cannot
/// have.
pub(super) const TEST_TREE: &str = "NODE_PROBE_TEST_TREE";

/// Whether the driver's tool is to run below the root of a test's tree.
pub(super) fn changes_root_in_tree() -> bool {
    std::env::var_os(TEST_TREE).is_some_and(|value| value == "chroot")
}
