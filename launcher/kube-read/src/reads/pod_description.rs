//! Describes a pod by its UID for the plan of an action: its name, and the controller that may restart it.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use syringe_core::text::clean;

use crate::client::connection::Connection;
use crate::client::retry;
use crate::objects::gpu_pod::STATIC_UID;

/// Returns `namespace/name` and the controller, or `None` if the pod was not found. Used in plans only.
pub async fn describe_pod(connection: &Connection, node: &str, uid: &str) -> Option<String> {
    let pods: Api<Pod> = Api::all(connection.client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let list = retry::read(|| pods.list(&on_node)).await?.ok()?;
    let pod = list.items.iter().find(|pod| {
        pod.metadata.uid.as_deref() == Some(uid) || pod.annotations().get(STATIC_UID).is_some_and(|hash| hash == uid)
    })?;
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    Some(match controller {
        Some(owner) => clean(&format!("{name}. Its {} {} may restart it.", owner.kind, owner.name), 400),
        None => clean(&format!("{name}."), 400),
    })
}
