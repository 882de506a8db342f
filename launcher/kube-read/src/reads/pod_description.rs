//! `describe_pod`: finds a pod by UID, and returns its name and the controller that may restart it, for the plan of an
//! action.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use syringe_core::text::clean;

use crate::client::connection::Connection;
use crate::client::retry;
use crate::objects::pod_owner::static_uid;

/// Returns `namespace/name` and the controller, or `None` if the pod was not found. Used in plans only.
pub async fn describe_pod(connection: &Connection, node: &str, uid: &str) -> Option<String> {
    let pods: Api<Pod> = Api::all(connection.client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let list = retry::read(|| pods.list(&on_node)).await?.ok()?;
    // The UID in the API is compared first. Only the UID of a static pod can be claimed by more than one pod.
    let by_api = list.items.iter().find(|pod| pod.metadata.uid.as_deref() == Some(uid));
    let static_pods: Vec<_> = list.items.iter().filter(|pod| static_uid(pod.annotations()) == Some(uid)).collect();
    if by_api.is_none() && static_pods.len() > 1 {
        let names: Vec<_> = static_pods.iter().map(|pod| name_of(pod)).collect();
        return Some(clean(&format!("one of {}, which claim the same UID.", names.join(", ")), 400));
    }
    let pod = by_api.or_else(|| static_pods.first().copied())?;
    let name = name_of(pod);
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    Some(match controller {
        Some(owner) => clean(&format!("{name}. Its {} {} may restart the pod.", owner.kind, owner.name), 400),
        None => clean(&format!("{name}."), 400),
    })
}

fn name_of(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}
