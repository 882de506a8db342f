//! `add`: adds to an explanation the field of the pod that can cause the error in the message of a failed container.

use crate::explanation::causes::Case;
use crate::explanation::types::{Cause, Certainty, Explanation};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::pod::{ContainerSpec, PodFacts};

/// A field of a pod, and the error that it causes.
struct Setting {
    /// Parts of the message, in lower case. All parts must occur.
    words: &'static [&'static str],
    is_set: fn(&PodFacts, &ContainerSpec) -> bool,
    /// The field and its value.
    field: &'static str,
    advice: &'static str,
}

const SETTINGS: [Setting; 4] = [
    Setting {
        words: &["read-only file system"],
        is_set: |_, spec| spec.read_only_root,
        field: "readOnlyRootFilesystem: true",
        advice: "Remove readOnlyRootFilesystem from the container, or mount a writable volume (emptyDir) at the folder of the message. \
             NVIDIA's hooks write to /etc of the container.",
    },
    Setting {
        words: &["/dev/nvidia", "no such file"],
        is_set: |pod, _| pod.host_users == Some(false),
        field: "hostUsers: false (a user namespace)",
        advice: "Remove hostUsers: false from the pod, or use a version of the container runtime that can add devices in a user namespace.",
    },
    Setting {
        words: &["/dev/nvidia", "operation not permitted"],
        is_set: |pod, _| pod.host_users == Some(false),
        field: "hostUsers: false (a user namespace)",
        advice: "Remove hostUsers: false from the pod, or use a version of the container runtime that can add devices in a user namespace.",
    },
    Setting {
        words: &["permission denied: '/"],
        is_set: |_, spec| spec.user.is_some_and(|user| user != 0),
        field: "runAsUser with a user other than root",
        advice: "Give this user access to the path (fsGroup), use a folder of the user (such as HOME=/tmp), or use another runAsUser.",
    },
];

/// Adds the field of the pod that causes the error in a message. The pod itself is then the cause.
pub(super) fn add(case: &Case<'_>, explanation: &mut Explanation) {
    if matches!(explanation.cause, Cause::None | Cause::Gpu) {
        return;
    }
    let failed = case.failed().map(|end| end.container);
    let specs = || case.pod.specs.iter().filter(|spec| failed.is_none_or(|name| spec.name == name));
    let text = explanation.evidence.join("\n").to_ascii_lowercase();
    let found =
        SETTINGS.iter().filter(|setting| setting.words.iter().all(|words| text.contains(words))).find(|setting| {
            // A path below a volume is not in the root of the container.
            let in_volume = |spec: &ContainerSpec| {
                spec.mounts.iter().any(|(path, _)| path.len() > 1 && text.contains(&path.to_ascii_lowercase()))
            };
            specs().any(|spec| (setting.is_set)(case.pod, spec) && !in_volume(spec))
        });
    let Some(Setting { field, advice, .. }) = found else { return };
    explanation.cause = Cause::Application;
    explanation.certainty = Certainty::Likely;
    explanation.summary = format!("{}; the pod sets {field}.", explanation.summary.trim_end_matches('.'));
    explanation.action.code = ActionCode::FixApplication;
    explanation.action.text = (*advice).to_owned();
}
