//! `prepare_plugin`: disables standard input for a credential plugin, and finds the plugin's program.
//! `file_name`: the file name of the program, for messages.
//!
//! Plugins run as children of this process, and must not read its standard input, which is the MCP stream. They are
//! often not found, because a desktop host starts this program with a short `PATH`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kube::config::{ExecConfig, ExecInteractiveMode, Kubeconfig, NamedAuthInfo};

use crate::Failure;

/// Directories in which the plugins of large cloud providers are installed. They are searched after `PATH`.
const USUAL_FOLDERS: &[&str] = &[
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/snap/bin",
    "/usr/lib/google-cloud-sdk/bin",
    "~/google-cloud-sdk/bin",
    "~/.local/bin",
    "~/bin",
    "~/.krew/bin",
    "~/.asdf/shims",
];

/// Disables standard input for the plugin of `user`, and replaces the plugin's program name with its path.
pub fn prepare_plugin(kubeconfig: &mut Kubeconfig, user: &str) -> Result<(), Failure> {
    let Some(exec) = plugin_of(&mut kubeconfig.auth_infos, user) else { return Ok(()) };
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err(Failure::new(
            format!("Signing in as kubeconfig user '{user}'"),
            "its plugin requires a terminal (interactiveMode: Always), but standard input belongs to the MCP host",
            "Sign in once in a terminal with kubectl, or use a user whose plugin has interactiveMode: IfAvailable or Never.",
        ));
    }
    exec.interactive_mode = Some(ExecInteractiveMode::Never);
    let Some(command) = exec.command.clone() else { return Ok(()) };
    let (path, home) = (std::env::var_os("PATH"), std::env::home_dir());
    match find(&command, path.as_deref(), home.as_deref()) {
        Some(path) => {
            exec.command = Some(path.to_string_lossy().into_owned());
            Ok(())
        }
        None => {
            let hint = exec.install_hint.clone().map(|hint| format!(" {}", syringe_core::text::clean(&hint, 200)));
            Err(Failure::new(
                format!("Signing in as kubeconfig user '{user}'"),
                format!(
                    "its credential plugin '{command}' was not found{}",
                    if command.contains(['/', '\\']) { "" } else { " in PATH or the usual folders" }
                ),
                format!(
                    "Install the plugin, or set its full path in the kubeconfig. A desktop MCP host may need PATH in \
                     its configuration.{}",
                    hint.unwrap_or_default()
                ),
            ))
        }
    }
}

/// Returns the file name of a plugin for messages. The rest of its command line may contain secrets.
pub fn file_name(exec: &ExecConfig) -> Option<String> {
    let name = exec.command.as_deref()?.rsplit(['/', '\\']).next()?;
    Some(syringe_core::text::clean(name, 80))
}

fn plugin_of<'a>(users: &'a mut [NamedAuthInfo], user: &str) -> Option<&'a mut ExecConfig> {
    users.iter_mut().find(|named| named.name == user)?.auth_info.as_mut()?.exec.as_mut()
}

/// Searches for a program in `path` (the value of `PATH`), then in the usual directories. On Windows, also tries the
/// suffixes in `PATHEXT`.
fn find(command: &str, path: Option<&OsStr>, home: Option<&Path>) -> Option<PathBuf> {
    let named = Path::new(command);
    if named.components().count() > 1 {
        // The command is a path. kube has already made a relative path absolute.
        return named.is_file().then(|| named.to_owned());
    }
    let usual = USUAL_FOLDERS.iter().filter_map(|folder| match folder.strip_prefix("~/") {
        Some(below) => Some(home?.join(below)),
        None => Some(PathBuf::from(folder)),
    });
    let in_path = path.into_iter().flat_map(std::env::split_paths);
    let folders = std::env::join_paths(in_path.chain(usual)).ok()?;
    which::which_in_global(command, Some(folders)).ok()?.next()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_plugin_is_an_executable_file_in_path_or_in_a_usual_folder() {
        let home = tempfile::tempdir().expect("a directory");
        let file = |folder: &str, mode| {
            let folder = home.path().join(folder);
            std::fs::create_dir_all(&folder).expect("created");
            let file = folder.join("plugin-of-the-test");
            std::fs::write(&file, "").expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("ours");
            file
        };
        let not_executable = file("path", 0o644);
        let find = || find("plugin-of-the-test", not_executable.parent().map(Path::as_os_str), Some(home.path()));
        assert_eq!(find(), None);
        let usual = file(".krew/bin", 0o755);
        assert_eq!(find(), Some(usual));
        let in_path = file("path", 0o755);
        assert_eq!(find(), Some(in_path), "PATH comes first");
    }
}
