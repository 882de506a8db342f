//! A second body of the fuzz target `saved_archive`: the embedded cluster must start with any archive.
//!
//! The archives are those that the archive reader accepts.

use archive::Archive;

use crate::authentication::Authenticator;
use crate::cluster_state::ClusterState;
use crate::fixture::Fixture;

/// Builds the fixture and the state of the cluster. `data` is the file. If the magic number of gzip is missing, `data`
/// is compressed first.
pub fn saved_cluster(data: &[u8]) {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let packed = packed.write_all(data).and_then(|()| packed.finish());
    for file in [Some(data.to_vec()), packed.ok()].into_iter().flatten() {
        if let Ok(archive) = Archive::read(&*file, false) {
            start(archive);
        }
    }
}

/// Builds the state of the cluster in an archive, if the archive contains a cluster.
fn start(archive: Archive) {
    let Ok(fixture) = Fixture::of_archive(archive) else { return };
    let authenticator = Authenticator::new(([127, 0, 0, 1], 1).into()).expect("random numbers");
    let state = ClusterState::new(fixture, authenticator);
    let foreign = state.store(|store| {
        const OF_ARCHIVE: [&str; 5] = ["daemonsets", "leases", "nodeclaims", "machines", "computedomains"];
        let is_of_archive = |plural: &&str| OF_ARCHIVE.contains(plural);
        store.json.keys().map(|(plural, ..)| *plural).find(|plural| !is_of_archive(plural))
    });
    assert_eq!(foreign, None, "an archive has no objects of other kinds");
    state.now();
}

#[cfg(test)]
#[path = "../committed_inputs.rs"]
mod committed_inputs;

#[cfg(test)]
mod tests {
    use archive::Archive;
    use serde_json::json;

    #[test]
    fn the_archives_of_the_corpus_start_a_cluster() {
        super::committed_inputs::run("saved_archive", super::saved_cluster);
    }

    /// The archive reader rejects some of these objects. The cluster must not depend on this.
    #[test]
    fn objects_in_unusual_forms_and_of_other_kinds_are_harmless() {
        let named = |object: serde_json::Value| {
            let mut object = object;
            object["metadata"] = json!({"name": "x"});
            object
        };
        let list = json!([
            1, null, [], {}, {"metadata": 1}, {"metadata": []}, {"metadata": {"name": 1}},
            {"metadata": {"name": "a", "creationTimestamp": {}}},
            {"metadata": {"name": "b", "creationTimestamp": "-009999-01-02T01:59:59Z"}},
            named(json!({"kind": "ClusterRole"})), named(json!({"kind": ["Role"]})),
        ]);
        let kinds =
            ["daemonsets", "leases", "nodeclaims", "machines", "resourceclaims", "resourceslices", "computedomains"];
        for kind in kinds {
            for taken_at in ["-009999-01-02T01:59:59Z", "2026-11-21T02:45:10Z", "9999-12-30T22:00:00.999999999Z"] {
                let mut archive = Archive::default();
                archive.manifest.taken_at = taken_at.parse().expect("a time");
                archive.objects.insert(kind.into(), list.to_string().into_bytes());
                archive.objects.insert("nodes".into(), br#"[{"metadata": {}}, {"metadata": {"name": "n"}}]"#.to_vec());
                super::start(archive);
            }
        }
    }
}
