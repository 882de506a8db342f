//! `checks`: creates the doctor checks of the probe namespace: Pod Security, quota, policy, and the dry runs of pods.

use kube::ResourceExt;

use super::access_checks::is_denied;
use super::check::{Check, Fix};
use super::fix::Fixes;
use super::observe::{DryRun, Observed, Seen};
use crate::probe;
use crate::settings::{ProbeMethod, Settings, image_reference};
use crate::setup::apply::PolicyState;
use crate::setup::manifests::pinned_image;

/// Label of the Pod Security level.
const LEVEL: &str = "pod-security.kubernetes.io/enforce";
/// ID of the check of the permission to create pods.
const MAY_CREATE: &str = "permission-probe-create-pods";

/// Cause of the rejection of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Namespace,
    PodSecurity,
    Quota,
    Permission,
    /// Our policy, because the image or another of its values does not match.
    Values,
    /// Our policy, which allows no shell.
    Policy,
    Other,
}

impl Cause {
    fn of(via: ProbeMethod, reason: &str, code: u16) -> Self {
        let has = |phrase: &str| reason.contains(phrase);
        // No value of the policy allows a shell from another image.
        let is_of_values = via != ProbeMethod::Inject && probe::is_of_variable(reason);
        match () {
            () if code == 404 && has("namespaces") || has("being terminated") => Self::Namespace,
            () if has("violates PodSecurity") => Self::PodSecurity,
            () if has("exceeded quota") || has("failed quota") => Self::Quota,
            () if has("cannot create resource") => Self::Permission,
            () if has("ValidatingAdmissionPolicy 'gpu-syringe-") && is_of_values => Self::Values,
            () if has("ValidatingAdmissionPolicy 'gpu-syringe-") => Self::Policy,
            () => Self::Other,
        }
    }

    /// Returns the ID of the check that reports the cause.
    fn id(self) -> Option<&'static str> {
        match self {
            Self::Namespace => Some("namespace"),
            Self::PodSecurity => Some("pod-security"),
            Self::Quota => Some("quota"),
            Self::Permission => Some(MAY_CREATE),
            Self::Values => Some("policy-values"),
            Self::Policy | Self::Other => None,
        }
    }
}

/// The rejections of the pods that this launcher could create.
struct Rejections<'a>(Vec<(Cause, &'a str)>);

impl<'a> Rejections<'a> {
    fn of(observed: &'a Observed) -> Self {
        let rejected = observed.dry_runs.iter().filter_map(|(via, answer)| match answer {
            DryRun::Rejected(reason, code) => Some((Cause::of(*via, reason, *code), reason.as_str())),
            _ => None,
        });
        Self(rejected.collect())
    }

    fn by(&self, cause: Cause) -> Option<&'a str> {
        self.0.iter().find(|(found, _)| *found == cause).map(|(_, reason)| *reason)
    }
}

pub(super) fn checks(observed: &Observed, settings: &Settings, fixes: &Fixes<'_>) -> Vec<Check> {
    let rejections = Rejections::of(observed);
    let mut checks = vec![
        namespace(observed, &rejections, fixes),
        pod_security(observed, &rejections, fixes),
        quota(observed, &rejections, fixes),
        policy(observed, &rejections, fixes),
        values(observed, &rejections, settings, fixes),
    ];
    if let Some(missing) = missing_namespace(observed, &rejections) {
        for check in &mut checks[1..] {
            *check = Check::skipped(check.id.clone(), missing);
        }
    }
    checks.extend(dry_runs(observed, settings, fixes));
    checks
}

fn missing_namespace(observed: &Observed, rejections: &Rejections<'_>) -> Option<&'static str> {
    let is_missing = matches!(observed.namespace, Seen::Absent) || rejections.by(Cause::Namespace).is_some();
    is_missing.then_some("the namespace does not exist: see the check `namespace`")
}

fn namespace(observed: &Observed, rejections: &Rejections<'_>, fixes: &Fixes<'_>) -> Check {
    let (id, name) = ("namespace", fixes.namespace());
    if let Seen::Found(found) = &observed.namespace
        && found.metadata.deletion_timestamp.is_some()
    {
        let command =
            format!("kubectl wait --for=delete namespace/{name} --timeout=120s && {} setup --apply", fixes.program());
        return Check::failure(
            id,
            format!("namespace {name} is being deleted"),
            Fixes::run(command, "the second command creates the namespace again"),
        );
    }
    if matches!(observed.namespace, Seen::Absent) || rejections.by(Cause::Namespace).is_some() {
        let fix = fixes.setup(
            "",
            "the command creates the namespace, the permissions and a quota (trial; recommended: --profile hardened with --image)",
        );
        return Check::failure(id, format!("there is no namespace {name}"), fix);
    }
    match &observed.namespace {
        Seen::Found(_) => Check::ok(id, name),
        Seen::Unknown(why) => Check::undecided(id, why),
        // Readers have no permission to read the namespace, but the response to a dry run in it can show that the
        // namespace exists.
        Seen::Absent | Seen::Forbidden if observed.dry_runs.iter().any(|(via, run)| shows_namespace(*via, run)) => {
            Check::ok(id, format!("{name} (you may not read it; the API server admits pods to it)"))
        }
        Seen::Absent | Seen::Forbidden => {
            Check::skipped(id, "no permission to read the namespace: see the permission checks")
        }
    }
}

/// Returns whether the response comes from admission. Admission runs after authorization, so the namespace exists.
fn shows_namespace(via: ProbeMethod, run: &DryRun) -> bool {
    match run {
        DryRun::Admitted => true,
        DryRun::Rejected(reason, code) => {
            !matches!(Cause::of(via, reason, *code), Cause::Namespace | Cause::Permission)
        }
        DryRun::Unknown(_) => false,
    }
}

fn pod_security(observed: &Observed, rejections: &Rejections<'_>, fixes: &Fixes<'_>) -> Check {
    let id = "pod-security";
    if let Some(reason) = rejections.by(Cause::PodSecurity) {
        return Check::failure(id, reason, fixes.label());
    }
    let level = observed.namespace.found().map(|found| found.labels().get(LEVEL).map(String::as_str));
    if !observed.dry_runs.iter().any(|(via, run)| shows_namespace(*via, run)) {
        return Check::skipped(id, "no dry run of a pod was possible: see the permission checks and the dry runs");
    }
    match level {
        Some(Some(level)) => Check::ok(id, format!("label {LEVEL}={level}")),
        Some(None) => Check::ok(id, "no label; the cluster admits the pod"),
        None => Check::ok(id, "the cluster admits the pod"),
    }
}

fn quota(observed: &Observed, rejections: &Rejections<'_>, fixes: &Fixes<'_>) -> Check {
    let (id, name) = ("quota", fixes.namespace());
    if let Some(reason) = rejections.by(Cause::Quota) {
        let command = format!("kubectl --namespace {name} describe quota");
        let note = match reason.contains("exceeded quota") {
            true => "delete pods that are left (gpu-syringe sweep), or raise the quota",
            false => "create a LimitRange with defaults for the requests and limits that the quota requires",
        };
        return Check::failure(id, reason, Fixes::run(command, note));
    }
    match &observed.quota {
        Seen::Found(quota) => {
            let of = |field: &str| quota.data["status"][field]["pods"].as_str().map(str::to_owned);
            let hard = quota.data["spec"]["hard"]["pods"].as_str().map(str::to_owned);
            let text = match (of("used"), hard) {
                (Some(used), Some(hard)) => format!("{used} of {hard} pods"),
                (None, Some(hard)) => format!("at most {hard} pods"),
                (_, None) => "the ResourceQuota has no limit for pods".to_owned(),
            };
            Check::ok(id, text)
        }
        Seen::Absent => Check::warning(
            id,
            "no ResourceQuota limits the number of pods",
            fixes.setup("", "with this quota, a faulty launcher can create at most 64 pods"),
        ),
        Seen::Forbidden => Check::skipped(id, "you may not read the quota, and gpu-syringe does not need it"),
        Seen::Unknown(why) => Check::skipped(id, why),
    }
}

/// Checks that the policy limits the pods of the namespace.
fn policy(observed: &Observed, rejections: &Rejections<'_>, fixes: &Fixes<'_>) -> Check {
    let id = "policy";
    let state = match (&observed.policy, &observed.binding) {
        (Seen::Found(_), Seen::Found(_)) => Some(true),
        (Seen::Absent, _) | (_, Seen::Absent) => Some(false),
        _ => None,
    };
    let half = matches!(
        (&observed.policy, &observed.binding),
        (Seen::Found(_), Seen::Absent) | (Seen::Absent, Seen::Found(_))
    );
    match &observed.other_pod {
        Some(PolicyState::InEffect { .. }) if !observed.missing_policies.is_empty() => {
            let missing = observed.missing_policies.join(", ");
            let evidence = format!(
                "the policy rejects a pod that is not a probe, but parts that limit what runs in a probe are missing: {missing}"
            );
            Check::failure(id, evidence, fixes.harden())
        }
        Some(PolicyState::InEffect { .. }) => Check::ok(id, "the policy rejects a pod that is not a probe"),
        Some(PolicyState::NotInEffect(answer)) if answer == crate::setup::apply::ADMITTED => {
            let evidence = format!(
                "namespace {} admits every pod: whoever may create pods there has root on every node of the cluster",
                fixes.namespace()
            );
            if rejections.by(Cause::PodSecurity).is_some() {
                let why =
                    "Pod Security refuses privileged pods here; without it, no policy limits the pods of the namespace";
                return Check::warning(id, why, fixes.harden());
            }
            if half || state == Some(true) {
                let why = if half { "the policy is incomplete" } else { "the policy has no effect" };
                return Check::failure(id, format!("{evidence}; {why}"), fixes.harden());
            }
            Check::warning(id, format!("{evidence} (trial profile)"), fixes.harden())
        }
        Some(PolicyState::NotInEffect(_)) if is_denied(observed, MAY_CREATE) => {
            Check::skipped(id, "no permission to create pods: see the permission checks")
        }
        Some(PolicyState::NotInEffect(answer)) => {
            Check::skipped(id, format!("another rejection comes first: {answer}"))
        }
        None => Check::undecided(id, "no answer in time"),
    }
}

/// Checks that the values of the policy match the settings of this launcher.
fn values(observed: &Observed, rejections: &Rejections<'_>, settings: &Settings, fixes: &Fixes<'_>) -> Check {
    let id = "policy-values";
    let image = observed.image_of_policy();
    if let Some(reason) = rejections.by(Cause::Values) {
        return Check::failure(id, reason, image_fix(image.as_deref(), settings, fixes));
    }
    match (observed.has_policy(), image) {
        (true, Some(image)) => Check::ok(id, format!("admits {image}")),
        (true, None) => Check::ok(id, "admits the image of this launcher"),
        (false, _) => Check::skipped(id, "no policy is in effect"),
    }
}

/// Creates the fix for an image that differs from the image of the policy: it changes the image of the launcher or of
/// the policy.
fn image_fix(image: Option<&str>, settings: &Settings, fixes: &Fixes<'_>) -> Fix {
    match image.filter(|image| image_reference::refusal(image).is_none()) {
        Some(image) if !settings.names_image() || pinned_image(settings).is_none() => Fixes::run(
            format!("export GPU_SYRINGE_IMAGE={}", crate::consent::shell_quoted(image)),
            "this is the image that the policy admits; if you set no image, gpu-syringe uses the image of the policy",
        ),
        _ => fixes.harden(),
    }
}

/// Returns the methods for these settings. At least one of them must work.
fn wanted(settings: &Settings) -> Vec<ProbeMethod> {
    match settings.via {
        ProbeMethod::None | ProbeMethod::Ephemeral => Vec::new(),
        ProbeMethod::Auto => vec![ProbeMethod::Pod, ProbeMethod::Logs, ProbeMethod::Inject],
        method => vec![method],
    }
}

fn dry_runs(observed: &Observed, settings: &Settings, fixes: &Fixes<'_>) -> Vec<Check> {
    let wanted = wanted(settings);
    let works = observed.dry_runs.iter().any(|(via, run)| wanted.contains(via) && matches!(run, DryRun::Admitted));
    let has_policy = observed.has_policy();
    let check = |(via, run): &(ProbeMethod, DryRun)| {
        let id = format!("dry-run-{}", via.as_str());
        match run {
            DryRun::Admitted => Check::ok(id, "the API server admits the pod"),
            DryRun::Unknown(why) => Check::undecided(id, why),
            DryRun::Rejected(reason, code) => {
                let cause = Cause::of(*via, reason, *code);
                if let Some(other) = cause.id() {
                    return Check::skipped(id, format!("rejected: see {other}"));
                }
                if *via == ProbeMethod::Inject && has_policy && settings.via != ProbeMethod::Inject {
                    return Check::skipped(id, "the policy admits no shell, as intended");
                }
                let is_failure = wanted.contains(via) && !works;
                let next = probe::next_step_of_rejection(reason, fixes.namespace());
                let command = Fixes::command_in(&next).unwrap_or_else(|| "gpu-syringe --via none nodes".to_owned());
                Check::problem(is_failure, id, reason, Fixes::run(command, next))
            }
        }
    };
    observed.dry_runs.iter().map(check).collect()
}
