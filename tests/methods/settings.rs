//! Tests of settings from flags, environment and file, and of their effect on the pod.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(words: &[&str], home: &Path, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-syringe"));
    command.args(words).env_clear().env("HOME", home).envs(environment.iter().copied());
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn config_shows_each_value_and_its_source() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".config/gpu-syringe");
    std::fs::create_dir_all(&directory).unwrap();
    let text = "via = 'inject'\nprobe_namespace = 'from-file'\nlabel = ['team=ml']\nimage = 'from-file:1'\n";
    std::fs::write(directory.join("config.toml"), text).unwrap();
    let environment =
        [("GPU_SYRINGE_PROBE_NAMESPACE", "from-environment"), ("GPU_SYRINGE_IMAGE", "from-environment:1")];
    let shown = json(&run(&["config", "-o", "json", "--image", "from-flag:1"], home.path(), &environment));
    let of = |name: &str| (shown[name]["value"].clone(), shown[name]["from"].as_str().unwrap().to_owned());
    assert_eq!(of("image"), ("from-flag:1".into(), "--image".into()));
    assert_eq!(of("probe_namespace"), ("from-environment".into(), "GPU_SYRINGE_PROBE_NAMESPACE".into()));
    let (via, from) = of("via");
    assert!(via == "inject" && from.ends_with("config.toml"), "{via} {from}");
    assert_eq!(shown["label"]["value"], serde_json::json!(["team=ml"]));
    assert_eq!(of("call_timeout"), ("45".into(), "default".into()));
    let text = run(&["config"], home.path(), &[]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("via                  = \"inject\""));
    // The output is a settings file.
    let file = home.path().join("again.toml");
    std::fs::write(&file, &text.stdout).unwrap();
    let again = json(&run(&["config", "-o", "json", "--config", file.to_str().unwrap()], home.path(), &[]));
    for (name, shown) in
        shown.as_object().unwrap().iter().filter(|(name, _)| ["via", "label", "quiet"].contains(&name.as_str()))
    {
        assert_eq!(again[name]["value"], shown["value"], "{name}");
    }
}

#[test]
fn a_file_that_is_wrong_or_missing_is_named() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("mine.toml");
    std::fs::write(&file, "via = 'teleport'\n").unwrap();
    for words in [["config", "--config", file.to_str().unwrap()], ["config", "--config", "/nowhere.toml"]] {
        let output = run(&words, home.path(), &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words[2]) && said.contains("Next step"), "{said}");
    }
}

#[test]
fn the_pod_has_what_the_settings_say() {
    let home = tempfile::tempdir().unwrap();
    let digest = format!("sha256:{}", "ab".repeat(32));
    let words = [
        "pod-spec",
        "--output",
        "json",
        "--registry-mirror",
        "mirror.example:5000/proxy",
        "--image-digest",
        &digest,
        "--image-pull-secret",
        "creds",
        "--label",
        "team=ml",
        "--label",
        "app.kubernetes.io/managed-by=someone",
        "--annotation",
        "note=a=b",
        "--toleration",
        "dedicated=gpu:NoSchedule",
        "--probe-namespace",
        "tools",
    ];
    let pod = json(&run(&words, home.path(), &[]));
    let image = format!("mirror.example:5000/proxy/gpu-syringe/node-probe@{digest}");
    assert_eq!(pod["spec"]["containers"][0]["image"], image.as_str());
    assert_eq!(pod["spec"]["imagePullSecrets"][0]["name"], "creds");
    assert_eq!(pod["metadata"]["namespace"], "tools");
    assert_eq!(pod["metadata"]["labels"]["team"], "ml");
    // The label that identifies pods for the clean-up cannot be changed.
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/managed-by"], "gpu-syringe");
    assert_eq!(pod["metadata"]["annotations"]["note"], "a=b");
    let toleration =
        serde_json::json!([{"key": "dedicated", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]);
    assert_eq!(pod["spec"]["tolerations"], toleration);
    let plain = json(&run(&["pod-spec", "--output", "json", "--runtime-class", "nvidia"], home.path(), &[]));
    assert_eq!(plain["spec"]["runtimeClassName"], "nvidia");
    let context = &plain["spec"]["containers"][0]["securityContext"];
    assert_eq!((context.get("privileged"), &context["runAsNonRoot"]), (None, &serde_json::json!(true)));
    assert!(plain["spec"].get("hostPID").is_none() && plain["spec"].get("hostNetwork").is_none());
}
