"""Expectations, and healthy nodes as the base of variants.

`variant` states the expected result of a scenario. A `Variant` is a healthy node whose sections can be changed before it is
written. The expectation describes the effect of the change on the diagnosis.
"""

from datetime import timedelta

from generate import serving, training, use
from node import MIB, TAKEN_AT, Node
from products import A100, H100, L40S, T4

VARIANTS = {}
EXPECTED = {}


def variant(about, verdict, *must, health=None, more=False, must_not=(), summary=(), unknown=(), cluster=None):
    """`must` contains `id`, `(id, gpu)` or a complete entry, `unknown` words of the list of what could not be read."""
    entries = [
        (
            {"id": entry}
            if isinstance(entry, str)
            else entry if isinstance(entry, dict) else {"id": entry[0], "gpu": entry[1]}
        )
        for entry in must
    ]
    usual = {"healthy": "healthy", "unknown": "unknown", "warning": "degraded"}.get(verdict, "unhealthy")
    expectation = {
        "about": about,
        "verdict": verdict,
        "must": entries,
        "must_not": list(must_not),
        "more": more,
        "health": health or usual,
        "summary": list(summary),
        "unknown": list(unknown),
        "cluster": cluster or {},
    }
    expectation = {key: value for key, value in expectation.items() if value or key in ("about", "verdict", "health")}

    def register(function):
        name = function if isinstance(function, str) else function.__name__.replace("_", "-")
        EXPECTED[name] = expectation
        if not isinstance(function, str):
            VARIANTS[name] = function
        return function

    return register


# Keywords for `must_not`: no finding of this class or severity.
ALARMS = ["class:hardware", "severity:critical", "severity:fatal"]

UNKNOWN = "pid='<unknown>', name=<unknown>"


def ago(**span):
    return TAKEN_AT - timedelta(**span)


class Variant:
    """A healthy node whose sections can be changed before it is written."""

    def __init__(
        self, name, product, count, load, driver="570.124.06", cuda="12.8", uptime=1_036_815, work=True, **more
    ):
        self.node = node = Node(name, product, count, driver, cuda, uptime, **more)
        self.load, self.product, self.first = load, product, 41210
        self.running = [
            node.process(
                self.first + index,
                "python3",
                "python3 train.py",
                4180,
                [use(index, max(node.used_bytes(load, index) - 523 * MIB, MIB))],
                f"job-{index}",
            )
            for index in range(count)
            if index not in node.lost and work
        ]
        self.work = work
        # Journal lines of an earlier boot, lines of programs, and the oldest remaining record.
        self.earlier, self.forged, self.only_since = [], [], None
        self.build()

    def build(self):
        node = self.node
        jobs = [node.allocation(f"job-{index}", "main", [index]) for index in range(node.count)] if self.work else []
        self.sections = {
            "inventory": node.inventory(),
            "telemetry": node.telemetry(self.load),
            "topology": node.topology(nics=False),
            "ecc": node.ecc(),
            "processes": node.processes(self.running),
            "mig": node.mig(),
            "kubelet": node.kubelet(jobs),
            "host": node.host(),
        }

    def gpu(self, section, index):
        return next(gpu for gpu in self.sections[section]["data"]["gpus"] if gpu["index"] == index)

    def host(self):
        return self.sections["host"]["data"]

    def xid(self, when, index, text):
        self.node.xid(when, index, text)

    def report(self):
        report = self.node.report(self.sections)
        records = report["kernel_log"]
        if self.only_since:
            oldest = (self.only_since - self.node.boot).total_seconds() * 1_000_000
            records = [record for record in records if int(record.split(",")[2]) >= oldest]
            last = int(report["kernel_log"][-1].split(",")[1])
            records.append(f"6,{last + 1},{int(oldest) + 1000},-;eth0: renamed from vethb01f4a2")
        number, micros = (int(field) for field in records[-1].split(",")[1:3])
        records = records + [
            line.format(seq=number + 1 + place, usec=micros + place) for place, line in enumerate(self.forged)
        ]
        return report | {"kernel_log": self.earlier + records}


def h100(count=4, load=training, **more):
    return Variant("gpu-h100-9", H100, count, load, **more)


def a100(count=4, load=serving, **more):
    return Variant("gpu-a100-9", A100, count, load, **more)


def l40s(count=4, load=serving, **more):
    return Variant("gpu-l40s-9", L40S, count, lambda index: load(index) | {"mhz": 2490, "watts": 251 + index}, **more)


def t4(**more):
    return Variant(
        "gpu-t4-9",
        T4,
        1,
        lambda _: {"gpu": 43, "memory": 21, "used": 0.41, "watts": 52, "degrees": 61, "mhz": 1455},
        driver="550.163.01",
        cuda="12.4",
        kernel="6.1.141-155.222.amzn2023.x86_64",
        cpus=("0-3",),
        virtual=True,
        **more,
    )


def idle(index):
    return {"gpu": 0, "memory": 0, "used": 0.0001, "watts": 72 + index, "degrees": 31 + index}
