//! `Archive`: a tar archive of node-probe. `Archives`: creates each archive once per launcher, in an unnamed temporary
//! file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::binary::ProbeBinary;
use crate::carried::sha256;
use kube_read::Failure;

/// Name of the probe in the archive.
pub(super) const NAME: &str = "node-probe";
/// Size of a tar header, which precedes the bytes of the file.
const TAR_HEADER_BYTES: usize = 512;

#[derive(Debug)]
pub(crate) struct Archive {
    /// SHA-256 of the program, in hexadecimal digits.
    pub(super) sha256: String,
    size: usize,
    /// The archive. The file has no name, so the system deletes it when the process exits.
    tar: Mutex<File>,
}

impl Archive {
    pub(super) fn pack(program: &[u8]) -> std::io::Result<Self> {
        let mut header = tar::Header::new_ustar();
        header.set_size(program.len() as u64);
        header.set_mode(0o700);
        let mut builder = tar::Builder::new(tempfile::tempfile()?);
        builder.append_data(&mut header, NAME, program)?;
        let tar = builder.into_inner()?;
        Ok(Self { sha256: sha256(program), size: program.len(), tar: Mutex::new(tar) })
    }

    pub(super) fn tar(&self) -> std::io::Result<Vec<u8>> {
        let mut file = self.tar.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::with_capacity(self.size + 4 * TAR_HEADER_BYTES);
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn program(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = self.tar()?;
        bytes.drain(..TAR_HEADER_BYTES.min(bytes.len()));
        bytes.truncate(self.size);
        Ok(bytes)
    }
}

/// Identifies a program without reading it: path, modification time and length of a file, or an embedded program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    place: ProbeBinary,
    modified: Option<SystemTime>,
    length: u64,
}

impl Stamp {
    fn of(binary: &ProbeBinary) -> std::io::Result<Self> {
        let (modified, length) = match binary {
            ProbeBinary::File(path) => {
                let metadata = std::fs::metadata(path)?;
                (metadata.modified().ok(), metadata.len())
            }
            ProbeBinary::Carried(_) => (None, 0),
        };
        Ok(Self { place: binary.clone(), modified, length })
    }
}

/// The archives that were already created, usually one archive for each architecture.
#[derive(Debug, Default)]
pub(crate) struct Archives(Mutex<Vec<(Stamp, Arc<Archive>)>>);

impl Archives {
    /// Returns the archive of this program, and creates it again only if the file has changed.
    pub(super) async fn of(&self, binary: &ProbeBinary) -> Result<Arc<Archive>, Failure> {
        let failed = |why: String| {
            let what = format!("Packing {binary} for the node");
            Failure::new(what, why, "Check that the file can be read and that the temporary directory has room for it.")
        };
        let stamp = Stamp::of(binary).map_err(|error| failed(error.to_string()))?;
        let packed = |all: &[(Stamp, Arc<Archive>)]| {
            all.iter().find(|(known, _)| *known == stamp).map(|(_, archive)| archive.clone())
        };
        if let Some(archive) = packed(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(archive);
        }
        let packing = binary.clone();
        let packing = tokio::task::spawn_blocking(move || Archive::pack(&packing.read()?)).await;
        let archive = packing.map_err(|panic| failed(panic.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let archive = Arc::new(archive);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(known, _)| known.place != stamp.place);
        all.push((stamp, archive.clone()));
        Ok(archive)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Archives, ProbeBinary};

    #[tokio::test]
    async fn a_program_is_packed_once_until_it_changes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node-probe");
        std::fs::write(&path, b"program").expect("written");
        let (archives, binary) = (Archives::default(), ProbeBinary::File(path.clone()));
        let first = archives.of(&binary).await.expect("an archive");
        assert!(Arc::ptr_eq(&first, &archives.of(&binary).await.expect("an archive")));
        assert_eq!(first.program().expect("read"), b"program");
        let packed = first.tar().expect("read");
        let mut tar = tar::Archive::new(packed.as_slice());
        let entry = tar.entries().expect("entries").next().expect("one").expect("good");
        assert_eq!(
            (entry.path().expect("a name").to_str(), entry.header().mode().ok()),
            (Some("node-probe"), Some(0o700))
        );
        std::fs::write(&path, b"another program").expect("written");
        let second = archives.of(&binary).await.expect("an archive");
        assert_ne!(first.sha256, second.sha256);
    }
}
