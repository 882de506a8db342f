"""Ten healthy nodes of different distributions, as the node itself shows them: nothing of how they are set up is a fault."""

from datetime import timedelta

from expected import ALARMS, Variant, t4, variant
from generate import serving, without_nvml
from node import TAKEN_AT, Node, problem, stamp, uuid
from products import L40S

QUIET = ALARMS + ["severity:warning"]

TOOLKIT = "/usr/local/nvidia/toolkit/nvidia-container-runtime"
HOST = "/usr/bin/nvidia-container-runtime"
RUNC = {"name": "runc", "runtime_type": "io.containerd.runc.v2"}


def at(**before):
    return stamp(TAKEN_AT - timedelta(**before))


def nvidia(binary=HOST, name="nvidia", kind="io.containerd.runc.v2"):
    return {"name": name, "runtime_type": kind, "binary": binary, "binary_exists": True}


def containerd(path, version, *handlers, default="runc", drop_ins=(), mode="auto", **more):
    runtime = {"name": "containerd", "config_path": path, "config_version": version, "complete": True,
               "default_handler": default, "handlers": sorted([*handlers, RUNC], key=lambda handler: handler["name"]),
               "started_at": at(days=9), "config_changed_at": at(days=9, minutes=4), "config_changed_path": path}
    if drop_ins:
        runtime |= {"drop_ins": list(drop_ins), "config_changed_path": drop_ins[-1]}
    if mode:
        runtime["toolkit"] = {"path": "/etc/nvidia-container-runtime/config.toml", "mode": mode}
    return runtime | more


def cdi(*specs):
    return {"folders": ["/etc/cdi", "/var/run/cdi"]} | ({"specs": list(specs)} if specs else {})


def spec(node, path="/var/run/cdi/nvidia.yaml", kind="nvidia.com/gpu", devices=None, **more):
    names = [str(index) for index in range(node.node.count)] + [gpu["uuid"] for gpu in node.node.gpus] + ["all"]
    return {"path": path, "kind": kind, "devices": devices or names, "changed_at": at(days=11),
            "driver_version": node.node.driver} | more


def stack(sockets=("nvidia-gpu.sock",), pod="nvidia-device-plugin", name="nvidia-device-p", **more):
    """What NVIDIA's software left on the node. `pod` is None for a plugin that is a service of the node."""
    process = {"name": name, "pid": 6120, "started_at": at(days=9)} | ({"pod_uid": uuid("stack", pod)} if pod else {})
    return {
        "kubelet_started_at": at(days=9),
        "plugin_sockets": [{"name": socket, "at": at(days=9)} for socket in sockets],
        "registry_sockets": [],
        "processes": [process],
        "inotify": {"max_user_instances": 8192, "max_user_watches": 524288},
    } | more


VALIDATED = {"validations": [{"name": name, "at": at(days=9)} for name in
             ("cuda-ready", "driver-ready", "plugin-ready", "toolkit-ready")]}


def l40s(name="gpu-l40s-9", count=2, **more):
    return Variant(name, L40S, count, lambda index: serving(index) | {"mhz": 2490, "watts": 251 + index}, **more)


def with_facts(node, **facts):
    node.host().update(facts)
    return node.report()


def cluster(*pods, capacity=2, name="gpu-l40s-9", handler="nvidia", **more):
    classes = [{"name": handler, "handler": None, "pods": list(pods)}] if pods else []
    return {"node": name, "gpu_capacity": capacity, "gpu_allocatable": capacity, "gpu_plugin_in_cluster": True,
            "runtime_classes": classes} | more


@variant("k3s: its own containerd found NVIDIA's runtime on the host; pods name the RuntimeClass.", "healthy", must_not=QUIET,
         cluster=cluster("kube-system/nvidia-device-plugin-x7p2q"))
def node_of_k3s():
    node = l40s(system="Ubuntu 24.04.3 LTS")
    runtime = containerd("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", 3, nvidia(),
                         nvidia("/usr/bin/nvidia-container-runtime.cdi", "nvidia-cdi"), mode="auto")
    return with_facts(node, container_runtime=runtime, cdi=cdi(), nvidia_stack=stack())


@variant("RKE2 with the GPU Operator: the toolkit's handler lies in its drop-in.", "healthy", must_not=QUIET,
         cluster=cluster("gpu-operator/nvidia-device-plugin-daemonset-x7p2q"))
def node_of_rke2():
    node = l40s(system="SUSE Linux Enterprise Server 15 SP6")
    runtime = containerd("/var/lib/rancher/rke2/agent/etc/containerd/config.toml", 3, nvidia(TOOLKIT),
                         drop_ins=["/etc/containerd/conf.d/99-nvidia.toml"], mode="cdi")
    runtime["toolkit"] |= {"default_kind": "management.nvidia.com/gpu"}
    management = spec(node, "/var/run/cdi/management.nvidia.com-gpu.yaml", "management.nvidia.com/gpu")
    return with_facts(node, container_runtime=runtime, cdi=cdi(management), nvidia_stack=stack() | VALIDATED)


@variant("Talos: containerd's configuration and the driver lie in places of their own; no handler is the default.", "healthy",
         must_not=QUIET, cluster=cluster("kube-system/nvidia-device-plugin-x7p2q"))
def node_of_talos():
    node = l40s(system="Talos (v1.11.3)", kernel="6.12.48-talos")
    node.host()["driver"] |= {"library_path": "/usr/local/glibc/usr/lib/libnvidia-ml.so." + node.node.driver}
    runtime = containerd("/etc/cri/containerd.toml", 3, nvidia("/usr/local/bin/nvidia-container-runtime"),
                         drop_ins=["/etc/cri/conf.d/10-nvidia-container-runtime.part"], mode="auto")
    return with_facts(node, container_runtime=runtime, cdi=cdi(), nvidia_stack=stack())


@variant("GKE: no NVIDIA runtime at all; Google's plugin mounts the driver from the host.", "healthy", must_not=QUIET,
         cluster=cluster(capacity=1, name="gpu-t4-9"))
def node_of_gke():
    node = t4()
    runtime = containerd("/etc/containerd/config.toml", 2, {"name": "gvisor", "runtime_type": "io.containerd.runsc.v1"},
                         mode=None)
    facts = stack(("nvidiaGPU-1763000000.sock",), "nvidia-gpu-device-plugin", "nvidia-gpu-devi")
    return with_facts(node, operating_system="Container-Optimized OS from Google", container_toolkit=None, cdi_spec=None,
                      container_runtime=runtime, cdi=cdi(), nvidia_stack=facts)


@variant("EKS, Amazon Linux 2023: NVIDIA's runtime is the default one.", "healthy", must_not=QUIET,
         cluster=cluster(capacity=1, name="gpu-t4-9"))
def node_of_eks():
    node = t4()
    runtime = containerd("/etc/containerd/config.toml", 3, nvidia(), default="nvidia", mode="cdi", cdi_enabled=True)
    return with_facts(node, operating_system="Amazon Linux 2023.9", container_runtime=runtime, cdi=cdi(spec(node)),
                      nvidia_stack=stack())


@variant("Bottlerocket: the device plugin is a service of the node, in no pod.", "healthy", must_not=QUIET,
         cluster=cluster(capacity=1, name="gpu-t4-9"))
def node_of_bottlerocket():
    node = t4()
    runtime = containerd("/etc/containerd/config.toml", 3, nvidia("/x86_64-bottlerocket-linux-gnu/sys-root/usr/bin/nvidia-oci"),
                         default="nvidia", mode=None)
    return with_facts(node, operating_system="Bottlerocket OS 1.50.0 (aws-k8s-1.34-nvidia)", container_runtime=runtime,
                      cdi=cdi(), nvidia_stack=stack(pod=None))


PLUGIN_POD = {"namespace": "kube-system", "name": "nvidia-device-plugin-8xk2p", "component": "device_plugin", "phase": "Running",
              "owner": "nvidia-device-plugin", "ready": True,
              "containers": [{"name": "nvidia-device-plugin", "ready": True, "state": {"kind": "running", "since": at(days=9)}}]}


@variant("Bottlerocket whose built-in device plugin does not run: that of a DaemonSet is the only one.", "healthy",
         must_not=QUIET + ["two-device-plugins"],
         cluster=cluster(capacity=1, name="gpu-t4-9", nvidia_pods=[PLUGIN_POD],
                         os_image="Bottlerocket OS 1.50.0 (aws-k8s-1.34-nvidia)"))
def node_of_bottlerocket_with_one_plugin():
    return with_facts(t4(), operating_system="Bottlerocket OS 1.50.0 (aws-k8s-1.34-nvidia)", cdi=cdi(), nvidia_stack=stack())


@variant("AKS: NVIDIA's runtime is the default one, by its full name.", "healthy", must_not=QUIET,
         cluster=cluster(capacity=1, name="gpu-t4-9"))
def node_of_aks():
    node = t4()
    runtime = containerd("/etc/containerd/config.toml", 2, nvidia(name="nvidia-container-runtime"),
                         {"name": "untrusted", "runtime_type": "io.containerd.runc.v2", "binary": HOST, "binary_exists": True},
                         default="nvidia-container-runtime", mode="auto")
    return with_facts(node, operating_system="Ubuntu 22.04.5 LTS", container_runtime=runtime, cdi=cdi(spec(node)),
                      nvidia_stack=stack())


@variant("OpenShift: CRI-O with the handler of the operator's toolkit, its configuration newer than the process.", "healthy",
         must_not=QUIET, cluster=cluster("nvidia-gpu-operator/nvidia-device-plugin-daemonset-x7p2q"))
def node_of_openshift():
    node = l40s(system="Red Hat Enterprise Linux CoreOS 9.6.20251103-0")
    runtime = {
        "name": "cri-o", "complete": True, "default_handler": "crun",
        "drop_ins": ["/etc/crio/crio.conf.d/00-default", "/etc/crio/crio.conf.d/99-nvidia.conf"],
        "handlers": [{"name": "crun", "runtime_type": "oci"}, nvidia(TOOLKIT, kind="oci"), {"name": "runc", "runtime_type": "oci"}],
        "started_at": at(days=9), "config_changed_at": at(days=2), "config_changed_path": "/etc/crio/crio.conf.d/99-nvidia.conf",
        "toolkit": {"path": "/usr/local/nvidia/toolkit/.config/nvidia-container-runtime/config.toml", "mode": "auto"},
    }
    return with_facts(node, container_runtime=runtime, cdi=cdi(), nvidia_stack=stack() | VALIDATED)


@variant("GPUs by dynamic resource allocation alone: no device plugin, no capacity, a specification for each claim.", "healthy",
         must_not=QUIET, cluster=cluster(capacity=None, gpu_dra=True) | {"gpu_allocatable": None})
def node_with_dra_alone():
    node = l40s(system="Ubuntu 24.04.3 LTS", work=False)
    node.sections["kubelet"] = node.node.kubelet([], [{"resource": "nvidia.com/none", "devices": []}])
    node.sections["kubelet"]["data"]["registered"] = []
    runtime = containerd("/etc/containerd/config.toml", 3, mode=None, cdi_enabled=True)
    facts = stack((), "dra", "gpu-kubelet-plu", registry_sockets=[{"name": "gpu.nvidia.com-reg.sock", "at": at(days=9)}])
    return with_facts(node, container_runtime=runtime, cdi=cdi() | {"claim_specs": 3}, nvidia_stack=facts)


DRA_DRIVER = {"namespace": "dra", "name": "gpu-kubelet-plugin-4x2k9", "component": "dra_driver", "phase": "Running", "ready": True,
              "containers": [{"name": "gpus", "ready": True, "state": {"kind": "running", "since": at(days=9)}}]}


@variant("The same, and nobody could read the ResourceSlices: whether the GPUs are offered is not known.", "healthy",
         {"id": "gpus-not-advertised", "severity": "info", "evidence": ["whether a DRA driver manages its GPUs is not known"]},
         must_not=["severity:warning", "severity:critical", "stack-broken-at-plugin", "class:hardware"],
         cluster=cluster(capacity=None, gpu_plugin_in_cluster=True, nvidia_pods=[DRA_DRIVER]) | {"gpu_allocatable": None})
def node_with_dra_of_unread_slices():
    return node_with_dra_alone()


@variant("No plugin anywhere: the GPUs are used outside of Kubernetes, and root holds as many inotify instances as one user may.",
         "healthy", {"id": "gpus-not-advertised", "severity": "info"},
         must_not=["severity:warning", "inotify-limit-reached", "class:hardware"],
         cluster=cluster(capacity=None, gpu_plugin_in_cluster=False) | {"gpu_allocatable": None})
def node_without_a_plugin():
    facts = stack((), "containerd", inotify={"max_user_instances": 128, "instances_of_root": 130})
    return with_facts(l40s(system="Ubuntu 24.04.3 LTS", work=False), nvidia_stack=facts)


FAILING = {"namespace": "kube-system", "name": "nvidia-device-plugin-8xk2p", "uid": uuid("stack", "nvidia-device-plugin"),
           "component": "device_plugin", "owner": "nvidia-device-plugin", "phase": "Running", "created": at(days=2),
           "containers": [{"name": "nvidia-device-plugin", "restarts": 9,
                           "state": {"kind": "waiting", "reason": "CrashLoopBackOff"}}]}


@variant("The log of the failing device plugin names another reason than the inotify instances, of which many are in use.", "critical",
         {"id": "stack-broken-at-plugin", "evidence": ["could not load NVML library"]},
         must_not=["inotify-limit-reached", "class:hardware"], health="healthy",
         cluster=cluster(capacity=None, nvidia_pods=[FAILING]) | {"gpu_allocatable": None})
def plugin_that_fails_beside_many_watchers():
    facts = stack((), "containerd", inotify={"max_user_instances": 128, "instances_of_root": 130})
    log = {"pod_uid": FAILING["uid"], "container": "nvidia-device-plugin", "file": "9.log",
           "lines": ["Failed to initialize NVML: could not load NVML library."]}
    return with_facts(l40s(system="Ubuntu 24.04.3 LTS", work=False), nvidia_stack=facts, stack_log=log)


@variant("GPUs for virtual machines: no driver, no module, no handler, and nothing that refuses one.", "unknown",
         must_not=["driver-not-loaded", "driver-not-built-for-kernel", "severity:warning", "class:hardware"], health="unknown",
         more=True, cluster={"node": "kubevirt-3", "other_gpu_resources": True})
def node_for_virtual_machines():
    node = Node("kubevirt-3", L40S, 4, "580.95.05", "13.0", 811_377, system="Ubuntu 24.04.3 LTS", cpus=("0-31", "32-63"))
    node.driver_loaded = False
    why = problem("NVML", "NVML: Driver Not Loaded", "driver_not_loaded", "Load the nvidia kernel module.")
    pci = [gpu | {"driver": "vfio-pci", "in_nvml": None} for gpu in node.host()["data"]["pci_gpus"]]
    load = {"secure_boot": True, "lockdown": "integrity", "modules_listed": True, "kernels_with_module": ["6.8.0-86-generic"],
            "kernels_without_module": [node.kernel]}
    return without_nvml(
        node, why, [], node.kubelet([], [{"resource": "nvidia.com/AD102GL_L40S", "devices": []}]),
        driver={"loaded": None, "flavor": None, "module_on_disk": None, "module_listed": False, "library": None,
                "library_path": None},
        modules=["vfio_pci"], pci_gpus=pci, device_nodes=[], driver_load=load, cdi=cdi(),
        container_runtime=containerd("/etc/containerd/config.toml", 3, mode=None),
        nvidia_stack=stack(("kubevirt-AD102GL_L40S.sock",), "sandbox"))


@variant("Booted three minutes ago: the toolkit has not written its handler yet, and the plugin is not registered.", "healthy",
         must_not=QUIET, cluster=cluster("gpu-operator/nvidia-device-plugin-daemonset-x7p2q", ready=True,
                                         ready_since=at(seconds=100), read_at=at(seconds=0)))
def node_just_booted():
    node = l40s(system="Ubuntu 24.04.3 LTS", uptime=200)
    runtime = containerd("/etc/containerd/config.toml", 3, started_at=at(seconds=170), config_changed_at=at(seconds=20))
    return with_facts(node, container_runtime=runtime, cdi=cdi(), nvidia_stack=stack(()))
