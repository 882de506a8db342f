//! Modules of the simulated kubelets, which run the pods of a node: pods, containers, image pulls.
//! Re-exports `start_pod`, `kill_pod` and the other functions of `pod_worker`.
//!
//! Each pod that is created on a known node has one task, which runs as long as its containers. A pod of the fixture
//! has no task.
//! Missing: init containers, restarts (`restartPolicy` is treated as `Never`), container probes, volumes, scheduling.
//!
//! ```text
//!   container_config, scheduled_pod ─▶ container, image_pull ─▶ pod_worker
//! ```

mod container;
mod container_config;
mod image_pull;
mod pod_worker;
mod scheduled_pod;

pub(crate) use self::pod_worker::{kill_pod, start_ephemeral_containers, start_pod, terminate_pod};
