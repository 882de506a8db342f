//! `read`: reads the CDI specifications of NVIDIA devices, and compares them with the node.
//!
//! Limits: device numbers are compared only if the file contains them, and libraries only if they are mounted from a host
//! path.

mod spec;

use std::os::linux::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};
use syringe_core::facts::cdi::{Cdi, CdiSpec, StaleDevice};
use syringe_core::text::clean;

use self::spec::{DeviceNode, Edits, Spec};
use crate::files;
use crate::host::driver::version;
use crate::in_root::{HostFile, Root};
use crate::paths::{Owner, Paths};

/// Default folders of CDI specifications. If two specifications describe the same device, the specification in the
/// later folder is used.
const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Maximum size of a specification. A specification of 16 GPUs with 200 mounts has about 40 KiB.
const MAX_SPEC: usize = 512 * 1024;
/// Maximum number of files. A DRA driver writes one file for each claim.
const MAX_FILES: usize = 256;
/// Maximum numbers of specifications, of devices in one specification, and of differences.
const MAX_SPECS: usize = 16;
const MAX_DEVICES: usize = 64;
const MAX_LIBRARIES: usize = 4;
const MAX_STALE: usize = 8;
const MAX_UNREAD: usize = 8;

/// Reads the default folders, and the folders in the configuration of the runtime.
pub(in crate::host) fn read(paths: &Paths, configured: Option<Vec<String>>) -> Option<Cdi> {
    if paths.owner == Owner::Workload {
        return None;
    }
    let host = Root::open(&paths.host).ok()?;
    // NVIDIA's runtime always reads the default folders, whatever the configuration of containerd is.
    let configured = configured.unwrap_or_default();
    let usual =
        FOLDERS.map(str::to_owned).into_iter().filter(|folder| !configured.iter().any(|of| is_same(of, folder)));
    let folders: Vec<String> = usual.chain(configured.iter().cloned()).take(8).collect();
    let mut cdi = Cdi::default();
    for folder in folders {
        read_folder(paths, &host, &folder, &mut cdi);
        cdi.folders.push(clean(&folder, 160));
    }
    Some(cdi)
}

/// Returns whether two paths are the same. `/var/run` is a link to `/run`, so both names count as the same folder.
fn is_same(one: &str, other: &str) -> bool {
    let plain = |folder: &str| folder.trim_end_matches('/').trim_start_matches("/var").to_owned();
    plain(one) == plain(other)
}

fn read_folder(paths: &Paths, host: &Root, folder: &str, cdi: &mut Cdi) {
    let names = match host.find(folder).map(|folder| folder.names()) {
        Some(Ok(names)) => names,
        None if host.exists(folder) == Some(false) => return,
        Some(Err(_)) | None => return unread(cdi, folder),
    };
    let specs = names.into_iter().filter(|name| [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)));
    for (number, name) in specs.enumerate() {
        let path = format!("{folder}/{name}");
        if number == MAX_FILES || cdi.specs.len() == MAX_SPECS {
            return unread(cdi, &path);
        }
        // If the name shows that a specification belongs to a resource claim, it is counted and not compared.
        if name.contains("-claim_") {
            cdi.claim_specs = cdi.claim_specs.saturating_add(1);
            continue;
        }
        let Some(file) = host.find(&path) else {
            unread(cdi, &path);
            continue;
        };
        let text = file.whole(MAX_SPEC).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().map(|text| (text, spec::parse(text))) {
            Some((_, Some(spec))) if is_nvidia(&spec.kind) => {
                cdi.specs.push(describe(paths, host, &path, &file, &spec))
            }
            Some((_, Some(_))) => {}
            // The file probably belongs to another vendor.
            Some((text, None)) if !text.contains("nvidia") => {}
            Some((_, None)) | None => unread(cdi, &path),
        }
    }
}

fn unread(cdi: &mut Cdi, path: &str) {
    if cdi.unread.len() < MAX_UNREAD {
        cdi.unread.push(clean(path, 160));
    }
}

/// Returns whether a kind is from NVIDIA: `nvidia.com/gpu`, `management.nvidia.com/gpu`, `k8s.device-plugin.nvidia.com/gpu`.
fn is_nvidia(kind: &str) -> bool {
    let vendor = kind.split('/').next().unwrap_or_default();
    vendor == "nvidia.com" || vendor.ends_with(".nvidia.com")
}

fn describe(paths: &Paths, host: &Root, path: &str, file: &HostFile, spec: &Spec) -> CdiSpec {
    let edits = || std::iter::once(&spec.edits).chain(spec.devices.iter().map(|device| &device.edits));
    let mut libraries: Vec<&str> = edits().flat_map(mounted).filter(|path| is_library(path)).collect();
    libraries.sort_unstable();
    libraries.dedup();
    let missing = libraries.iter().filter(|path| host.exists(path) == Some(false));
    let mut nodes: Vec<&DeviceNode> = edits().flat_map(|edits| &edits.nodes).collect();
    nodes.sort_by_key(|node| (&node.path, node.major, node.minor));
    nodes.dedup();
    let stale = nodes.into_iter().filter_map(|node| stale(&paths.dev, node));
    CdiSpec {
        path: clean(path, 160),
        kind: clean(&spec.kind, 80),
        devices: spec.devices.iter().take(MAX_DEVICES).map(|device| clean(&device.name, 80)).collect(),
        changed_at: file.changed_at(),
        driver_version: libraries.iter().find_map(|path| driver_of(path)),
        missing_libraries: missing.take(MAX_LIBRARIES).map(|path| clean(path, 160)).collect(),
        stale_devices: stale.take(MAX_STALE).collect(),
    }
}

fn mounted(edits: &Edits) -> impl Iterator<Item = &str> {
    edits.mounts.iter().map(|mount| mount.host_path.as_str())
}

fn is_library(path: &str) -> bool {
    path.starts_with('/') && path.contains(".so")
}

/// Returns the driver version in a path: `570.124.06` for `/usr/lib/x86_64-linux-gnu/libcuda.so.570.124.06`.
fn driver_of(path: &str) -> Option<String> {
    let version = path.rsplit('/').next()?.strip_prefix("libcuda.so.")?;
    version::is_version(version).then(|| version.to_owned())
}

/// Compares a device with the node. Only devices in `/dev` are compared, not devices in a driver root.
fn stale(dev: &Path, node: &DeviceNode) -> Option<StaleDevice> {
    let path = node.host_path.as_deref().unwrap_or(&node.path);
    let name = path.strip_prefix("/dev/").filter(|name| name.starts_with("nvidia") && !name.contains(".."))?;
    let in_spec = node.major.zip(node.minor).filter(|(major, _)| *major > 0);
    let here = match files::link_metadata(&dev.join(name)) {
        Ok(file) => Some((major(file.st_rdev()), minor(file.st_rdev()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(_) => return None,
    };
    let differs = match (in_spec, here) {
        (_, None) => true,
        (Some(in_spec), Some(here)) => in_spec != here,
        (None, Some(_)) => false,
    };
    let text = |(major, minor): (u32, u32)| format!("{major}:{minor}");
    differs.then(|| StaleDevice {
        path: files::shown(Path::new("/"), Path::new(path)),
        in_spec: in_spec.map(text),
        on_node: here.map(text),
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
