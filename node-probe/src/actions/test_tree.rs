//! `TEST_TREE`: an environment variable with which tests run actions in a file tree.
//! `changes_root_in_tree`: whether `nvidia-smi` runs below the root of that tree.

/// Only programs with a saved tree read this variable, and the shipped program has no option for a saved tree.
pub(super) const TEST_TREE: &str = "NODE_PROBE_TEST_TREE";

/// Returns whether nvidia-smi runs below the root of the test's tree.
pub(super) fn changes_root_in_tree() -> bool {
    std::env::var_os(TEST_TREE).is_some_and(|value| value == "chroot")
}
