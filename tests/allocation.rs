//! Who holds which GPUs: the tools that need no probe, and the ones that can do without, over the wire.
#![allow(clippy::unwrap_used)]

#[path = "allocation/claims.rs"]
mod claims;
#[path = "allocation/describe.rs"]
mod describe;
#[path = "allocation/events.rs"]
mod events;
#[path = "allocation/gone.rs"]
mod gone;
#[path = "allocation/pods.rs"]
mod pods;
#[path = "allocation/tools.rs"]
mod tools;
