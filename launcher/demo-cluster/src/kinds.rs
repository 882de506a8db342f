//! `Kind`: the trait of stored kinds (`Pod`, `Node`, `Event`, `Namespace`): their name in paths, and their fields for
//! selectors.

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

/// A kind of object that the API server stores, lists and watches.
pub(crate) trait Kind:
    k8s_openapi::Resource + k8s_openapi::Metadata<Ty = ObjectMeta> + Serialize + Clone + Send + Sync + 'static
{
    /// The name of the resource in a path, such as `pods`.
    const PLURAL: &'static str;
    /// The fields that a `fieldSelector` can use.
    const FIELDS: &'static [&'static str];
    /// The field that has an index, so that a list by this field does not read every object.
    const INDEXED: Option<&'static str> = None;

    /// Returns the value of one of [`Kind::FIELDS`]; empty if the object does not have the field.
    fn field(&self, field: &str) -> &str;
}

fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

fn flag(value: Option<bool>) -> &'static str {
    if value.unwrap_or(false) { "true" } else { "false" }
}

fn metadata_field<'a>(metadata: &'a ObjectMeta, field: &str) -> &'a str {
    match field {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        _ => "",
    }
}

impl Kind for Pod {
    const PLURAL: &'static str = "pods";
    const FIELDS: &'static [&'static str] = &[
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ];
    const INDEXED: Option<&'static str> = Some("spec.nodeName");

    fn field(&self, field: &str) -> &str {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        match field {
            "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
            "spec.restartPolicy" => text(spec.and_then(|spec| spec.restart_policy.as_ref())),
            "spec.schedulerName" => text(spec.and_then(|spec| spec.scheduler_name.as_ref())),
            "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
            "spec.hostNetwork" => flag(spec.and_then(|spec| spec.host_network)),
            "status.phase" => text(status.and_then(|status| status.phase.as_ref())),
            "status.podIP" => text(status.and_then(|status| status.pod_ip.as_ref())),
            "status.nominatedNodeName" => text(status.and_then(|status| status.nominated_node_name.as_ref())),
            other => metadata_field(&self.metadata, other),
        }
    }
}

impl Kind for Node {
    const PLURAL: &'static str = "nodes";
    const FIELDS: &'static [&'static str] = &["metadata.name", "spec.unschedulable"];

    fn field(&self, field: &str) -> &str {
        match field {
            "spec.unschedulable" => flag(self.spec.as_ref().and_then(|spec| spec.unschedulable)),
            other => metadata_field(&self.metadata, other),
        }
    }
}

impl Kind for Event {
    const PLURAL: &'static str = "events";
    const FIELDS: &'static [&'static str] = &[
        "metadata.name",
        "metadata.namespace",
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];
    const INDEXED: Option<&'static str> = Some("involvedObject.name");

    fn field(&self, field: &str) -> &str {
        let object = &self.involved_object;
        match field {
            "involvedObject.kind" => text(object.kind.as_ref()),
            "involvedObject.namespace" => text(object.namespace.as_ref()),
            "involvedObject.name" => text(object.name.as_ref()),
            "involvedObject.uid" => text(object.uid.as_ref()),
            "involvedObject.apiVersion" => text(object.api_version.as_ref()),
            "involvedObject.resourceVersion" => text(object.resource_version.as_ref()),
            "involvedObject.fieldPath" => text(object.field_path.as_ref()),
            "reason" => text(self.reason.as_ref()),
            "reportingComponent" => text(self.reporting_component.as_ref()),
            "source" => text(self.source.as_ref().and_then(|source| source.component.as_ref())),
            "type" => text(self.type_.as_ref()),
            other => metadata_field(&self.metadata, other),
        }
    }
}

impl Kind for Namespace {
    const PLURAL: &'static str = "namespaces";
    const FIELDS: &'static [&'static str] = &["metadata.name", "status.phase"];

    fn field(&self, field: &str) -> &str {
        match field {
            "status.phase" => text(self.status.as_ref().and_then(|status| status.phase.as_ref())),
            other => metadata_field(&self.metadata, other),
        }
    }
}
