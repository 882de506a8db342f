//! Modules with types of Kubernetes objects (nodes, pods, claims, DaemonSets), and with functions that evaluate them:
//! GPU requests, scheduling, node conditions, NVIDIA's software, names, owners. No I/O.

pub mod api_objects;
pub mod capacity_shortage;
pub mod claim_fit;
pub mod compute_domains;
pub mod cordon;
pub mod daemon_sets;
pub mod dra;
pub mod dra_objects;
pub mod failed_pods;
pub mod gpu_operator_labels;
pub mod gpu_pod;
pub mod gpu_pod_facts;
pub mod gpu_requests;
pub mod gpu_resource_names;
pub mod job_ranks;
pub mod label_selector;
pub mod machines;
pub mod name_validation;
pub mod named_owner;
pub mod node_conditions;
pub mod node_facts;
pub mod node_labels;
pub mod nvidia_components;
pub mod nvidia_pod_facts;
#[cfg(any(test, fuzzing))]
pub mod object_lists;
pub mod platform_signals;
pub mod pod_facts;
pub mod pod_owner;
pub mod pod_requests;
pub mod pod_rows;
pub mod resolve_devices;
pub mod scheduler_filters;
pub mod scheduling_joins;
pub mod slim_objects;
pub mod starting_pods;
