//! `AdmittedImages`, `read`: the image that the policy of a namespace admits (`Admitted`), with its pull secrets.
//! The launcher uses it if no image is set.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::Api;
use kube::core::{ApiResource, DynamicObject};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::values::Values;
use super::{PROBE_ONLY, cluster_name};
use crate::settings::image_reference;
use kube_read::Connection;

/// Time limit of the request.
const TIME: Duration = Duration::from_secs(5);
/// Time for which a response of the API server is reused.
const MEMORY: Duration = Duration::from_secs(300);

/// The images that the policies admit, by cluster and namespace.
#[derive(Debug, Default)]
pub(crate) struct AdmittedImages(Mutex<HashMap<(String, String), Answer>>);

/// A response of the API server.
#[derive(Debug)]
struct Answer {
    at: Instant,
    admitted: Option<Admitted>,
}

/// The image that a policy admits.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    /// The image, with registry and digest.
    pub(crate) image: String,
    /// The pull secrets of the namespace that a probe pod may have.
    pub(crate) pull_secrets: Vec<String>,
}

impl AdmittedImages {
    /// Returns the image that the policy of the namespace admits; `None` if there is no policy, if the user may not
    /// read the policy, or if the policy contains no image with a digest. Asks the API server only once every few
    /// minutes.
    pub(crate) async fn get(&self, cluster: &str, connection: &Connection, namespace: &str) -> Option<Admitted> {
        let key = (cluster.to_owned(), namespace.to_owned());
        // The lock is held during the request, so that the probes of many nodes send one request.
        let mut known = self.0.lock().await;
        if let Some(answer) = known.get(&key).filter(|answer| answer.at.elapsed() < MEMORY) {
            return answer.admitted.clone();
        }
        let admitted = read(connection, namespace).await.ok()?;
        known.insert(key, Answer { at: Instant::now(), admitted: admitted.clone() });
        admitted
    }

    /// Forgets an image that the policy rejected, because an administrator has set another image.
    pub(crate) async fn forget(&self, cluster: &str, namespace: &str) {
        self.0.lock().await.remove(&(cluster.to_owned(), namespace.to_owned()));
    }
}

/// The API server gave no usable answer.
pub(crate) struct NoAnswer;

/// Reads the image; `None` if there is no image to use.
pub(crate) async fn read(connection: &Connection, namespace: &str) -> Result<Option<Admitted>, NoAnswer> {
    let resource = ApiResource::erase::<ValidatingAdmissionPolicy>(&());
    let api = Api::<DynamicObject>::all_with(connection.client.clone(), &resource);
    match timeout(TIME, api.get(&cluster_name(PROBE_ONLY, namespace))).await {
        Ok(Ok(policy)) => Ok(usable(&Values::of_policy(&policy.data["spec"]))),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => Ok(None),
        Ok(Err(_)) | Err(_) => Err(NoAnswer),
    }
}

/// Returns the image if it has a registry and a digest.
fn usable(values: &Values) -> Option<Admitted> {
    let admitted = || Admitted { image: values.image().to_owned(), pull_secrets: values.pull_secrets() };
    image_reference::refusal(values.image()).is_none().then(admitted)
}
