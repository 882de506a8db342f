//! Finds a node-probe for the architecture of the node, which its ELF header tells.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Failure, RejectionReason};
use crate::settings::Settings;

/// The part of an ELF header that includes its machine.
const HEAD_BYTES: usize = 20;
/// ELF machine numbers (`e_machine`) with the names of Kubernetes.
const MACHINES: [(u16, &str); 5] = [(62, "amd64"), (183, "arm64"), (21, "ppc64le"), (22, "s390x"), (243, "riscv64")];

/// The file to upload to a node of this architecture.
pub(super) fn find(settings: &Settings, architecture: &str) -> Result<PathBuf, Failure> {
    let failed = |why: String, next: &str| {
        let what = format!("Finding a node-probe for {architecture} to upload");
        Err(Failure::new(what, why, next).because_of(RejectionReason::Upload))
    };
    if let Some(path) = &settings.probe_binary {
        return match machine(path) {
            Ok(machine) if machine == architecture => Ok(path.clone()),
            Ok(machine) => failed(
                format!("{} is for {machine}, the node is {architecture}", path.display()),
                "Name the node-probe of the node's architecture with --probe-binary.",
            ),
            Err(why) => failed(
                format!("{}: {why}", path.display()),
                "Name a node-probe that was built for Linux with --probe-binary.",
            ),
        };
    }
    let candidates = beside_this_program(architecture);
    if let Some(path) = candidates.iter().find(|path| machine(path).is_ok_and(|machine| machine == architecture)) {
        return Ok(path.clone());
    }
    let names: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
    failed(
        format!("none of these is one: {}", names.join(", ")),
        "Put it there, or name it with --probe-binary (cargo build -p node-probe --release builds it).",
    )
}

fn beside_this_program(architecture: &str) -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let directory = program.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
    [format!("node-probe-linux-{architecture}"), format!("node-probe-{architecture}"), "node-probe".to_owned()]
        .map(|name| directory.join(name))
        .into()
}

/// The architecture that a program is for.
pub(super) fn machine(path: &Path) -> Result<String, String> {
    let mut head = [0; HEAD_BYTES];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it is not a program".to_owned(),
        _ => error.to_string(),
    })?;
    if !head.starts_with(b"\x7fELF") {
        return Err("it is not a Linux program (no ELF header)".into());
    }
    let bytes = [head[18], head[19]];
    // Byte 5 is the byte order.
    let number = if head[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let known = MACHINES.iter().find(|(machine, _)| *machine == number);
    Ok(known.map_or_else(|| format!("ELF machine {number}"), |(_, name)| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::machine;

    #[test]
    fn a_program_says_itself_what_it_is_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let machine_of = |bytes: &[u8]| {
            let path = directory.path().join("program");
            std::fs::write(&path, bytes).expect("written");
            machine(&path)
        };
        let elf = |machine: u8| [b"\x7fELF\x02\x01".as_slice(), &[0; 12], &[machine, 0]].concat();
        assert_eq!(machine_of(&elf(62)).as_deref(), Ok("amd64"));
        assert_eq!(machine_of(&elf(183)).as_deref(), Ok("arm64"));
        assert_eq!(machine_of(&elf(8)).as_deref(), Ok("ELF machine 8"));
        assert!(machine_of(b"MZ-a-windows-program-it-is").is_err() && machine_of(b"\x7fELF").is_err());
    }
}
