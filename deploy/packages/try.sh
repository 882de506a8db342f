#!/usr/bin/env bash
# Installs each package of DIR that can run on this machine into an empty environment, and runs a diagnosis of the demo with it.
#
#   bash deploy/packages/try.sh DIR
set -euo pipefail
dist=$(cd "$1" && pwd)
case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) platform=linux-x64 wheel=manylinux_2_17_x86_64 ;;
    Linux-aarch64) platform=linux-arm64 wheel=manylinux_2_17_aarch64 ;;
    Darwin-arm64) platform=darwin-arm64 wheel=macosx_11_0_arm64 ;;
    Darwin-x86_64) platform=darwin-x64 wheel=macosx_11_0_x86_64 ;;
    *) echo "no package for $(uname -s) on $(uname -m)" >&2; exit 1 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# An empty home: no kubeconfig, no settings, no cache of an earlier run. Python and npm are still found through PATH.
ask() {
    local name=$1
    shift
    mkdir -p "$work/home"
    local said
    said=$(env -i PATH="$PATH" HOME="$work/home" "$@" --demo diagnose gpu-2 -o json || true)
    if ! grep -q '"gpu-off-bus"' <<< "$said"; then
        echo "$name: no answer from the demo: ${said:0:300}" >&2
        exit 1
    fi
    said=$(env -i PATH="$PATH" HOME="$work/home" "$@" config --output json)
    if ! grep -q '"node_probe_x86_64"' <<< "$said" || ! grep -q '"node_probe_aarch64"' <<< "$said"; then
        echo "$name: the package contains no node-probe: ${said:0:300}" >&2
        exit 1
    fi
    # An MCP host: initialize, then the end of input.
    said=$(printf '%s\n' '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"try","version":"1"}}}' \
        | env -i PATH="$PATH" HOME="$work/home" "$@" --demo mcp)
    if ! grep -q '"serverInfo"' <<< "$said"; then
        echo "$name: no answer over MCP: ${said:0:300}" >&2
        exit 1
    fi
    echo "$name: ok"
}

mkdir "$work/archive"
tar -xzf "$dist/gpu-syringe-$platform.tar.gz" -C "$work/archive"
ask "archive" "$work/archive/gpu-syringe"
grep -q '^name: gpu-syringe$' "$work/archive/skill/gpu-syringe/SKILL.md"

# This is what krew does: it creates a link with the name of the plugin, and kubectl runs the link with the arguments.
ln -s "$work/archive/gpu-syringe" "$work/archive/kubectl-gpu_syringe"
ask "kubectl plugin" "$work/archive/kubectl-gpu_syringe"

mkdir "$work/npm"
version=$(basename "$dist"/gpu-syringe-[0-9]*.tgz .tgz | sed 's/^gpu-syringe-//')
(cd "$work/npm" && npm init -y > /dev/null 2>&1 \
    && npm install --silent --no-audit --no-fund --offline "$dist/gpu-syringe-$version.tgz" "$dist/gpu-syringe-$platform-$version.tgz")
ask "npm" "$work/npm/node_modules/.bin/gpu-syringe"

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-index --no-deps "$dist"/gpu_syringe-*"$wheel"*.whl
ask "wheel" "$work/venv/bin/gpu-syringe"

mkdir "$work/mcpb"
python3 -m zipfile -e "$dist/gpu-syringe-$platform.mcpb" "$work/mcpb"
# A host sets the file permissions of the archive when it extracts the files; Python does not.
chmod +x "$work/mcpb/server/gpu-syringe"
ask "mcpb" env KUBECONFIG= GPU_SYRINGE_CONTEXT= "$work/mcpb/server/gpu-syringe"
