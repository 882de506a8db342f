#!/usr/bin/env python3
"""Builds the packages of a release from programs that are already built.

    python3 deploy/packages/package.py --programs DIR --probes DIR --out DIR [--version 1.2.3]

The DIR of --programs has one folder for each platform that was built (linux-x64, linux-arm64, darwin-x64, darwin-arm64,
win32-x64), with gpu-syringe or gpu-syringe.exe in it. Every package contains the same file, so its checksum is the same.
The DIR of --probes has node-probe-x86_64 and node-probe-aarch64, which each program must contain (feature `carry`).
Needs npm and the Python package `wheel`. Without --mcpb, npm downloads the tool that packs .mcpb.

Writes archives and SHA256SUMS, npm packages, Python wheels, .mcpb bundles, the krew manifest, the Homebrew formula and
server.json of the MCP registry.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NAME = "gpu-syringe"
REPOSITORY = "https://github.com/gpu-syringe/gpu-syringe"
MCP_NAME = "io.github.gpu-syringe/gpu-syringe"
# The MCP registry permits 100 characters.
SUMMARY = "Finds out what is wrong with an NVIDIA GPU node of a Kubernetes cluster; installs nothing on it."
LICENSE = "Apache-2.0"
SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"

# Folder -> krew and Go names, wheel tag, krew/Homebrew architecture. The programs for Linux are static, so one wheel works
# with every C library.
PLATFORMS = {
    "linux-x64": {"os": "linux", "arch": "amd64", "wheel": "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64"},
    "linux-arm64": {"os": "linux", "arch": "arm64", "wheel": "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64"},
    "darwin-x64": {"os": "darwin", "arch": "amd64", "wheel": "macosx_11_0_x86_64"},
    "darwin-arm64": {"os": "darwin", "arch": "arm64", "wheel": "macosx_11_0_arm64"},
    "win32-x64": {"os": "windows", "arch": "amd64", "wheel": "win_amd64"},
}
# The oldest time that a zip file can hold. With a fixed time, packages of the same programs are identical.
EPOCH = 315532800


class Build:
    """The release that is being packaged."""

    def __init__(self, programs: pathlib.Path, out: pathlib.Path, version: str, mcpb: list[str]):
        self.out = out
        self.version = version
        self.mcpb = mcpb
        self.programs = {}
        for platform in PLATFORMS:
            program = programs / platform / file_name(platform)
            if program.is_file():
                self.programs[platform] = program
        if not self.programs:
            sys.exit(f"{programs} has no program: expected {programs}/linux-x64/{NAME} or another of {', '.join(PLATFORMS)}")
        out.mkdir(parents=True, exist_ok=True)

    def check_carried(self, probes: pathlib.Path) -> None:
        """Checks that each program contains the SHA-256 of each node-probe, because packages must work without a probe image."""
        for name in ("node-probe-x86_64", "node-probe-aarch64"):
            digest = sha256(probes / name).encode()
            for platform, program in self.programs.items():
                if digest not in program.read_bytes():
                    sys.exit(f"{program} does not contain {name}: build it with --features carry and NODE_PROBE_DIR={probes}")

    def url(self, asset: str) -> str:
        return f"{REPOSITORY}/releases/download/v{self.version}/{asset}"


def file_name(platform: str) -> str:
    return NAME + (".exe" if platform.startswith("win32") else "")


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: pathlib.Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def copy(program: pathlib.Path, to: pathlib.Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(program, to)
    to.chmod(0o755)


def archives(build: Build) -> dict[str, pathlib.Path]:
    """Creates an archive for each platform: the program, the license, and the skill for coding agents."""
    made = {}
    for platform, program in build.programs.items():
        files = [(file_name(platform), program.read_bytes(), 0o755), ("LICENSE", (ROOT / "LICENSE").read_bytes(), 0o644)]
        files.append((f"skill/{NAME}/SKILL.md", (ROOT / "deploy" / "skill" / NAME / "SKILL.md").read_bytes(), 0o644))
        # krew accepts .zip and .tar.gz. Windows can only open .zip without additional programs.
        path = build.out / f"{NAME}-{platform}.{'zip' if platform.startswith('win32') else 'tar.gz'}"
        path.write_bytes(zip_bytes(files) if path.suffix == ".zip" else tar_bytes(files))
        made[platform] = path
    return made


def tar_bytes(files: list[tuple[str, bytes, int]]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content, mode in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), mode, EPOCH
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def zip_bytes(files: list[tuple[str, bytes, int]]) -> bytes:
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in files:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return plain.getvalue()


def npm(build: Build) -> None:
    """Creates a package for each platform, and a package that depends on all of them and starts the right program."""
    common = {"version": build.version, "license": LICENSE, "repository": {"type": "git", "url": f"git+{REPOSITORY}.git"}}
    with tempfile.TemporaryDirectory() as folder:
        for platform, program in build.programs.items():
            package = pathlib.Path(folder) / platform
            system, arch = platform.split("-")
            copy(program, package / "bin" / file_name(platform))
            shutil.copyfile(ROOT / "LICENSE", package / "LICENSE")
            described = {"name": f"{NAME}-{platform}", "description": f"The program of {NAME} for {system} on {arch}."}
            write_json(package / "package.json", described | common | {"os": [system], "cpu": [arch], "files": ["bin"]})
            npm_pack(package, build.out)
        package = pathlib.Path(folder) / NAME
        copy(HERE / "npm" / f"{NAME}.js", package / "bin" / f"{NAME}.js")
        shutil.copyfile(ROOT / "README.md", package / "README.md")
        shutil.copyfile(ROOT / "LICENSE", package / "LICENSE")
        about = {"name": NAME, "mcpName": MCP_NAME, "description": SUMMARY, "engines": {"node": ">=18"}, "files": ["bin"]}
        starts = {"bin": {NAME: f"bin/{NAME}.js"}, "keywords": ["mcp", "kubernetes", "nvidia", "gpu", "xid"]}
        needs = {"optionalDependencies": {f"{NAME}-{platform}": build.version for platform in build.programs}}
        write_json(package / "package.json", about | common | starts | needs)
        npm_pack(package, build.out)


def npm_pack(package: pathlib.Path, out: pathlib.Path) -> None:
    run(["npm", "pack", "--silent", "--pack-destination", str(out.resolve())], package)


def wheels(build: Build) -> None:
    """Creates a wheel with the program as its script; `wheel pack` writes the record of files."""
    distribution = f"{NAME.replace('-', '_')}-{build.version}"
    for platform, program in build.programs.items():
        with tempfile.TemporaryDirectory() as folder:
            wheel = pathlib.Path(folder)
            copy(program, wheel / f"{distribution}.data" / "scripts" / file_name(platform))
            info = wheel / f"{distribution}.dist-info"
            info.mkdir()
            tags = "".join(f"Tag: py3-none-{tag}\n" for tag in PLATFORMS[platform]["wheel"].split("."))
            (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nGenerator: {NAME}\nRoot-Is-Purelib: false\n{tags}")
            # PyPI does not resolve relative links. The MCP registry searches for the line `mcp-name` in the description.
            target = f"]({REPOSITORY}/blob/v{build.version}/"
            readme = re.sub(r"\]\((?!https://|#)", target, (ROOT / "README.md").read_text())
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.4\nName: {NAME}\nVersion: {build.version}\nSummary: {SUMMARY}\n"
                f"License-Expression: {LICENSE}\nLicense-File: LICENSE\nProject-URL: Source, {REPOSITORY}\n"
                f"Requires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n{readme}\n\nmcp-name: {MCP_NAME}\n"
            )
            (info / "licenses").mkdir()
            shutil.copyfile(ROOT / "LICENSE", info / "licenses" / "LICENSE")
            for path in wheel.rglob("*"):
                os.utime(path, (EPOCH, EPOCH))
            run([sys.executable, "-m", "wheel", "pack", str(wheel), "--dest-dir", str(build.out)])


def mcpb_manifest(build: Build, platform: str) -> dict:
    """Returns the manifest of a bundle for desktop hosts, which start programs without a shell and ask for the kubeconfig."""
    program = f"server/{file_name(platform)}"
    environment = {"KUBECONFIG": "${user_config.kubeconfig}", "GPU_SYRINGE_CONTEXT": "${user_config.context}"}
    asked = {
        "kubeconfig": {
            "type": "file",
            "title": "Kubeconfig",
            "description": "The kubeconfig file to use. Without one: ~/.kube/config.",
            "required": False,
            "default": "",
        },
        "context": {
            "type": "string",
            "title": "Context",
            "description": "The context of the kubeconfig. Without one: its current context.",
            "required": False,
            "default": "",
        },
    }
    return {
        "manifest_version": "0.3",
        "name": NAME,
        "display_name": NAME,
        "version": build.version,
        "description": SUMMARY,
        "author": {"name": f"The {NAME} authors", "url": REPOSITORY},
        "repository": {"type": "git", "url": REPOSITORY},
        "license": LICENSE,
        "server": {
            "type": "binary",
            "entry_point": program,
            "mcp_config": {"command": f"${{__dirname}}/{program}", "args": ["mcp"], "env": environment},
        },
        "tools_generated": True,
        "prompts_generated": True,
        "compatibility": {"platforms": [platform.split("-")[0]]},
        "user_config": asked,
    }


def mcpb(build: Build) -> dict[str, pathlib.Path]:
    made = {}
    for platform, program in build.programs.items():
        with tempfile.TemporaryDirectory() as folder:
            bundle = pathlib.Path(folder)
            write_json(bundle / "manifest.json", mcpb_manifest(build, platform))
            copy(program, bundle / "server" / file_name(platform))
            made[platform] = build.out / f"{NAME}-{platform}.mcpb"
            run([*build.mcpb, "validate", str(bundle / "manifest.json")])
            run([*build.mcpb, "pack", str(bundle), str(made[platform].resolve())])
    return made


def krew(build: Build, made: dict[str, pathlib.Path]) -> None:
    """Creates the manifest of the kubectl plugin. Its YAML is written by hand, because krew's index requires readable YAML."""
    lines = [
        "apiVersion: krew.googlecontainertools.github.com/v1alpha2",
        "kind: Plugin",
        "metadata:",
        f"  name: {NAME}",
        "spec:",
        f"  version: v{build.version}",
        f"  homepage: {REPOSITORY}",
        "  shortDescription: Find out what is wrong with a GPU node",
        "  description: |",
        "    Creates a short-lived privileged probe pod on a node, reads the state of",
        "    its NVIDIA GPUs, driver and kernel, deletes the pod, and reports findings",
        "    with evidence. Installs nothing on the cluster.",
        "  caveats: |",
        "    The probe is a privileged pod. `kubectl gpu-syringe doctor` says what your",
        "    cluster lacks for it. `kubectl gpu-syringe --demo nodes` needs no cluster.",
        "  platforms:",
    ]
    for platform, path in made.items():
        lines += [
            "    - selector:",
            "        matchLabels:",
            f"          os: {PLATFORMS[platform]['os']}",
            f"          arch: {PLATFORMS[platform]['arch']}",
            f"      uri: {build.url(path.name)}",
            f"      sha256: {sha256(path)}",
            f"      bin: {file_name(platform)}",
            "      files:",
            f"        - from: {file_name(platform)}",
            "          to: .",
            "        - from: LICENSE",
            "          to: .",
        ]
    (build.out / f"{NAME}.yaml").write_text("\n".join(lines) + "\n")


def homebrew(build: Build, made: dict[str, pathlib.Path]) -> None:
    blocks = []
    for system, block in (("darwin", "on_macos"), ("linux", "on_linux")):
        inner = []
        for arch, cpu in (("arm64", "on_arm"), ("x64", "on_intel")):
            if path := made.get(f"{system}-{arch}"):
                inner += [f"    {cpu} do", f'      url "{build.url(path.name)}"', f'      sha256 "{sha256(path)}"', "    end"]
        if inner:
            blocks += [f"  {block} do", *inner, "  end", ""]
    formula = [
        "class GpuSyringe < Formula",
        '  desc "Find out what is wrong with a GPU node of a Kubernetes cluster"',
        f'  homepage "{REPOSITORY}"',
        f'  version "{build.version}"',
        f'  license "{LICENSE}"',
        "",
        *blocks,
        "  def install",
        f'    bin.install "{NAME}"',
        "  end",
        "",
        "  test do",
        f'    assert_match "gpu-2", shell_output("#{{bin}}/{NAME} --demo nodes -o json")',
        "  end",
        "end",
    ]
    (build.out / f"{NAME}.rb").write_text("\n".join(formula) + "\n")


def server_json(build: Build, bundles: dict[str, pathlib.Path]) -> None:
    """Creates the entry of the MCP registry. Clients verify the checksum of a bundle before they install the bundle."""
    stdio = {"transport": {"type": "stdio"}, "packageArguments": [{"type": "positional", "value": "mcp"}]}
    packages = [
        {"registryType": "npm", "identifier": NAME, "version": build.version, "runtimeHint": "npx"} | stdio,
        {"registryType": "pypi", "identifier": NAME, "version": build.version, "runtimeHint": "uvx"} | stdio,
    ]
    for path in bundles.values():
        bundle = {"registryType": "mcpb", "identifier": build.url(path.name), "fileSha256": sha256(path)}
        packages.append(bundle | {"transport": {"type": "stdio"}})
    entry = {"$schema": SCHEMA, "name": MCP_NAME, "title": NAME, "description": SUMMARY, "version": build.version}
    source = {"repository": {"url": REPOSITORY, "source": "github"}, "packages": packages}
    write_json(build.out / "server.json", entry | source)


def run(command: list[str], folder: pathlib.Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def workspace_version() -> str:
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--probes", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--version", default=workspace_version())
    parser.add_argument("--mcpb", default="npx --yes @anthropic-ai/mcpb@2.1.2", help="the command that packs bundles")
    args = parser.parse_args()
    build = Build(args.programs, args.out, args.version, args.mcpb.split())
    build.check_carried(args.probes)
    made = archives(build)
    npm(build)
    wheels(build)
    bundles = mcpb(build)
    krew(build, made)
    homebrew(build, made)
    server_json(build, bundles)
    files = sorted(path for path in build.out.iterdir() if path.name != "SHA256SUMS")
    (build.out / "SHA256SUMS").write_text("".join(f"{sha256(path)}  {path.name}\n" for path in files))
    print("\n".join(path.name for path in [*files, build.out / "SHA256SUMS"]))


if __name__ == "__main__":
    main()
