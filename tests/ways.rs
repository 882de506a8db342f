//! Every way to a node, driven against the demo cluster: the same tools give the same answers, and nothing is left.
#![allow(clippy::unwrap_used)]

#[path = "ways/ephemeral.rs"]
mod ephemeral;
#[path = "ways/inject.rs"]
mod inject;
#[path = "ways/logs.rs"]
mod logs;
#[path = "ways/none.rs"]
mod none;
#[path = "ways/settings.rs"]
mod settings;
#[path = "ways/suite.rs"]
mod suite;
#[path = "ways/support.rs"]
mod support;
