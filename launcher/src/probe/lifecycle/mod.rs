//! Modules that create and delete probe pods, track the running launcher and its open probes, and clean up what killed
//! launchers left behind.

pub(super) mod delete_pod;
pub(super) mod end_container;
pub(super) mod late;
pub(super) mod launcher_identity;
pub(super) mod launcher_session;
pub(super) mod open_probes;
pub(super) mod pod_lifecycle;
pub(super) mod pod_spec;
pub(super) mod random_name;
pub(super) mod sweep;
