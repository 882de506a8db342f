//! `write`: writes a complete file that only the user can read.
//! `check_free`: fails if the file exists, unless `--force` is set.

use std::fs::File;
use std::io;
use std::path::Path;

use kube_read::Failure;

/// Fails if the file exists and may not be replaced. `option`: the option that names the file.
pub(crate) fn check_free(path: &Path, force: bool, option: &str) -> Result<(), Failure> {
    let why = match path.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(found) if !found.is_file() => "the path exists and is not a plain file",
        Ok(_) if force => return Ok(()),
        Ok(_) => "the file exists",
    };
    let next = format!("Name another file with {option}, or replace a file with --force.");
    Err(Failure::new(format!("Writing {}", path.display()), why, next))
}

/// Writes the file, readable only by the user. With `force`, a complete file replaces an existing file. Returns the size.
pub(crate) fn write(
    path: &Path,
    force: bool,
    option: &str,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<u64, Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: io::Error| {
        let next = format!("Name a file in a folder that you can write, with {option}.");
        Failure::new(format!("Writing {}", path.display()), error, next)
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    fill(file.as_file_mut()).map_err(failed)?;
    check_free(path, force, option)?;
    let file = if force { file.persist(path) } else { file.persist_noclobber(path) };
    let file = file.map_err(|error| failed(error.error))?;
    file.metadata().map(|metadata| metadata.len()).map_err(failed)
}
