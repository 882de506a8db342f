//! The shipped `node-probe` among hostile neighbours: what a tenant of the node or a caller of exec puts in its way is neither
//! loaded nor run, or is run without any privilege.
//!
//! Some of it needs namespaces, and root to make them. Where they are not permitted a test says so and what it tried instead.
#![cfg(target_os = "linux")]

#[path = "isolation/callers.rs"]
mod callers;
#[path = "isolation/support.rs"]
mod support;
#[path = "isolation/tenants.rs"]
mod tenants;
