//! `Stack`: whether a node advertises its GPUs, and the first component (`Broken`, `BrokenComponent`) of NVIDIA's stack
//! that does not work. `plugin_service`: the device plugin, if it is a service of the node.
//!
//! Sources are pods and labels in the API, and the report of the probe.

pub(crate) mod pods;

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods::FailingPod;
use crate::stack_stage::Stage;
use syringe_core::facts::kubernetes::node::{Component, ContainerStateKind, NvidiaPod};

/// NVIDIA's stack on the node.
#[derive(Default)]
pub(crate) struct Stack<'a> {
    /// True if Kubernetes can allocate GPUs of this node to pods.
    pub(crate) advertises_gpus: bool,
    /// True if a DRA driver on the node may publish GPUs, but its ResourceSlices were not read.
    pub(crate) may_advertise_by_dra: bool,
    /// True if the node has been Ready for long enough that its pods should have started.
    pub(crate) is_settled: bool,
    /// The first component that does not work, in the order in which the components depend on each other.
    pub(crate) broken: Option<Broken<'a>>,
}

/// A component that does not work.
#[derive(Clone, Debug)]
pub(crate) struct Broken<'a> {
    pub(crate) component: BrokenComponent,
    pub(crate) stage: Stage,
    pub(crate) failing_pod: FailingPod<'a>,
    /// Description in one line.
    pub(crate) description: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokenComponent {
    Driver,
    Toolkit,
    Validator,
    Plugin,
    /// The DRA driver of a node whose GPUs are advertised.
    DraDriver,
}

impl<'a> Stack<'a> {
    pub(crate) fn new(node: &Node<'a>) -> Self {
        let cluster = node.kubernetes;
        let plain = cluster.gpu_capacity.is_some_and(|count| count > 0) && cluster.gpu_allocatable != Some(0);
        let mut stack = Self {
            advertises_gpus: plain || cluster.gpu_dra == Some(true) || node.offers_other_resources(),
            may_advertise_by_dra: cluster.gpu_dra.is_none()
                && pods::of(node, Component::DraDriver).any(|pod| pod.ready),
            is_settled: pods::is_settled(node),
            broken: None,
        };
        if stack.is_settled {
            let first = driver(node).or_else(|| toolkit(node)).or_else(|| stack.validator(node));
            stack.broken = first.or_else(|| stack.plugin(node));
        }
        stack
    }

    /// Checks the validator's pod. The validator's checks of CUDA and of the plugin run after the plugin has started.
    fn validator(&self, node: &Node<'a>) -> Option<Broken<'a>> {
        let failing_pod = pods::failing_pod(node, Component::Validator)?;
        let stage = validated(&failing_pod).unwrap_or(Stage::Plugin);
        let cause = if stage == Stage::Plugin { self.plugin(node) } else { None };
        Some(cause.unwrap_or_else(|| broken(stage, BrokenComponent::Validator, failing_pod)))
    }

    fn plugin(&self, node: &Node<'a>) -> Option<Broken<'a>> {
        let of = |component| pods::failing_pod(node, component);
        let dra = || of(Component::DraDriver);
        // The daemon of a ComputeDomain is not the driver. The findings about the domain name its pod.
        let is_driver = |failing_pod: &FailingPod<'_>| failing_pod.container_name() != DOMAIN_DAEMON;
        let beside = dra().filter(is_driver).filter(|_| self.advertises_gpus && of(Component::DevicePlugin).is_none());
        if let Some(failing_pod) = beside {
            return Some(broken(Stage::Plugin, BrokenComponent::DraDriver, failing_pod));
        }
        let failing_pod = of(Component::DevicePlugin).or_else(|| dra().filter(|_| !self.advertises_gpus));
        if let Some(failing_pod) = failing_pod {
            return Some(match validated(&failing_pod) {
                Some(stage) => broken(stage, BrokenComponent::Validator, failing_pod),
                None => broken(Stage::Plugin, BrokenComponent::Plugin, failing_pod),
            });
        }
        if self.advertises_gpus || node.answering().next().is_none() {
            return None;
        }
        // The plugin is running, but has registered no GPU with the kubelet. For a DRA driver, this is known only if
        // its ResourceSlices were read.
        let dra = Some(Component::DraDriver).filter(|_| node.kubernetes.gpu_dra == Some(false));
        let idle = [Some(Component::DevicePlugin), dra].into_iter().flatten();
        let idle = idle.flat_map(|component| pods::of(node, component));
        let pod = idle.into_iter().find(|pod| pod.ready && has_run(node, pod))?;
        let failing_pod = FailingPod { pod, container: pod.containers.iter().find(|container| !container.init) };
        let registered =
            node.kubelet().map_or(0, |kubelet| kubelet.registered.iter().map(|one| one.devices.len()).sum());
        let state = if registered > 0 {
            format!("has registered {registered} devices with the kubelet, and marks all of them as unhealthy")
        } else {
            "has registered no GPU with the kubelet".to_owned()
        };
        let description = format!("pod {} is running, but {state}", pods::name(pod));
        Some(Broken { component: BrokenComponent::Plugin, stage: Stage::Plugin, failing_pod, description })
    }

    /// Returns the container whose log may explain why no GPU is advertised. It belongs to the first failing pod, to a
    /// device plugin that registered no GPU, to a manager that did not finish, or to another failing pod of NVIDIA's
    /// software.
    pub(crate) fn log_to_read(&self, node: &Node<'a>) -> Option<(&'a NvidiaPod, &'a str)> {
        if let Some(broken) = &self.broken {
            return Some((broken.failing_pod.pod, broken.failing_pod.container?.name.as_str()));
        }
        let unfinished = node.kubernetes.labels.mig_config_state.as_deref().is_some_and(|state| state != "success");
        let component = match () {
            () if unfinished => Some(Component::MigManager),
            () if !self.advertises_gpus => Some(Component::DevicePlugin),
            () => None,
        };
        let all = || node.kubernetes.nvidia_pods.as_deref().unwrap_or_default().iter();
        let of_vgpu = node.kubernetes.states.iter().any(|state| state.starts_with(VGPU_STATE));
        let manager = || all().find(|pod| of_vgpu && pod.name.contains("vgpu-device-manager"));
        let pod = component.and_then(|component| pods::of(node, component).next()).or_else(manager);
        let main =
            |pod: &'a NvidiaPod| Some((pod, pod.containers.iter().find(|container| !container.init)?.name.as_str()));
        let failing = || {
            let failing = all().find_map(|pod| pods::failing(node, pod))?;
            Some((failing.pod, failing.container?.name.as_str()))
        };
        pod.and_then(main).or_else(failing)
    }
}

/// Container of the pods that the DRA driver starts for a ComputeDomain.
const DOMAIN_DAEMON: &str = "compute-domain-daemon";

/// Label in which the vGPU Device Manager reports its state.
const VGPU_STATE: &str = "nvidia.com/vgpu.config.state=";

fn broken(stage: Stage, component: BrokenComponent, failing_pod: FailingPod<'_>) -> Broken<'_> {
    Broken { component, stage, failing_pod, description: failing_pod.description() }
}

fn driver<'a>(node: &Node<'a>) -> Option<Broken<'a>> {
    // Where GPUs respond, the manager of vGPU or vfio does not provide the driver that they use.
    let manager = || pods::failing_pod(node, Component::VgpuManager).filter(|_| node.answering().next().is_none());
    let failing_pod = pods::failing_pod(node, Component::Driver).or_else(manager)?;
    Some(broken(Stage::Driver, BrokenComponent::Driver, failing_pod))
}

fn toolkit<'a>(node: &Node<'a>) -> Option<Broken<'a>> {
    let failing_pod = pods::failing_pod(node, Component::ContainerToolkit)?;
    Some(match validated(&failing_pod) {
        Some(stage) => broken(stage, BrokenComponent::Validator, failing_pod),
        None => broken(Stage::Runtime, BrokenComponent::Toolkit, failing_pod),
    })
}

/// Returns the stage that a validation container of the GPU Operator checks.
fn validated(failing_pod: &FailingPod<'_>) -> Option<Stage> {
    match failing_pod.container_name() {
        "driver-validation" => Some(Stage::Driver),
        "toolkit-validation" => Some(Stage::Runtime),
        "cuda-validation" | "plugin-validation" => Some(Stage::Plugin),
        _ => None,
    }
}

/// Returns whether the containers of a pod have been running long enough to register.
fn has_run(node: &Node<'_>, pod: &NvidiaPod) -> bool {
    let mut own = pod.containers.iter().filter(|container| !container.init);
    own.all(|container| {
        container.state.kind == ContainerStateKind::Running && pods::is_older(node, container.state.since)
    })
}

/// Returns the device plugin if it runs as a service of the node.
pub(crate) fn plugin_service(node: &Node<'_>) -> Option<String> {
    let stack = node.host()?.nvidia_stack.as_ref()?;
    let plugins = ["nvidia-device-p", "nvidia-gpu-devi", "gpu-kubelet-plu"];
    let own =
        stack.processes.iter().find(|process| process.pod_uid.is_none() && plugins.contains(&process.name.as_str()));
    own.map(|process| evidence::data(&process.name))
}
