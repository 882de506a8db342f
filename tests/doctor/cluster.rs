//! Fixtures of the doctor tests: clusters with a set-up, and the type `Answer` for the output of the command.

use demo_cluster::{Denial, Fixture};
use serde_json::{Value, json};

use crate::bed::{Bed, node};
use crate::support::launcher::Ended;

pub(crate) const IMAGE: &str =
    "registry.test/gpu/node-probe@sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// Returns a cluster before its set-up: one GPU node that has the image.
pub(crate) fn fixture() -> Fixture {
    Fixture { namespaces: Vec::new(), ..Fixture::of([node("gpu-1", "healthy-h100-8")]) }
}

/// Returns the fixture with these denials for the user.
pub(crate) fn denying(denials: &[(&str, &str)]) -> Fixture {
    Fixture { denied: denials.iter().map(|(verb, resource)| Denial::of(verb, resource)).collect(), ..fixture() }
}

/// Starts a cluster, and runs `gpu-syringe setup` with these arguments. The fixture's denials do not apply to the set-up.
pub(crate) async fn set_up(fixture: Fixture, args: &[&str]) -> Bed {
    let bed = Bed::of(fixture).await;
    for (name, text) in manifests(&bed, args).await {
        match name.as_str() {
            "Namespace" => bed.cluster.add_namespace(serde_json::from_value(text).unwrap()),
            _ => bed.cluster.add_object(text),
        }
    }
    bed.cluster.edit_node("gpu-1", |node| {
        let debian = format!("docker.io/library/debian@sha256:{}", "2".repeat(64));
        let images = json!([{"names": [IMAGE]}, {"names": ["docker.io/library/debian:13", debian]}]);
        node.status.as_mut().unwrap().images = serde_json::from_value(images).unwrap();
    });
    bed
}

/// Returns the manifests that the command prints, with their kinds.
async fn manifests(bed: &Bed, args: &[&str]) -> Vec<(String, Value)> {
    let printed = bed.bare_launcher().args(["setup", "-o", "json"]).args(args.iter().copied()).run().await.json();
    let items = printed["items"].as_array().unwrap().clone();
    items.into_iter().map(|item| (item["kind"].as_str().unwrap().to_owned(), item)).collect()
}

/// Starts a cluster with the hardened profile and the image of the launcher.
pub(crate) async fn hardened() -> Bed {
    hardened_of(fixture()).await
}

pub(crate) async fn hardened_of(fixture: Fixture) -> Bed {
    set_up(fixture, &["--image", IMAGE, "--user", "gpu-syringe"]).await
}

/// The answer of the command.
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn of(ended: &Ended) -> Self {
        let json = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        Self { code: ended.code, json }
    }

    fn checks(&self) -> &Vec<Value> {
        self.json["checks"].as_array().unwrap()
    }

    /// Returns the ids of the checks with this status, in alphabetical order.
    pub(crate) fn ids(&self, status: &str) -> Vec<&str> {
        let of_status = self.checks().iter().filter(|check| check["status"] == status);
        let mut ids: Vec<_> = of_status.map(|check| check["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    /// Returns the ids of checks without a result.
    pub(crate) fn undecided(&self) -> Vec<&str> {
        let checks = self.checks().iter().filter(|check| check["undecided"] == true);
        checks.map(|check| check["id"].as_str().unwrap()).collect()
    }

    /// Returns the command that fixes a failing check.
    pub(crate) fn fix(&self, id: &str) -> &str {
        let check = self.checks().iter().find(|check| check["id"] == id);
        check.unwrap_or_else(|| panic!("no {id}: {}", self.json))["fix"]["command"].as_str().unwrap_or_default()
    }
}

/// Runs the command with the image of the set-up.
pub(crate) async fn doctor(bed: &Bed, args: &[&str]) -> Answer {
    let image = if args.contains(&"--image") { &[][..] } else { &["--image", IMAGE] };
    // The file has the header of a program for amd64, so that the launcher accepts it as an uploadable program.
    let program = bed.home().join("node-probe");
    let header = [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 9], &[3, 0, 62, 0]].concat();
    std::fs::write(&program, header).unwrap();
    let launcher = bed.bare_launcher().env("GPU_SYRINGE_PROBE_BINARY", program);
    let launcher = launcher.args(["doctor", "-o", "json"]).args(image.iter().copied());
    Answer::of(&launcher.args(args.iter().copied()).run().await)
}
