"""Nodes whose nvidia module is not loaded, with the reason; and nodes that look like them."""

from datetime import timedelta

from expected import variant
from generate import without_nvml
from node import TAKEN_AT, Node, problem, stamp
from products import L40S

RELEASE = "6.8.0-88-generic"


def without_module(load, listed=True, system="Ubuntu 24.04.3 LTS", kernel=RELEASE, line=None, after_boot=14.5):
    """A node with four GPUs, a library, and no loaded module. `load` are the facts of `driver_load`."""
    node = Node("gpu-l40s-9", L40S, 4, "580.95.05", "13.0", 5_377, system=system, kernel=kernel,
                cpus=("0-31,64-95", "32-63,96-127"))
    node.driver_loaded = False
    if line:
        node.at(node.boot + timedelta(seconds=after_boot), line, 5)
    why = problem("NVML", "NVML: Driver Not Loaded", "driver_not_loaded", "Load the nvidia kernel module.")
    pci = [gpu | {"driver": None, "in_nvml": None} for gpu in node.host()["data"]["pci_gpus"]]
    return without_nvml(
        node, why, [], node.kubelet([], [{"resource": "nvidia.com/gpu", "devices": []}]),
        driver={"loaded": None, "flavor": None, "module_on_disk": node.driver if listed else None, "module_listed": listed,
                "library": node.driver, "library_path": node.library_path()},
        modules=[], pci_gpus=pci, device_nodes=[], driver_load=load,
        daemons={"persistenced": False, "fabric_manager": False, "imex": False, "dcgm": False, "mps": False})


HERE = {"modules_listed": True, "kernels_with_module": [RELEASE]}
STRICT = HERE | {"secure_boot": True, "lockdown": "integrity", "signature_enforced": False}
ONLY = ["driver-not-loaded", "class:hardware"]


@variant(
    "Secure Boot is on, and the module has no signature that the kernel trusts.",
    "fatal",
    {"id": "driver-refused-by-secure-boot", "evidence": ["unavailable key", "Secure Boot on", "lockdown integrity"]},
    must_not=ONLY,
)
def secure_boot_refuses_the_module():
    report = without_module(STRICT, line="Loading of module with unavailable key is rejected")
    # The log of the driver container, as the probe reads it where it was told which.
    report["sections"]["host"]["data"]["stack_log"] = {
        "pod_uid": "0f8a7c2e-11aa-4bbb-8ccc-123456789abc", "container": "nvidia-driver-ctr", "file": "4.log",
        "changed_at": stamp(TAKEN_AT - timedelta(minutes=4)),
        "lines": ["Loading NVIDIA driver kernel modules...",
                  "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"],
    }
    return report


@variant(
    "The kernel is locked down without Secure Boot's variable, and says so when the module is loaded.",
    "fatal",
    {"id": "driver-refused-by-secure-boot", "evidence": ["lockdown"]},
    must_not=ONLY,
)
def lockdown_refuses_the_module():
    line = "Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7"
    return without_module(HERE | {"lockdown": "integrity"}, line=line)


@variant(
    "Secure Boot is on, and nothing says that it refused the module: the driver is not loaded for a reason that is not known.",
    "fatal",
    {"id": "driver-not-loaded", "evidence": ["Secure Boot on"]},
    must_not=["driver-refused-by-secure-boot", "class:hardware"],
)
def secure_boot_and_no_refusal():
    return without_module(STRICT)


AVC = (
    'avc:  denied  { module_load } for  pid=7101 comm="modprobe" path="/usr/lib/modules/6.8.0-88-generic/kernel/drivers/video/'
    'nvidia.ko" dev="overlay" ino=9 scontext=system_u:system_r:container_t:s0:c1,c2 tclass=system permissive=0'
)


@variant(
    "SELinux keeps the driver container from loading the module; the audit daemon has the record.",
    "fatal",
    {"id": "driver-refused-by-selinux", "evidence": ["module_load", "SELinux is enforcing"]},
    must_not=ONLY,
)
def selinux_refuses_the_module():
    denial = {"at": stamp(TAKEN_AT - timedelta(minutes=80)), "record": AVC}
    return without_module(HERE | {"selinux": "enforcing", "selinux_denial": denial}, system="Red Hat Enterprise Linux 9.6 (Plow)")


@variant(
    "SELinux is permissive and only notes what it would deny; the driver is not loaded for another reason.",
    "fatal",
    "driver-not-loaded",
    must_not=["driver-refused-by-selinux", "class:hardware"],
)
def selinux_is_permissive():
    line = f"audit: type=1400 audit(1763688000.123:45): {AVC.replace('permissive=0', 'permissive=1')}"
    return without_module(HERE | {"selinux": "permissive"}, system="Red Hat Enterprise Linux 9.6 (Plow)", line=line)


@variant(
    "The kernel was updated, and the module exists for the one before only.",
    "fatal",
    {"id": "driver-not-built-for-kernel", "evidence": ["no nvidia.ko for the running kernel 6.8.0-88-generic", "6.8.0-86"]},
    must_not=ONLY,
)
def module_of_the_kernel_before():
    load = {"modules_listed": True, "kernels_with_module": ["6.8.0-86-generic"], "kernels_without_module": [RELEASE]}
    return without_module(load, listed=False)


@variant(
    "No kernel of the node has a module: the driver is brought by a container, or was never installed.",
    "fatal",
    "driver-not-loaded",
    must_not=["driver-not-built-for-kernel", "class:hardware"],
)
def module_of_no_kernel():
    load = {"modules_listed": True, "kernels_without_module": ["6.8.0-86-generic", RELEASE]}
    return without_module(load, listed=False)


@variant(
    "The module was built for another kernel than the one that runs.",
    "fatal",
    {"id": "driver-not-built-for-kernel", "evidence": ["version_magic", "6.8.0-86"]},
    must_not=ONLY,
)
def module_of_another_kernel():
    magic = "SMP preempt mod_unload modversions "
    line = f"nvidia: version magic '6.8.0-86-generic {magic}' should be '6.8.0-88-generic {magic}'"
    return without_module(HERE, line=line)
