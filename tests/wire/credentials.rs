//! Tests of credential plugins: they must not read the standard input of the MCP server, and must be found.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::bed::Bed;
use crate::cleanup::on_gpu_1;
use crate::support::client::Client;
use crate::support::launcher::Launcher;

/// Returns the `ExecCredential` that a plugin prints, as one line. It contains the token of the bed's cluster.
fn credential(bed: &Bed, version: &str) -> String {
    let token = kubeconfig(bed)["users"][0]["user"]["token"].take();
    assert!(token.is_string(), "the cluster has a token");
    json!({"apiVersion": version, "kind": "ExecCredential", "status": {"token": token}}).to_string()
}

fn kubeconfig(bed: &Bed) -> Value {
    serde_json::from_str(&bed.cluster.kubeconfig_yaml()).unwrap()
}

/// Replaces the user's credentials in the kubeconfig by a plugin.
fn use_plugin(bed: &Bed, exec: Value) {
    let mut kubeconfig = kubeconfig(bed);
    kubeconfig["users"][0]["user"] = json!({ "exec": exec });
    std::fs::write(bed.kubeconfig(), kubeconfig.to_string()).unwrap();
}

/// Writes a shell script into the bed's home directory and returns its path.
fn script(bed: &Bed, text: &str) -> String {
    let path = bed.home().join("plugin.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.to_string_lossy().into_owned()
}

const V1: &str = "client.authentication.k8s.io/v1";
const V1_BETA1: &str = "client.authentication.k8s.io/v1beta1";

fn exec(command: &str, mode: &str) -> Value {
    json!({"apiVersion": V1, "command": command, "interactiveMode": mode})
}

/// Runs a session whose requests are all written before the plugin starts: a request that the plugin reads gets no answer.
async fn every_request_is_answered(bed: &Bed) {
    let mut client = bed.client().await;
    let calls: Vec<_> = (0..5).map(|_| client.send_call("list_gpu_nodes", json!({}))).collect();
    let probe = client.send_call("get_gpu_inventory", on_gpu_1());
    for call in calls {
        assert_eq!(client.result(call).await.success()["totals"]["nodes"], 1);
    }
    client.result(probe).await.deleted();
    client.close().await;
    let ran = std::fs::read_to_string(bed.home().join("ran")).unwrap();
    assert_eq!(ran.lines().count(), 1, "the plugin must run once for the session");
    let swallowed = std::fs::read_to_string(bed.home().join("swallowed")).unwrap_or_default();
    assert_eq!(swallowed, "", "the plugin read from the protocol");
}

#[tokio::test]
async fn a_plugin_that_reads_standard_input_to_the_end_consumes_no_byte_of_the_protocol() {
    let bed = Bed::healthy().await;
    let home = bed.home().display().to_string();
    let credential = credential(&bed, V1);
    let plugin = script(&bed, &format!("echo x >>{home}/ran\ncat >>{home}/swallowed\necho '{credential}'"));
    use_plugin(&bed, exec(&plugin, "IfAvailable"));
    every_request_is_answered(&bed).await;
}

#[tokio::test]
async fn a_plugin_that_reads_a_line_consumes_no_byte_of_the_protocol() {
    let bed = Bed::healthy().await;
    let home = bed.home().display().to_string();
    let credential = credential(&bed, V1_BETA1);
    let ask =
        format!("echo x >>{home}/ran\nread answer\nprintf '%s' \"$answer\" >>{home}/swallowed\necho '{credential}'");
    let plugin = script(&bed, &ask);
    // This plugin has no interactiveMode, as in kubeconfigs of v1beta1.
    use_plugin(&bed, json!({"apiVersion": V1_BETA1, "command": plugin}));
    every_request_is_answered(&bed).await;
}

#[tokio::test]
async fn a_plugin_that_is_missing_is_named_with_its_install_hint() {
    let bed = Bed::healthy().await;
    let mut plugin = exec("gke-gcloud-auth-plugin-of-the-test", "Never");
    plugin["installHint"] = json!("Install it with: gcloud components install it");
    use_plugin(&bed, plugin);
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    answer.error_with(&["'gke-gcloud-auth-plugin-of-the-test'", "not found", "PATH", "gcloud components install it"]);
    use_plugin(&bed, exec("/nowhere/kubelogin", "Never"));
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    answer.error_with(&["/nowhere/kubelogin"]);
    bed.assert_bare(0);
}

#[tokio::test]
async fn a_failed_plugin_is_reported_with_file_name_and_status_only() {
    let bed = Bed::healthy().await;
    let plugin = script(&bed, "echo \"token $CLIENT_SECRET\"\necho \"no $CLIENT_SECRET, $1\" >&2\nexit 3");
    let mut exec = exec(&plugin, "IfAvailable");
    exec["env"] = json!([{"name": "CLIENT_SECRET", "value": "S3cr3tOfTheEnvironment"}]);
    exec["args"] = json!(["--client-id=S3cr3tOfTheArguments"]);
    use_plugin(&bed, exec);
    let launcher = bed.launcher().env("GPU_SYRINGE_LOG", "debug");
    let mut client = Client::start(launcher).await;
    let answer = client.call("get_gpu_inventory", on_gpu_1()).await;
    let said = answer.error_with(&["Signing in", "'plugin.sh' failed with exit status: 3", "kubectl"]);
    assert!(!said.contains("S3cr3t") && !said.contains("CLIENT_SECRET"), "{said}");
    // The log must still be JSON, and must not contain the secret.
    let log = client.close().await;
    assert!(!serde_json::to_string(&log).unwrap().contains("S3cr3t"), "{log:?}");
    bed.assert_bare(0);
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_read_is_not_quoted() {
    let bed = Bed::healthy().await;
    std::fs::write(bed.kubeconfig(), "users:\n- name: me\n  user:\n    token: S3cr3t\n   broken: [").unwrap();
    let answer = bed.client().await.call("list_gpu_nodes", json!({})).await;
    let said = answer.error_with(&["Reading the kubeconfig", "not a valid kubeconfig"]);
    assert!(!said.contains("S3cr3t"), "{said}");
}

#[tokio::test]
async fn a_plugin_that_requires_a_terminal_is_refused() {
    let bed = Bed::healthy().await;
    let home = bed.home().display().to_string();
    let credential = credential(&bed, V1);
    let plugin = script(&bed, &format!("echo x >>{home}/ran\necho '{credential}'"));
    use_plugin(&bed, exec(&plugin, "Always"));
    let answer = bed.client().await.call("get_gpu_inventory", on_gpu_1()).await;
    answer.error_with(&["interactiveMode: Always", "kubectl"]);
    assert!(!bed.home().join("ran").exists(), "the plugin must not be started");
}

#[tokio::test]
async fn a_plugin_that_is_not_in_path_is_found_in_the_usual_folders() {
    let bed = Bed::healthy().await;
    let folder = bed.home().join("google-cloud-sdk/bin");
    std::fs::create_dir_all(&folder).unwrap();
    let plugin = script(&bed, &format!("echo '{}'", credential(&bed, V1)));
    std::fs::rename(plugin, folder.join("syringe-test-auth")).unwrap();
    use_plugin(&bed, exec("syringe-test-auth", "IfAvailable"));
    // This is the short search path of a desktop host.
    let launcher = Launcher::alone(bed.home()).env("KUBECONFIG", bed.kubeconfig()).env("PATH", "/usr/bin:/bin");
    Client::start(launcher).await.call("get_gpu_inventory", on_gpu_1()).await.deleted();
}
