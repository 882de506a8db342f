//! Modules of the tests of tools that show which pods have which GPUs, with data from the API alone or with a probe:
//! resource claims, DaemonSets, events, deleted pods, and pods in queues.
#![allow(clippy::unwrap_used)]

#[path = "allocation/claims.rs"]
mod claims;
#[path = "allocation/daemon_sets.rs"]
mod daemon_sets;
#[path = "allocation/describe.rs"]
mod describe;
#[path = "allocation/events.rs"]
mod events;
#[path = "allocation/gone.rs"]
mod gone;
#[path = "allocation/pods.rs"]
mod pods;
#[path = "allocation/queues.rs"]
mod queues;
#[path = "allocation/tools.rs"]
mod tools;
