//! `printed`: creates the pod of the probe method in the settings, which `gpu-syringe pod-spec` prints.

use syringe_core::probe_command::{ProbeCommand, ReadCommand};

use super::inject;
use crate::probe::lifecycle::launcher_identity::LauncherIdentity;
use crate::probe::lifecycle::pod_spec::ProbePod;
use crate::settings::{ProbeMethod, Settings};
use kube_read::Failure;

/// Returns the pod that the probe method of the settings creates. With --via logs, the command of the pod
/// reads every section.
pub(crate) fn printed(settings: &Settings, node: &str) -> Result<ProbePod, Failure> {
    let pod = ProbePod::new(settings, &LauncherIdentity::start_session(), node, "pod-spec")?;
    match settings.via {
        ProbeMethod::Auto | ProbeMethod::Pod => Ok(pod),
        ProbeMethod::Logs => Ok(pod.running(ProbeCommand::from(ReadCommand::everything()).argv())),
        ProbeMethod::Inject => {
            Ok(inject::upload_pod(pod, settings.base_image.as_deref().unwrap_or("AN-IMAGE-OF-THE-NODE"), settings))
        }
        ProbeMethod::Ephemeral | ProbeMethod::None => Err(Failure::new(
            "Printing the pod",
            format!("--via {} creates no pod", settings.via.as_str()),
            "deploy/METHODS.md describes what each method creates on the cluster.",
        )),
    }
}
