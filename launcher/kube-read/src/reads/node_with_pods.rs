//! `NodeWithPods`: one node with its pods and claims. `read`: reads these objects.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::unknown::Unknown;

use crate::client::api_error::section_unknown;

use crate::Failure;
use crate::client::connection::Connection;
use crate::client::lists::Freshness;
use crate::objects::dra::Dra;
use crate::objects::gpu_pod::Pod;
use crate::objects::gpu_requests;
use crate::objects::gpu_requests::{ResourceCounts, ResourceUse};
use crate::objects::node_facts as node_gpus;
use crate::objects::pod_rows;
use crate::objects::pod_rows::PodRow;
use crate::reads::existing_pods::ExistingPods;
use crate::reads::{nodes, pods, resource_claims};

/// A node with its pods and claims.
pub struct NodeWithPods {
    /// The complete Node object.
    pub node: Node,
    /// Pods of the node, or the failure to read these pods.
    pub pods: Result<Vec<Pod>, Failure>,
    pub dra: Option<Dra>,
    /// The parts that could not be read.
    pub unknown: Vec<Unknown>,
}

/// Reads a node. Fails if there is no such node or the API server cannot be reached. Pods and claims that the user may
/// not list are unknown.
pub async fn read(connection: &Connection, name: &str) -> Result<NodeWithPods, Failure> {
    let mut unknown = Vec::new();
    let (node, pods, dra) = tokio::join!(
        nodes::read(connection, name),
        pods::on_node(connection, name, Freshness::Cached),
        resource_claims::read(connection, Some(name), &mut unknown)
    );
    let node = node?;
    let dra = dra.unwrap_or_else(|failure| {
        unknown.push(section_unknown("dynamic resource allocation", &failure));
        None
    });
    unknown.extend(pods.as_ref().err().map(|failure| section_unknown("pods", failure)));
    Ok(NodeWithPods { node, pods, dra, unknown })
}

impl NodeWithPods {
    /// Returns the use of each resource. Without the list of pods, the allocated amounts are absent.
    pub fn uses(&self) -> Vec<ResourceUse> {
        node_gpus::uses(&self.node, self.held().as_ref(), self.dra.as_ref())
    }

    /// Returns the resources that pods hold through requests and claims.
    pub fn held(&self) -> Option<ResourceCounts> {
        let mut held = gpu_requests::allocated(self.pods.as_ref().ok()?);
        let held_by_claims = self.dra.as_ref().map(Dra::held).unwrap_or_default();
        held.extend(held_by_claims.get(self.node.name_any().as_str()).cloned().unwrap_or_default());
        Some(held)
    }

    /// Returns the rows of the pods that request or have GPUs, sorted by the amount that they hold (largest first).
    pub fn rows(&self) -> Vec<PodRow> {
        let pods = self.pods.iter().flatten();
        let mut rows: Vec<_> = pods.filter_map(|pod| pod_rows::row(pod, self.dra.as_ref())).collect();
        rows.sort_by_key(|row| {
            let held = row.holds.values().sum::<u64>() + row.claims.len() as u64;
            (std::cmp::Reverse(held), row.namespace.clone(), row.name.clone())
        });
        rows
    }

    /// Returns the pods that hold resources, or an error if the pods could not be listed. In that case, no pod counts
    /// as deleted.
    pub fn existing_pods(&self) -> Result<ExistingPods, Failure> {
        self.pods.as_deref().map(ExistingPods::from_pods).map_err(Clone::clone)
    }

    /// Returns the number of physical GPUs.
    pub fn physical_gpus(&self, uses: &[ResourceUse]) -> u64 {
        node_gpus::physical_gpus(&self.node, uses, self.dra.as_ref())
    }
}
