//! A pod of a list in the type of k8s-openapi, for functions that also take a pod that was read alone.

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::objects::api_objects::meta::{given, quantities, time};
use crate::objects::api_objects::pod::{Container, Pod, PodMetadata};
use crate::objects::api_objects::pod_status::{ContainerState, ContainerStatus, PodStatus};

impl From<&Pod> for api::Pod {
    /// Without what is not about GPUs: environment, volumes, claims, devices.
    fn from(Pod { metadata, spec, status }: &Pod) -> Self {
        let containers = |all: &[Container]| all.iter().map(api::Container::from).collect::<Vec<_>>();
        Self {
            metadata: ObjectMeta::from(metadata),
            spec: Some(api::PodSpec {
                containers: containers(&spec.containers),
                init_containers: Some(containers(&spec.init_containers)),
                node_name: given(spec.node_name.clone()),
                runtime_class_name: given(spec.runtime_class_name.clone()),
                ..api::PodSpec::default()
            }),
            status: Some(api::PodStatus::from(status)),
        }
    }
}

impl From<&PodMetadata> for ObjectMeta {
    fn from(metadata: &PodMetadata) -> Self {
        let owners = metadata.owner_references.iter().map(|owner| OwnerReference {
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            ..OwnerReference::default()
        });
        Self {
            name: given(metadata.name.clone()),
            namespace: given(metadata.namespace.clone()),
            uid: given(metadata.uid.clone()),
            creation_timestamp: time(metadata.creation_timestamp),
            deletion_timestamp: time(metadata.deletion_timestamp),
            labels: Some(metadata.labels.clone()),
            annotations: Some(metadata.annotations.clone()),
            owner_references: Some(owners.collect()),
            ..Self::default()
        }
    }
}

impl From<&Container> for api::Container {
    fn from(container: &Container) -> Self {
        Self {
            name: container.name.clone(),
            image: given(container.image.clone()),
            restart_policy: given(container.restart_policy.clone()),
            resources: Some(api::ResourceRequirements {
                limits: quantities(container.resources.limits.clone()),
                requests: quantities(container.resources.requests.clone()),
                ..api::ResourceRequirements::default()
            }),
            ..Self::default()
        }
    }
}

impl From<&PodStatus> for api::PodStatus {
    fn from(status: &PodStatus) -> Self {
        let statuses = |all: &[ContainerStatus]| Some(all.iter().map(api::ContainerStatus::from).collect::<Vec<_>>());
        let conditions = status.conditions.iter().map(|condition| api::PodCondition {
            type_: condition.name.clone(),
            status: condition.status.clone(),
            ..api::PodCondition::default()
        });
        Self {
            phase: given(status.phase.clone()),
            reason: given(status.reason.clone()),
            message: given(status.message.clone()),
            conditions: Some(conditions.collect()),
            start_time: time(status.start_time),
            container_statuses: statuses(&status.container_statuses),
            init_container_statuses: statuses(&status.init_container_statuses),
            ..Self::default()
        }
    }
}

impl From<&ContainerStatus> for api::ContainerStatus {
    fn from(status: &ContainerStatus) -> Self {
        Self {
            name: status.name.clone(),
            state: Some(api::ContainerState::from(&status.state)),
            last_state: Some(api::ContainerState::from(&status.last_state)),
            ready: status.ready,
            restart_count: status.restart_count,
            container_id: given(status.container_id.clone()),
            ..Self::default()
        }
    }
}

impl From<&ContainerState> for api::ContainerState {
    fn from(ContainerState { waiting, running, terminated }: &ContainerState) -> Self {
        Self {
            waiting: waiting.as_ref().map(|waiting| api::ContainerStateWaiting {
                reason: given(waiting.reason.clone()),
                message: given(waiting.message.clone()),
            }),
            running: running.map(|running| api::ContainerStateRunning { started_at: time(running.started_at) }),
            terminated: terminated.as_ref().map(|ended| api::ContainerStateTerminated {
                exit_code: ended.exit_code,
                reason: given(ended.reason.clone()),
                message: given(ended.message.clone()),
                started_at: time(ended.started_at),
                finished_at: time(ended.finished_at),
                ..api::ContainerStateTerminated::default()
            }),
        }
    }
}
