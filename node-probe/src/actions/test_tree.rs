//! `TEST_TREE`, `changes_root_in_tree`: the environment variable of tests whose file tree replaces the machine.

/// Tests set this variable if their tree replaces the machine. The variable is only read with a saved tree, and the shipped
/// program has no option for a saved tree.
pub(super) const TEST_TREE: &str = "NODE_PROBE_TEST_TREE";

/// Returns whether nvidia-smi runs below the root of the test's tree.
pub(super) fn changes_root_in_tree() -> bool {
    std::env::var_os(TEST_TREE).is_some_and(|value| value == "chroot")
}
