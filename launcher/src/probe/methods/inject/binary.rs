//! `find`: finds a node-probe (`ProbeBinary`) whose ELF header has the architecture of the node. `machine`: the
//! architecture of a program.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::carried::{self, CarriedProgram};
use crate::settings::Settings;
use kube_read::Failure;
use kube_read::failure::Cause;

/// Size of the part of an ELF header that includes the machine number.
const HEAD_BYTES: usize = 20;
/// ELF machine numbers (`e_machine`) with the architecture names of Kubernetes.
const MACHINES: [(u16, &str); 5] = [(62, "amd64"), (183, "arm64"), (21, "ppc64le"), (22, "s390x"), (243, "riscv64")];

/// A node-probe to upload.
#[derive(Clone, Debug)]
pub(super) enum ProbeBinary {
    File(PathBuf),
    /// A program that is embedded in this program.
    Carried(&'static CarriedProgram),
}

impl PartialEq for ProbeBinary {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(path), Self::File(other)) => path == other,
            (Self::Carried(program), Self::Carried(other)) => program.sha256 == other.sha256,
            _ => false,
        }
    }
}

impl Eq for ProbeBinary {}

impl fmt::Display for ProbeBinary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Carried(program) => write!(formatter, "the node-probe for {} inside gpu-syringe", program.arch),
        }
    }
}

impl ProbeBinary {
    pub(super) fn read(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::File(path) => std::fs::read(path),
            Self::Carried(program) => program.unpack().map_err(std::io::Error::other),
        }
    }
}

/// Returns the program to upload to a node of this architecture.
pub(super) fn find(settings: &Settings, architecture: &str) -> Result<ProbeBinary, Failure> {
    let failed = |why: String, next: &str| {
        let what = format!("Finding a node-probe for {architecture} to upload");
        Err(Failure::new(what, why, next).because_of(Cause::Upload))
    };
    if let Some(path) = &settings.probe_binary {
        return match machine(path) {
            Ok(machine) if machine == architecture => Ok(ProbeBinary::File(path.clone())),
            Ok(machine) => failed(
                format!("{} is for {machine}, but the architecture of the node is {architecture}", path.display()),
                "Specify the node-probe for the node's architecture with --probe-binary.",
            ),
            Err(why) => failed(
                format!("{}: {why}", path.display()),
                "Specify a node-probe that was built for Linux with --probe-binary.",
            ),
        };
    }
    let uname = uname(architecture);
    if let Some(program) = carried::programs().iter().find(|program| program.arch == uname) {
        return Ok(ProbeBinary::Carried(program));
    }
    let program = std::env::current_exe().unwrap_or_default();
    match beside(&program, architecture) {
        Ok(path) => Ok(ProbeBinary::File(path)),
        Err(why) => failed(
            why,
            "Put node-probe into the folder of gpu-syringe, or specify its path with --probe-binary (to build it, run: \
                sh deploy/build-probe.sh). The packages of gpu-syringe contain node-probe.",
        ),
    }
}

/// Returns the name of the architecture in file names of programs (as in `uname -m`).
fn uname(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

/// Returns the node-probe in the folder of `program`.
fn beside(program: &Path, architecture: &str) -> Result<PathBuf, String> {
    // The current directory is never used: another user may have put a file there.
    let Some(folder) = program.parent().filter(|folder| folder.is_absolute()) else {
        return Err("the folder of gpu-syringe is not known".to_owned());
    };
    let names = [
        format!("node-probe-linux-{architecture}"),
        format!("node-probe-{architecture}"),
        format!("node-probe-{}", uname(architecture)),
        "node-probe".to_owned(),
    ];
    let mut refused = None;
    for path in names.iter().map(|name| folder.join(name)) {
        // The file is checked before it is opened, because another user may have created a pipe with this name.
        if !is_trusted(&path, program) {
            if path.symlink_metadata().is_ok() {
                let why =
                    "belongs to another user, is writable by others (or its folder is), or is not an executable file";
                refused.get_or_insert(format!("{} {why}", path.display()));
            }
        } else if machine(&path).is_ok_and(|machine| machine == architecture) {
            return Ok(path);
        }
    }
    Err(refused.unwrap_or_else(|| {
        format!("no node-probe for this architecture in {}; looked for: {}", folder.display(), names.join(", "))
    }))
}

/// Returns whether only root or the owner of this program can have written the file. The file runs as root on nodes, and a
/// folder such as /tmp contains files of other users.
#[cfg(unix)]
fn is_trusted(path: &Path, program: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const EXECUTABLE: u32 = 0o100;
    let of = |path: &Path| std::fs::symlink_metadata(path).ok();
    let (Some(file), Some(folder), Ok(program)) = (of(path), path.parent().and_then(of), std::fs::metadata(program))
    else {
        return false;
    };
    let is_own = |uid: u32| uid == program.uid() || uid == 0;
    // The file must be executable. A file that a browser saved is not executable.
    file.is_file() && is_own(file.uid()) && file.mode() & (WRITABLE_BY_OTHERS | EXECUTABLE) == EXECUTABLE
        // Nobody else may be able to replace the file.
        && is_own(folder.uid()) && folder.mode() & WRITABLE_BY_OTHERS == 0
}

/// On other systems, permissions are not checked, and no file is used: the packages contain the program.
#[cfg(not(unix))]
fn is_trusted(_: &Path, _: &Path) -> bool {
    false
}

/// Returns the architecture that a program was built for.
pub(super) fn machine(path: &Path) -> Result<String, String> {
    let mut head = [0; HEAD_BYTES];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the file is not a program".to_owned(),
        _ => error.to_string(),
    })?;
    if !head.starts_with(b"\x7fELF") {
        return Err("the file is not a Linux program (no ELF header)".into());
    }
    let bytes = [head[18], head[19]];
    // Byte 5 is the byte order.
    let number = if head[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let known = MACHINES.iter().find(|(machine, _)| *machine == number);
    Ok(known.map_or_else(|| format!("ELF machine {number}"), |(_, name)| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{beside, machine};

    fn elf(machine: u8) -> Vec<u8> {
        [b"\x7fELF\x02\x01".as_slice(), &[0; 12], &[machine, 0]].concat()
    }

    #[test]
    fn a_program_says_itself_what_it_is_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let machine_of = |bytes: &[u8]| {
            let path = directory.path().join("program");
            std::fs::write(&path, bytes).expect("written");
            machine(&path)
        };
        assert_eq!(machine_of(&elf(62)).as_deref(), Ok("amd64"));
        assert_eq!(machine_of(&elf(183)).as_deref(), Ok("arm64"));
        assert_eq!(machine_of(&elf(8)).as_deref(), Ok("ELF machine 8"));
        assert!(machine_of(b"MZ-a-windows-program-it-is").is_err() && machine_of(b"\x7fELF").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn the_program_of_the_architecture_is_found_beside_this_one() {
        for (name, number, finds) in [
            ("node-probe", 62, true),
            ("node-probe-x86_64", 62, true),
            ("node-probe-amd64", 62, true),
            ("node-probe-linux-amd64", 62, true),
            ("node-probe-aarch64", 183, false),
            // The architecture in the name differs from the architecture in the file.
            ("node-probe-x86_64", 183, false),
            ("node-probe-dev", 62, false),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let launcher = directory.path().join("gpu-syringe");
            std::fs::write(&launcher, b"launcher").expect("written");
            let probe = directory.path().join(name);
            std::fs::write(&probe, elf(number)).expect("written");
            std::fs::set_permissions(&probe, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("changed");
            let found = beside(&launcher, "amd64");
            assert_eq!(found.is_ok(), finds, "{name} {number}: {found:?}");
        }
        assert!(beside(Path::new("gpu-syringe"), "amd64").is_err(), "never the current directory");
        assert!(beside(Path::new(""), "amd64").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_write_is_not_taken() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let (launcher, probe) = (directory.path().join("gpu-syringe"), directory.path().join("node-probe"));
        std::fs::write(&launcher, b"launcher").expect("written");
        std::fs::write(&probe, elf(62)).expect("written");
        for (mode, finds) in [(0o755, true), (0o700, true), (0o775, false), (0o777, false), (0o644, false)] {
            std::fs::set_permissions(&probe, PermissionsExt::from_mode(mode)).expect("changed");
            assert_eq!(beside(&launcher, "amd64").is_ok(), finds, "{mode:o}");
        }
        std::fs::set_permissions(&probe, PermissionsExt::from_mode(0o755)).expect("changed");
        for (mode, finds) in [(0o777, false), (0o1777, false), (0o755, true)] {
            std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode)).expect("changed");
            assert_eq!(beside(&launcher, "amd64").is_ok(), finds, "the folder {mode:o}");
        }
        let aside = directory.path().join("aside");
        std::fs::rename(&probe, &aside).expect("renamed");
        std::os::unix::fs::symlink(&aside, &probe).expect("a link");
        assert!(beside(&launcher, "amd64").is_err(), "a link");
        std::fs::rename(&aside, &probe).expect("renamed");
        let root =
            std::fs::metadata(&probe).map(|file| std::os::unix::fs::MetadataExt::uid(&file) == 0).expect("a file");
        if root {
            std::fs::set_permissions(&probe, PermissionsExt::from_mode(0o755)).expect("changed");
            std::os::unix::fs::chown(&probe, Some(65_534), None).expect("changed");
            assert!(beside(&launcher, "amd64").expect_err("of another user").contains("another user"));
        }
    }
}
