//! `ImageReference`: parses image names, for the settings, the admission policy, and the images that kubelets report.
//! `PINNED`, `refusal`: which image names the admission policy admits, and why it does not admit a name.

/// Length of the hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;
/// The names that the admission policy admits, as a regular expression. [`refusal`] is `None` for the same names.
pub(crate) const PINNED: &str = "^(localhost|[a-z0-9-]+([.][a-z0-9-]+)+(:[0-9]+)?|[a-z0-9-]+:[0-9]+)(/[a-z0-9._-]+)+(:[A-Za-z0-9_.-]+)?@sha256:[0-9a-f]{64}$";

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
        let is_whole = path.split('/').all(|part| is_of(part, is_lower, "._-"))
            && tag.is_none_or(|tag| is_of(tag, |byte| byte.is_ascii_alphanumeric(), "._-"))
            && digest.is_none_or(|hash| is_of(hash, |byte| byte.is_ascii_alphanumeric(), ":+._-"));
        (is_registry(registry) && is_whole).then_some(Self { registry, path, tag, digest })
    }

    /// Returns whether the image has this registry and path.
    pub(crate) fn is_of(&self, registry: &str, path: &str) -> bool {
        self.registry == registry && self.path == path
    }

    /// Returns the digest; `None` if there is no complete SHA-256.
    pub(crate) fn sha256(&self) -> Option<&'a str> {
        self.digest.filter(|digest| is_sha256(digest))
    }

    /// Returns the reference by digest, without the tag; `None` without a SHA-256 digest.
    pub(crate) fn pinned(&self) -> Option<String> {
        self.sha256().map(|digest| format!("{}/{}@{digest}", self.registry, self.path))
    }
}

/// Returns whether the text is `sha256:` and 64 hexadecimal digits in lower case.
pub(crate) fn is_sha256(digest: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digest.strip_prefix("sha256:").is_some_and(|digits| digits.len() == SHA256_DIGITS && digits.bytes().all(is_digit))
}

/// Returns why the admission policy does not admit an image of this name; `None` if it can admit the image.
pub(crate) fn refusal(name: &str) -> Option<String> {
    let parsed = ImageReference::of(name);
    if parsed.is_some_and(|image| image.sha256().is_some()) {
        return None;
    }
    let (rest, digest) = name.split_once('@').map_or((name, None), |(rest, digest)| (rest, Some(digest)));
    let registry = rest.split_once('/').map(|(registry, _)| registry);
    let why = match (digest, registry) {
        (None, _) => "it is not pinned by digest",
        (Some(digest), _) if !is_sha256(digest) => "its digest is not sha256: and 64 hexadecimal digits in lower case",
        (_, Some(registry)) if is_registry(registry) => "its path or tag has characters that an image name cannot have",
        (_, Some(registry)) if registry.contains(['.', ':']) => "its registry is not HOST or HOST:PORT in lower case",
        _ => "it has no registry, and each container runtime completes such a name in its own way",
    };
    Some(why.to_owned())
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Returns whether the text is not empty and has only these bytes.
fn is_of(text: &str, of: impl Fn(u8) -> bool, more: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| of(byte) || more.as_bytes().contains(&byte))
}

/// Returns whether the text is `localhost`, a host with a dot, or a host with a port.
fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_port = port.is_none_or(|port| is_of(port, |byte| byte.is_ascii_digit(), ""));
    let is_host = host.split('.').all(|label| is_of(label, is_lower, "-"));
    is_host && is_port && (host.contains('.') || port.is_some() || text == "localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

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

    #[test]
    fn each_reason_is_named() {
        let sha = format!("sha256:{}", "a".repeat(64));
        let cases = [
            ("r.test/x:1".to_owned(), "not pinned"),
            ("r.test/x@sha256:1".to_owned(), "64 hexadecimal digits"),
            (format!("node-probe@{sha}"), "has no registry"),
            (format!("team/node-probe@{sha}"), "has no registry"),
            (format!("R.test/x@{sha}"), "HOST:PORT"),
            (format!("r.test/X@{sha}"), "its path or tag"),
        ];
        for (name, words) in cases {
            assert!(refusal(&name).is_some_and(|why| why.contains(words)), "{name}: {:?}", refusal(&name));
        }
        for name in ["localhost/node-probe", "localhost:5000/a/b:1", "registry:5000/x", "r.test/gpu/node-probe:0.1.0"] {
            assert_eq!(refusal(&format!("{name}@{sha}")), None, "{name}");
        }
    }

    proptest! {
        /// The policy and the launcher agree on every name.
        #[test]
        fn the_pattern_of_the_policy_and_the_parser_agree(
            registry in "(localhost|local|[a-zA-Z0-9.-]{0,6})?(:[0-9a]{0,4})?",
            path in "(/[a-zA-Z0-9._-]{0,4}){0,3}",
            tag in "(:[A-Za-z0-9_.:-]{0,3})?",
            digest in "(@(sha256:[0-9a-f]{64}|sha256:[0-9a-fA-F]{63,65}|sha512:[0-9a-f]{64}|))?",
            end in "[\n /@]?",
        ) {
            let name = format!("{registry}{path}{tag}{digest}{end}");
            let pattern = Regex::new(PINNED).expect("a pattern");
            prop_assert_eq!(refusal(&name).is_none(), pattern.is_match(&name), "{:?}", name);
        }
    }
}
