//! `read`: reads facts that explain why the nvidia module is not loaded: kernel requirements, available modules.
//!
//! The requirements are Secure Boot, lockdown and SELinux. If the module is loaded, only a denial of NVIDIA's device files
//! is read, because reading EFI variables is slow.

use jiff::Timestamp;
use syringe_core::facts::driver_load::{DriverLoad, SelinuxDenial};
use syringe_core::text::clean;

use super::{kernel_module_file, library_folders};
use crate::files;
use crate::host::process;
use crate::in_root::Root;
use crate::paths::{Owner, Paths};

/// The path of the EFI variable, with the vendor GUID of global variables. Four bytes of attributes precede the value.
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const SELINUX: &str = "/sys/fs/selinux/enforce";
const AUDIT_LOG: &str = "/var/log/audit/audit.log";

/// Maximum number of bytes that are read of the audit log: a few thousand records.
const MAX_AUDIT: u64 = 256 * 1024;

/// Maximum number of kernels of one node. Distributions keep two to five.
const MAX_KERNELS: usize = 16;

/// Reads the requirements and the modules. If the module is loaded, returns only a denial of NVIDIA's device files.
/// File systems below sysfs are read from the host, not from the probe's container.
pub(in crate::host) fn read(paths: &Paths, is_loaded: bool) -> Option<DriverLoad> {
    if paths.owner == Owner::Workload {
        return None;
    }
    let host = Root::open(&paths.host).ok()?;
    let selinux = host.find(SELINUX).and_then(|file| file.text()).and_then(|text| match text.as_str() {
        "1" => Some("enforcing"),
        "0" => Some("permissive"),
        _ => None,
    });
    let denied = if is_loaded { is_device_file } else { is_module_load };
    let selinux_denial = if selinux == Some("enforcing") { denial(paths, &host, denied) } else { None };
    if is_loaded {
        let denial = Some(selinux_denial?);
        return Some(DriverLoad {
            selinux: selinux.map(str::to_owned),
            selinux_denial: denial,
            ..DriverLoad::default()
        });
    }
    let mut load = DriverLoad {
        secure_boot: host.find(SECURE_BOOT).and_then(|file| file.head(8).ok()).and_then(|bytes| secure_boot(&bytes)),
        lockdown: host.find(LOCKDOWN).and_then(|file| file.text()).and_then(|text| chosen(&text)),
        signature_enforced: files::text(&paths.sys.join("module/module/parameters/sig_enforce"))
            .and_then(|text| flag(&text)),
        selinux: selinux.map(str::to_owned),
        selinux_denial,
        ..DriverLoad::default()
    };
    modules(&host, &mut load);
    Some(load)
}

fn secure_boot(variable: &[u8]) -> Option<bool> {
    match variable {
        [_, _, _, _, value] => Some(*value == 1),
        _ => None,
    }
}

/// Returns the value in brackets: `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(clean(rest.split_once(']')?.0, 40))
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "Y" | "1" => Some(true),
        "N" | "0" => Some(false),
        _ => None,
    }
}

/// Adds the kernels that have a module, on the host and in the GPU Operator's driver root.
fn modules(host: &Root, load: &mut DriverLoad) {
    let roots = library_folders::DRIVER_ROOTS.iter().filter_map(|below| host.below(below));
    for root in roots {
        let Some(Ok(names)) = root.find("lib/modules").map(|folder| folder.names()) else { continue };
        load.modules_listed = true;
        for name in names.into_iter().take(MAX_KERNELS) {
            let Some(has) = kernel_module_file::has_module(&root, &name) else { continue };
            let list = if has { &mut load.kernels_with_module } else { &mut load.kernels_without_module };
            let name = clean(&name, 100);
            if !list.contains(&name) {
                list.push(name);
            }
        }
    }
    let DriverLoad { kernels_with_module: with, kernels_without_module: without, .. } = load;
    without.retain(|kernel| !with.contains(kernel));
}

fn is_module_load(permissions: &str, _record: &str) -> bool {
    permissions.split_whitespace().any(|permission| permission == "module_load")
}

/// Names of the device files follow `name=` (with a file system) or `path=`.
fn is_device_file(_permissions: &str, record: &str) -> bool {
    let names_one = [" name=\"nvidia", " path=\"/dev/nvidia"].iter().any(|start| record.contains(start));
    names_one && record.contains(" tclass=chr_file ")
}

/// Returns the newest record of this boot that SELinux denied and that `is_meant` accepts by its permissions and its
/// text. Only the kernel writes `type=AVC`; programs write other types.
fn denial(paths: &Paths, host: &Root, is_meant: fn(&str, &str) -> bool) -> Option<SelinuxDenial> {
    let (tail, _) = host.find(AUDIT_LOG)?.tail(MAX_AUDIT).ok()?;
    let boot = process::boot_time(paths)?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines().rev().find_map(|line| {
        let rest = line.strip_prefix("type=AVC msg=audit(")?;
        let (stamp, record) = rest.split_once("):")?;
        let seconds: i64 = stamp.split(['.', ':']).next()?.parse().ok()?;
        let denied = record.trim_start().strip_prefix("avc:")?.trim_start().strip_prefix("denied")?;
        let (permissions, _) = denied.trim_start().strip_prefix('{')?.split_once('}')?;
        (is_meant(permissions, record) && seconds >= boot && !record.contains("permissive=1"))
            .then(|| SelinuxDenial { at: Timestamp::from_second(seconds).ok(), record: clean(record, 300) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn of(tree: &Tree) -> DriverLoad {
        read(&tree.paths(), false).expect("a node")
    }

    #[test]
    fn secure_boot_and_lockdown_are_read_from_the_hosts_mounts() {
        let tree = Tree::new();
        let (on, off) = ([6, 0, 0, 0, 1], [6, 0, 0, 0, 0]);
        tree.file(&SECURE_BOOT[1..], on).file(&LOCKDOWN[1..], "none [integrity] confidentiality\n");
        tree.file("sys/module/module/parameters/sig_enforce", "Y\n");
        let load = of(&tree);
        assert_eq!(
            (load.secure_boot, load.lockdown.as_deref(), load.signature_enforced),
            (Some(true), Some("integrity"), Some(true))
        );
        tree.file(&SECURE_BOOT[1..], off);
        assert_eq!(of(&tree).secure_boot, Some(false));
        tree.file(&SECURE_BOOT[1..], [1]);
        assert_eq!(of(&tree).secure_boot, None, "no value");
        assert_eq!(of(&Tree::new()), DriverLoad::default(), "without files there are no facts");
    }

    #[test]
    fn a_module_is_found_whatever_way_it_was_built() {
        let tree = Tree::new();
        tree.file("lib/modules/6.8.0-50/updates/dkms/nvidia.ko.zst", "").folder("lib/modules/6.8.0-60/kernel");
        tree.file("lib/modules/5.14.0-1/modules.dep", "extra/nvidia.ko.xz: kernel/x.ko\n");
        tree.file("lib/modules/5.14.0-2/modules.dep", "extra/nvidia-uvm.ko.xz: kernel/x.ko\n");
        tree.file("run/nvidia/driver/lib/modules/6.8.0-60/kernel/drivers/video/nvidia.ko", "");
        let load = of(&tree);
        assert_eq!(load.kernels_with_module, ["6.8.0-60", "5.14.0-1", "6.8.0-50"]);
        assert_eq!((load.kernels_without_module, load.modules_listed), (vec!["5.14.0-2".to_owned()], true));
    }

    #[test]
    fn a_denial_of_this_boot_counts_and_one_of_a_program_does_not() {
        let avc = |second: u64, permissive: u8| {
            format!(
                "type=AVC msg=audit({second}.123:45): avc:  denied  {{ module_load }} for  pid=7 comm=\"modprobe\" \
                 path=\"/usr/lib/modules/x/nvidia.ko\" tclass=system permissive={permissive}\n"
            )
        };
        let told = |log: String| {
            let tree = Tree::new();
            tree.file(&SELINUX[1..], "1").file("proc/stat", "btime 1000\n").file(&AUDIT_LOG[1..], log);
            of(&tree).selinux_denial
        };
        let denial = told(format!("{}type=USER_AVC msg=audit(2000.1:2): x\n", avc(1500, 0))).expect("denied");
        assert_eq!(denial.at.map(|at| at.as_second()), Some(1500));
        assert!(denial.record.contains("nvidia.ko"), "{}", denial.record);
        assert_eq!(told(avc(900, 0)), None, "an earlier boot");
        assert_eq!(told(avc(1500, 1)), None, "in permissive mode, the load was allowed");
        assert_eq!(told(avc(1500, 0).replace("type=AVC", "type=USER_AVC")), None, "a program's record");
    }
    #[test]
    fn with_the_module_only_a_denial_of_its_device_files_is_read() {
        let told = |class: &str, file: &str| {
            let tree = Tree::new();
            let log = format!(
                "type=AVC msg=audit(1500.1:2): avc:  denied  {{ read write }} for  pid=7 comm=\"python3\" {file} \
                 dev=\"devtmpfs\" ino=9 tclass={class} permissive=0\n"
            );
            tree.file(&SELINUX[1..], "1").file("proc/stat", "btime 1000\n").file(&AUDIT_LOG[1..], log);
            tree.file(&LOCKDOWN[1..], "none [integrity] confidentiality\n");
            read(&tree.paths(), true).map(|load| (load.lockdown, load.selinux_denial.is_some()))
        };
        assert_eq!(told("chr_file", "name=\"nvidiactl\""), Some((None, true)));
        assert_eq!(told("chr_file", "path=\"/dev/nvidia0\""), Some((None, true)));
        assert_eq!(told("file", "name=\"nvidia.log\""), None);
        assert_eq!(told("chr_file", "name=\"fuse\""), None);
    }
}
