//! Requests to the API server that read objects.

pub mod api_only_facts;
pub mod candidates;
pub mod claims;
pub mod cluster_facts;
pub mod events;
pub mod live_pods;
pub mod node_log;
pub mod node_view;
pub mod nodes;
pub mod pod;
pub mod pod_names;
pub mod pods;
