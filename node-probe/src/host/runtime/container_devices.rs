//! `process`: finds the first process of a container. `access`: finds its device files, and whether it may open them.
//! `check_access`: the code of the child process. Other functions return root, environment and cgroup of a container.
//!
//! A child process enters the cgroup of the container for a moment and calls `access(2)` there. In this way, the kernel
//! itself decides, for each cgroup version and every set of rules. Only the device cgroup is checked: the driver is not
//! involved.
//!
//! ```text
//!   access ─▶ first_process, device_files ─▶ child process ─▶ cgroup.procs of the container ─▶ access(2) …
//!          ─▶ cgroup.procs of the probe
//! ```

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FileType;
use syringe_core::facts::container::{Access, ContainerAccess, ContainerDevice};
use syringe_core::report::Problem;
use syringe_core::text::clean;

use crate::child;
use crate::child_task::{ChildTask, DeviceAccessRequest};
use crate::host::driver::device_files;
use crate::host::driver::device_files::DeviceList;
use crate::in_root::{HostFile, Root};
use crate::paths::{Paths, own_cgroup};
use crate::{bounded, cgroup, files};

/// The file types that count as a device file.
const DEVICES: &[FileType] = &[FileType::CharacterDevice];
/// The file types that count as a device file in a saved tree.
const SAVED: &[FileType] = &[FileType::CharacterDevice, FileType::RegularFile];

const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// Maximum time for the child process, which makes a few hundred system calls.
const CHILD_TIME: Duration = Duration::from_secs(2);

/// The first process of a container.
#[derive(Clone, Debug)]
pub(in crate::host) struct ContainerProcess {
    /// ID of the container.
    pub(in crate::host) id: String,
    pub(in crate::host) pid: u32,
    /// The pod in the cgroup of the process.
    pub(in crate::host) pod_uid: Option<String>,
    /// The folder of the process in `/proc`. After the process has ended, another process can have its ID, but not this
    /// descriptor.
    pub(in crate::host) folder: Root,
}

impl ContainerProcess {
    /// Returns whether everything that was read so far belongs to this process: the process has not exited.
    pub(in crate::host) fn is_still_there(&self, problems: &mut Vec<Problem>) -> bool {
        let is_there = is_of_container(&self.folder, &self.id);
        if !is_there {
            let why = "the first process of the container ended while the container was read";
            problems.push(files::problem("container", format!("container {}", self.id), why, "Try again."));
        }
        is_there
    }
}

/// Returns whether the process with this folder in `/proc` is running and is in the container.
pub(super) fn is_of_container(process: &Root, id: &str) -> bool {
    files::text(&process.descriptor_path().join("cgroup")).is_some_and(|cgroup| cgroup.contains(id))
}

/// Returns the first process of a container.
pub(in crate::host) fn process(paths: &Paths, id: &str, problems: &mut Vec<Problem>) -> Option<ContainerProcess> {
    let Some((pid, pod_uid, folder)) = first_process(paths, id) else {
        let next_step =
            "The container may have stopped. Outside the PID namespace of the host, only some processes are visible.";
        problems.push(files::problem(
            "container",
            format!("container {id}"),
            "no process of this container is visible",
            next_step,
        ));
        return None;
    };
    Some(ContainerProcess { id: id.to_owned(), pid, pod_uid, folder })
}

/// Reads the devices of a container, even if its cgroup cannot be entered.
pub(in crate::host) fn access(
    paths: &Paths,
    of: &ContainerProcess,
    problems: &mut Vec<Problem>,
) -> Option<ContainerAccess> {
    let ContainerProcess { id, pid, pod_uid, .. } = of;
    let process = paths.proc.join(pid.to_string());
    let kinds = if paths.is_saved_tree() { SAVED } else { DEVICES };
    let root = match container_root(&process.join("root"), paths.is_saved_tree()) {
        Ok(root) => root,
        Err(error) => {
            problems.push(files::problem("container", format!("devices of container {id}"), error, ""));
            return None;
        }
    };
    let DeviceList { names, more } = device_files::list(&root, kinds);
    if more > 0 {
        let why = format!("the container has {more} more device files; only {} were checked", names.len());
        problems.push(files::problem("too_many_devices", format!("devices of container {id}"), why, ""));
    }
    // A container chooses how long each search for a folder takes.
    let mut folders = BTreeMap::new();
    let mut is_stale = |name: &str| {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let folder = folders.entry(folder.to_owned()).or_insert_with(|| root.find(&format!("dev/{folder}")));
        is_stale(folder.as_ref()?.device_number_of(file)?, &paths.dev.join(name))
    };
    let mut devices: Vec<ContainerDevice> = names
        .into_iter()
        .map(|name| ContainerDevice { stale: is_stale(&name).unwrap_or(false), name, access: Access::Unknown })
        .collect();
    match access_in_cgroup(paths, *pid, kinds, &devices) {
        Ok(answers) => devices.iter_mut().zip(answers).for_each(|(device, answer)| device.access = answer),
        Err(why) => {
            let what = format!("device cgroup of container {id}");
            let next_step =
                "Run nvidia-smi in the container: \"Unknown Error\" means that the container cannot open its GPUs.";
            problems.push(files::problem("device_cgroup", what, why, next_step));
        }
    }
    Some(ContainerAccess {
        container_id: id.clone(),
        pod_uid: pod_uid.clone(),
        visible_devices: visible(&process),
        devices,
        view: None,
    })
}

/// Returns a process of the container, the pod in its cgroup, and its folder.
fn first_process(paths: &Paths, id: &str) -> Option<(u32, Option<String>, Root)> {
    let own = own_cgroup(&paths.proc);
    files::pids(&paths.proc).ok()?.into_iter().find_map(|pid| {
        let folder = paths.proc.join(pid.to_string());
        let text = files::text(&folder.join("cgroup")).filter(|text| text.contains(id))?;
        let cgroup::Membership { pod_uid, container_id, .. } = cgroup::parse(&text, &own);
        let folder = Root::open(&folder).ok().filter(|folder| is_of_container(folder, id))?;
        (container_id.as_deref() == Some(id)).then_some((pid, pod_uid, folder))
    })
}

/// Opens the root of a container. A saved tree has no mounts.
pub(super) fn container_root(path: &Path, is_saved_tree: bool) -> io::Result<Root> {
    if is_saved_tree { Root::open(path) } else { Root::of_container(path) }
}

/// Returns whether a device has different numbers in the container and in the probe; `None` if the probe has no such
/// device.
fn is_stale(of_container: u64, of_probe: &Path) -> Option<bool> {
    let of_probe = files::link_metadata(of_probe).ok().filter(|file| file.file_type().is_char_device())?;
    Some(of_probe.rdev() != of_container)
}

fn visible(process: &Path) -> Option<String> {
    let environment = environment(process);
    let value = variable(&environment, VISIBLE);
    if value.is_none() && environment.len() == files::SMALL {
        let why = "only the first 64 KiB of the environment were read";
        bounded::note("too_long", &process.join("environ"), why, "");
    }
    Some(clean(&value?, 200))
}

/// Returns the first 64 KiB of the environment of a process. It can contain secrets: only variables with known names
/// may be kept.
pub(super) fn environment(process: &Path) -> Vec<u8> {
    files::head(&process.join("environ"), files::SMALL).unwrap_or_default()
}

/// Returns the first value of a variable.
pub(super) fn variable(environment: &[u8], name: &str) -> Option<String> {
    let value = |variable: &[u8]| {
        let value = variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    environment.split(|byte| *byte == 0).find_map(value)
}

/// Returns the access to each device, in order.
fn access_in_cgroup(
    paths: &Paths,
    pid: u32,
    kinds: &[FileType],
    devices: &[ContainerDevice],
) -> io::Result<Vec<Access>> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let container_procs = procs(paths, &pid.to_string())?;
    let task = ChildTask::DeviceAccess(DeviceAccessRequest {
        container_procs: container_procs.clone(),
        probe_procs: procs(paths, "self")?,
        root: paths.proc.join(pid.to_string()).join("root"),
        is_saved_tree: kinds == SAVED,
        names: devices.iter().map(|device| device.name.clone()).collect(),
    });
    not_frozen(&container_procs)?;
    let output = child::output(child::command(&task)?, CHILD_TIME)?;
    if !output.status.success() || output.stdout.len() != devices.len() {
        return Err(io::Error::other(clean(&String::from_utf8_lossy(&output.stderr), 200)));
    }
    Ok(output.stdout.iter().map(|answer| if *answer == b'y' { Access::Allowed } else { Access::Denied }).collect())
}

/// Returns an error if the cgroup is frozen, as for a paused container, because a process that enters it would stop
/// there. Only cgroup v2 has the file `cgroup.events`. cgroup v1 freezes in a separate hierarchy, which the child does
/// not enter.
fn not_frozen(procs: &Path) -> io::Result<()> {
    let events = files::text(&procs.with_file_name("cgroup.events")).unwrap_or_default();
    if events.lines().any(|line| line == "frozen 1") {
        return Err(io::Error::other("the container is paused: its cgroup is frozen"));
    }
    Ok(())
}

/// Returns `cgroup.procs` of the hierarchy that controls devices.
fn procs(paths: &Paths, pid: &str) -> io::Result<PathBuf> {
    let (hierarchy, path) = cgroup_of(paths, pid, "devices")?;
    Ok(cgroup_folder(paths, hierarchy, &path).join("cgroup.procs"))
}

/// Returns the folder of the container's cgroup in the hierarchy of a controller, above the cgroups that the container
/// made itself.
pub(super) fn folder_of_cgroup(paths: &Paths, of: &ContainerProcess, controller: &'static str) -> io::Result<PathBuf> {
    let (hierarchy, path) = cgroup_of(paths, &of.pid.to_string(), controller)?;
    let parts: Vec<&str> = path.split('/').collect();
    let own = parts.iter().position(|part| part.contains(&of.id));
    let own = own.ok_or_else(|| io::Error::other("the cgroup does not belong to the container"))?;
    Ok(cgroup_folder(paths, hierarchy, &parts[..=own].join("/")))
}

fn cgroup_folder(paths: &Paths, hierarchy: &str, path: &str) -> PathBuf {
    paths.sys.join("fs/cgroup").join(hierarchy).join(path.trim_start_matches('/'))
}

/// Returns the hierarchy that has this controller, and the path of the process in it.
fn cgroup_of(paths: &Paths, pid: &str, controller: &'static str) -> io::Result<(&'static str, String)> {
    let text = files::head(&paths.proc.join(pid).join("cgroup"), files::SMALL)?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    // cgroup v1 has a hierarchy for each controller; cgroup v2 has one unnamed hierarchy for everything.
    let of = |wanted: &str| lines.clone().find(|(names, _)| names.split(',').any(|name| name == wanted));
    let (hierarchy, path) = match (of(controller), of("")) {
        (Some((_, path)), _) => (controller, path),
        (None, Some((_, path))) => ("", path),
        (None, None) => return Err(io::Error::other(format!("no cgroup controls {controller}"))),
    };
    if path.split('/').any(|part| part == "..") {
        return Err(io::Error::other("the cgroup of the process is outside the cgroup namespace of the probe"));
    }
    Ok((hierarchy, path.to_owned()))
}

/// Runs in the process that enters the cgroup, and returns `y` or `n` for each device. All files are opened before the
/// process enters the cgroup, so that almost no memory is charged to the container.
pub(crate) fn check_access(request: &DeviceAccessRequest) -> io::Result<String> {
    // A child that stops in the cgroup must not outlive the probe.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let procs = |path: &Path| OpenOptions::new().write(true).open(path);
    let (mut container_procs, mut probe_procs) = (procs(&request.container_procs)?, procs(&request.probe_procs)?);
    let root = container_root(&request.root, request.is_saved_tree)?;
    let kinds = if request.is_saved_tree { SAVED } else { DEVICES };
    // Since the file was listed, the container may have replaced it with a link or with another file.
    let found = |name: &String| root.find(&format!("dev/{name}")).filter(|file| file.is_of(kinds));
    let files: Vec<Option<HostFile>> = request.names.iter().map(found).collect();
    let mut answers = String::with_capacity(files.len());
    let may = |file: &Option<HostFile>| {
        let all = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
        file.as_ref().is_some_and(|file| rustix::fs::access(file.descriptor_path(), all).is_ok())
    };
    files.iter().for_each(|file| {
        may(file);
    });
    container_procs.write_all(b"0")?;
    answers.extend(files.iter().map(|file| if may(file) { 'y' } else { 'n' }));
    probe_procs.write_all(b"0")?;
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const SCOPE: &str =
        "kubepods.slice/cri-containerd-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.scope";

    fn access(paths: &Paths, id: &str, problems: &mut Vec<Problem>) -> Option<ContainerAccess> {
        super::access(paths, &process(paths, id, problems)?, problems)
    }

    #[test]
    fn devices_and_visible_devices_are_read_from_the_first_process() {
        let tree = Tree::new();
        tree.file("proc/7/cgroup", "0::/init.scope\n").file("proc/20/cgroup", format!("0::/{SCOPE}\n"));
        tree.file("proc/20/environ", "PATH=/bin\0NVIDIA_VISIBLE_DEVICES=GPU-1\0");
        tree.file("proc/20/root/dev/nvidiactl", "")
            .file("proc/20/root/dev/nvidia3", "")
            .file("proc/20/root/dev/null", "");
        let mut problems = Vec::new();
        let found = access(&tree.paths(), ID, &mut problems).expect("a container");
        assert_eq!((found.container_id.as_str(), found.visible_devices.as_deref()), (ID, Some("GPU-1")));
        let names: Vec<_> = found.devices.iter().map(|device| (device.name.as_str(), device.access)).collect();
        assert_eq!(names, [("nvidia3", Access::Unknown), ("nvidiactl", Access::Unknown)]);
        // The tree has no cgroup for the probe.
        assert_eq!(problems.iter().map(|problem| problem.code.as_str()).collect::<Vec<_>>(), ["device_cgroup"]);
    }

    /// Root in a container can create any link in the container's `/dev`. Here the link is absolute, so outside of the
    /// container's root it would lead to a file of the host.
    #[test]
    fn a_link_below_dev_of_a_container_shows_nothing_outside_of_it() {
        let tree = Tree::new();
        tree.file("root/.ssh/id_rsa_prod", "").file("payroll/2026.xlsx", "").folder("proc/20/root/dev");
        let secret = tree.path().join("root/.ssh");
        let secret = secret.to_str().expect("UTF-8");
        tree.link("proc/20/root/dev/nvidia-caps", secret)
            .link("proc/20/root/dev/nvidia-caps-imex-channels", "../../../../payroll");
        tree.link("proc/20/root/dev/nvidia7", &format!("{secret}/id_rsa_prod"));
        tree.file("proc/20/root/dev/nvidia-text", "").file("proc/20/root/dev/nvidia3/x", "");
        let root = Root::open(&tree.path().join("proc/20/root")).expect("there");
        assert_eq!(device_files::list(&root, SAVED).names, ["nvidia-text"]);
        assert_eq!(device_files::list(&root, DEVICES), DeviceList::default(), "a plain file is not a device");
        // The request contains the names of the links, as if the links were created after the listing.
        tree.file("container_procs", "").file("probe_procs", "");
        tree.file("proc/20/mountinfo", crate::in_root::mount_line(tree.path(), "tmpfs"));
        let request = |is_saved_tree| DeviceAccessRequest {
            container_procs: tree.path().join("container_procs"),
            probe_procs: tree.path().join("probe_procs"),
            root: tree.path().join("proc/20/root"),
            is_saved_tree,
            names: ["nvidia7", "nvidia-caps/id_rsa_prod", "nvidia-text"].map(str::to_owned).to_vec(),
        };
        assert_eq!(check_access(&request(true)).expect("an answer"), "nny");
        assert_eq!(check_access(&request(false)).expect("an answer"), "nnn");
    }

    #[test]
    fn the_cgroup_of_a_paused_container_is_not_entered() {
        let tree = Tree::new();
        tree.file("proc/20/cgroup", format!("0::/{SCOPE}\n")).file("proc/self/cgroup", "0::/probe\n");
        tree.file("proc/20/root/dev/nvidia0", "");
        let mut problems = Vec::new();
        tree.file(&format!("sys/fs/cgroup/{SCOPE}/cgroup.events"), "populated 1\nfrozen 1\n");
        let found = access(&tree.paths(), ID, &mut problems).expect("a container");
        assert_eq!(found.devices[0].access, Access::Unknown);
        assert!(problems[0].why.contains("paused"), "{problems:?}");
        tree.file(&format!("sys/fs/cgroup/{SCOPE}/cgroup.events"), "populated 1\nfrozen 0\n");
        problems.clear();
        access(&tree.paths(), ID, &mut problems).expect("a container");
        assert!(!problems[0].why.contains("paused"), "{problems:?}");
    }

    #[test]
    fn a_device_with_another_number_than_that_of_the_node_is_stale() {
        let null = rustix::fs::makedev(1, 3);
        let stale = |path: &str| is_stale(null, Path::new(path));
        assert_eq!(["/dev/null", "/dev/zero", "/dev/nothing"].map(stale), [Some(false), Some(true), None]);
    }

    /// After a process has ended, another process of the node can get its ID, also a process of another tenant.
    #[test]
    fn a_process_that_ended_is_no_longer_there() {
        let tree = Tree::new();
        tree.file("proc/20/cgroup", format!("0::/{SCOPE}\n"));
        let mut problems = Vec::new();
        let found = process(&tree.paths(), ID, &mut problems).expect("a container");
        assert!(found.is_still_there(&mut problems));
        std::fs::remove_dir_all(tree.path().join("proc/20")).expect("ours");
        tree.file("proc/20/cgroup", format!("0::/{SCOPE}\n"));
        assert!(!found.is_still_there(&mut problems));
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn a_container_that_is_not_visible_is_a_problem() {
        let mut problems = Vec::new();
        assert_eq!(access(&Tree::new().paths(), ID, &mut problems), None);
        assert_eq!(problems[0].code, "container");
    }

    #[test]
    fn either_version_of_cgroups_has_its_own_folder_for_devices() {
        let tree = Tree::new();
        tree.file("proc/1/cgroup", format!("0::/{SCOPE}\n"));
        tree.file("proc/2/cgroup", format!("4:memory:/x\n11:cpuset,devices:/{SCOPE}\n0::/system.slice\n"));
        tree.file("proc/3/cgroup", "0::/../x.scope\n").file("proc/4/cgroup", "4:memory:/x\n");
        let paths = tree.paths();
        let folder = tree.path().join("sys/fs/cgroup");
        assert_eq!(procs(&paths, "1").expect("v2"), folder.join(SCOPE).join("cgroup.procs"));
        assert_eq!(procs(&paths, "2").expect("v1"), folder.join("devices").join(SCOPE).join("cgroup.procs"));
        for (pid, why) in [("3", "namespace"), ("4", "no cgroup"), ("5", "")] {
            assert!(procs(&paths, pid).expect_err(why).to_string().contains(why));
        }
    }

    #[test]
    fn the_cgroup_is_entered_and_left() {
        let tree = Tree::new();
        tree.file("container_procs", "").file("probe_procs", "").file("dev/nvidia0", "");
        let at = |name: &str| tree.path().join(name);
        let names = ["nvidia0", "nvidia1"].map(str::to_owned).to_vec();
        let request = DeviceAccessRequest {
            container_procs: at("container_procs"),
            probe_procs: at("probe_procs"),
            root: tree.path().to_owned(),
            is_saved_tree: true,
            names,
        };
        assert_eq!(check_access(&request).expect("an answer"), "yn");
        for file in ["container_procs", "probe_procs"] {
            assert_eq!(std::fs::read_to_string(at(file)).expect("it was written"), "0");
        }
    }
}
