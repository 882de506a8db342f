//! Modules of tests that check that all probe methods give the same answers on a demo cluster and leave no pod.
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
