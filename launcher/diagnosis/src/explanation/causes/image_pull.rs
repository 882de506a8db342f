//! Images that cannot be pulled: the meaning of the registry's error, as the kubelet quotes it.

use crate::explanation::types::Cause;

/// The meaning of an error message about an image pull.
pub(crate) struct Pull {
    /// Lower-case words of which the message must contain one.
    words: &'static [&'static str],
    pub(crate) cause: Cause,
    pub(crate) what: &'static str,
    /// Action; `{node}` stands for the node's name.
    pub(crate) action: &'static str,
}

/// The first match is used: errors of the registry come before those that the client adds.
static PULLS: &[Pull] = &[
    Pull {
        words: &["toomanyrequests", "rate limit"],
        cause: Cause::Cluster,
        what: "the registry refuses more pulls for now (rate limit)",
        action: "Pull with credentials, or from a mirror of the registry.",
    },
    Pull {
        words: &["unauthorized", "authorization failed", "403 forbidden", "pull access denied", "denied:"],
        cause: Cause::Application,
        what: "the registry requires credentials that the pod does not have",
        action: "Add the pull secret of the registry to the pod (imagePullSecrets), or correct the image name.",
    },
    Pull {
        words: &["x509", "certificate", "http: server gave http response to https client"],
        cause: Cause::Node,
        what: "its node does not trust the registry",
        action: "Configure the registry's certificate in the container runtime of {node}.",
    },
    Pull {
        words: &[
            "connection refused",
            "no such host",
            "i/o timeout",
            "network is unreachable",
            "context deadline exceeded",
        ],
        cause: Cause::Cluster,
        what: "its node cannot reach the registry",
        action: "Check that the registry is running and that {node} can reach it (DNS, proxy, firewall).",
    },
    Pull {
        words: &["no match for platform"],
        cause: Cause::Application,
        what: "there is no image for the node's processor architecture",
        action: "Use an image for the architecture of {node}.",
    },
    Pull {
        words: &["no space left on device"],
        cause: Cause::Node,
        what: "a disk of its node is full",
        action: "Free disk space on {node}.",
    },
    Pull {
        words: &["not found", "manifest unknown", "name unknown"],
        cause: Cause::Application,
        what: "the registry has no such image",
        action: "Correct the image name or tag.",
    },
];

pub(crate) fn known(message: &str) -> Option<&'static Pull> {
    let message = message.to_ascii_lowercase();
    PULLS.iter().find(|pull| pull.words.iter().any(|word| message.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn errors_of_the_registry_are_distinguished() {
        for (message, what) in [
            (
                "Back-off pulling image \"127.0.0.1:1/cuda:12.8\": ErrImagePull: failed to resolve image: failed to do request: \
                 Head \"https://127.0.0.1:1/v2/cuda/manifests/12.8\": dial tcp 127.0.0.1:1: connect: connection \
                 refused",
                "cannot reach the registry",
            ),
            (
                "failed to resolve reference \"nvcr.io/nvidia/driver:570-rocky8.10\": nvcr.io/nvidia/driver:570-rocky8.10: not \
                 found",
                "no such image",
            ),
            ("pull access denied, repository does not exist or may require authorization", "credentials"),
            ("429 Too Many Requests - toomanyrequests: You have reached your pull rate limit", "rate limit"),
        ] {
            assert!(known(message).is_some_and(|pull| pull.what.contains(what)), "{message}");
        }
        assert!(known("Back-off pulling image \"train:1\"").is_none());
    }
}
