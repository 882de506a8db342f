#!/usr/bin/env python3
"""Diagnoses a node of the demo with an installed gpu-syringe, on the command line and over MCP, in an empty home.

    python3 deploy/packages/ask.py NAME PROGRAM [ARGUMENT...]

Fails if the program does not start, does not find the GPU that is off the bus, or does not carry both node-probe programs.
"""

import json
import os
import subprocess
import sys
import tempfile

FINDING = "gpu-off-bus"
CARRIED = ["node_probe_x86_64", "node_probe_aarch64"]


def main() -> None:
    name, program = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home}
        # Exit code 2 is a verdict: the node has a fault.
        answer = command(name, [*program, "--demo", "diagnose", "gpu-2", "-o", "json"], environment)
        if FINDING not in answer:
            sys.exit(f"{name}: the answer of the command line has no {FINDING}: {answer[:300]}")
        settings = command(name, [*program, "config", "-o", "json"], environment)
        if missing := [program for program in CARRIED if program not in settings]:
            sys.exit(f"{name}: it does not carry {', '.join(missing)}: {settings[:300]}")
        answer = over_mcp(name, [*program, "--demo", "mcp"], environment)
        if FINDING not in answer:
            sys.exit(f"{name}: the answer over MCP has no {FINDING}: {answer[:300]}")
    print(f"{name}: ok")


def command(name: str, arguments: list[str], environment: dict) -> str:
    try:
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"{name}: {error}")
    return done.stdout or done.stderr


def over_mcp(name: str, arguments: list[str], environment: dict) -> str:
    """Initializes a session, calls one tool, and returns the line with its result."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "ask", "version": "1"}}
    with subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        request(server, 1, "initialize", hello)
        send(server, {"method": "notifications/initialized"})
        answer = request(server, 2, "tools/call", {"name": "diagnose_gpu_node", "arguments": {"node_name": "gpu-2"}})
        server.stdin.close()
    if server.returncode != 0:
        sys.exit(f"{name}: the MCP server ended with exit code {server.returncode}")
    return answer


def request(server: subprocess.Popen, identifier: int, method: str, params: dict) -> str:
    send(server, {"id": identifier, "method": method, "params": params})
    for line in server.stdout:
        if json.loads(line).get("id") == identifier:
            return line
    return ""


def send(server: subprocess.Popen, message: dict) -> None:
    server.stdin.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    server.stdin.flush()


if __name__ == "__main__":
    main()
