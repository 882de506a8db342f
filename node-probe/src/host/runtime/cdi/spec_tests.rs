//! Tests of the CDI parser with specifications of NVIDIA's tools, and with files of unsupported syntax.

use super::*;

/// Shortened output of `nvidia-ctk cdi generate`.
const YAML: &str = r#"---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-modeset
  - path: /dev/nvidia-uvm
    fileMode: 438
    major: 511
    minor: 0
    permissions: rwm
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.570.124.06
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.570.124.06
    options:
    - ro
    - nosuid
  - containerPath: /run/nvidia-persistenced/socket
    hostPath: /run/nvidia-persistenced/socket
devices:
- containerEdits:
    deviceNodes:
    - hostPath: /run/nvidia/driver/dev/nvidia0
      path: /dev/nvidia0
  name: "0"
- name: all
  containerEdits:
    deviceNodes:
      - path: /dev/nvidia0
        major: 195
        minor: 0
kind: nvidia.com/gpu
"#;

fn node(path: &str, host_path: Option<&str>, number: Option<(u32, u32)>) -> DeviceNode {
    let (major, minor) = number.unzip();
    DeviceNode { path: path.to_owned(), host_path: host_path.map(str::to_owned), major, minor }
}

#[test]
fn the_style_of_nvidias_tools_is_read() {
    let spec = parse(YAML).expect("it is read");
    assert_eq!(spec.kind, "nvidia.com/gpu");
    let names: Vec<&str> = spec.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["0", "all"]);
    let uvm = node("/dev/nvidia-uvm", None, Some((511, 0)));
    assert_eq!(spec.edits.nodes, [node("/dev/nvidia-modeset", None, None), uvm, node("/dev/nvidiactl", None, None)]);
    assert_eq!(spec.devices[0].edits.nodes, [node("/dev/nvidia0", Some("/run/nvidia/driver/dev/nvidia0"), None)]);
    assert_eq!(spec.devices[1].edits.nodes, [node("/dev/nvidia0", None, Some((195, 0)))]);
    let mounts: Vec<&str> = spec.edits.mounts.iter().map(|mount| mount.host_path.as_str()).collect();
    assert_eq!(mounts, ["/usr/lib/x86_64-linux-gnu/libcuda.so.570.124.06", "/run/nvidia-persistenced/socket"]);
}

#[test]
fn json_says_the_same_as_yaml() {
    let json = r#"{"cdiVersion":"0.5.0","kind":"k8s.device-plugin.nvidia.com/gpu","devices":[{"name":"GPU-1","containerEdits":{
        "deviceNodes":[{"path":"/dev/nvidia0","major":195,"minor":0,"type":"c"}]}}],"containerEdits":{"mounts":[{"hostPath":"/a.so",
        "containerPath":"/a.so","options":["ro"]}]}}"#;
    let spec = parse(json).expect("it is read");
    assert_eq!((spec.kind.as_str(), spec.devices[0].name.as_str()), ("k8s.device-plugin.nvidia.com/gpu", "GPU-1"));
    assert_eq!(spec.devices[0].edits.nodes, [node("/dev/nvidia0", None, Some((195, 0)))]);
    assert_eq!(spec.edits.mounts, [Mount { host_path: "/a.so".to_owned() }]);
}

#[test]
fn a_style_that_is_not_read_is_not_understood_in_part() {
    for text in [
        "",
        "kind: ",
        "no specification",
        "kind: nvidia.com/gpu\ndevices: [{name: all}]\n",
        "kind: nvidia.com/gpu\ndevices:\n- {name: all}\n",
        "kind: nvidia.com/gpu\ndevices:\n- name: >-\n    all\n",
        "kind: nvidia.com/gpu\ncontainerEdits: &edits\n  deviceNodes: []\n",
        "kind: nvidia.com/gpu\ncontainerEdits:\n  deviceNodes: [{path: /dev/nvidia0}]\n",
        "kind: nvidia.com/gpu\ncontainerEdits:\n  deviceNodes:\n  - path: /dev/nvidia0\n    major: 0x10\n",
        "{\"kind\": 1}",
        "{",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}
