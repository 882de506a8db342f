//! Scenarios of nodes whose nvidia module is not loaded, with the reason, and of nodes that look similar.
//! `without_driver`, `passed_through`: nodes without the driver, and nodes whose GPUs belong to virtual machines.

use syringe_core::facts::driver_load::{DriverLoad, SelinuxDenial};
use syringe_core::facts::stack_log::StackLog;

use crate::prelude::*;

const RUNNING: &str = "6.8.0-88-generic";
const EARLIER: &str = "6.8.0-86-generic";
const ONLY: [&str; 2] = ["driver-not-loaded", "class:hardware"];
const RED_HAT: &str = "Red Hat Enterprise Linux 9.6 (Plow)";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        fatal("secure-boot-refuses-the-module", "Secure Boot is on. The kernel rejects the module's signature.")
            .must(finding("driver-refused-by-secure-boot").evidence([
                "unavailable key",
                "Secure Boot on",
                "lockdown integrity",
            ]))
            .must_not(ONLY)
            .node(|| {
                // The log of the container that loads the driver.
                let log = StackLog {
                    pod_uid: "0f8a7c2e-11aa-4bbb-8ccc-123456789abc".to_owned(),
                    container: "nvidia-driver-ctr".to_owned(),
                    file: text("4.log"),
                    changed_at: Some(ago(minutes(4))),
                    lines: vec![
                        "Loading NVIDIA driver kernel modules...".to_owned(),
                        "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service".to_owned(),
                    ],
                    detail_lines: Vec::new(),
                };
                without_module(secure_boot())
                    .refused("Loading of module with unavailable key is rejected")
                    .host(|host| host.stack_log = Some(log))
            }),
        fatal("lockdown-refuses-the-module", "The kernel is locked down without Secure Boot.")
            .must(finding("driver-refused-by-secure-boot").evidence(["lockdown"]))
            .must_not(ONLY)
            .node(|| {
                without_module(DriverLoad { lockdown: text("integrity"), ..built() })
                    .refused("Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7")
            }),
        fatal("boot-parameter-blocks-the-module", "The kernel command line names the module in module_blacklist.")
            .must(finding("driver-blocked-by-boot-parameter").evidence(["Module nvidia is blacklisted"]))
            .must_not(ONLY)
            .node(|| without_module(built()).refused("Module nvidia is blacklisted")),
        fatal("gpus-are-held-by-nouveau", "The driver unloaded itself, because nouveau holds the GPUs.")
            .must(finding("driver-not-loaded").evidence(["already bound to nouveau"]))
            .must_not(["kernel-log-lines-not-recognized", "class:hardware"])
            .node(|| without_module(built()).refused("NVRM: GPU 0000:16:00.0 is already bound to nouveau.")),
        fatal("gpus-have-no-addresses", "The driver cannot get the address range of a GPU.")
            .must(finding("driver-not-loaded").evidence(["request_mem_region failed"]))
            .must_not(["class:hardware"])
            .node(|| without_module(built()).refused("NVRM: request_mem_region failed for 16M @ 0xfa000000. This can occur when a driver such as rivatv is loaded and claims ownership of the device's registers.")),
        fatal("secure-boot-and-no-refusal", "Secure Boot is on, but there is no evidence that it is the cause.")
            .must(finding("driver-not-loaded").evidence(["Secure Boot on"]))
            .must_not(["driver-refused-by-secure-boot", "class:hardware"])
            .node(|| without_module(secure_boot())),
        fatal("selinux-refuses-the-module", "SELinux does not let the driver container load the module.")
            .must(finding("driver-refused-by-selinux").evidence(["module_load", "SELinux is enforcing"]))
            .must_not(ONLY)
            .node(|| {
                let denial = Some(SelinuxDenial { at: Some(ago(minutes(80))), record: denial(0) });
                let load = DriverLoad { selinux: text("enforcing"), selinux_denial: denial, ..built() };
                without_module(load).operating_system(RED_HAT)
            }),
        warning(
            "selinux-denies-device-files",
            "The driver works. SELinux does not let a container use the device files.",
        )
        .must(finding("device-files-denied-by-selinux").evidence(["nvidiactl"]))
        .must_not(["driver-refused-by-selinux", "class:hardware"])
        .node(|| denied_device("nvidiactl", "enforcing")),
        healthy("selinux-logs-device-files", "SELinux only logs, so the program has its device file.")
            .must_not(["device-files-denied-by-selinux"])
            .node(|| denied_device("nvidiactl", "permissive")),
        fatal("selinux-is-permissive", "SELinux only logs. The driver is not loaded for a different reason.")
            .must("driver-not-loaded")
            .must_not(["driver-refused-by-selinux", "class:hardware"])
            .node(|| {
                without_module(DriverLoad { selinux: text("permissive"), ..built() })
                    .operating_system(RED_HAT)
                    .refused(&format!("audit: type=1400 audit(1763688000.123:45): {}", denial(1)))
            }),
        fatal("module-of-the-kernel-before", "The kernel was updated, and only the previous kernel has a module.")
            .must(
                finding("driver-not-built-for-kernel")
                    .evidence(["no nvidia.ko for the running kernel 6.8.0-88-generic", "6.8.0-86"]),
            )
            .must_not(ONLY)
            .node(|| {
                without_module(kernels(&[EARLIER], &[RUNNING])).host(|host| {
                    (host.driver.module_on_disk, host.driver.module_listed) = (None, Some(false));
                })
            }),
        fatal("module-of-no-kernel", "No kernel of the node has the module.")
            .must("driver-not-loaded")
            .must_not(["driver-not-built-for-kernel", "class:hardware"])
            .node(|| {
                without_module(kernels(&[], &[EARLIER, RUNNING])).host(|host| {
                    (host.driver.module_on_disk, host.driver.module_listed) = (None, Some(false));
                })
            }),
        fatal("module-of-another-kernel", "The module was built for a kernel that is not the running one.")
            .must(finding("driver-not-built-for-kernel").evidence(["version_magic", "6.8.0-86"]))
            .must_not(ONLY)
            .node(|| {
                let options = "SMP preempt mod_unload modversions ";
                without_module(built())
                    .refused(&format!("nvidia: version magic '{EARLIER} {options}' should be '{RUNNING} {options}'"))
            }),
    ]
}

/// Returns a node with L40S cards and no loaded driver. The library is installed, and the daemons are not running.
pub(crate) fn without_driver(name: &str, count: u32, uptime: u64) -> Node {
    let why = problem("NVML: Driver Not Loaded", "driver_not_loaded", "Load the nvidia kernel module.");
    Node::like("no-driver", name, count, &["0-31", "32-63"])
        .system("Ubuntu 24.04.3 LTS", "5.15.0-131-generic")
        .uptime(uptime)
        .for_the_reason(&why)
}

/// Returns a node with L40S cards that are passed through to virtual machines.
pub(crate) fn passed_through() -> Node {
    without_driver("kubevirt-3", 4, 811_377)
        .daemons_of_a_gpu_node()
        .registered("nvidia.com/AD102GL_L40S", Vec::new())
        .host(|host| {
            host.modules = vec!["vfio_pci".to_owned()];
            host.pci_gpus.iter_mut().for_each(|gpu| gpu.driver = text("vfio-pci"));
            (host.driver.library, host.driver.library_path) = (None, None);
        })
}

/// Returns a node with four GPUs and the driver library, whose nvidia module exists and is not loaded.
fn without_module(load: DriverLoad) -> Node {
    let why = problem("NVML: Driver Not Loaded", "driver_not_loaded", "Load the nvidia kernel module.");
    Node::like("no-driver", "gpu-l40s-9", 4, &["0-31,64-95", "32-63,96-127"])
        .for_the_reason(&why)
        .registered("nvidia.com/gpu", Vec::new())
        .host(|host| {
            (host.driver.module_on_disk, host.driver.module_listed) = (host.driver.library.clone(), Some(true));
            host.driver_load = Some(load);
        })
}

fn kernels(with_module: &[&str], without_module: &[&str]) -> DriverLoad {
    let [with_module, without_module] =
        [with_module, without_module].map(|kernels| kernels.iter().map(|&kernel| kernel.to_owned()).collect());
    DriverLoad {
        modules_listed: true,
        kernels_with_module: with_module,
        kernels_without_module: without_module,
        ..DriverLoad::default()
    }
}

/// Returns facts about a node whose running kernel has the module.
fn built() -> DriverLoad {
    kernels(&[RUNNING], &[])
}

fn secure_boot() -> DriverLoad {
    let (lockdown, secure_boot, signature_enforced) = (text("integrity"), Some(true), Some(false));
    DriverLoad { secure_boot, lockdown, signature_enforced, ..built() }
}

/// Returns a healthy node with a denial of a device file in this mode of SELinux.
fn denied_device(file: &str, mode: &str) -> Node {
    let record = format!(
        "avc:  denied  {{ read write }} for  pid=8123 comm=\"python3\" name=\"{file}\" dev=\"devtmpfs\" ino=712 \
         scontext=system_u:system_r:container_t:s0:c12,c881 tcontext=system_u:object_r:xserver_misc_device_t:s0 \
         tclass=chr_file permissive=0"
    );
    let denial = Some(SelinuxDenial { at: Some(ago(minutes(25))), record });
    let load = DriverLoad { selinux: text(mode), selinux_denial: denial, ..DriverLoad::default() };
    l40s(2).host(|host| host.driver_load = Some(load))
}

/// Returns the log record of SELinux denying the load of the module.
fn denial(permissive: u32) -> String {
    format!(
        "avc:  denied  {{ module_load }} for  pid=7101 comm=\"modprobe\" \
         path=\"/usr/lib/modules/6.8.0-88-generic/kernel/drivers/video/nvidia.ko\" dev=\"overlay\" ino=9 \
         scontext=system_u:system_r:container_t:s0:c1,c2 tclass=system permissive={permissive}"
    )
}

impl Node {
    /// Adds a line in which the kernel rejects the module when the driver is loaded.
    fn refused(self, line: &str) -> Self {
        let when = self.driver_start();
        self.kernel_line_of_level(5, when, line)
    }

    /// Replaces the reason why NVML is not available.
    fn for_the_reason(self, problem: &Problem) -> Self {
        self.change_problems(|own| {
            let what = std::mem::take(&mut own.what);
            *own = Problem { what, ..problem.clone() };
        })
    }

    /// Sets the daemons that run on any node with GPUs.
    pub(crate) fn daemons_of_a_gpu_node(self) -> Self {
        self.host(|host| (host.daemons.persistenced, host.daemons.dcgm) = (Some(true), Some(true)))
    }
}
