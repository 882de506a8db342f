//! `pod_security`, `permission_missing`, `policy_image`, `namespace_missing`: the next steps for a user after a cluster
//! rejected a probe.

/// The namespace that is used without `--probe-namespace`.
const DEFAULT_NAMESPACE: &str = "gpu-syringe";
pub(crate) const CHECK: &str = "Then, to check the set-up, run: gpu-syringe doctor.";

/// Next step if the image does not contain node-probe.
pub(in crate::probe) const NO_PROBE: &str =
    "The image does not contain node-probe: use the right image with --image (deploy/Containerfile builds it).";

/// Returns the setup command for an administrator.
fn set_up(namespace: &str, profile: &str) -> String {
    format!("gpu-syringe setup --apply --profile {profile}{}", other(namespace))
}

/// Returns the option for the namespace; empty for the default namespace.
fn other(namespace: &str) -> String {
    if namespace == DEFAULT_NAMESPACE { String::new() } else { format!(" --probe-namespace {namespace}") }
}

/// Returns the setup commands of both profiles, the recommended profile first.
fn set_up_either(namespace: &str) -> String {
    format!(
        "{} --image REGISTRY/node-probe@sha256:DIGEST (recommended), or {}, which needs no image",
        set_up(namespace, "hardened"),
        set_up(namespace, "trial")
    )
}

/// Returns the next step if the namespace of the probes does not exist.
pub(crate) fn namespace_missing(namespace: &str) -> String {
    format!("Ask an administrator to create namespace {namespace}: {}. {CHECK}", set_up_either(namespace))
}

/// Returns the next step if the namespace does not admit privileged pods.
pub(crate) fn pod_security(namespace: &str) -> String {
    format!(
        "Ask an administrator to admit privileged pods in the namespace: {}; to set only the label, run: kubectl label --overwrite \
         namespace {namespace} pod-security.kubernetes.io/enforce=privileged. {CHECK}",
        set_up_either(namespace)
    )
}

/// Returns the next step if the user lacks a permission that a probe needs. `why` is the message of the API server.
pub(crate) fn permission_missing(namespace: &str, why: &str) -> String {
    let user = why.split_once("User \"").and_then(|(_, rest)| rest.split_once('"')).map(|(user, _)| user);
    let plain = |user: &&str| {
        !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":@._-".contains(&byte))
    };
    let user = user.filter(plain).unwrap_or("USER");
    format!(
        "Your user needs create, get and delete on pods and get and create on pods/exec in namespace {namespace}. \
         Ask an administrator to grant these permissions: gpu-syringe setup --apply{} --user {user}. {CHECK} \
         To work without a probe, use --via none.",
        other(namespace)
    )
}

/// Returns the next step if the policy of deploy/ admits no image or another image.
pub(crate) fn policy_image(namespace: &str) -> String {
    format!(
        "The policy admits only its own image: use --via pod or --via logs. If an image is set (--image, GPU_SYRINGE_IMAGE, the settings file), \
         leave this setting out: gpu-syringe takes the image from the policy, if your user may read the policy. Ask an administrator to grant this permission and to set the image: {} --image \
         REGISTRY/node-probe@sha256:DIGEST --user USER. {CHECK}",
        set_up(namespace, "hardened")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_of_the_server_is_one_word_of_the_command() {
        let next = |why: &str| permission_missing("gpu-syringe", why);
        let why = "pods is forbidden: User \"system:serviceaccount:a:b\" cannot create resource \"pods\"";
        assert!(next(why).contains("setup --apply --user system:serviceaccount:a:b. "), "{}", next(why));
        for hostile in ["User \"a' ; rm -rf ~ '\" cannot", "User \"\" cannot", "nobody", "User \"a&calc\" cannot"] {
            assert!(next(hostile).contains("--user USER. "), "{hostile}: {}", next(hostile));
        }
    }

    #[test]
    fn another_namespace_is_named_in_each_command() {
        let next = namespace_missing("tools");
        assert_eq!(next.matches("--probe-namespace tools").count(), 2, "{next}");
        assert!(!namespace_missing("gpu-syringe").contains("--probe-namespace"));
    }
}
