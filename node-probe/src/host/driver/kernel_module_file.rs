//! `version`: the version of the `nvidia.ko` file of a kernel. `has_module`, `is_listed`: whether the kernel has it.
//!
//! `modules.dep` contains the path of this file. An uncompressed module has its version in the `.modinfo` section. The
//! probe has no decompressor. The version of a compressed module comes from the DKMS folders, or is unknown.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::version;
use crate::in_root::{HostFile, Root};

/// Maximum size of `modules.dep`. In a distribution kernel the file has about 700 KiB.
const MAX_DEP: usize = 8 * 1024 * 1024;
/// Maximum number of section headers. A module has a few hundred, with 64 bytes each.
const MAX_SECTIONS: u64 = 4096;
/// Maximum size of `.modinfo`. In nvidia.ko it has about 12 KiB (an alias line per device, firmware lines).
const MAX_MODINFO: u64 = 256 * 1024;

/// Returns the module's version below `root` for the kernel `release`.
pub(in crate::host) fn version(root: &Root, release: &str) -> Option<String> {
    let below = listed(root, release)??;
    if let Some(version) = below.split('/').find(|part| version::is_version(part)) {
        return Some(version.to_owned());
    }
    let path = root.find(&format!("lib/modules/{release}/{below}"))?;
    if path.path.extension().is_some_and(|end| end == "ko") {
        modinfo_version(&path)
    } else {
        dkms_version(root, release)
    }
}

/// Returns whether `modules.dep` below `root` lists the module for the kernel `release`; `None` if the file could not be
/// read.
pub(in crate::host) fn is_listed(root: &Root, release: &str) -> Option<bool> {
    listed(root, release).map(|below| below.is_some())
}

/// Folders for the module below the kernel's folder: DKMS, Red Hat's kmod packages, the NVIDIA installer, Ubuntu's signed
/// modules, Debian.
const PLACES: [&str; 8] = [
    "updates/dkms/nvidia",
    "updates/nvidia",
    "extra/nvidia",
    "extra/nvidia/nvidia",
    "weak-updates/nvidia/nvidia",
    "kernel/drivers/video/nvidia",
    "kernel/drivers/char/drm/nvidia",
    "updates/dkms/nvidia-current",
];

/// Returns whether the kernel `release` below `root` has an nvidia.ko, in `modules.dep` or in one of the usual folders.
/// `None` if `modules.dep` could not be read and no folder has the file.
pub(in crate::host) fn has_module(root: &Root, release: &str) -> Option<bool> {
    let listed = is_listed(root, release);
    if listed == Some(true) || !is_release(release) {
        return listed;
    }
    let exists = |path: String| root.find(&path).is_some();
    let built = PLACES.iter().any(|place| {
        ["", ".xz", ".zst", ".gz"].iter().any(|end| exists(format!("lib/modules/{release}/{place}.ko{end}")))
    });
    built.then_some(true).or(listed)
}

/// Returns whether `release` is one path component. Any other value would lead out of the folder.
fn is_release(release: &str) -> bool {
    let plain = release.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte));
    plain && !release.starts_with('.') && !release.is_empty()
}

/// Returns the path of nvidia.ko in `modules.dep`, relative to the kernel's folder. Debian calls the file `nvidia-current`.
/// `None` if the file does not exist or could not be read.
fn listed(root: &Root, release: &str) -> Option<Option<String>> {
    if !is_release(release) {
        return None;
    }
    let dep = root.find(&format!("lib/modules/{release}/modules.dep"))?;
    let dep = dep.whole(MAX_DEP).ok()?;
    let dep = String::from_utf8_lossy(&dep);
    let module = |line: &str| {
        let path = line.split_once(':')?.0;
        let name = path.rsplit('/').next()?.split_once(".ko")?.0;
        matches!(name, "nvidia" | "nvidia-current").then(|| path.to_owned())
    };
    Some(dep.lines().find_map(module))
}

/// Returns the version that DKMS built for this kernel: `/var/lib/dkms/nvidia*/VERSION/RELEASE`. `None` if there are
/// several.
fn dkms_version(root: &Root, release: &str) -> Option<String> {
    let dkms = root.find("var/lib/dkms")?;
    let packages = dkms.names().ok()?.into_iter().filter(|name| name.starts_with("nvidia"));
    let mut built = packages.flat_map(|package| {
        let folder = format!("var/lib/dkms/{package}");
        let versions = root.find(&folder).and_then(|folder| folder.names().ok()).unwrap_or_default();
        versions.into_iter().filter(move |version| {
            version::is_version(version) && root.find(&format!("{folder}/{version}/{release}")).is_some()
        })
    });
    let version = built.next()?;
    // If there are two versions, it is unknown which version was installed last.
    built.next().is_none().then_some(version)
}

/// Returns `version=` of the `.modinfo` section, found with the ELF section table. Reads a few kilobytes of a file of up to
/// 100 MB.
fn modinfo_version(module: &HostFile) -> Option<String> {
    module.opened(|mut file| Ok(version_in(&mut file))).ok()?
}

fn version_in(file: &mut File) -> Option<String> {
    let header = at(file, 0, 64)?;
    // The supported format is ELF, 64 bits, little endian, as on all machines with these drivers.
    if header.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let table = word(&header, 0x28)?;
    let (size, count, names) = (half(&header, 0x3a)?, half(&header, 0x3c)?, half(&header, 0x3e)?);
    if size != 64 || count == 0 || count > MAX_SECTIONS {
        return None;
    }
    let sections = at(file, table, size * count)?;
    let section = |number: u64| {
        let start = usize::try_from(number * size).ok()?;
        sections.get(start..start.checked_add(64)?)
    };
    let names = section(names)?;
    let names = at(file, word(names, 0x18)?, word(names, 0x20)?.min(MAX_MODINFO))?;
    let modinfo = (0..count).filter_map(section).find(|section| {
        let name = section.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
        let name = name.and_then(|offset| names.get(usize::try_from(offset).ok()?..));
        name.is_some_and(|name| name.starts_with(b".modinfo\0"))
    })?;
    let strings = at(file, word(modinfo, 0x18)?, word(modinfo, 0x20)?.min(MAX_MODINFO))?;
    let version = strings.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"version="))?;
    let version = std::str::from_utf8(version).ok()?;
    version::is_version(version).then(|| version.to_owned())
}

/// Returns `length` bytes at `offset`; `None` if the file is shorter.
fn at(file: &mut File, offset: u64, length: u64) -> Option<Vec<u8>> {
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).ok()?;
    (u64::try_from(bytes.len()).ok()? == length).then_some(bytes)
}

fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
}

fn half(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk::<2>().map(|bytes| u64::from(u16::from_le_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn root(tree: &Tree) -> Root {
        Root::open(tree.path()).expect("there")
    }

    const RELEASE: &str = "6.8.0-1021-aws";

    /// Returns an ELF file with a section table of three entries: null, `.modinfo`, the names.
    fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let table = 64 + modinfo.len() + names.len();
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        file[0x3a] = 64;
        file[0x3c] = 3;
        file[0x3e] = 2;
        file.extend(modinfo);
        file.extend(names);
        file.extend([0; 64]);
        for (name, offset, length) in [(1_u32, 64, modinfo.len()), (10, 64 + modinfo.len(), names.len())] {
            let mut section = vec![0; 64];
            section[..4].copy_from_slice(&name.to_le_bytes());
            section[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            section[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            file.extend(section);
        }
        file
    }

    fn dep(path: &str) -> Tree {
        let tree = Tree::new();
        tree.file(
            &format!("lib/modules/{RELEASE}/modules.dep"),
            format!("kernel/fs/x.ko: \nupdates/dkms/nvidia-uvm.ko: {path}\n{path}: kernel/drivers/char/y.ko\n"),
        );
        tree
    }

    #[test]
    fn an_uncompressed_module_names_its_version() {
        let tree = dep("updates/dkms/nvidia.ko");
        let content = module(b"license=Dual MIT/GPL\0srcversion=ABC\0version=580.65.06\0name=nvidia\0");
        tree.file(&format!("lib/modules/{RELEASE}/updates/dkms/nvidia.ko"), content);
        assert_eq!(version(&root(&tree), RELEASE).as_deref(), Some("580.65.06"));
    }

    #[test]
    fn dkms_gives_the_version_of_a_compressed_module_unless_it_built_two() {
        let tree = dep("updates/dkms/nvidia.ko.zst");
        tree.file(&format!("lib/modules/{RELEASE}/updates/dkms/nvidia.ko.zst"), "(");
        tree.folder(&format!("var/lib/dkms/nvidia/570.124.06/{RELEASE}")).folder("var/lib/dkms/nvidia/550.90.07/6.5.0");
        assert_eq!(version(&root(&tree), RELEASE).as_deref(), Some("570.124.06"));
        tree.folder(&format!("var/lib/dkms/nvidia-srv/580.65.06/{RELEASE}"));
        assert_eq!(version(&root(&tree), RELEASE), None);
    }

    #[test]
    fn a_branch_in_the_path_is_not_taken_for_a_version() {
        let tree = dep("kernel/nvidia-570srv-open/nvidia.ko.zst");
        tree.file(&format!("lib/modules/{RELEASE}/kernel/nvidia-570srv-open/nvidia.ko.zst"), "(");
        assert_eq!(version(&root(&tree), RELEASE), None);
    }

    #[test]
    fn a_broken_module_file_has_no_version() {
        let tree = dep("extra/nvidia.ko");
        let whole = module(b"version=580.65.06\0");
        for length in [0, 5, 63, 64, 80, 100, whole.len() - 1] {
            tree.file(&format!("lib/modules/{RELEASE}/extra/nvidia.ko"), &whole[..length]);
            assert_eq!(version(&root(&tree), RELEASE), None, "{length}");
        }
        let mut wrong = whole;
        wrong[0x28..0x30].copy_from_slice(&u64::MAX.to_le_bytes());
        tree.file(&format!("lib/modules/{RELEASE}/extra/nvidia.ko"), wrong);
        assert_eq!(version(&root(&tree), RELEASE), None);
        assert_eq!(version(&root(&tree), "../../etc"), None);
    }
}
