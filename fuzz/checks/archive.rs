//! The body of the fuzz target `archive`: packs the input as a node-probe program, unpacks it, and compares the files.

use std::io::Read;

use sha2::{Digest, Sha256};

use super::archive::{Archive, NAME};
use super::binary::machine;

/// `data` is a file that a user specified as node-probe. The unpacked file must equal the packed file.
pub fn archive(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("program");
    std::fs::write(&path, data).expect("a file");
    // The architecture is known only if the file is an ELF file.
    let machine = machine(&path);
    assert!(machine.is_err() || data.starts_with(b"\x7fELF"), "{machine:?}");
    let archive = Archive::pack(data).expect("an archive");
    assert_eq!(archive.program().expect("the program"), data);
    let digest: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(archive.sha256, digest);
    let packed = archive.tar().expect("the archive");
    assert!(
        packed.len() <= data.len() + 4 * 512,
        "the archive has {} bytes for {} bytes of data",
        packed.len(),
        data.len()
    );
    let mut tar = tar::Archive::new(packed.as_slice());
    let mut entries = tar.entries().expect("entries");
    let mut entry = entries.next().expect("one entry").expect("a header");
    assert_eq!(entry.path().expect("a path").to_str(), Some(NAME));
    let mut unpacked = Vec::new();
    entry.read_to_end(&mut unpacked).expect("the entry");
    assert_eq!(unpacked, data);
    assert!(entries.next().is_none(), "the archive must not have a second entry");
}
