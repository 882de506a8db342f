//! `Image`: describes a simulated image (`debian`, `busybox`, `distroless`): its programs, glibc, and `/tmp` (`Tmp`).

#[derive(Clone, Debug)]
pub struct Image {
    /// The programs in the path of the image: `sh`, `tar`, `head`, …
    pub programs: Vec<&'static str>,
    /// Whether the image has the loader of glibc.
    pub glibc: bool,
    /// Whether the host has the loader of glibc.
    pub host_glibc: bool,
    /// A process through which the root of the host is accessible, such as `/proc/1`.
    pub host_process: Option<&'static str>,
    /// Permissions of `/tmp`.
    pub tmp: Tmp,
}

/// Permissions of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tmp {
    /// Reading, writing and execution are allowed.
    Usual,
    /// Only reading is allowed.
    ReadOnly,
    /// Reading and writing are allowed.
    NoExec,
}

impl Image {
    /// Returns the base image of a distribution.
    pub fn debian() -> Self {
        let programs = vec!["sh", "sleep", "tar", "head", "cat", "chmod", "sha256sum", "chroot", "grep"];
        Self { programs, glibc: true, host_glibc: true, host_process: Some("/proc/1"), tmp: Tmp::Usual }
    }

    /// Returns an image with the programs of `debian`, but without glibc.
    pub fn busybox() -> Self {
        Self { glibc: false, ..Self::debian() }
    }

    /// Returns an image without programs.
    pub fn distroless() -> Self {
        Self { programs: Vec::new(), ..Self::debian() }
    }

    /// Removes some programs from the image.
    #[must_use]
    pub fn without(mut self, programs: &[&str]) -> Self {
        self.programs.retain(|own| !programs.contains(own));
        self
    }

    /// Sets the permissions of `/tmp`.
    #[must_use]
    pub fn with_tmp(mut self, tmp: Tmp) -> Self {
        self.tmp = tmp;
        self
    }
}
