//! Images that cannot be pulled: what the registry said, as the kubelet quotes it.

use crate::explanation::Cause;

/// What a message says of a pull that failed.
pub(super) struct Pull {
    /// One of these must be in the message, in lower case.
    words: &'static [&'static str],
    /// Where the cause lies.
    pub(super) cause: Cause,
    /// What it means.
    pub(super) what: &'static str,
    /// What helps; `{node}` is the node.
    pub(super) action: &'static str,
}

/// Of several that fit the first counts: a registry's refusal stands before what the client makes of it.
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
        what: "the registry demands credentials that the pod does not have",
        action: "Give the pod the pull secret of the registry (imagePullSecrets), or correct the image's name.",
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
        what: "its node does not reach the registry",
        action: "Check that the registry runs and that {node} reaches it (DNS, proxy, firewall).",
    },
    Pull {
        words: &["no match for platform"],
        cause: Cause::Application,
        what: "the image is not there for the node's processor architecture",
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
        action: "Correct the image's name or tag.",
    },
];

/// The first that fits.
pub(super) fn known(message: &str) -> Option<&'static Pull> {
    let message = message.to_ascii_lowercase();
    PULLS.iter().find(|pull| pull.words.iter().any(|word| message.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn what_the_registry_said_is_told_apart() {
        for (message, what) in [
            (
                "Back-off pulling image \"127.0.0.1:1/cuda:12.8\": ErrImagePull: failed to resolve image: failed to do request: \
                 Head \"https://127.0.0.1:1/v2/cuda/manifests/12.8\": dial tcp 127.0.0.1:1: connect: connection refused",
                "does not reach the registry",
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
