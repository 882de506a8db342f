//! Modules with the requests to the API server: nodes, pods and their logs, events, claims, DaemonSets, queues, linked
//! pods, objects for archives.

pub mod api_only_facts;
pub mod candidate_nodes;
pub mod claims_of_pod;
pub mod cluster_facts;
pub mod compute_domains;
pub mod daemon_sets;
pub mod events;
pub mod existing_pods;
pub mod helper_pods;
pub mod linked_pods;
pub mod node_lifecycle;
pub mod node_log;
pub mod node_with_pods;
pub mod nodes;
pub mod owned_pods;
pub(crate) mod peers;
pub mod pod;
pub mod pod_description;
pub mod pod_log;
pub mod pods;
pub mod queues;
pub mod resource_claims;
pub mod saved_objects;
