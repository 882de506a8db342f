//! Modules of the tests of the shipped `node-probe` against hostile tenants of the node and hostile callers of exec.
//!
//! Files of a tenant or caller must not be loaded or run, or must run without any privilege.
//!
//! Some tests need namespaces, and root to create them. If these are not permitted, a test prints that it is skipped.
#![cfg(target_os = "linux")]

#[path = "isolation/callers.rs"]
mod callers;
#[path = "isolation/nccl.rs"]
mod nccl;
#[path = "isolation/support.rs"]
mod support;
#[path = "isolation/tenants.rs"]
mod tenants;
