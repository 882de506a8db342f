//! The table of phrases. The first matching entry is used, so causes are listed before symptoms.
//!
//! Sources: the programs themselves (NVIDIA/gpu-driver-container, k8s-driver-manager, nvidia-container-toolkit,
//! k8s-device-plugin, gpu-operator's validator, mig-parted, kubernetes-sigs/dra-driver-nvidia-gpu) and the reports about them.

use crate::rules::kubernetes::stack_log::phrase::Phrase;
use syringe_core::classification::ActionCode;
use syringe_core::classification::ActionCode::{
    ContactVendor, DrainAndReboot, DrainAndReset, RestartPod, UpdateSoftware,
};
use syringe_core::classification::Class;
use syringe_core::classification::Class::{Driver, Fabric, Hardware};

const fn phrase(
    id: &'static str,
    any: &'static [&'static [&'static str]],
    cause: &'static str,
    (class, action): (Class, ActionCode),
    advice: &'static str,
) -> Phrase {
    Phrase { id, any, cause, class, action, advice }
}

const SOFTWARE: (Class, ActionCode) = (Driver, UpdateSoftware);

const KERNEL_PACKAGES: &str = "the package repository has no headers for the running kernel";
const KERNEL_PACKAGES_ADVICE: &str = "Boot a kernel on {node} whose headers the repository has, add the repository that has \
    them to the driver container, or use a precompiled driver image for this kernel.";
const REPOSITORY: &str = "the driver container cannot reach the package repository";
const REPOSITORY_ADVICE: &str = "Give the pods of {node} name resolution and a route (or a proxy) to the package repository, \
    or use a precompiled driver image.";
const SIGNATURE: &str = "the kernel rejects the module because its signature is not trusted (Secure Boot)";
const SIGNATURE_ADVICE: &str = "Use a driver image with signed modules whose key is enrolled on {node}, or turn Secure Boot \
    off in the firmware.";
const IN_USE: &str = "the old driver is still in use, so its modules cannot be unloaded";
const IN_USE_ADVICE: &str = "End the processes that use the GPUs of {node} (drain it; stop nvidia-persistenced and DCGM of the host), then \
    delete the driver pod; reboot the node if the modules stay in use.";
const NO_LIBRARIES: &str = "the container has no driver libraries: it was not started with NVIDIA's runtime or CDI";
const NO_LIBRARIES_ADVICE: &str = "Set runtimeClassName: nvidia on the DaemonSet, or make nvidia the default runtime of \
    {node}, then delete the pod (a restart of the container keeps the old runtime).";
const KUBELET: &str = "the kubelet does not respond on its device plugin socket";
const KUBELET_ADVICE: &str = "Check that the kubelet of {node} serves /var/lib/kubelet/device-plugins/kubelet.sock and that \
    the DaemonSet mounts that folder (k0s, MicroK8s and others use another one); restart the kubelet.";
const MIG_MIXED: &str = "mig.strategy=single needs one MIG layout on all GPUs, and they differ";
const MIG_MIXED_ADVICE: &str =
    "Set one layout on all GPUs of {node} (label nvidia.com/mig.config), or use mig.strategy=mixed.";
const RUNTIME_SOCKET: &str = "the toolkit cannot reach the container runtime to restart it";
const RUNTIME_SOCKET_ADVICE: &str = "Set the socket and the configuration file of the runtime of {node} in the operator's \
    values (toolkit.env CONTAINERD_SOCKET, CONTAINERD_CONFIG; k3s, RKE2, k0s and MicroK8s have their own).";
const READ_ONLY: &str = "the toolkit writes to a folder that is read-only on this operating system";
const READ_ONLY_ADVICE: &str = "Set a writable folder (toolkit.installDir), or turn the operator's toolkit off on {node} where \
    the operating system brings its own (Talos, Bottlerocket, COS).";
const MIG_IN_USE: &str = "a GPU is in use, so its MIG mode or layout cannot be changed";
const MIG_IN_USE_ADVICE: &str = "Drain the GPU pods from {node} and stop GPU programs of the host, then set the label \
    nvidia.com/mig.config again.";
const NO_SPACE: &str = "the disk is full";
const NO_SPACE_ADVICE: &str = "Free disk space on {node} (images, logs), then delete the pod.";
const INOTIFY: &str = "the limit of inotify instances is used up";
const INOTIFY_ADVICE: &str = "Raise it on {node}: sysctl -w fs.inotify.max_user_instances=8192 (and in /etc/sysctl.d), then \
    delete the pod.";
const NO_DRIVER: &str = "the driver is not loaded, or does not respond";
const NO_DRIVER_ADVICE: &str =
    "Check the driver first: the driver pod of {node}, or the driver that is installed on it.";

pub(crate) const PHRASES: &[Phrase] = &[
    // The driver container and k8s-driver-manager.
    phrase(
        "package-repository-unreachable",
        &[&["temporary failure resolving"], &["could not resolve host"], &["failed to download metadata for repo"]],
        REPOSITORY,
        SOFTWARE,
        REPOSITORY_ADVICE,
    ),
    phrase(
        "kernel-packages-missing",
        &[
            &["could not resolve linux kernel version"],
            &["unable to find a match", "kernel-"],
            &["unable to locate package linux-"],
            &["unable to find the kernel source tree"],
        ],
        KERNEL_PACKAGES,
        SOFTWARE,
        KERNEL_PACKAGES_ADVICE,
    ),
    phrase(
        "module-signature-rejected",
        &[
            &["key was rejected by service"],
            &["required key not available"],
            &["loading of unsigned module is rejected"],
        ],
        SIGNATURE,
        SOFTWARE,
        SIGNATURE_ADVICE,
    ),
    phrase(
        "module-load-denied",
        &[&["could not insert 'nvidia", "permission denied"], &["could not insert 'nvidia", "operation not permitted"]],
        "SELinux or kernel lockdown denies loading the module",
        SOFTWARE,
        "Let the driver container of {node} load modules (SELinux policy, lockdown mode), or install the driver on the host.",
    ),
    phrase(
        "module-of-another-kernel",
        &[&["could not insert 'nvidia", "exec format error"], &["could not insert 'nvidia", "invalid argument"]],
        "the module was built for another kernel",
        SOFTWARE,
        "Rebuild the driver for the running kernel of {node} (delete the driver pod), or boot the kernel that it was built for.",
    ),
    phrase(
        "kernel-module-flavour",
        &[&["requires use of the nvidia open kernel modules"]],
        "the GPU needs NVIDIA's open kernel modules",
        SOFTWARE,
        "Set driver.kernelModuleType=open (or auto) for {node}.",
    ),
    phrase(
        "gpu-refused-by-driver",
        &[&["could not insert 'nvidia", "no such device"]],
        "the driver found no GPU that it supports",
        SOFTWARE,
        "Check in the kernel log of {node} which GPU the driver refuses, and use a driver version and module type that \
            support it.",
    ),
    phrase(
        "nouveau-in-use",
        &[&["nouveau kernel driver is currently in use"]],
        "the nouveau driver owns the GPUs",
        (Driver, DrainAndReboot),
        "Blacklist nouveau on {node}, rebuild the initramfs and reboot.",
    ),
    phrase(
        "module-does-not-compile",
        &[&["make", "***", "error 2"]],
        "the module does not compile for the running kernel",
        SOFTWARE,
        "Use a driver version that supports the kernel of {node}, or boot a kernel that this driver supports.",
    ),
    phrase(
        "driver-in-use",
        &[
            &["could not unload nvidia driver kernel modules"],
            &["failed to unload kernel module nvidia"],
            &["failed to uninstall nvidia driver components"],
        ],
        IN_USE,
        (Driver, DrainAndReboot),
        IN_USE_ADVICE,
    ),
    phrase(
        "node-not-drained",
        &[&["failed to drain node"], &["cannot proceed until all gpu pods are drained"]],
        "the driver manager could not drain the node",
        SOFTWARE,
        "Find the pods on {node} that cannot be evicted (PodDisruptionBudget, local storage, no controller) and end them.",
    ),
    phrase(
        "another-driver-container",
        &[&["an instance of the nvidia driver is already running"]],
        "another driver container runs on the node",
        (Driver, RestartPod),
        "Delete the older driver pod of {node}; keep one DaemonSet for the driver.",
    ),
    phrase(
        "fabric-manager-failed",
        &[&["fabric manager", "failed"]],
        "Fabric Manager does not start",
        (Fabric, UpdateSoftware),
        "Check /var/log/fabricmanager.log of {node}; Fabric Manager must have the same version as the driver.",
    ),
    phrase(
        "module-does-not-load",
        &[&["unable to load the kernel module 'nvidia"]],
        "the kernel does not load the module",
        SOFTWARE,
        "Check the kernel log of {node} for the reason.",
    ),
    // Common to several components.
    phrase("inotify-exhausted", &[&["too many open files"]], INOTIFY, SOFTWARE, INOTIFY_ADVICE),
    phrase("disk-full", &[&["no space left on device"]], NO_SPACE, SOFTWARE, NO_SPACE_ADVICE),
    phrase(
        "driver-library-mismatch",
        &[&["driver/library version mismatch"]],
        "the driver library and the loaded module differ",
        (Driver, DrainAndReboot),
        "Drain and reboot {node}: the driver was updated while the old module was loaded.",
    ),
    phrase(
        "gpu-lost",
        &[&["gpu is lost"], &["fallen off the bus"]],
        "a GPU does not respond",
        (Hardware, DrainAndReset),
        "Check the other findings of {node}: the component works again when the GPU does.",
    ),
    phrase(
        "gpu-not-initialised",
        &[&["rminitadapter failed"]],
        "the driver cannot initialize a GPU",
        (Hardware, ContactVendor),
        "Check the other findings of {node}.",
    ),
    // The container toolkit.
    phrase(
        "runtime-socket-missing",
        &[&["unable to restart containerd"], &["unable to dial", ".sock"]],
        RUNTIME_SOCKET,
        SOFTWARE,
        RUNTIME_SOCKET_ADVICE,
    ),
    phrase("folder-read-only", &[&["read-only file system"]], READ_ONLY, SOFTWARE, READ_ONLY_ADVICE),
    phrase(
        "runtime-configuration-broken",
        &[&["unable to load config", "containerd"]],
        "the toolkit cannot read the runtime's configuration",
        SOFTWARE,
        "Check the containerd configuration of {node} (containerd config dump) and toolkit.env CONTAINERD_CONFIG.",
    ),
    // The device plugin and the DRA driver.
    phrase(
        "mig-without-instances",
        &[&["migenabled=true was not configured"], &["no mig devices present on node"]],
        "MIG is on for a GPU that has no MIG instance",
        SOFTWARE,
        "Apply a MIG layout to {node} (label nvidia.com/mig.config), or turn MIG off.",
    ),
    phrase(
        "mig-not-uniform",
        &[&["more than one mig device type"], &["same migenabled value"]],
        MIG_MIXED,
        SOFTWARE,
        MIG_MIXED_ADVICE,
    ),
    phrase(
        "plugin-without-driver-libraries",
        &[
            &["incompatible strategy detected"],
            &["incompatible platform detected"],
            &["error_library_not_found"],
            &["could not load nvml"],
            &["error locating", "libnvidia-ml.so"],
        ],
        NO_LIBRARIES,
        SOFTWARE,
        NO_LIBRARIES_ADVICE,
    ),
    phrase(
        "kubelet-does-not-answer",
        &[&["could not register device plugin"], &["could not contact kubelet"], &["error", "kubelet.sock"]],
        KUBELET,
        SOFTWARE,
        KUBELET_ADVICE,
    ),
    phrase(
        "cdi-specification-empty",
        &[&["empty device edits"]],
        "a CDI file describes a device without any device file",
        SOFTWARE,
        "Generate the CDI file of {node} again (nvidia-ctk cdi generate, or delete the toolkit pod), then delete the pod.",
    ),
    phrase(
        "plugin-configuration-unknown",
        &[&["unable to load config", "plugin"], &["error parsing config"]],
        "the device plugin's configuration cannot be read",
        SOFTWARE,
        "Check the label nvidia.com/device-plugin.config of {node} and the ConfigMap of the device plugin.",
    ),
    // The MIG manager.
    phrase(
        "mig-gpu-in-use",
        &[&["in use by another client"], &["could not be reset"]],
        MIG_IN_USE,
        SOFTWARE,
        MIG_IN_USE_ADVICE,
    ),
    phrase(
        "mig-configuration-unknown",
        &[&["unable to validate the selected mig configuration"]],
        "the MIG layout that the label names is not in the configuration file",
        SOFTWARE,
        "Set the label nvidia.com/mig.config of {node} to a layout of the MIG manager's ConfigMap.",
    ),
    phrase(
        "mig-mode-not-applied",
        &[&["mig mode change did not take effect"]],
        "the change of the MIG mode did not take effect",
        (Driver, DrainAndReboot),
        "Drain and reboot {node}, then set the label nvidia.com/mig.config again.",
    ),
    phrase(
        "mig-not-applied",
        &[&["error applying mig config"]],
        "the MIG layout could not be applied",
        SOFTWARE,
        "Drain the GPU pods from {node}, then set the label nvidia.com/mig.config again.",
    ),
    // Symptoms: another component, or another line, has the reason.
    phrase(
        "fabric-not-ready",
        &[&["system not yet initialized"]],
        "the GPUs are not registered with the NVLink fabric (CUDA error 802)",
        (Fabric, UpdateSoftware),
        "Start Fabric Manager on {node}, with the same version as the driver.",
    ),
    phrase(
        "driver-insufficient",
        &[&["cuda driver version is insufficient"]],
        "the driver is too old for the CUDA version of the validator",
        SOFTWARE,
        "Update the driver of {node}, or use the validator of an older operator.",
    ),
    phrase(
        "device-nodes-not-created",
        &[&["failed to create nvidia device nodes"]],
        "the validator cannot create the device files: the driver's modules are not loaded, or it does not see them",
        SOFTWARE,
        "Load nvidia, nvidia_uvm and nvidia_modeset on {node}; where the driver is not the operator's, set \
            validator.driver.env DISABLE_DEV_CHAR_SYMLINK_CREATION=true.",
    ),
    phrase(
        "validator-without-nvidia-smi",
        &[&["nvidia-smi", "executable file not found"]],
        "the container has no nvidia-smi: it was not started with NVIDIA's runtime or CDI",
        SOFTWARE,
        NO_LIBRARIES_ADVICE,
    ),
    phrase(
        "driver-does-not-answer",
        &[&["couldn't communicate with the nvidia driver"], &["error_driver_not_loaded"], &["driver not loaded"]],
        NO_DRIVER,
        SOFTWARE,
        NO_DRIVER_ADVICE,
    ),
    phrase(
        "validator-finds-no-driver",
        &[&["failed to validate the driver"]],
        "the validator does not find the driver in its configured directory",
        SOFTWARE,
        "Set hostPaths.driverInstallDir of the operator to where the driver of {node} is, or turn the validator's driver \
            check off where the operating system brings the driver (Talos, Bottlerocket, COS).",
    ),
    phrase(
        "plugin-found-no-devices",
        &[&["no devices found. waiting indefinitely"]],
        "the device plugin found no GPU and waits indefinitely",
        (Driver, RestartPod),
        "Delete the pod: it searches for GPUs only when it starts. If it finds none again, check the runtime and CDI of {node}.",
    ),
    phrase(
        "plugin-without-runtime",
        &[&["did you configure the nvidia container toolkit"], &["did you set the docker default runtime"]],
        NO_LIBRARIES,
        SOFTWARE,
        NO_LIBRARIES_ADVICE,
    ),
];
