//! `config_dir`, `state_dir`, `lock_dir`: the user's directories for gpu-syringe, as defined by XDG or by Windows.
//! The state directory must be private to the user.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

/// Name of the directory of gpu-syringe in each base directory.
const NAME: &str = "gpu-syringe";

/// Returns `$XDG_CONFIG_HOME/gpu-syringe`, the directory of the settings file. The directory is not created, and may be
/// missing.
pub(crate) fn config_dir() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.config_dir().join(NAME))
}

/// Returns `$XDG_STATE_HOME/gpu-syringe`, the directory of locks and the audit log. A missing directory is
/// created. Only the user can enter the directory.
pub(crate) fn state_dir() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    // Windows has no state directory, so `%LOCALAPPDATA%` is used.
    let directory = base.state_dir().unwrap_or_else(|| base.cache_dir()).join(NAME);
    match make_private(&directory) {
        Ok(()) => Some(directory),
        Err(error) => {
            // The warning is logged only once, although several parts of the program call this function.
            static TOLD: std::sync::Once = std::sync::Once::new();
            let directory = directory.display();
            TOLD.call_once(|| {
                tracing::warn!("no audit log: {directory}: {error} (XDG_STATE_HOME sets another folder)")
            });
            None
        }
    }
}

/// Returns a directory for locks if the state directory cannot be used: `$XDG_RUNTIME_DIR/gpu-syringe`, or a directory
/// in the directory for temporary files. The files in this directory may be lost.
pub(crate) fn lock_dir() -> Option<PathBuf> {
    let runtime = etcetera::choose_base_strategy().ok().and_then(|base| base.runtime_dir());
    let runtime = runtime.filter(|directory| directory.is_absolute()).map(|directory| directory.join(NAME));
    // The name contains the user ID, because other users have their own directories in the same parent directory.
    let temporary = std::env::temp_dir().join(format!("{NAME}-{}", user()?));
    runtime.into_iter().chain([temporary]).find(|directory| {
        // Another user can put a link into a directory for temporary files.
        create(directory).and_then(|()| close_to_others(directory, fs::symlink_metadata(directory)?)).is_ok()
    })
}

/// Returns the user ID of this process.
#[cfg(unix)]
fn user() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    Some(tempfile::tempfile().ok()?.metadata().ok()?.uid().to_string())
}

/// Returns a fixed name, because the directory for temporary files belongs to the user alone.
#[cfg(not(unix))]
fn user() -> Option<String> {
    Some("locks".to_owned())
}

/// Creates a directory that only the user can enter. Rejects a directory of another user.
fn make_private(directory: &Path) -> io::Result<()> {
    create(directory)?;
    close_to_others(directory, fs::metadata(directory)?)
}

fn create(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn close_to_others(directory: &Path, metadata: fs::Metadata) -> io::Result<()> {
    if !metadata.is_dir() {
        return Err(io::Error::other("the path is not a directory"));
    }
    #[cfg(not(unix))]
    let _ = directory;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        // The owner of a new file is the user ID of this process.
        if tempfile::tempfile_in(directory)?.metadata()?.uid() != metadata.uid() {
            return Err(io::Error::other("the directory belongs to another user"));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn other_users_cannot_enter_the_directory() {
        let base = tempfile::tempdir().expect("a directory");
        let directory = base.path().join(NAME);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        make_private(&directory).expect("made");
        assert_eq!(mode(&directory), 0o700);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("ours");
        make_private(&directory).expect("closed again");
        assert_eq!(mode(&directory), 0o700);
        let file = base.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(make_private(&file).is_err(), "not a directory");
    }

    #[test]
    fn a_link_is_no_directory_for_locks() {
        let base = tempfile::tempdir().expect("a directory");
        let (target, link) = (base.path().join("target"), base.path().join("link"));
        fs::create_dir(&target).expect("made");
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        assert!(close_to_others(&link, fs::symlink_metadata(&link).expect("there")).is_err());
        assert!(close_to_others(&target, fs::symlink_metadata(&target).expect("there")).is_ok());
    }

    /// Only root can create a directory that belongs to another user. For other users, this test is skipped.
    #[test]
    fn a_directory_of_another_user_is_refused() {
        use std::os::unix::fs::chown;
        let base = tempfile::tempdir().expect("a directory");
        let directory = base.path().join("gpu-syringe");
        fs::create_dir(&directory).expect("made");
        if chown(&directory, Some(12_345), None).is_ok() {
            let error = make_private(&directory).expect_err("another user's");
            assert!(error.to_string().contains("another user"), "{error}");
        }
    }
}
