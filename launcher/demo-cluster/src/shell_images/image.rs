//! Container images with other programs than the probe.

#[derive(Clone, Debug)]
pub struct Image {
    /// The programs in its path: `sh`, `tar`, `head`, …
    pub programs: Vec<&'static str>,
    /// The image has the loader of glibc.
    pub glibc: bool,
    /// The host has the loader of glibc.
    pub host_glibc: bool,
    /// A process whose root is the root of the host and is accessible, such as `/proc/1`.
    pub host_process: Option<&'static str>,
    /// Permissions of `/tmp`.
    pub tmp: Tmp,
}

/// Permissions of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tmp {
    /// Reading, writing and execution.
    Usual,
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    NoExec,
}

impl Image {
    /// The base image of a distribution.
    pub fn debian() -> Self {
        let programs = vec!["sh", "sleep", "tar", "head", "cat", "chmod", "sha256sum", "chroot", "grep"];
        Self { programs, glibc: true, host_glibc: true, host_process: Some("/proc/1"), tmp: Tmp::Usual }
    }

    /// An image with these programs, without glibc.
    pub fn busybox() -> Self {
        Self { glibc: false, ..Self::debian() }
    }

    /// An image without programs.
    pub fn distroless() -> Self {
        Self { programs: Vec::new(), ..Self::debian() }
    }

    /// Without some of its programs.
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
