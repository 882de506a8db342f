"""Container runtime and CDI: nodes whose driver works and whose containers do not get their GPUs, and nodes that look like them."""

from distributions import HOST, QUIET, TOOLKIT, at, cdi, cluster, containerd, l40s, nvidia, spec, stack, with_facts
from expected import variant

CONFIG = "/etc/containerd/config.toml"
PLUGIN = "gpu-operator/nvidia-device-plugin-daemonset-x7p2q"
NOT_HARDWARE = ["class:hardware", "gpu-not-in-nvml"]


def none_offered(*pods, **more):
    """Kubernetes has no capacity for GPUs of this node."""
    return cluster(*pods, capacity=None, **more) | {"gpu_allocatable": None}


def unregistered(**facts):
    """A node with two GPUs that work, and no device plugin at the kubelet."""
    node = l40s(work=False)
    node.sections["kubelet"]["data"]["registered"] = []
    return with_facts(node, **({"cdi": cdi(), "nvidia_stack": stack(())} | facts))


def plugin_pod(runtime_class=None, phase="Running", age=3):
    return {"namespace": "kube-system", "name": "nvidia-device-plugin-x7p2q", "uid": "0f8a7c2e-11aa-4bbb-8ccc-123456789abc",
            "component": "device_plugin", "owner": "nvidia-device-plugin", "phase": phase, "created": at(hours=age),
            "runtime_class": runtime_class, "ready": True, "containers": []}


@variant(
    "The operator's pods ask for the handler nvidia; somebody wrote containerd's configuration anew, without it.",
    "critical",
    {"id": "runtime-handler-missing", "evidence": ["has no handler nvidia; it has runc", PLUGIN]},
    must_not=NOT_HARDWARE + ["runtime-config-not-loaded"],
    more=True,
    health="healthy",
    cluster=none_offered(PLUGIN),
)
def runtime_without_the_handler():
    return unregistered(container_runtime=containerd(CONFIG, 2))


@variant(
    "The same, but a file of the configuration could not be read: the handler may be in it.",
    "healthy",
    must_not=QUIET,
    cluster=cluster(PLUGIN),
)
def runtime_of_which_a_part_is_unread():
    node = l40s()
    return with_facts(node, container_runtime=containerd(CONFIG, 2, complete=False), cdi=cdi(), nvidia_stack=stack())


@variant(
    "No pod of this node names the RuntimeClass, and nothing is missing.",
    "healthy",
    must_not=QUIET,
    cluster=cluster(),
)
def runtime_that_nobody_asks_for_nvidia():
    node = l40s()
    return with_facts(node, container_runtime=containerd(CONFIG, 2, mode=None), cdi=cdi(), nvidia_stack=stack())


@variant(
    "The RuntimeClass has another name than the handler, and nobody could read which: no alarm.",
    "healthy",
    must_not=QUIET,
    cluster=cluster(PLUGIN, handler="nvidia-gpu"),
)
def runtime_class_of_another_name():
    node = l40s()
    return with_facts(node, container_runtime=containerd(CONFIG, 2, nvidia()), cdi=cdi(), nvidia_stack=stack())


@variant(
    "The toolkit was removed from the node; the configuration still names its program.",
    "critical",
    {"id": "runtime-binary-missing", "evidence": [TOOLKIT]},
    must_not=NOT_HARDWARE,
    more=True,
    health="healthy",
    cluster=none_offered(PLUGIN),
)
def runtime_program_is_gone():
    return unregistered(container_runtime=containerd(CONFIG, 2, nvidia(TOOLKIT) | {"binary_exists": False}))


@variant(
    "The same, but a file that may name another program could not be read.",
    "warning",
    {"id": "runtime-binary-missing", "severity": "warning", "evidence": ["not all of the configuration was read"]},
    must_not=NOT_HARDWARE + ["severity:critical"],
    cluster=cluster(PLUGIN),
    health="healthy",
)
def runtime_program_of_a_part_of_the_files():
    runtime = containerd(CONFIG, 2, nvidia(TOOLKIT) | {"binary_exists": False}, complete=False)
    return with_facts(l40s(), container_runtime=runtime, cdi=cdi(), nvidia_stack=stack())


@variant(
    "The program of a handler that nobody asks for is not there.",
    "healthy",
    must_not=QUIET,
    cluster=cluster(),
)
def runtime_program_that_nobody_runs():
    runtime = containerd(CONFIG, 2, nvidia(TOOLKIT) | {"binary_exists": False})
    return with_facts(l40s(), container_runtime=runtime, cdi=cdi(), nvidia_stack=stack())


@variant(
    "containerd 2 with a drop-in of an older toolkit: the handler has no runtime_type, and no pod can start with it.",
    "critical",
    {"id": "runtime-handler-incomplete", "evidence": ["no runtime_type", "99-nvidia.toml"]},
    must_not=NOT_HARDWARE,
    more=True,
    health="healthy",
    cluster=none_offered(PLUGIN),
)
def runtime_handler_without_a_type():
    handler = {"name": "nvidia", "binary": TOOLKIT, "binary_exists": True}
    return unregistered(container_runtime=containerd(CONFIG, 3, handler, drop_ins=["/etc/containerd/conf.d/99-nvidia.toml"]))


@variant(
    "The handler is in the file, and containerd has been running since before it was written.",
    "warning",
    {"id": "runtime-config-not-loaded", "evidence": [CONFIG, "containerd has been running since"]},
    must_not=NOT_HARDWARE,
    more=True,
    health="healthy",
    cluster=none_offered(PLUGIN),
)
def runtime_with_its_old_configuration():
    return unregistered(container_runtime=containerd(CONFIG, 2, nvidia(TOOLKIT), config_changed_at=at(hours=5)))


@variant(
    "Somebody touched containerd's file; the node gives out its GPUs.",
    "healthy",
    {"id": "runtime-config-not-loaded", "severity": "info"},
    must_not=QUIET,
    cluster=cluster(PLUGIN),
)
def runtime_whose_file_was_touched():
    runtime = containerd(CONFIG, 2, nvidia(TOOLKIT), config_changed_at=at(hours=5))
    return with_facts(l40s(), container_runtime=runtime, cdi=cdi(), nvidia_stack=stack())


@variant(
    "The device plugin names no RuntimeClass, and the default handler is runc: it finds no GPU and waits.",
    "critical",
    {"id": "runtime-class-missing-on-plugin", "evidence": ["names no RuntimeClass; the default handler is runc"]},
    must_not=NOT_HARDWARE,
    more=True,
    health="healthy",
    cluster=none_offered(nvidia_pods=[plugin_pod()]),
)
def plugin_in_the_wrong_runtime():
    return unregistered(container_runtime=containerd(CONFIG, 2, nvidia()), nvidia_stack=stack((), "plugin"))


@variant(
    "The same plugin, but NVIDIA's runtime is the default one.",
    "healthy",
    must_not=QUIET + ["runtime-class-missing-on-plugin"],
    cluster=cluster(nvidia_pods=[plugin_pod()]),
)
def plugin_in_the_default_runtime():
    runtime = containerd(CONFIG, 2, nvidia(), default="nvidia")
    return with_facts(l40s(), container_runtime=runtime, cdi=cdi(), nvidia_stack=stack())


@variant(
    "The specification was to be written at boot and was not; NVIDIA's runtime asks for it.",
    "critical",
    {"id": "cdi-missing", "evidence": ["/etc/cdi", "mode = \"cdi\""]},
    must_not=NOT_HARDWARE,
    more=True,
    health="healthy",
    cluster=none_offered(),
)
def cdi_never_written():
    return unregistered(container_runtime=containerd(CONFIG, 2, nvidia(), default="nvidia", mode="cdi"))


@variant(
    "No specification, and NVIDIA's runtime does without.",
    "healthy",
    must_not=QUIET,
    cluster=cluster(),
)
def cdi_that_nobody_needs():
    runtime = containerd(CONFIG, 2, nvidia(), default="nvidia", mode="auto")
    return with_facts(l40s(), container_runtime=runtime, cdi=cdi(), nvidia_stack=stack())


UVM = {"path": "/dev/nvidia-uvm", "in_spec": "511:0", "on_node": "507:0"}


@variant(
    "The driver was loaded anew and nvidia-uvm has another number; the specification has the old one.",
    "critical",
    {"id": "cdi-stale", "evidence": ["/dev/nvidia-uvm is 511:0 there, 507:0 on the node"]},
    must_not=NOT_HARDWARE,
    health="healthy",
    cluster=cluster(),
)
def cdi_with_old_numbers():
    node = l40s()
    runtime = containerd(CONFIG, 2, nvidia(), default="nvidia", mode="cdi")
    return with_facts(node, container_runtime=runtime, cdi=cdi(spec(node, stale_devices=[UVM])), nvidia_stack=stack())


@variant(
    "An old specification lies in /etc/cdi, and nobody uses it: NVIDIA's runtime is in its own mode.",
    "healthy",
    {"id": "cdi-stale", "severity": "info"},
    must_not=QUIET,
    cluster=cluster(),
)
def cdi_left_behind():
    node = l40s()
    runtime = containerd(CONFIG, 2, nvidia(), default="nvidia", mode="legacy")
    old = spec(node, "/etc/cdi/nvidia.yaml", stale_devices=[UVM], driver_version="550.90.07")
    return with_facts(node, container_runtime=runtime, cdi=cdi(old), nvidia_stack=stack())


@variant(
    "The old specification in /etc/cdi is replaced by the current one in /var/run/cdi.",
    "healthy",
    must_not=QUIET + ["cdi-stale"],
    cluster=cluster(),
)
def cdi_replaced_by_a_later_one():
    node = l40s()
    runtime = containerd(CONFIG, 2, nvidia(), default="nvidia", mode="cdi")
    specs = cdi(spec(node, "/etc/cdi/nvidia.yaml", driver_version="550.90.07"), spec(node))
    return with_facts(node, container_runtime=runtime, cdi=specs, nvidia_stack=stack())


@variant(
    "The driver was updated, and the specification mounts the libraries of the one before.",
    "critical",
    {"id": "cdi-stale", "evidence": ["libcuda.so.550.90.07", "of driver 550.90.07"]},
    must_not=NOT_HARDWARE,
    health="healthy",
    cluster=cluster(),
)
def cdi_of_the_driver_before():
    node = l40s()
    library = "/usr/lib/x86_64-linux-gnu/libcuda.so.550.90.07"
    runtime = containerd(CONFIG, 2, nvidia(), default="nvidia", mode="cdi")
    old = spec(node, driver_version="550.90.07", missing_libraries=[library])
    return with_facts(node, container_runtime=runtime, cdi=cdi(old), nvidia_stack=stack())


@variant(
    "The operator's specification has the device `all` only, and the device plugin gives out GPUs by UUID.",
    "critical",
    {"id": "cdi-names-differ", "evidence": ["management.nvidia.com-gpu.yaml has all only", "management.nvidia.com/gpu=GPU-"]},
    must_not=NOT_HARDWARE,
    health="healthy",
    cluster=cluster(PLUGIN),
)
def cdi_with_other_names():
    node = l40s()
    runtime = containerd(CONFIG, 2, nvidia(TOOLKIT), mode="cdi")
    runtime["toolkit"] |= {"default_kind": "management.nvidia.com/gpu"}
    management = spec(node, "/var/run/cdi/management.nvidia.com-gpu.yaml", "management.nvidia.com/gpu", ["all"])
    return with_facts(node, container_runtime=runtime, cdi=cdi(management), nvidia_stack=stack())


@variant(
    "The same specification, but it is that of the operator's own containers: others are given their GPUs by UUID.",
    "healthy",
    must_not=QUIET + ["cdi-names-differ"],
    cluster=cluster(PLUGIN),
)
def cdi_of_the_operators_own():
    node = l40s()
    runtime = containerd(CONFIG, 2, nvidia(TOOLKIT), mode="cdi")
    runtime["toolkit"] |= {"default_kind": "nvidia.com/gpu"}
    management = spec(node, "/var/run/cdi/management.nvidia.com-gpu.yaml", "management.nvidia.com/gpu", ["all"])
    return with_facts(node, container_runtime=runtime, cdi=cdi(management, spec(node)), nvidia_stack=stack())


@variant(
    "The device plugin has a specification of its own and asks for its devices: the operator's is not used for them.",
    "healthy",
    must_not=QUIET + ["cdi-names-differ"],
    cluster=cluster(PLUGIN),
)
def cdi_of_the_plugin_itself():
    node = l40s()
    runtime = containerd(CONFIG, 2, nvidia(TOOLKIT), mode="cdi")
    runtime["toolkit"] |= {"default_kind": "management.nvidia.com/gpu"}
    management = spec(node, "/var/run/cdi/management.nvidia.com-gpu.yaml", "management.nvidia.com/gpu", ["all"])
    own = spec(node, "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", "k8s.device-plugin.nvidia.com/gpu",
               [gpu["uuid"] for gpu in node.node.gpus])
    return with_facts(node, container_runtime=runtime, cdi=cdi(management, own), nvidia_stack=stack())


@variant(
    "Two tools wrote a specification of the same devices into one folder.",
    "critical",
    {"id": "cdi-conflict", "evidence": ["/etc/cdi/nvidia.yaml and /etc/cdi/other.yaml both have nvidia.com/gpu=0"]},
    must_not=NOT_HARDWARE,
    health="healthy",
    cluster=cluster(),
)
def cdi_written_twice():
    node = l40s()
    runtime = containerd(CONFIG, 2, nvidia(), default="nvidia", mode="cdi")
    specs = cdi(spec(node, "/etc/cdi/nvidia.yaml"), spec(node, "/etc/cdi/other.yaml"))
    return with_facts(node, container_runtime=runtime, cdi=specs, nvidia_stack=stack())


@variant(
    "The specification that NVIDIA's runtime needs is no YAML.",
    "warning",
    {"id": "cdi-unreadable", "evidence": ["/etc/cdi/nvidia.yaml"]},
    must_not=NOT_HARDWARE + ["cdi-missing"],
    health="healthy",
    cluster=cluster(),
)
def cdi_that_is_broken():
    runtime = containerd(CONFIG, 2, nvidia(), default="nvidia", mode="cdi")
    unread = cdi() | {"unread": ["/etc/cdi/nvidia.yaml"]}
    return with_facts(l40s(), container_runtime=runtime, cdi=unread, nvidia_stack=stack())


@variant(
    "A specification of another vendor's tool could not be read; NVIDIA's own is there.",
    "healthy",
    must_not=QUIET + ["cdi-unreadable"],
    cluster=cluster(),
)
def cdi_beside_a_broken_one():
    node = l40s()
    runtime = containerd(CONFIG, 2, nvidia(), default="nvidia", mode="cdi")
    return with_facts(node, container_runtime=runtime, cdi=cdi(spec(node)) | {"unread": ["/etc/cdi/mine.yaml"]}, nvidia_stack=stack())


@variant(
    "The handler was taken out of the file, and containerd still runs with the file before: pods start until its next restart.",
    "warning",
    {"id": "runtime-handler-missing", "severity": "warning", "evidence": ["written after the runtime started"]},
    must_not=NOT_HARDWARE,
    health="healthy",
    cluster=cluster(PLUGIN),
)
def runtime_that_will_lose_its_handler():
    runtime = containerd(CONFIG, 2, config_changed_at=at(hours=5))
    return with_facts(l40s(), container_runtime=runtime, cdi=cdi(), nvidia_stack=stack())


OF_PLUGIN = {"path": "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", "kind": "k8s.device-plugin.nvidia.com/gpu"}


@variant(
    "The device plugin's own specification is older than the driver that is loaded: its next pods get libraries that are gone.",
    "critical",
    {"id": "cdi-stale", "evidence": ["k8s.device-plugin.nvidia.com-gpu.json", "of driver 550.90.07"]},
    must_not=NOT_HARDWARE,
    health="healthy",
    cluster=cluster(),
)
def cdi_of_a_plugin_that_was_not_restarted():
    node = l40s()
    old = spec(node, **OF_PLUGIN, driver_version="550.90.07")
    return with_facts(node, container_runtime=containerd(CONFIG, 2), cdi=cdi(old), nvidia_stack=stack())


@variant(
    "The same file, left behind by a device plugin that is not there any more.",
    "healthy",
    {"id": "cdi-stale", "severity": "info"},
    must_not=QUIET,
    cluster=cluster(capacity=None, gpu_dra=True) | {"gpu_allocatable": None},
)
def cdi_of_a_plugin_that_is_gone():
    node = l40s(work=False)
    node.sections["kubelet"]["data"]["registered"] = []
    old = spec(node, **OF_PLUGIN, driver_version="550.90.07")
    return with_facts(node, container_runtime=containerd(CONFIG, 2), cdi=cdi(old), nvidia_stack=stack(()))


@variant(
    "GKE's device plugin is not registered; NVIDIA's runtime is nowhere on the node, so it is not what the plugin lacks.",
    "critical",
    must_not=["runtime-class-missing-on-plugin", "class:hardware"],
    more=True,
    health="healthy",
    cluster=none_offered(nvidia_pods=[plugin_pod() | {"name": "nvidia-gpu-device-plugin-small-cos-x7p2q"}]),
)
def plugin_without_any_nvidia_runtime():
    return unregistered(container_runtime=containerd(CONFIG, 2, mode=None), nvidia_stack=stack((), "plugin"))
