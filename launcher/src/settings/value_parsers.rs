//! `KeyValue`, `TolerationArg`, `PodRef`, `EphemeralPod`, `path`, `digest`: parse values of settings.
//! `image`: applies a mirror and a digest to an image reference.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::image_reference::is_sha256;

/// A pair `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The text before the first `=`.
    pub key: String,
    /// The text after the first `=`.
    pub value: String,
}

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok(Self { key: key.trim().into(), value: value.into() }),
            _ => Err("it must be key=value".into()),
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.key, self.value)
    }
}

/// A taint to tolerate: `key` or `key=value`, optionally followed by `:effect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TolerationArg {
    /// The taint's key.
    pub key: String,
    /// Value of the taint. If absent, any value matches.
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`. If absent, any effect matches.
    pub effect: Option<String>,
}

impl FromStr for TolerationArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (taint, effect) = match text.rsplit_once(':') {
            Some((taint, effect)) => (taint, Some(effect)),
            None => (text, None),
        };
        if let Some(effect) = effect
            && !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)
        {
            return Err(format!("'{effect}' is not an effect; use NoSchedule, PreferNoSchedule or NoExecute"));
        }
        let (key, value) = taint.split_once('=').map_or((taint, None), |(key, value)| (key, Some(value)));
        if key.is_empty() {
            return Err("it must be key[=value][:effect]".into());
        }
        Ok(Self { key: key.into(), value: value.map(str::to_owned), effect: effect.map(str::to_owned) })
    }
}

impl fmt::Display for TolerationArg {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, effect } = self;
        write!(formatter, "{key}")?;
        value.iter().try_for_each(|value| write!(formatter, "={value}"))?;
        effect.iter().try_for_each(|effect| write!(formatter, ":{effect}"))
    }
}

/// A pod as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
}

impl FromStr for PodRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.into(), name: name.into() })
            }
            _ => Err("it must be namespace/name".into()),
        }
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Parses a path. A shell expands `~/`, but the JSON of a desktop host does not.
pub(super) fn path(text: &str) -> Result<PathBuf, Infallible> {
    let home = || Some(std::env::home_dir()?.join(text.strip_prefix("~/")?));
    Ok(home().unwrap_or_else(|| PathBuf::from(text)))
}

/// The pod of `--via ephemeral`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EphemeralPod {
    /// Any running pod with a GPU, outside kube-system.
    Any,
    Named(PodRef),
}

impl FromStr for EphemeralPod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self::Any),
            text => text.parse().map(Self::Named).map_err(|_| "it must be namespace/name or any".into()),
        }
    }
}

impl fmt::Display for EphemeralPod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("any"),
            Self::Named(pod) => pod.fmt(formatter),
        }
    }
}

/// Checks that the text is `sha256:` and 64 hexadecimal digits.
pub(super) fn digest(text: &str) -> Result<String, String> {
    if is_sha256(text) { Ok(text.to_owned()) } else { Err("it must be sha256: and 64 hexadecimal digits".into()) }
}

/// Returns an image reference with another registry, and with a digest in place of its tag.
pub(super) fn image(reference: &str, mirror: Option<&str>, digest: Option<&str>) -> String {
    let mut image = reference.to_owned();
    if let Some(mirror) = mirror {
        // The first part is a registry if it looks like a host name; `library/busybox` has no registry.
        let path = match image.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
            _ => &image,
        };
        image = format!("{}/{path}", mirror.trim_end_matches('/'));
    }
    if let Some(digest) = digest {
        let untagged = image.split('@').next().unwrap_or_default();
        // A colon after the last slash starts a tag; a colon before it starts a port.
        let name_at = untagged.rfind('/').map_or(0, |at| at + 1);
        let end = untagged[name_at..].find(':').map_or(untagged.len(), |at| name_at + at);
        image = format!("{}@{digest}", &untagged[..end]);
    }
    image
}

#[cfg(test)]
mod tests {
    use super::{KeyValue, PodRef, TolerationArg, digest, image};

    #[test]
    fn a_mirror_replaces_the_registry_and_a_digest_replaces_the_tag() {
        let sha = format!("sha256:{}", "a".repeat(64));
        assert_eq!(image("ghcr.io/a/b:1", None, None), "ghcr.io/a/b:1");
        assert_eq!(image("ghcr.io/a/b:1", Some("mirror:5000/x/"), None), "mirror:5000/x/a/b:1");
        assert_eq!(image("busybox", Some("mirror.example"), None), "mirror.example/busybox");
        assert_eq!(image("host:5000/a/b:1", None, Some(&sha)), format!("host:5000/a/b@{sha}"));
        assert_eq!(image("host:5000/a/b", Some("m.example"), Some(&sha)), format!("m.example/a/b@{sha}"));
        assert!(digest(&sha).is_ok() && digest("sha256:short").is_err() && digest(&"a".repeat(71)).is_err());
    }

    #[test]
    fn pairs_tolerations_and_pods_are_parsed() {
        let toleration: TolerationArg = "dedicated=gpu:NoSchedule".parse().expect("a toleration");
        assert_eq!((toleration.value.as_deref(), toleration.effect.as_deref()), (Some("gpu"), Some("NoSchedule")));
        assert_eq!(toleration.to_string(), "dedicated=gpu:NoSchedule");
        assert!("key:Never".parse::<TolerationArg>().is_err() && "=x".parse::<TolerationArg>().is_err());
        assert_eq!("team=a=b".parse::<KeyValue>().expect("a pair").value, "a=b");
        assert!("team".parse::<KeyValue>().is_err() && "a/b/c".parse::<PodRef>().is_err());
    }
}
