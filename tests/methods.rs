//! Modules of the tests of the probe methods (`auto`, `ephemeral`, `inject`, `logs`, `none`) on a demo cluster: all
//! methods give the same answers and leave no pod. Other modules: settings, jobs, and nodes without a probe.
#![allow(clippy::unwrap_used)]

#[path = "methods/auto.rs"]
mod auto;
#[path = "methods/auto_memory.rs"]
mod auto_memory;
#[path = "methods/ephemeral.rs"]
mod ephemeral;
#[path = "methods/inject.rs"]
mod inject;
#[path = "methods/logs.rs"]
mod logs;
#[path = "methods/none.rs"]
mod none;
#[path = "methods/owned.rs"]
mod owned;
#[path = "methods/settings.rs"]
mod settings;
#[path = "methods/suite.rs"]
mod suite;
#[path = "methods/support.rs"]
mod support;
#[path = "methods/unreached.rs"]
mod unreached;
