#!/usr/bin/env python3
"""Creates Node and Pod objects like those of a large GPU cluster, for measurements on a test API server.

    python3 tests/scale/create_objects.py --kubeconfig FILE --nodes 5000 --pods 50000

The objects have the size and the fields of real ones (about 10 kB of JSON each): labels of Node Feature Discovery and GPU Feature
Discovery, conditions, images, volumes, environment, managedFields. One pod in ten requests GPUs. They have no kubelet:
use an API server without a controller manager, because a controller manager would delete the pods. Needs kubectl to read the
kubeconfig.
"""

import argparse
import base64
import hashlib
import http.client
import json
import multiprocessing
import ssl
import subprocess
import tempfile
import urllib.parse

GPUS_PER_NODE = 8
NAMESPACES = 50
WORKERS = 6
CREATED = "2026-11-20T08:00:00Z"
NOW = "2026-11-21T02:45:10Z"


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def node_name(number):
    return f"node-{number:05}"


def node(number):
    """One node in five has GPUs."""
    name, gpus = node_name(number), number % 5 == 0
    labels = {
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
        "kubernetes.io/hostname": name, "topology.kubernetes.io/region": "eu-1", "topology.kubernetes.io/zone": f"eu-1{'abc'[number % 3]}",
        "node.kubernetes.io/instance-type": "p5.48xlarge" if gpus else "c7.16xlarge",
    }
    labels.update({f"feature.node.kubernetes.io/cpu-cpuid.{flag}": "true" for flag in (
        "ADX", "AESNI", "AVX", "AVX2", "AVX512BW", "AVX512CD", "AVX512DQ", "AVX512F", "AVX512VL", "AVX512VNNI", "CMPXCHG8", "FMA3", "FXSR",
        "FXSROPT", "GFNI", "HYPERVISOR", "IBPB", "LAHF", "MOVBE", "OSXSAVE", "SHA", "SPEC_CTRL_SSBD", "STIBP", "SYSCALL", "VAES", "XSAVE")})
    resources = {"cpu": "192", "memory": "2097152000Ki", "ephemeral-storage": "1048576000Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0", "pods": "250"}
    if gpus:
        labels.update({
            "nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": str(GPUS_PER_NODE), "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
            "nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.family": "hopper", "nvidia.com/gpu.replicas": "1", "nvidia.com/mig.capable": "true",
            "nvidia.com/cuda.driver-version.full": "570.133.20", "nvidia.com/cuda.runtime-version.full": "12.8",
            "feature.node.kubernetes.io/pci-10de.present": "true", "nvidia.com/gpu.deploy.driver": "true", "nvidia.com/gpu.deploy.device-plugin": "true"})
        resources["nvidia.com/gpu"] = str(GPUS_PER_NODE)
    condition = lambda kind, status, reason, message: {
        "type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": NOW, "lastTransitionTime": CREATED}
    conditions = [
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status")]
    images = [{"names": [f"registry.example.com/team/image-{index}@sha256:{digest(f'image{index}')}", f"registry.example.com/team/image-{index}:v1.{index}"],
               "sizeBytes": 100_000_000 + index} for index in range(10)]
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {
            "node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            "nfd.node.kubernetes.io/feature-labels": ",".join(sorted(labels))}},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"], "providerID": f"cloud:///eu-1/{name}"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": f"10.{number // 250 % 250}.{number % 250}.1"}, {"type": "Hostname", "address": name}],
            "capacity": resources, "allocatable": resources, "conditions": conditions, "images": images,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {"architecture": "amd64", "bootID": digest(name)[:32], "containerRuntimeVersion": "containerd://2.1.4",
                         "kernelVersion": "6.8.0-1021", "kubeProxyVersion": "v1.36.2", "kubeletVersion": "v1.36.2", "machineID": digest(name + "m")[:32],
                         "operatingSystem": "linux", "osImage": "Ubuntu 24.04.2 LTS", "systemUUID": digest(name + "s")[:32]}}}


def container(name, gpus, environment, probed=True):
    resources = {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"cpu": "4", "memory": "16Gi"}}
    if gpus:
        resources["requests"]["nvidia.com/gpu"] = resources["limits"]["nvidia.com/gpu"] = str(gpus)
    probe = {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 3}
    probes = {"livenessProbe": probe, "readinessProbe": probe} if probed else {}
    return probes | {
        "name": name, "image": f"registry.example.com/team/{name}:v1.27.3", "imagePullPolicy": "IfNotPresent",
        "args": ["--config=/etc/app/config.yaml", "--listen=:8080", "--log-level=info"],
        "env": [{"name": f"SERVICE_SETTING_{index}", "value": f"value-{index}-{digest(name)[:16]}"} for index in range(environment)]
        + [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
        "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
        "resources": resources, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "data", "mountPath": "/data"},
                         {"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}]}


def pod(number, nodes):
    gpus = 4 if number % 10 == 0 else 0
    owner = f"service-{number // 10:05}-{digest(str(number // 10))[:9]}"
    # Pods with GPUs are on the nodes that have GPUs.
    on = number % (nodes // 5) * 5 if gpus else number % nodes
    projected = [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                 {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                 {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": f"{owner}-{digest(str(number))[:5]}", "namespace": f"team-{number % NAMESPACES}",
            "labels": {"app.kubernetes.io/name": owner[:13], "app.kubernetes.io/version": "v1.27.3", "app.kubernetes.io/managed-by": "Helm",
                       "pod-template-hash": owner[-9:], "team": f"team-{number % NAMESPACES}"},
            "annotations": {"checksum/config": digest(owner), "prometheus.io/scrape": "true", "prometheus.io/port": "8080",
                            "cni.projectcalico.org/podIP": f"10.1.{number // 250 % 250}.{number % 250}/32"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": digest(owner)[:36],
                                 "controller": True, "blockOwnerDeletion": True}]},
        "spec": {
            "nodeName": node_name(on), "schedulerName": "default-scheduler", "restartPolicy": "Always", "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "enableServiceLinks": True,
            "containers": [container("main", gpus, 6)], "initContainers": [container("prepare", 0, 1, probed=False)],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "volumes": [{"name": "config", "configMap": {"name": owner}}, {"name": "data", "emptyDir": {}},
                        {"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": projected}}]}}


def pod_status(number):
    condition = lambda kind: {"type": kind, "status": "True", "lastTransitionTime": CREATED}
    status = lambda name, state, ready: {
        "name": name, "image": f"registry.example.com/team/{name}:v1.27.3", "imageID": f"registry.example.com/team/{name}@sha256:{digest(name)}",
        "containerID": f"containerd://{digest(f'{name}{number}')}", "ready": ready, "restartCount": 0, "started": ready, "state": state}
    running = {"running": {"startedAt": CREATED}}
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": CREATED, "finishedAt": CREATED, "containerID": f"containerd://{digest(str(number))}"}}
    address = f"10.1.{number // 250 % 250}.{number % 250}"
    return {
        "phase": "Running", "startTime": CREATED, "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}], "podIP": address, "podIPs": [{"ip": address}],
        "qosClass": "Burstable", "conditions": [condition(kind) for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")],
        "containerStatuses": [status("main", running, True)], "initContainerStatuses": [status("prepare", ended, True)]}


class Server:
    def __init__(self, kubeconfig):
        view = subprocess.run(["kubectl", "--kubeconfig", kubeconfig, "config", "view", "--raw", "--minify", "-o", "json"],
                              check=True, capture_output=True).stdout
        view = json.loads(view)
        cluster, user = view["clusters"][0]["cluster"], view["users"][0]["user"]
        self.address = urllib.parse.urlparse(cluster["server"])
        self.context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as file:
            file.write(base64.b64decode(user["client-certificate-data"]) + b"\n" + base64.b64decode(user["client-key-data"]))
            file.flush()
            self.context.load_cert_chain(file.name)
        self.connection = http.client.HTTPSConnection(self.address.hostname, self.address.port, context=self.context)

    def send(self, method, path, body, content="application/json"):
        self.connection.request(method, path, json.dumps(body), {"Content-Type": content, "User-Agent": "create-objects"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300 and answer.status != 409:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:300]}")


def create(kubeconfig, nodes, pods, part):
    server = Server(kubeconfig)
    for number in range(part, nodes, WORKERS):
        server.send("POST", "/api/v1/nodes", node(number))
    for number in range(part, pods, WORKERS):
        body = pod(number, nodes)
        path = f"/api/v1/namespaces/{body['metadata']['namespace']}/pods"
        server.send("POST", path, body)
        server.send("PATCH", f"{path}/{body['metadata']['name']}/status", {"status": pod_status(number)}, "application/merge-patch+json")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=50000)
    args = parser.parse_args()
    server = Server(args.kubeconfig)
    for number in range(NAMESPACES):
        server.send("POST", "/api/v1/namespaces", {"metadata": {"name": f"team-{number}"}})
    work = [multiprocessing.Process(target=create, args=(args.kubeconfig, args.nodes, args.pods, part)) for part in range(WORKERS)]
    for process in work:
        process.start()
    for process in work:
        process.join()
    if any(process.exitcode for process in work):
        raise SystemExit("some objects were not created")


if __name__ == "__main__":
    main()
