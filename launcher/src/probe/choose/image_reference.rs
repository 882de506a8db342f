//! `ImageReference`: parses image names as kubelets report them.

/// Length of the hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// A full image reference: `registry/path[:tag][@digest]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageReference<'a> {
    pub(crate) registry: &'a str,
    pub(crate) path: &'a str,
    pub(crate) tag: Option<&'a str>,
    pub(crate) digest: Option<&'a str>,
}

impl<'a> ImageReference<'a> {
    /// Parses a name. `None` for a name without a registry, which each runtime completes in its own way, and for an
    /// invalid name.
    pub(crate) fn of(name: &'a str) -> Option<Self> {
        let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
        let (registry, rest) = name.split_once('/')?;
        // A colon after the registry starts the tag.
        let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
        let of = |text: &str, more: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte))
        };
        let is_host = registry.contains(['.', ':']) && of(registry, ".-:");
        let is_whole =
            of(path, "._-/") && tag.is_none_or(|tag| of(tag, "._-")) && digest.is_none_or(|hash| of(hash, ":+._-"));
        (is_host && is_whole).then_some(Self { registry, path, tag, digest })
    }

    /// Returns whether the image has this registry and path.
    pub(crate) fn is_of(&self, registry: &str, path: &str) -> bool {
        self.registry == registry && self.path == path
    }

    /// Returns the reference by digest, without the tag; `None` without a SHA-256 digest.
    pub(crate) fn pinned(&self) -> Option<String> {
        let digest = self.digest?;
        let digits = digest.strip_prefix("sha256:")?;
        let is_whole = digits.len() == SHA256_DIGITS
            && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_whole.then(|| format!("{}/{}@{digest}", self.registry, self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::ImageReference;

    #[test]
    fn only_a_whole_sha_256_pins() {
        let sha = "a".repeat(64);
        let pinned = |name: &str| ImageReference::of(name).and_then(|image| image.pinned());
        let whole = format!("docker.io/library/debian@sha256:{sha}");
        assert_eq!(pinned(&whole), Some(whole.clone()));
        assert_eq!(pinned(&format!("docker.io/library/debian:13@sha256:{sha}")), Some(whole));
        for name in [
            "d.io/x:1",
            "d.io/x@sha256:ab",
            &format!("d.io/x@sha512:{sha}"),
            &format!("d.io/x@sha256:{}", "G".repeat(64)),
        ] {
            assert_eq!(pinned(name), None, "{name}");
        }
    }
}
