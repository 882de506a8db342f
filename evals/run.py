#!/usr/bin/env python3
"""Runs the cases of evals/ with an agent and an arm (a set of tools), records transcripts, and scores them without a model.

    python3 evals/run.py run --arm ours --agent scripted --out FILE
    python3 evals/run.py run --arm raw --agent 'claude -p --mcp-config {mcp}' --runs 5 --out FILE
    python3 evals/run.py score FILE…           scores of transcripts
    python3 evals/run.py page --check|--write  the scores in docs/evals.md, from evals/transcripts
    python3 evals/run.py serve ARM ARCHIVE     the MCP server of an arm
    python3 evals/run.py mcpchecker FOLDER     the cases as tasks of mcpchecker
    python3 evals/run.py check CASE FILE       exit code 0 if the answer in FILE is right

docs/evals.md describes cases, arms and scores. Only the standard library is used.
"""
import argparse
import fnmatch
import json
import lzma
import math
import os
import pathlib
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import render  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent / "docs/evals.md"
VOCABULARY = json.loads((HERE / "vocabulary.json").read_text())
PAGE_SIZE = 16_000
SEED, RESAMPLES = 27, 2_000
OBJECT = '{"node": NAME or null, "gpu": INDEX or null, "cause": CAUSE, "action": ACTION, "evidence": [TEXT, …]}'


# ---- arms

def text_tool(name, description, /, **properties):
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"name": name, "description": description, "inputSchema": schema}


class Files:
    """Tools over rendered text: a list, pages, and a search."""

    TOOLS = [text_tool("list_files", "Names and sizes of all files."),
             text_tool("read_file", "16,000 characters of a file from an offset.", name="string", offset="integer"),
             text_tool("grep", "Lines that match a regular expression (case is ignored), in all files or those that match a glob; "
                       "16,000 characters from an offset.", pattern="string", files="string", offset="integer")]

    def __init__(self, texts):
        self.texts, self.tools = texts, self.TOOLS

    def call(self, name, arguments):
        if name == "list_files":
            return "\n".join(f"{path}  {len(text)}" for path, text in sorted(self.texts.items()))
        if name == "read_file":
            text = self.texts.get(arguments.get("name"))
            if text is None:
                return "error: there is no such file"
        elif name == "grep":
            try:
                pattern = re.compile(arguments.get("pattern", ""), re.IGNORECASE)
            except re.error as error:
                return f"error: {error}"
            paths = fnmatch.filter(sorted(self.texts), arguments.get("files") or "*")
            text = "\n".join(f"{path}:{line}" for path in paths for line in self.texts[path].splitlines() if pattern.search(line))
        else:
            return f"error: there is no tool {name}"
        start = int(arguments.get("offset") or 0)
        rest = len(text) - start - PAGE_SIZE
        return text[start:start + PAGE_SIZE] + (f"\n[{rest} characters follow: offset {start + PAGE_SIZE}]" if rest > 0 else "")

    def close(self):
        pass


class Ours:
    """The MCP server of gpu-syringe on an archive, without the tools of `without`."""

    def __init__(self, archive, without=()):
        program = os.environ.get("GPU_SYRINGE", "gpu-syringe")
        self.server = subprocess.Popen([program, "--from", str(archive), "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, text=True)
        self.number, self.without = 0, without
        self.request("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "evals", "version": "1"}})
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self.tools = [tool for tool in self.request("tools/list", {})["tools"] if tool["name"] not in without]

    def send(self, message):
        self.server.stdin.write(json.dumps(message) + "\n")
        self.server.stdin.flush()

    def request(self, method, params):
        self.number += 1
        self.send({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})
        for line in self.server.stdout:
            message = json.loads(line)
            if message.get("id") == self.number and "method" not in message:
                return message.get("result") or {"tools": [], "content": [{"text": json.dumps(message.get("error"))}]}
        raise RuntimeError("gpu-syringe ended")

    def call(self, name, arguments):
        if name in self.without:
            return f"error: there is no tool {name}"
        answer = self.request("tools/call", {"name": name, "arguments": arguments})
        return "\n".join(part.get("text", "") for part in answer.get("content", []))

    def close(self):
        self.server.stdin.close()
        self.server.wait()


def kubectl_only(archive):
    return Files(render.kubernetes(render.load(archive)))


ARMS = {
    "ours": Ours,
    "ours-without": lambda archive: Ours(archive, ("diagnose_gpu_node", "explain_gpu_pod")),
    "raw": lambda archive: Files(render.raw(render.load(archive))),
    "kubectl": kubectl_only,
}


class Recorder:
    """The tools of an arm. Keeps each call with its result, also in a file."""

    def __init__(self, arm, file=None):
        self.arm, self.tools, self.calls, self.file = arm, arm.tools, [], file

    def call(self, tool, /, **arguments):
        result = self.arm.call(tool, arguments)
        self.calls.append({"tool": tool, "arguments": arguments, "result": result})
        if self.file:
            with open(self.file, "a", encoding="utf-8") as out:
                out.write(json.dumps(self.calls[-1]) + "\n")
        return result


def serve(arm, record):
    """An MCP server on standard input and output, for the tools of an arm."""
    tools = Recorder(arm, record)
    if record:
        pathlib.Path(record + ".tools").write_text(json.dumps(tools.tools))
    for line in sys.stdin:
        message = json.loads(line)
        method, params = message.get("method"), message.get("params") or {}
        if "id" not in message:
            continue
        answer = {"jsonrpc": "2.0", "id": message["id"]}
        if method == "initialize":
            answer["result"] = {"protocolVersion": params.get("protocolVersion", "2025-06-18"), "capabilities": {"tools": {}},
                                "serverInfo": {"name": "gpu-evals", "version": "1"}}
        elif method == "tools/list":
            answer["result"] = {"tools": tools.tools}
        elif method == "tools/call":
            text = tools.call(params["name"], **(params.get("arguments") or {}))
            answer["result"] = {"content": [{"type": "text", "text": text}]}
        elif method == "ping":
            answer["result"] = {}
        else:
            answer["error"] = {"code": -32601, "message": "unknown method"}
        print(json.dumps(answer), flush=True)


# ---- scripted agents: deterministic, without a model. They set the floor of each arm.

GRAVE = ("fatal", "critical", "warning")


def asked(prompt):
    """Returns the pod or job (NAMESPACE/NAME, NAMESPACE/job/NAME) and the nodes that a prompt names."""
    pod = re.search(r"(?i:\b(job) )?(?<![\w.-])([a-z0-9][a-z0-9-]*)/([a-z0-9][a-z0-9-]*)\b", prompt)
    first, last = re.search(r"gpu-(\d+) to gpu-(\d+)", prompt), re.findall(r"\bgpu-\d+\b", prompt)
    nodes = [f"gpu-{number}" for number in range(int(first[1]), int(first[2]) + 1)] if first else list(dict.fromkeys(last))
    return pod and "/".join([pod[2], *(["job"] if pod[1] else []), pod[3]]), nodes


def cause_of(text):
    """Returns the first cause of the vocabulary of which a word is in the text, with the line."""
    for cause, entry in VOCABULARY["causes"].items():
        for words in entry["words"]:
            for line in text.splitlines():
                if re.search(words, line, re.IGNORECASE):
                    return cause, line
    return None, None


def cause_of_finding(finding):
    causes = VOCABULARY["causes"].items()
    return next((cause for cause, entry in causes if any(fnmatch.fnmatch(finding, glob) for glob in entry["findings"])), "node")


def action_of(code):
    return next((action for action, entry in VOCABULARY["actions"].items() if code in entry["codes"]), "MORE_DATA")


def answer(node, gpu, cause, action, evidence):
    return {"node": node, "gpu": gpu, "cause": cause, "action": action, "evidence": evidence}


def from_findings(node, findings, verdict):
    grave = [finding for word in GRAVE for finding in findings if finding.get("severity") == word]
    if not grave:
        sure = verdict in ("healthy", "no_fault_found")
        return answer(node, None, "none" if sure else "not-visible", "NONE" if sure else "MORE_DATA", [verdict] if verdict else [])
    first = grave[0]
    scope = first.get("scope", {})
    return answer(scope.get("node", node), scope.get("gpu"), cause_of_finding(first["id"]), action_of(first["action"]["code"]),
                  [first["id"], *first.get("evidence", [])[:6]])


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return {}


def worst(tools, nodes):
    """Returns the node to look at: the first that the survey lists."""
    if len(nodes) == 1:
        return nodes[0]
    survey = parsed(tools.call("get_gpu_health"))
    listed = [entry.get("node") for entry in survey.get("nodes") or []]
    return next((node for node in listed if not nodes or node in nodes), nodes[0] if nodes else None)


def from_suspects(said, tools):
    """Returns the answer for a job: about its first suspect, and of the node if that is to be looked at."""
    if not said["suspects"]:
        sure = said["state"] in ("computing", "waiting", "finished")
        return answer(None, None, "none" if sure else "not-visible", "NONE" if sure else "MORE_DATA", [said["summary"]])
    first = said["suspects"][0]
    node, texts = first["members"][0].get("node"), [fact["value"] for fact in first["facts"]]
    if first["because"] in ("fault", "slower"):
        found = parsed(tools.call("diagnose_gpu_node", node_name=node))
        right = from_findings(node, found.get("findings") or [], found.get("verdict"))
        return {**right, "evidence": texts + right["evidence"]}
    usual = {"never_started": "scheduling", "failed_first": "application", "process_stopped": "leftover-process"}
    cause = next(filter(None, (cause_of(text)[0] for text in texts)), usual.get(first["because"], "node"))
    return answer(node, None, cause, action_of(said["action"]["code"]), texts)


def scripted_ours(prompt, tools):
    pod, nodes = asked(prompt)
    if not pod:
        node = worst(tools, nodes)
        said = parsed(tools.call("diagnose_gpu_node", node_name=node))
        return from_findings(node, said.get("findings") or [], said.get("verdict"))
    namespace, name = pod.split("/", 1)
    said = parsed(tools.call("explain_gpu_pod", pod=name, namespace=namespace))
    if "suspects" in said:
        return from_suspects(said, tools)
    node = said.get("node") or (nodes[0] if nodes else None)
    if said.get("cause") in (None, "none", "unknown"):
        sure = said.get("cause") == "none"
        return answer(node, None, "none" if sure else "not-visible", "NONE" if sure else "MORE_DATA", [])
    if said["cause"] in ("gpu", "node") and said.get("node_findings"):
        return from_findings(node, said["node_findings"], None)
    code = (said.get("action") or {}).get("code")
    fallback = {"application": "application", "cluster": "scheduling", "gpu": "gpu-memory"}.get(said["cause"], "node")
    texts = [said.get("summary", ""), *said.get("evidence", [])]
    cause = next(filter(None, (cause_of(text)[0] for text in texts)), fallback)
    return answer(node, None, cause, action_of(code), texts)


def scripted_without(prompt, tools):
    pod, nodes = asked(prompt)
    node = worst(tools, nodes)
    if pod:
        tools.call("get_pod_gpu_allocation", namespace=pod.split("/")[0])
    names = ("describe_gpu_node", "analyze_xid_errors", "snapshot_ecc", "get_gpu_telemetry", "inspect_topology")
    said = [parsed(tools.call(name, node_name=node)) for name in names if node]
    found = [finding for one in said for finding in one.get("findings") or []]
    return from_findings(node, found, "no_fault_found" if any(one.get("verdict") for one in said) else None)


def scripted_files(prompt, tools):
    pod, nodes = asked(prompt)
    every = "|".join(f"({words})" for entry in VOCABULARY["causes"].values() for words in entry["words"])
    places = [f"*{pod.replace('/job/', '-').replace('/', '-')}*", "kubectl/get-events.txt"] if pod else []
    places += [f"{node}/dmesg.txt" for node in nodes] + ["kubectl/get-*", "kubectl/logs-*"] + [f"{node}/*" for node in nodes]
    for place in places:
        found = tools.call("grep", pattern=every, files=place)
        cause, line = cause_of(found)
        if not cause:
            continue
        path, _, quoted = line.partition(":")
        node = path.split("/")[0] if not path.startswith("kubectl") else nodes[0] if nodes else None
        address, gpu = re.search(r"Xid \(PCI:(0000:[0-9a-f]{2}:[0-9a-f]{2})", quoted), None
        if address:
            index = re.search(r"\(index (\d+)", tools.call("grep", pattern=f"^GPU 0000{address[1]}", files=f"{node}/nvidia-smi-q.txt"))
            gpu = int(index[1]) if index else None
        return answer(node, gpu, cause, VOCABULARY["causes"][cause]["action"], [quoted.strip()])
    return answer(nodes[0] if nodes else None, None, "none", "NONE", [])


SCRIPTED = {"ours": scripted_ours, "ours-without": scripted_without, "raw": scripted_files, "kubectl": scripted_files}


# ---- runs

def cases(folder):
    found = [json.loads(path.read_text()) for path in sorted(pathlib.Path(folder).glob("*/case.json"))]
    return {case["id"]: case for case in found}


def prompt_of(case):
    lists = [", ".join(f"{name} ({entry['meaning']})" for name, entry in VOCABULARY[kind].items()) for kind in ("causes", "actions")]
    return (f"{case['prompt']}\n\nUse the tools. They only read. End with one line of JSON: {OBJECT}\n"
            f"CAUSE is one of: {lists[0]}.\nACTION, the first step to take, is one of: {lists[1]}.\n"
            "evidence has texts copied from the answers of the tools. If nothing is wrong, the cause is none.\n")


def last_object(text):
    for line in reversed(text.splitlines()):
        start = line.find("{")
        found = parsed(line[start:line.rfind("}") + 1]) if start >= 0 else {}
        if isinstance(found, dict) and "cause" in found:
            return found
    return {}


def run_once(case, folder, arm, agent, number):
    archive = pathlib.Path(folder) / case["id"] / "archive.tar.gz"
    started = time.monotonic()
    if agent == "scripted":
        tools = Recorder(ARMS[arm](archive))
        final = json.dumps(SCRIPTED[arm](case["prompt"], tools))
        calls, definitions = tools.calls, len(json.dumps(tools.tools))
        tools.arm.close()
    else:
        with tempfile.TemporaryDirectory() as place:
            record = os.path.join(place, "calls.jsonl")
            server = {"command": sys.executable, "args": [str(HERE / "run.py"), "serve", arm, str(archive), "--record", record]}
            if "GPU_SYRINGE" in os.environ:
                server["env"] = {"GPU_SYRINGE": os.environ["GPU_SYRINGE"]}
            config = os.path.join(place, "mcp.json")
            pathlib.Path(config).write_text(json.dumps({"mcpServers": {"gpu": server}}))
            words = [word.replace("{mcp}", config) for word in shlex.split(agent)]
            try:
                final = subprocess.run(words, input=prompt_of(case), capture_output=True, text=True, timeout=900, cwd=place).stdout
            except subprocess.TimeoutExpired:
                final = ""
            calls = [json.loads(line) for line in open(record, encoding="utf-8")] if os.path.exists(record) else []
            listed = pathlib.Path(record + ".tools")
            definitions = len(listed.read_text()) if listed.exists() else 0
    return {"case": case["id"], "arm": arm, "agent": agent.split()[0], "run": number, "seconds": round(time.monotonic() - started, 2),
            "definitions": definitions, "calls": calls, "final": final}


# ---- scores

def score(case, run):
    """Returns the scores of one run. Nothing but the transcript and the case is used."""
    said, right = last_object(run["final"]), case["answer"]
    received = "\n".join(call["result"] for call in run["calls"])
    # A quotation can be of a JSON string, so both are compared without backslashes.
    received, evidence = received.replace("\\", ""), [str(text).replace("\\", "") for text in said.get("evidence") or []]
    scores = {
        "located": said.get("node") in right["node"] and (right["gpu"] is None or said.get("gpu") in right["gpu"]),
        "identified": said.get("cause") in right["cause"],
        "acted": said.get("action") in right["action"],
        "harm": said.get("action") in right["forbidden"],
        "grounded": all(text in received for text in evidence) and (bool(evidence) or not right["must_cite"]),
        "cited": all(any(re.search(words, text) for text in evidence) for words in right["must_cite"]),
    }
    scores["calm"] = scores["acted"] and not scores["harm"] if case["kind"] == "healthy" else None
    needed = ("identified", "acted", "grounded") + (() if case["kind"] == "healthy" else ("located",))
    scores["pass"] = all(scores[name] for name in needed) and not scores["harm"]
    return scores


def summary(known, runs):
    """Returns the scores of the runs of one arm and agent."""
    by_case = {}
    for run in runs:
        by_case.setdefault(run["case"], []).append((run, score(known[run["case"]], run)))
    every = [scores for pairs in by_case.values() for _, scores in pairs]

    def share(name):
        values = [scores[name] for scores in every if scores[name] is not None]
        return sum(values) / len(values) if values else 0.0

    def hat(pairs):  # The probability that five runs pass; a scripted agent always does the same.
        passed, count = sum(scores["pass"] for _, scores in pairs), len(pairs)
        return math.comb(passed, 5) / math.comb(count, 5) if count >= 5 else float(passed == count)

    mean = lambda values: sum(values) / max(len(values), 1)  # noqa: E731
    return {
        "pass": {case: mean([scores["pass"] for _, scores in pairs]) for case, pairs in by_case.items()},
        "pass@1": share("pass"), "pass^5": mean([hat(pairs) for pairs in by_case.values()]),
        **{name: share(name) for name in ("located", "identified", "acted", "harm", "grounded", "cited", "calm")},
        "calls": mean([len(run["calls"]) for run in runs]), "seconds": mean([run["seconds"] for run in runs]),
        "results": mean([sum(len(call["result"]) for call in run["calls"]) / 4 for run in runs]),
        "definitions": mean([run["definitions"] / 4 for run in runs]),
    }


def bootstrap(one, other):
    """Returns the 95 % interval of the difference of two arms, by resampling the cases that both have."""
    differences = [one[case] - other[case] for case in sorted(one) if case in other]
    chance = random.Random(SEED)
    means = sorted(sum(chance.choices(differences, k=len(differences))) / len(differences) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]


def table(known, runs):
    groups = {}
    for run in runs:
        groups.setdefault((run["agent"], run["arm"]), []).append(run)
    sums = {key: summary(known, group) for key, group in groups.items()}
    percent = lambda value: f"{100 * value:.0f} %"  # noqa: E731
    names = ("pass@1", "pass^5", "located", "identified", "acted", "harm", "grounded", "cited", "calm")
    lines = ["| agent | arm | " + " | ".join(names) + " | calls | tokens of results | tokens of definitions | seconds | pass@1 below `ours`, 95 % |",
             "|---" * (len(names) + 7) + "|"]
    for (agent, arm), one in sums.items():
        ours = sums.get((agent, "ours"))
        low, high = bootstrap(ours["pass"], one["pass"]) if ours and arm != "ours" else (0, 0)
        interval = "" if arm == "ours" or not ours else f"{percent(low)} to {percent(high)}"
        lines.append(f"| {agent} | {arm} | " + " | ".join(percent(one[name]) for name in names)
                     + f" | {one['calls']:.1f} | {one['results']:,.0f} | {one['definitions']:,.0f} | {one['seconds']:.1f} | {interval} |")
    lines += ["", "| case | kind | " + " | ".join(f"{agent}, {arm}" for agent, arm in groups) + " |", "|---|---" + "|---" * len(groups) + "|"]
    for case in sorted({run["case"] for run in runs}):
        cells = []
        for group in groups.values():
            scored = [score(known[case], run) for run in group if run["case"] == case]
            wrong = [name for name in ("located", "identified", "acted", "grounded") if not all(one[name] for one in scored)]
            wrong = [name for name in wrong if name != "located" or known[case]["kind"] != "healthy"]
            wrong += ["**harm**"] if any(one["harm"] for one in scored) else []
            cells.append("" if not scored else "right" if all(one["pass"] for one in scored) else "not " + ", ".join(wrong))
        ticket = f" ({known[case]['after']})" if known[case].get("after") else ""
        lines.append(f"| {case}{ticket} | {known[case]['kind']} | " + " | ".join(cells) + " |")
    return "\n".join(lines).replace("not **harm**", "**harm**").replace(", **harm**", " and **harm**") + "\n"


def transcripts(paths):
    runs = []
    for path in paths:
        with (lzma.open if str(path).endswith(".xz") else open)(path, "rt", encoding="utf-8") as lines:
            runs += [json.loads(line) for line in lines]
    return runs


def page(folder, mode):
    text = PAGE.read_text()
    head, start, rest = text.partition("<!-- scores: generated by evals/run.py -->\n")
    _, end, tail = rest.partition("<!-- end of scores -->")
    held_out = json.loads((HERE / "held-out.json").read_text())
    scores = table(cases(folder), transcripts(sorted((HERE / "transcripts").iterdir())))
    hidden = "".join(f"| {number} | `{sha}` |\n" for number, sha in enumerate(held_out, 1))
    text = f"{head}{start}\n{scores}\n| held-out case | SHA-256 of `case.json` |\n|---|---|\n{hidden}\n{end}{tail}"
    if mode == "write":
        PAGE.write_text(text)
    elif text != PAGE.read_text():
        sys.exit("docs/evals.md does not have the scores of the transcripts: run evals/run.py page --write, and read the difference")


def mcpchecker(folder, out):
    """Writes one task for each case. JSON is YAML, too."""
    os.makedirs(out, exist_ok=True)
    for name, case in cases(folder).items():
        file = f"/tmp/gpu-evals-{name}.json"
        check = f"#!/bin/sh\nexec {sys.executable} {HERE}/run.py check {name} {file}\n"
        prompt = prompt_of(case) + f"Also write this line to the file {file}.\n"
        task = {"kind": "Task", "apiVersion": "mcpchecker/v1alpha2", "metadata": {"name": name, "difficulty": "medium"},
                "spec": {"setup": [{"script": {"inline": f"#!/bin/sh\nrm -f {file}\n"}}],
                         "verify": [{"script": {"inline": check}}], "prompt": {"inline": prompt}}}
        pathlib.Path(out, f"{name}.yaml").write_text(json.dumps(task, indent=1) + "\n")
        server = {"mcpServers": {"gpu": {"command": "gpu-syringe", "args": ["--from", str(pathlib.Path(folder, name, "archive.tar.gz")), "mcp"]}}}
        pathlib.Path(out, f"{name}.mcp.json").write_text(json.dumps(server, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=str(HERE), help="folder of the cases")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--arm", choices=ARMS, action="append", help="by default, all")
    run.add_argument("--agent", default="scripted", help="a command: prompt on standard input, {mcp} is the MCP configuration")
    run.add_argument("--runs", type=int, default=1)
    run.add_argument("--case", action="append", help="only this case")
    run.add_argument("--out", required=True)
    commands.add_parser("score").add_argument("files", nargs="+")
    of_page = commands.add_parser("page").add_mutually_exclusive_group(required=True)
    of_page.add_argument("--check", dest="mode", action="store_const", const="check")
    of_page.add_argument("--write", dest="mode", action="store_const", const="write")
    server = commands.add_parser("serve")
    server.add_argument("arm", choices=ARMS)
    server.add_argument("archive")
    server.add_argument("--record")
    commands.add_parser("mcpchecker").add_argument("folder")
    check = commands.add_parser("check")
    check.add_argument("case")
    check.add_argument("file")
    given = parser.parse_args()
    if given.command == "serve":
        serve(ARMS[given.arm](given.archive), given.record)
    elif given.command == "page":
        page(given.cases, given.mode)
    elif given.command == "score":
        print(table(cases(given.cases), transcripts(given.files)))
    elif given.command == "mcpchecker":
        mcpchecker(given.cases, given.folder)
    elif given.command == "check":
        said = {"final": pathlib.Path(given.file).read_text(), "calls": []}
        scores = score(cases(given.cases)[given.case], said)
        needed = [name for name in ("located", "identified", "acted") if name != "located" or scores["calm"] is None]
        sys.exit(0 if all(scores[name] for name in needed) and not scores["harm"] else 1)
    else:
        known = cases(given.cases)
        opened = lzma.open if given.out.endswith(".xz") else open
        with opened(given.out, "wt", encoding="utf-8") as out:
            for arm in given.arm or ARMS:
                for name in given.case or known:
                    for number in range(given.runs):
                        out.write(json.dumps(run_once(known[name], given.cases, arm, given.agent, number), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
