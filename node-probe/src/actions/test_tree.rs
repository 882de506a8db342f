//! A saved tree that a test uses in place of the machine.

/// Set by tests whose tree replaces the machine. Only read with a saved tree, which the shipped program cannot
/// have.
pub(super) const TEST_TREE: &str = "NODE_PROBE_TEST_TREE";

/// Whether nvidia-smi runs below the root of the test's tree.
pub(super) fn changes_root_in_tree() -> bool {
    std::env::var_os(TEST_TREE).is_some_and(|value| value == "chroot")
}
