"""What a zone's agent measures, as others are told: whatever a guest sends, only numbers and short words pass."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from runtime.host.agentlink import strictjson
from runtime.host.daemon.model import Metric, ZoneProcess

# By what the agent calls its figures (runtime/init/agent/metrics.py): the kernel's names where it has one.
_UNITS = tuple(
    (re.compile(form), unit)
    for form, unit in (
        (r"_bytes(\.\w+)?$|\.[rwd]bytes$", "bytes"),
        (r"_kib\b", "KiB"),
        (r"_s$|^cpu\.cpu\d*\.", "seconds"),
        (r"_ms$", "milliseconds"),
        (r"_us$|_usec$", "microseconds"),
        (r"_percent$|pressure\b.*\.avg\d+$", "percent"),
    )
)
MAX_LINE_BYTES = 1 << 20
MOST = 2000  # metrics, or processes, of a zone: a tree is made of them for whoever asks


def metrics_of(document: Mapping[str, Any]) -> list[Metric]:
    """{"metrics": [[name, value, unit], …]}, or a tree of numbers whose leaves are named by their path."""
    listed = document.get("metrics")
    if isinstance(listed, list):
        return [
            Metric(str(item[0])[:128], float(item[1]), str(item[2])[:16] if len(item) > 2 else "count")
            for item in listed[:MOST]
            if isinstance(item, list) and len(item) > 1 and _is_number(item[1])
        ]
    return list(itertools.islice(_leaves(document, ""), MOST))


class Lines:
    """Documents of a zone that come as lines, in pieces of any size. Raises ValueError for what is none or endless."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[list[Metric]]:
        """The figures that are whole now."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"expected a line of at most {MAX_LINE_BYTES} bytes, got more")
        return [metrics_of(strictjson.loads(line)) for line in lines]


def _leaves(document: Mapping[str, Any], prefix: str) -> Any:
    for key, value in document.items():
        name = f"{prefix}{key}"[:128]
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif _is_number(value):
            yield Metric(name, float(value), _unit(name))


def _unit(name: str) -> str:
    return next((unit for form, unit in _UNITS if form.search(name)), "count")


def processes_of(document: Mapping[str, Any]) -> list[ZoneProcess]:
    """{"processes": [{pid, ppid, uid, state, rss_kib, cpu_s, command}, …]}."""
    found = []
    listed = document.get("processes")
    for item in listed[:MOST] if isinstance(listed, list) else ():
        if isinstance(item, Mapping):
            found.append(
                ZoneProcess(
                    pid=_int(item.get("pid")),
                    parent=_int(item.get("parent", item.get("ppid"))),
                    uid=_int(item.get("uid")),
                    state=str(item.get("state", ""))[:16],
                    resident_kib=_int(item.get("resident_kib", item.get("rss_kib"))),
                    cpu_s=float(item["cpu_s"]) if _is_number(item.get("cpu_s")) else 0.0,
                    command=str(item.get("command", ""))[:4096],
                )
            )
    return found


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 1 << 63


def _int(value: object) -> int:
    return value if isinstance(value, int) and _is_number(value) else 0
