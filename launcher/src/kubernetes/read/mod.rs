//! Requests to the API server, each with what its answer means.

pub(crate) mod api_only;
pub(crate) mod cluster_facts;
pub(crate) mod events;
pub(crate) mod live_pods;
pub(crate) mod node_log;
pub(crate) mod node_view;
pub(crate) mod nodes;
pub(crate) mod pod_facts;
pub(crate) mod pod_names;
pub(crate) mod pods;
