//! `node`: creates a file tree for tests, with everything that the probe reads on a node.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::testing::Tree;

/// ID of the container that uses the GPU.
pub(super) const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// UID of the container's pod.
pub(super) const POD: &str = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";
const SPEC: &str = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\ncontainerEdits:\n  mounts:\n  - containerPath: /usr/lib64/libcuda.so.570.124.06\n    hostPath: /usr/lib64/libcuda.so.570.124.06\n";

/// Creates a node with one GPU and everything that the probe reads. `loaded`: whether the kernel module is loaded.
pub(super) fn node(loaded: bool) -> Tree {
    let tree = Tree::in_memory();
    kernel(&tree, loaded);
    processes(&tree);
    files(&tree);
    set_times(tree.path());
    tree
}

/// Sets the same time on every file, so that two trees result in the same report.
fn set_times(path: &Path) {
    let kind = std::fs::symlink_metadata(path).expect("there").file_type();
    if kind.is_symlink() {
        return;
    }
    if kind.is_dir() {
        std::fs::read_dir(path).expect("a folder").for_each(|entry| set_times(&entry.expect("an entry").path()));
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_700_000);
    std::fs::File::open(path).and_then(|file| file.set_modified(time)).expect("ours");
}

fn kernel(tree: &Tree, loaded: bool) {
    let gpu = "pci0000:5c/0000:5c:01.0/0000:5d:00.0";
    tree.pci("pci0000:5c/0000:5c:01.0", "0x8086", "0x352a", "0x060400").pci(gpu, "0x10de", "0x2330", "0x030200");
    let folder = format!("sys/devices/{gpu}");
    for (name, content) in [
        ("numa_node", "0\n"),
        ("config", "\u{de}\u{10}0#"),
        ("local_cpulist", "0-55\n"),
        ("current_link_speed", "32.0 GT/s PCIe\n"),
        ("current_link_width", "16\n"),
        ("max_link_speed", "32.0 GT/s PCIe\n"),
        ("max_link_width", "16\n"),
        ("aer_dev_fatal", "TOTAL_ERR_FATAL 0\n"),
    ] {
        tree.file(&format!("{folder}/{name}"), content);
    }
    tree.link(&format!("{folder}/iommu_group"), "../../../../kernel/iommu_groups/7");
    tree.pci("pci0000:5c/0000:5c:02.0", "0x15b3", "0x1021", "0x020700");
    let port = "sys/class/infiniband/mlx5_0/ports/1";
    tree.file(&format!("{port}/state"), "4: ACTIVE\n").file(&format!("{port}/rate"), "400 Gb/sec (4X NDR)\n");
    tree.file(&format!("{port}/link_layer"), "InfiniBand\n");
    tree.link("sys/class/infiniband/mlx5_0/device", "../../../devices/pci0000:5c/0000:5c:02.0");
    tree.file("sys/bus/pci/slots/7/address", "0000:5d:00\n").folder("sys/class/iommu/dmar0");
    tree.folder("sys/devices/system/node/node0").folder("sys/devices/system/node/node1");
    tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
    tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "100\n");
    tree.file("proc/uptime", "171620.23 999.0\n").file("proc/stat", "cpu 1\nbtime 1763700000\n");
    tree.file("proc/meminfo", "MemTotal: 2113525404 kB\nMemAvailable: 1890000000 kB\n");
    tree.file("proc/sys/kernel/hostname", "gpu-1\n").file("proc/sys/kernel/random/boot_id", "c0ffee\n");
    tree.file("proc/sys/kernel/osrelease", "6.8.0-50\n").link("proc/self/ns/pid", "pid:[4026531836]");
    tree.file("proc/sys/fs/inotify/max_user_instances", "128\n");
    tree.file("proc/sys/fs/inotify/max_user_watches", "8192\n");
    tree.file("dev/kmsg", "6,0,0,-;Linux version 6.8.0-50\n4,1,900,-;NVRM: Xid (PCI:0000:5d:00): 31, pid=42\n");
    tree.file("lib/modules/6.8.0-50/modules.dep", "updates/dkms/nvidia.ko.zst: kernel/x.ko\n");
    if !loaded {
        tree.file("proc/modules", "ext4 1 1 - Live 0x0\n");
        let efi = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        tree.file(efi, [6, 0, 0, 0, 1]).file("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        tree.file("sys/fs/selinux/enforce", "1").file("sys/module/module/parameters/sig_enforce", "Y\n");
        let record = "type=AVC msg=audit(1763700100.1:2): avc:  denied  { module_load } for  pid=9 comm=\"modprobe\"\n";
        tree.file("var/log/audit/audit.log", record);
        return;
    }
    tree.link(&format!("{folder}/driver"), "../../../../bus/pci/drivers/nvidia");
    tree.file("proc/modules", "nvidia 1 1 - Live 0x0\nnvidia_uvm 1 1 - Live 0x0\n");
    tree.file("sys/module/nvidia/version", "570.124.06\n").file("sys/module/nvidia/refcnt", "3\n");
    let banner = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n";
    tree.file("proc/driver/nvidia/version", banner);
    let information = "Model: \t NVIDIA H100\nGPU UUID: \t GPU-5d5d\nDevice Minor: \t 0\n";
    tree.file("proc/driver/nvidia/gpus/0000:5d:00.0/information", information);
    tree.file("dev/nvidia0", "").file("dev/nvidiactl", "").file("dev/nvidia-caps/nvidia-cap1", "");
}

fn processes(tree: &Tree) {
    let scope = format!("kubepods.slice/kubepods-pod{}.slice/cri-containerd-{ID}.scope", POD.replace('-', "_"));
    for (pid, name, cgroup) in [
        (1, "systemd", "init.scope".to_owned()),
        (20, "containerd", "system.slice/containerd.service".to_owned()),
        (21, "kubelet", "system.slice/kubelet.service".to_owned()),
        (22, "nvidia-device-p", format!("kubepods.slice/kubepods-pod{}.slice", POD.replace('-', "_"))),
        (42, "python3", scope),
    ] {
        let folder = format!("proc/{pid}");
        tree.file(&format!("{folder}/comm"), format!("{name}\n"))
            .file(&format!("{folder}/cgroup"), format!("0::/{cgroup}\n"));
        let stat = format!("{pid} ({name}) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 12345 0 0");
        tree.file(&format!("{folder}/stat"), &stat).file(&format!("{folder}/task/{pid}/stat"), stat);
        tree.file(&format!("{folder}/status"), "Uid:\t0\t0\t0\t0\n")
            .file(&format!("{folder}/cmdline"), format!("{name}\0"));
        tree.folder(&format!("{folder}/fd"));
    }
    tree.link("proc/42/fd/7", "/dev/nvidia0");
    tree.file("proc/42/environ", "NVIDIA_VISIBLE_DEVICES=GPU-5d5d\0").file("proc/42/root/dev/nvidia0", "");
    tree.file("proc/self/cgroup", "0::/probe\n");
}

fn files(tree: &Tree) {
    tree.file("etc/os-release", "PRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\n").file("etc/passwd", "root:x:0:0:\n");
    tree.file("etc/cdi/nvidia.yaml", SPEC).file("usr/lib64/libcuda.so.570.124.06", "");
    tree.file("usr/lib64/libnvidia-ml.so.570.124.06", "")
        .link("usr/lib64/libnvidia-ml.so.1", "libnvidia-ml.so.570.124.06");
    tree.file("etc/ld.so.conf.d/nvidia.conf", "/opt/gpu/lib\n").file("usr/bin/nvidia-container-runtime", "");
    tree.file("lib/firmware/nvidia/570.124.06/gsp_ga10x.bin", "");
    let handler = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.nvidia]\nruntime_type = \"io.containerd.runc.v2\"\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.nvidia.options]\nBinaryName = \"/usr/bin/nvidia-container-runtime\"\n";
    tree.file("etc/containerd/config.toml", "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n");
    tree.file("etc/containerd/conf.d/nvidia.toml", handler);
    tree.file("etc/nvidia-container-runtime/config.toml", "[nvidia-container-runtime]\nmode = \"auto\"\n");
    let checkpoint = format!(
        r#"{{"Data":{{"PodDeviceEntries":[{{"PodUID":"{POD}","ContainerName":"train","ResourceName":"nvidia.com/gpu","DeviceIDs":{{"0":["GPU-5d5d"]}}}}],"RegisteredDevices":{{"nvidia.com/gpu":["GPU-5d5d"]}}}},"Checksum":1}}"#
    );
    tree.file("var/lib/kubelet/device-plugins/kubelet_internal_checkpoint", checkpoint);
    tree.file("var/lib/kubelet/device-plugins/nvidia-gpu.sock", "").file("var/lib/kubelet/plugins_registry/x.sock", "");
    let claims = r#"{"Data":"{\"ClaimInfoStateList\":[{\"ClaimName\":\"c\",\"Namespace\":\"n\",\"PodUIDs\":{\"p\":{}},\"DriverState\":{\"gpu.nvidia.com\":{\"Devices\":[{\"DeviceName\":\"gpu-0\"}]}}}]}","Checksum":1}"#;
    tree.file("var/lib/kubelet/dra_manager_state", claims).file("run/nvidia/validations/driver-ready", "");
    let log = format!("var/log/pods/gpu_nvidia-device-plugin-x_{POD}/plugin");
    tree.file(&format!("{log}/0.log"), "2026-01-01T00:00:00Z stderr F it failed\n");
    tree.file("var/log/kern.log", "2025-11-21T04:40:00+00:00 gpu-1 kernel: NVRM: Xid (PCI:0000:5d:00): 79, GPU lost\n");
    tree.file("sys/fs/pstore/dmesg-1", "x");
}
