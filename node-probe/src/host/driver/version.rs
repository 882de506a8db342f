//! `loaded`, `banner`: the version of the loaded kernel module, and the text of `/proc/driver/nvidia/version`.
//! `is_version`: whether a text has the format of a driver version.

use syringe_core::text::clean;

use crate::files;
use crate::paths::Paths;

/// Returns the version of the loaded kernel module. NVML only works with a library of the same version.
pub(crate) fn loaded(paths: &Paths) -> Option<String> {
    files::text(&paths.sys.join("module/nvidia/version"))
        .or_else(|| banner(paths).as_deref().and_then(version_in))
        .map(|version| clean(&version, 40))
}

/// Returns the content of `/proc/driver/nvidia/version`.
pub(in crate::host) fn banner(paths: &Paths) -> Option<String> {
    files::text(&paths.proc.join("driver/nvidia/version"))
}

/// Returns the first word that is a driver version.
fn version_in(banner: &str) -> Option<String> {
    banner.lines().next()?.split_whitespace().find(|word| is_version(word)).map(str::to_owned)
}

/// Returns whether the text is two or more numbers (`570.124.06`, `535.261`). A branch (`570`) is not a version: it would
/// look like a mismatch.
pub(in crate::host) fn is_version(text: &str) -> bool {
    let numbers = |part: &str| !part.is_empty() && part.len() <= 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 20 && (2..=4).contains(&text.split('.').count()) && text.split('.').all(numbers)
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn a_branch_is_not_a_version() {
        for (text, expected) in
            [("570.124.06", true), ("535.261", true), ("570", false), ("x.1", false), ("1.2.3.4.5", false), ("", false)]
        {
            assert_eq!(is_version(text), expected, "{text}");
        }
    }
}
