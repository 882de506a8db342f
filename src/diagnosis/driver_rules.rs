//! The rules about driver, firmware and set-up. `driver` applies them.

use super::rules::{DEBUG_DOC, FABRIC_DOC, NVML_DOC, PERSISTENCE_DOC, XID_DOC, rules};

rules! {
    NOT_LOADED: "driver-not-loaded" Fatal Driver NVML_DOC, "The NVIDIA driver is not loaded",
        UpdateSoftware "Install or load the nvidia kernel module on {node}. With the GPU Operator, check that its \
            driver pod is ready.",
        means "GPUs are on the PCI bus, and the kernel module of the driver is not loaded. No program can use them.",
        reads "inventory (NVML's error), host.pci_gpus, host.driver";
    MISMATCH: "driver-version-mismatch" Fatal Driver NVML_DOC,
        "Driver library and kernel module have different versions",
        DrainAndReboot "Drain and reboot {node}, or reload the nvidia modules: the driver was updated while the old \
            module was loaded.",
        means "The user-space library and the loaded kernel module have different versions, so that NVML and CUDA \
            refuse to start.",
        reads "inventory (NVML's error), host.driver, inventory.nvml_library";
    NOT_FOUND: "driver-not-found" Critical Driver NVML_DOC, "No NVIDIA driver was found",
        UpdateSoftware "If {node} has GPUs, install or load the NVIDIA driver. With the GPU Operator, check that its \
            driver pod is ready. If the kernel module is loaded, only the user-space libraries are missing.",
        means "Neither the driver's library nor its kernel module was found where drivers are installed.",
        reads "inventory (NVML's error), host.driver";
    NO_LIBRARY: "nvml-library-missing" Critical Driver NVML_DOC, "The NVML library was not found",
        UpdateSoftware "Reinstall the user-space libraries of the driver on {node}. Containers need them in addition \
            to the kernel module.",
        means "The kernel module is loaded, and the library libnvidia-ml.so.1 was not found. Containers do not get \
            the driver's libraries.",
        reads "inventory (NVML's error), host.driver";
    BLOCKED: "nvml-access-blocked" Critical Driver NVML_DOC, "NVML cannot access the device files",
        UpdateSoftware "Create the missing /dev/nvidia* files on {node} (nvidia-modprobe, nvidia-persistenced or the \
            container toolkit create them).",
        means "NVML may not open the device files of the GPUs, or they do not exist.",
        reads "inventory (NVML's error), host.device_nodes";
    HANGS: "nvml-not-answering" Critical Driver DEBUG_DOC, "NVML does not respond in time",
        DrainAndReboot "Drain {node}. If NVML still hangs (nvidia-smi hangs too), reboot the node and check the \
            kernel log.",
        means "NVML did not answer within the time limit: the driver or a GPU hangs.",
        reads "inventory, telemetry, topology, ecc, mig (problems)";
    NVML_FAILED: "nvml-failed" Critical Driver NVML_DOC, "NVML failed",
        UpdateSoftware "Check the kernel log of {node} for driver messages, then repair or reinstall the driver.",
        means "NVML could not be used, and none of the known causes was found.",
        reads "inventory (NVML's error)";
    NOUVEAU: "driver-nouveau" Critical Driver DEBUG_DOC, "The GPUs are bound to the nouveau driver",
        UpdateSoftware "Blacklist nouveau on {node}, rebuild the initramfs and reboot. Then load the nvidia driver.",
        means "The open-source driver nouveau is bound to the GPUs, so that NVIDIA's driver cannot use them.",
        reads "host.pci_gpus, host.modules";
    UPDATE_PENDING: "driver-update-pending" Info Driver NVML_DOC, "A different driver version is on disk",
        None "No action now. Plan a drain of {node}: the version on disk is loaded at the next reboot.",
        means "The driver version on disk differs from the loaded one and takes over at the next load.",
        reads "host.driver";
    DEVICE_NODES: "device-nodes-missing" Warning Driver DEBUG_DOC, "GPU device files are missing",
        UpdateSoftware "Create the missing device files on {node} (nvidia-modprobe -c 0 -u), or restart the \
            component that creates them.",
        means "The driver works, and files in /dev that programs need to open a GPU are missing.",
        reads "host.device_nodes, inventory.gpus";
    PERSISTENCE: "persistence-off" Warning Driver PERSISTENCE_DOC, "Persistence mode is off",
        UpdateSoftware "Run nvidia-persistenced on {node}. Without it, the GPU state and the volatile error counters \
            are reset when the last client exits.",
        means "Without persistence mode the driver initializes a GPU for each first client and forgets its volatile \
            counters after the last.",
        reads "inventory.persistence_mode, host.daemons";
    NO_FABRIC_MANAGER: "fabric-manager-not-running" Critical Fabric FABRIC_DOC,
        "Fabric Manager is not running on an NVSwitch system",
        UpdateSoftware "Start nvidia-fabricmanager on {node}, in the version of the driver. CUDA cannot start on \
            GPUs that are not registered.",
        means "The board has NVSwitches, and Fabric Manager does not run. CUDA cannot initialize on the GPUs.",
        reads "topology.nvswitches, topology.fabric, host.daemons";
    GSP: "gsp-failed" Fatal Driver XID_DOC, "GSP firmware does not respond",
        DrainAndReset "Drain {node}, stop all processes on {gpu} and reset it. If a process cannot be killed, reboot \
            {node}.",
        means "The firmware processor of a GPU does not answer the driver. Calls to the GPU hang or fail until it is \
            reset.",
        reads "xid: 119, 120";
    GSP_SEVERAL: "gsp-failed-on-several" Fatal Driver XID_DOC, "GSP firmware fails on several GPUs",
        DrainAndReboot "Drain and reboot {node}. Failures on several GPUs indicate the driver, the firmware or the \
            host: compare the driver version with the release notes of NVIDIA.",
        means "The firmware processors of several GPUs failed together, which points to driver, firmware or host.",
        reads "xid: 119, 120";
    GSP_LINES: "gsp-errors-logged" Warning Driver XID_DOC, "The driver logged GSP firmware errors",
        Watch "Watch {gpu} of {node} for Xid 119 or 120. If the errors repeat, update the driver.",
        means "The driver logged errors of the firmware processor that are no Xid.",
        reads "xid: GSP lines";
    GSP_OFF: "gsp-differs" Info Driver None, "GSP firmware is enabled on some GPUs only",
        None "No action. {gpu} runs without GSP firmware, unlike the other GPUs of the node.",
        means "Some GPUs of one model run with GSP firmware and others without.",
        reads "inventory.gsp_enabled";
    PROBE_FAILED: "driver-probe-failed" Warning Driver DEBUG_DOC, "The driver failed to probe a device",
        UpdateSoftware "Check the kernel log of {node} at the time of the driver load: another driver or a failed \
            card prevented the probe.",
        means "The driver could not take a device at its load.",
        reads "xid: driver lines";
    API_MISMATCH: "client-version-mismatch" Info Driver NVML_DOC,
        "A client with a different driver version was rejected",
        UpdateSoftware "Find the container on {node} that ships its own NVIDIA libraries. The container toolkit must \
            inject those of the node.",
        means "A program with libraries of another driver version tried to use the driver and was refused.",
        reads "xid: driver lines";
    PEERMEM: "peermem-error" Warning Driver DEBUG_DOC, "nvidia-peermem reported errors",
        UpdateSoftware "Reload nvidia_peermem on {node} after the RDMA driver, or use DMA-BUF. GPUDirect RDMA may \
            not work.",
        means "nvidia-peermem logged errors. Transfers between GPUs and network cards can be slow or fail.",
        reads "xid: nvidia-peermem lines";
    UVM_FATAL: "uvm-fatal" Fatal Driver XID_DOC, "The unified memory driver (nvidia-uvm) failed permanently",
        DrainAndReboot "Drain and reboot {node}, or unload and load all nvidia modules. Until then no CUDA program \
            can start.",
        means "The part of the driver that manages unified memory has failed, and no new CUDA program can start.",
        reads "xid: nvidia-uvm lines";
    UVM_ERRORS: "uvm-errors-logged" Info Driver XID_DOC, "nvidia-uvm logged errors",
        Watch "No action by itself; it can explain failing CUDA programs on {node}. If the errors repeat, update the \
            driver.",
        means "nvidia-uvm logged errors from which it recovered.",
        reads "xid: nvidia-uvm lines";
    ASSERTION: "driver-assertion" Info Driver XID_DOC, "The driver logged assertion failures",
        Watch "No action by itself; it can explain driver problems on {node}. If it repeats, update the driver.",
        means "The driver logged that an internal check failed. Alone it has no consequence.",
        reads "xid: assertion lines";
}
