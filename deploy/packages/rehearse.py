#!/usr/bin/env python3
"""Rehearses a release: runs the scripts of release.yml, job by job, from a tag in a scratch clone.

    python3 deploy/packages/rehearse.py [--work DIR]

The registries are on this machine: verdaccio for npm, pypiserver for PyPI, docker-registry for the image. The job `publish` runs
twice, because a job that failed is run again. Then each package is installed from its registry into an empty home, and asked a
question on the command line and over MCP. Nothing leaves this machine. At the end the script prints what it could not show.

Needs Linux on x86_64 with git, npm, jq, rustup, kubectl, docker-registry and skopeo. Uses actionlint, validate-krew-manifest and krew if they
are in PATH. --work keeps the builds for the next run; without it they are made in a temporary folder.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path("deploy/packages")
WORKFLOW = pathlib.Path(".github/workflows/release.yml")
TOOLS = ["PyYAML==6.0.3", "pypiserver==2.4.2"]
# The override is for npm registries without the tag `cjs` of node-fetch.
VERDACCIO = {"private": True, "dependencies": {"verdaccio": "6.5.2"}, "overrides": {"node-fetch": "2.7.0"}}
USER, PASSWORD = "rehearsal", "rehearsal"
OWNER = "rehearsal"

# The machines of the matrix whose jobs can run on this machine. node-probe for the other architecture is cross-compiled.
ROWS = {"probe": lambda row: True, "launcher": lambda row: row["platform"] == "linux-x64"}

# Parts of steps that need identities or services of GitHub: (job, text, replacement, what is then not tested).
# Each text must be in its step, so that an outdated table causes a failure.
REPLACED = [
    ("publish", '"$npm" view', '"$npm" {npm} view', None),
    ("publish", '"$npm" publish --provenance', '"$npm" {npm} publish', "provenance of npm packages, trusted publishing to npm"),
    (
        "publish",
        "--trusted-publishing always --check-url https://pypi.org/simple/",
        "--publish-url {pypi}/ --username rehearsal --password rehearsal --check-url {pypi}/simple/",
        "trusted publishing to PyPI",
    ),
]
# Replacements for programs of the runner that need GitHub or a container engine. They do what is possible here.
STAND_INS = {
    "gh": r"""
        case "$1 $2" in
            "release view") [ -d "$REHEARSAL/release/$3" ] ;;
            "release create") git -C "$REHEARSAL/clone" rev-parse --verify --quiet "refs/tags/$3" > /dev/null && mkdir -p "$REHEARSAL/release/$3" ;;
            "release upload") to=$REHEARSAL/release/$3; shift 4; cp "$@" "$to/" ;;
            *) echo "gh $*: not rehearsed" >&2; exit 1 ;;
        esac""",
    "docker": r"""
        case "$1 $2" in
            "login "*) cat > /dev/null ;;
            # Actions in a job that may publish are pinned by hash.
            "buildx create") [[ "$*" == *image=*@sha256:* ]] || { echo "buildkit has no digest" >&2; exit 1; } ;;
            "buildx build")
                [[ "$*" == *generator=*@sha256:* ]] || { echo "the scanner has no digest" >&2; exit 1; }
                exec python3 "$REHEARSAL_SCRIPT" --push-image "$@" ;;
            *) echo "docker $*: not rehearsed" >&2; exit 1 ;;
        esac""",
    "cosign": r"""
        while [ $# -gt 0 ]; do [ "$1" != --bundle ] || echo '{}' > "$2"; shift; done""",
}
NOT_SHOWN = [
    "the machines of GitHub: macOS, Windows and Linux on arm64 (their programs, packages, and what they answer)",
    "the Containerfile (base images, buildkit, its provenance and list of components): the image is made by its script image-root.sh, "
    "with the C library of this machine, for amd64",
    "signatures and attestations (cosign, attest-build-provenance)",
    "the approval of the environment `release`, and the permissions of the jobs",
    "Homebrew, the MCP registry and the krew index: the workflow does not publish there",
]


class Rehearsal:
    """The scratch clone, the registries, and the outputs of the jobs that have run."""

    def __init__(self, work: pathlib.Path):
        self.work = work
        self.version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
        self.tag = f"v{self.version}"
        self.clone = work / "clone"
        self.outputs: dict[str, dict] = {}
        self.not_shown = list(NOT_SHOWN)
        for name in ("clone", "artifacts", "release", "jobs", "registries", "bin"):
            shutil.rmtree(work / name, ignore_errors=True)
            (work / name).mkdir(parents=True)
        for name, script in STAND_INS.items():
            program = work / "bin" / name
            program.write_text(f"#!/bin/bash\nset -eu\n{script}\n")
            program.chmod(0o755)

    def check_out(self) -> None:
        run(["git", "clone", "--quiet", str(ROOT), str(self.clone)])
        run(["git", "-C", str(self.clone), "tag", "--force", self.tag])


# The registries


@contextlib.contextmanager
def registries(rehearsal: Rehearsal):
    """Starts the three registries on free ports of the loopback interface, and stops them at the end."""
    folder, tools = rehearsal.work / "registries", rehearsal.work / "tools"
    npm, pypi, image = free_port(), free_port(), free_port()
    # There is no uplink, so only packages that were published here can be installed.
    (folder / "verdaccio.yaml").write_text(
        f"storage: {folder}/npm\nauth: {{ htpasswd: {{ file: {folder}/htpasswd }} }}\nmax_body_size: 100mb\n"
        "packages: { '**': { access: $all, publish: $authenticated } }\nlog: { type: stdout, level: warn }\n"
    )
    (folder / "pypi").mkdir()
    (folder / "image.yaml").write_text(
        f"version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {folder}/image }} }}\nhttp: {{ addr: 127.0.0.1:{image} }}\n"
    )
    commands = {
        "npm": [f"{tools}/node_modules/.bin/verdaccio", "--config", f"{folder}/verdaccio.yaml", "--listen", f"127.0.0.1:{npm}"],
        "pypi": [f"{tools}/python/bin/pypi-server", "run", "--interface", "127.0.0.1", "--port", f"{pypi}"]
        + ["--passwords", ".", "--authenticate", ".", f"{folder}/pypi"],
        "image": ["docker-registry", "serve", f"{folder}/image.yaml"],
    }
    servers = []
    try:
        for name, command in commands.items():
            log = (folder / f"{name}.log").open("w")
            servers.append(subprocess.Popen(command, stdout=log, stderr=log))
        for port in (npm, pypi, image):
            wait_for(port)
        user = {"name": USER, "password": PASSWORD}
        request = urllib.request.Request(
            f"http://127.0.0.1:{npm}/-/user/org.couchdb.user:{USER}",
            json.dumps(user).encode(),
            {"Content-Type": "application/json"},
            method="PUT",
        )
        token = json.load(urllib.request.urlopen(request))["token"]
        (folder / "npmrc").write_text(f"registry=http://127.0.0.1:{npm}/\n//127.0.0.1:{npm}/:_authToken={token}\n")
        yield {"npm": f"--userconfig {folder}/npmrc", "pypi": f"http://127.0.0.1:{pypi}", "image": f"127.0.0.1:{image}"}
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    sys.exit(f"no server listens on port {port}")


# The workflow


def run_workflow(rehearsal: Rehearsal, places: dict) -> None:
    import yaml

    workflow = yaml.safe_load((rehearsal.clone / WORKFLOW).read_text())
    workflow["env"]["IMAGE"] = f"{places['image']}/{OWNER}/node-probe"
    for name, job in workflow["jobs"].items():
        needs = job.get("needs", [])
        for needed in [needs] if isinstance(needs, str) else needs:
            if needed not in rehearsal.outputs:
                sys.exit(f"job {name} needs {needed}, which comes after it")
        rows = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
        for row in rows:
            if row and not ROWS[name](row):
                print(f"== {name} {row}: not on this machine")
                continue
            for turn in (1, 2) if name == "publish" else (1,):
                print(f"== {name} {' '.join(row.values())}{' (again)' if turn == 2 else ''}", flush=True)
                run_job(rehearsal, places, workflow, name, row)


def run_job(rehearsal: Rehearsal, places: dict, workflow: dict, name: str, row: dict) -> None:
    job = workflow["jobs"][name]
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=rehearsal.work / "jobs"))
    workspace, temporary = folder / "workspace", folder / "temporary"
    for path in (workspace, temporary):
        path.mkdir()
    if name in ROWS:
        # The build jobs share one folder, so that the next rehearsal is fast.
        (rehearsal.work / "target").mkdir(exist_ok=True)
    steps: dict[str, dict] = {}
    context = {
        "github": {
            "token": "none",
            "workspace": str(workspace),
            "repository": f"{OWNER}/gpu-syringe",
            "repository_owner": OWNER,
            "ref": f"refs/tags/{rehearsal.tag}",
        },
        "runner": {"os": "Linux"},
        "matrix": row,
        "needs": rehearsal.outputs,
        "steps": steps,
        "env": workflow["env"],
    }
    environment = os.environ | {
        "PATH": f"{rehearsal.work}/bin:{os.environ['PATH']}",
        "RUNNER_TEMP": str(temporary),
        "RUNNER_OS": "Linux",
        "GITHUB_REF_NAME": rehearsal.tag,
        "GITHUB_ACTOR": OWNER,
        "REHEARSAL": str(rehearsal.work),
        "REHEARSAL_SCRIPT": str(pathlib.Path(__file__).resolve()),
    }
    environment |= {key: expand(value, context) for key, value in workflow["env"].items()}
    replacements = [row for row in REPLACED if row[0] == name]
    for step in job["steps"]:
        if not condition(step.get("if", "true"), context):
            continue
        if "uses" in step:
            with_ = {key: expand(value, context) for key, value in step.get("with", {}).items()}
            action(rehearsal, step["uses"].split("@")[0], with_, workspace)
            if name in ROWS and not (workspace / "target").exists():
                (workspace / "target").symlink_to(rehearsal.work / "target")
            continue
        script = expand(step["run"], context)
        for replacement in [row for row in replacements if row[1] in script]:
            replacements.remove(replacement)
            script = script.replace(replacement[1], replacement[2].format(**places))
            if replacement[3] and replacement[3] not in rehearsal.not_shown:
                rehearsal.not_shown.append(replacement[3])
        print(f"-- {step.get('name') or script.strip().splitlines()[0]}", flush=True)
        output, path = folder / "output", folder / "path"
        output.write_text("")
        path.write_text("")
        own = {key: expand(value, context) for key, value in step.get("env", {}).items()}
        run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            workspace,
            environment | own | {"GITHUB_OUTPUT": str(output), "GITHUB_PATH": str(path)},
        )
        if "id" in step:
            pairs = (line.split("=", 1) for line in output.read_text().splitlines())
            steps[step["id"]] = {"outputs": dict(pairs)}
        for line in path.read_text().splitlines():
            environment["PATH"] = f"{line}:{environment['PATH']}"
    if replacements:
        sys.exit(f"job {name} has no step with {replacements[0][1]!r}: correct REPLACED")
    outputs = {key: expand(value, context) for key, value in job.get("outputs", {}).items()}
    rehearsal.outputs[name] = {"outputs": outputs}


def action(rehearsal: Rehearsal, name: str, with_: dict, workspace: pathlib.Path) -> None:
    """Does the part of an action that the following scripts need."""
    artifacts = rehearsal.work / "artifacts"
    if name == "actions/checkout":
        run(["git", "-c", "advice.detachedHead=false", "clone", "--quiet", "--branch", rehearsal.tag, str(rehearsal.clone), str(workspace)])
    elif name == "actions/upload-artifact":
        source = workspace / with_["path"]
        if not source.is_dir() or not any(source.iterdir()):
            sys.exit(f"{with_['path']} is empty: nothing to keep as {with_['name']}")
        # Artifacts do not keep the permissions of their files.
        for path in source.rglob("*"):
            if path.is_file():
                target = artifacts / with_["name"] / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    elif name == "actions/download-artifact":
        pattern = with_.get("name") or with_["pattern"]
        found = sorted(artifacts.glob(pattern))
        if not found:
            sys.exit(f"no artifact {pattern}")
        for artifact in found:
            shutil.copytree(artifact, workspace / with_["path"], dirs_exist_ok=True)
    elif name not in ("sigstore/cosign-installer", "actions/attest-build-provenance"):
        sys.exit(f"{name}: this action is not rehearsed")


def expand(text: object, context: dict) -> str:
    return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda match: look_up(match.group(1), context), str(text))


def look_up(path: str, context: dict) -> str:
    value = context
    for part in path.split("."):
        if part not in value:
            sys.exit(f"${{{{ {path} }}}} has no value here")
        value = value[part]
    return str(value)


def condition(text: str, context: dict) -> bool:
    if text == "true":
        return True
    if match := re.fullmatch(r"([\w.]+) (==|!=) '(.*)'", text):
        return (look_up(match[1], context) == match[3]) == (match[2] == "==")
    sys.exit(f"if: {text}: this condition is not rehearsed")


def push_image(arguments: list[str]) -> None:
    """Replaces `docker buildx build --push`: builds the image for amd64 with the script of the Containerfile."""
    option = {name: arguments[place + 1] for place, name in enumerate(arguments) if name.startswith("--") and place + 1 < len(arguments)}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run(["sh", "deploy/image-root.sh", "/", "target/image/amd64/node-probe", f"{folder}/root"])
        run(["tar", "--sort=name", "--owner=0", "--group=0", "--mtime=@0", "-cf", f"{folder}/layer.tar", "-C", f"{folder}/root", "."])
        write_layout(folder / "image", (folder / "layer.tar").read_bytes())
        # The copy compresses the layer, so the digest of the pushed image is used.
        to = ["--digestfile", f"{folder}/digest", "--dest-tls-verify=false"]
        run(["skopeo", "copy", "--quiet", *to, f"oci:{folder}/image:latest", f"docker://{option['--tag']}"])
        digest = (folder / "digest").read_text()
    pathlib.Path(option["--metadata-file"]).write_text(json.dumps({"containerimage.digest": digest}))


def write_layout(layout: pathlib.Path, layer: bytes) -> None:
    """Writes an OCI image layout with one layer."""
    import hashlib

    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media_type: str) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(content)}

    layer_blob = blob(layer, "layer.v1.tar")
    settings = {"Entrypoint": ["/usr/bin/node-probe"], "Cmd": ["hold"]}
    root = {"type": "layers", "diff_ids": [layer_blob["digest"]]}
    image = {"architecture": "amd64", "os": "linux", "config": settings, "rootfs": root}
    config = blob(json.dumps(image).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer_blob]}
    manifest_blob = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry = manifest_blob | {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


# After the release


def install_from_registries(rehearsal: Rehearsal, places: dict) -> None:
    """Installs each package from its registry, as a user does, and runs a diagnosis with it."""
    work, release = rehearsal.work / "installed", rehearsal.work / "release" / rehearsal.tag
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], release)

    run(["npm", *places["npm"].split(), "install", "--silent", "--global", "--prefix", f"{work}/npm", "gpu-syringe"])
    ask("npm install -g", [f"{work}/npm/bin/gpu-syringe"])
    run([sys.executable, "-m", "venv", f"{work}/venv"])
    pip = [f"{work}/venv/bin/pip", "--isolated", "install", "--quiet", "--no-cache-dir"]
    run([*pip, "--index-url", f"{places['pypi']}/simple/", "gpu-syringe"])
    ask("pip install", [f"{work}/venv/bin/gpu-syringe"])

    name, digest = (release / "image.txt").read_text().strip().split("@")
    shown = output(["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}"]).strip()
    if shown != digest:
        sys.exit(f"image.txt has {digest}, the registry has {shown}")
    # The launcher trusts an image that is on a node by this digest alone.
    program = f"{work}/npm/lib/node_modules/gpu-syringe/node_modules/gpu-syringe-linux-x64/bin/gpu-syringe"
    if digest.encode() not in pathlib.Path(program).read_bytes():
        sys.exit(f"{program} does not have the digest of the image, {digest}")
    print(f"image: {digest}")
    print(f"gpu-syringe for linux-x64, with both node-probe programs: {pathlib.Path(program).stat().st_size} bytes")

    manifest, archive = f"{release}/gpu-syringe.yaml", f"{release}/gpu-syringe-linux-x64.tar.gz"
    if shutil.which("validate-krew-manifest"):
        run(["validate-krew-manifest", "-skip-install", "-manifest", manifest])
    else:
        rehearsal.not_shown.append("krew's validation of the manifest (validate-krew-manifest is not in PATH)")
    if shutil.which("krew"):
        environment = os.environ | {"KREW_ROOT": f"{work}/krew", "PATH": f"{work}/krew/bin:{os.environ['PATH']}", "KREW_NO_UPGRADE_CHECK": "1"}
        run(["krew", "install", "--manifest", manifest, "--archive", archive], None, environment)
        os.environ["PATH"] = environment["PATH"]
        ask("kubectl gpu-syringe, by krew", ["kubectl", "gpu-syringe"])
    else:
        rehearsal.not_shown.append("the installation by krew (krew is not in PATH)")


def ask(name: str, program: list[str]) -> None:
    run([sys.executable, str(ROOT / HERE / "ask.py"), name, *program])


def lint(rehearsal: Rehearsal) -> None:
    if shutil.which("actionlint"):
        run(["actionlint", *map(str, sorted((rehearsal.clone / ".github/workflows").glob("*.yml")))])
        print("actionlint: ok")
    else:
        rehearsal.not_shown.append("actionlint (not in PATH)")


def tools(work: pathlib.Path) -> None:
    """Installs the registries and the YAML parser, and restarts this script in a Python with the parser."""
    python = work / "tools" / "python"
    if not (work / "tools" / "node_modules").exists():
        run([sys.executable, "-m", "venv", str(python)])
        run([f"{python}/bin/pip", "install", "--quiet", *TOOLS])
        (work / "tools" / "package.json").write_text(json.dumps(VERDACCIO))
        run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(work / "tools")])
    if pathlib.Path(sys.prefix) != python:
        os.execv(python / "bin" / "python3", [str(python / "bin" / "python3"), __file__, "--work", str(work)])


def run(command: list[str], folder: pathlib.Path | None = None, environment: dict | None = None) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)[:300]}: exit code {done.returncode}")


def output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    if sys.argv[1:2] == ["--push-image"]:
        return push_image(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=None)
    work = (parser.parse_args().work or pathlib.Path(tempfile.mkdtemp(prefix="rehearsal-"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    tools(work)
    rehearsal = Rehearsal(work)
    rehearsal.check_out()
    lint(rehearsal)
    with registries(rehearsal) as places:
        run_workflow(rehearsal, places)
        install_from_registries(rehearsal, places)
    print("\nThe rehearsal went through. It cannot show:")
    print("\n".join(f"- {line}" for line in rehearsal.not_shown))


if __name__ == "__main__":
    main()
