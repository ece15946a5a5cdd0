"""What a workload may use: limits of its cgroup, as what is written into it, and the rlimits of its processes.

The zone's container runtime checks both again; what it takes, and no more, is let through here.
Source:  Documentation/admin-guide/cgroup-v2.rst; include/uapi/asm-generic/resource.h.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipeline.bundle.errors import BadSpec

MAX = "max"
RLIM_INFINITY = (1 << 64) - 1
RLIMITS = (
    *("cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending"),
    *("msgqueue", "nice", "rtprio", "rttime"),
)
DEFAULT_PERIOD_US = 100_000
MIN_PERIOD_US, MAX_PERIOD_US = 1000, 1_000_000  # kernel/sched/core.c
_MOST = (1 << 63) - 1
_SIZE = re.compile(r"([1-9][0-9]{0,14}|0)([kmg]?)")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_CPUS = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")
_DEVICE = re.compile(r"xvd([a-p])|[0-9]{1,4}:[0-9]{1,7}")
_XVD_MAJOR, _MINORS_PER_DISK = 202, 16  # drivers/block/xen-blkfront.c
_IO_KEYS = ("rbps", "wbps", "riops", "wiops")


def parse_limits(given: Mapping[str, Any], *, subject: str) -> dict[str, str]:
    """`[limits]` of a spec: file of the cgroup -> what is written into it.

    given:   tables of tables, as TOML makes them of `pids.max = 64`.
    Raises:  BadSpec naming the key.
    """
    return {file: parse_limit(file, value, subject=f"{subject}.{file}") for file, value in _flat(given)}


def split_assignment(text: str, *, subject: str) -> tuple[str, str]:
    """`pids.max=64` of a command line: a file that can be set, and the text for it. Raises BadSpec."""
    file, _, value = text.partition("=")
    if file not in _FILES:
        expected = f"KEY=VALUE with a key of {', '.join(_FILES)}"
        raise BadSpec(f"{subject} {text!r}", expected=expected, got="another", hint=_near(file, _FILES))
    return file, value


def parse_limit(file: str, value: Any, *, subject: str) -> str:
    """One limit as its file takes it. Raises BadSpec."""
    expected, parse = _FILES[file]
    found = parse(value)
    if found is None:
        raise BadSpec(subject, expected=expected, got=repr(value)[:80])
    return found


def lifted(file: str) -> str:
    """What a file has where nobody has set it; "" where only the kernel can tell."""
    if file.endswith(".weight"):
        return "100"
    return {"memory.low": "0", "io.max": "", "cpuset.cpus": "", "cpuset.mems": ""}.get(file, MAX)


def parse_rlimits(given: Mapping[str, Any], *, subject: str) -> dict[str, tuple[int, ...]]:
    """`[rlimits]` of a spec: name -> (soft, hard). Raises BadSpec naming the key."""
    return {name: parse_rlimit(name, value, subject=f"{subject}.{name}") for name, value in given.items()}


def parse_ulimit(text: str, *, subject: str) -> tuple[str, tuple[int, ...]]:
    """`nofile=1024:4096`, as docker's --ulimit has it; -1 is no limit. Raises BadSpec."""
    name, equals, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    if name not in RLIMITS or not equals:
        expected = f"NAME=SOFT[:HARD] with a name of {', '.join(RLIMITS)}"
        raise BadSpec(f"{subject} {text!r}", expected=expected, got="another", hint=_near(name, RLIMITS))
    words = [soft, hard] if colon else [soft]
    return name, parse_rlimit(name, [_rlimit_word(word) for word in words], subject=f"{subject} {name}")


def parse_rlimit(name: str, value: Any, *, subject: str) -> tuple[int, ...]:
    """A number for both, or soft and hard; each may be infinity. Raises BadSpec."""
    pair = value if isinstance(value, list) else [value]
    numbers = [RLIM_INFINITY if number == "infinity" else number for number in pair]
    good = all(isinstance(number, int) and 0 <= number <= RLIM_INFINITY for number in numbers)
    if not 1 <= len(numbers) <= 2 or not good or numbers[0] > numbers[-1]:
        expected = "a number, or soft and hard, soft not above hard, each a number or infinity"
        raise BadSpec(subject, expected=expected, got=repr(value)[:80])
    return numbers[0], numbers[-1]


def _rlimit_word(word: str) -> int | str:
    if word in ("-1", "unlimited", "infinity"):
        return "infinity"
    return int(word) if re.fullmatch(r"[0-9]{1,20}", word) else word


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near and near[0] != name else ""


def _flat(given: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in given.items():
        found += _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(before + key, value)]
    return found


# -- what each file takes; None for what it does not -------------------------------------------------------------------


def _size(value: Any) -> str | None:
    """`64m`; a number alone would be MiB to some and bytes to others, and is refused."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or (not match[2] and match[1] != "0"):
        return None
    size_bytes = int(match[1]) * _UNITS[match[2]]
    return str(size_bytes) if size_bytes <= _MOST else None


def _size_or_max(value: Any) -> str | None:
    return MAX if value == MAX else _size(value)


def _number(low: int, high: int) -> Callable[[Any], str | None]:
    def parse(value: Any) -> str | None:
        number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value
        good = isinstance(number, int) and not isinstance(number, bool) and low <= number <= high
        return str(number) if good else None

    return parse


def _processes(value: Any) -> str | None:
    return MAX if value == MAX else _number(1, 1 << 22)(value)  # PID_MAX_LIMIT, include/linux/threads.h


def _cpu(value: Any) -> str | None:
    """`max`, a number of CPUs, or quota and period in microseconds."""
    if value == MAX:
        return MAX
    words = value.split() if isinstance(value, str) else []
    if len(words) == 2 and all(re.fullmatch("[0-9]{1,12}", word) for word in words):
        quota_us, period_us = map(int, words)
    else:
        try:
            cpus = float(value) if not isinstance(value, (bool, list)) else -1.0
        except (TypeError, ValueError, OverflowError):
            return None
        if not 0 < cpus <= 4096:
            return None
        quota_us, period_us = round(cpus * DEFAULT_PERIOD_US), DEFAULT_PERIOD_US
    good = quota_us >= MIN_PERIOD_US and MIN_PERIOD_US <= period_us <= MAX_PERIOD_US
    return f"{quota_us} {period_us}" if good else None


def _cpu_list(value: Any) -> str | None:
    return value if isinstance(value, str) and _CPUS.fullmatch(value) else None


def _io(value: Any) -> str | None:
    """Rows of a device and its limits, as io.max has them; one row may stand without its list."""
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list) or not rows:
        return None
    found = [_io_row(row) for row in rows]
    return None if None in found else "\n".join(str(row) for row in found)


def _io_row(row: Any) -> str | None:
    device, *words = (row.split() if isinstance(row, str) else []) or [""]
    match = _DEVICE.fullmatch(device)
    pairs = [word.partition("=") for word in words]
    keys = [key for key, _, _ in pairs]
    if match is None or not pairs or set(keys) - set(_IO_KEYS) or len(set(keys)) != len(keys):
        return None
    values = [
        _size_or_max(value) or _number(1, _UNITS["g"] - 1)(value) if key.endswith("bps") else _operations(value)
        for key, _, value in pairs
    ]
    if None in values or "0" in values:
        return None
    if match[1]:
        device = f"{_XVD_MAJOR}:{(ord(match[1]) - ord('a')) * _MINORS_PER_DISK}"
    return " ".join([device, *(f"{key}={value}" for key, value in zip(keys, values, strict=True))])


def _operations(value: str) -> str | None:
    return MAX if value == MAX else _number(1, _UNITS["g"])(value)


_SIZE_TEXT = "a size such as 64m or 1g, or max"
_WEIGHT = ("a number from 1 to 10000", _number(1, 10000))
_CPU_LIST = ("numbers such as 0-1,3", _cpu_list)
_FILES: dict[str, tuple[str, Callable[[Any], str | None]]] = {
    "memory.max": (_SIZE_TEXT, _size_or_max),
    "memory.high": (_SIZE_TEXT, _size_or_max),
    "memory.low": ("a size such as 64m or 1g, or 0", _size),
    "memory.swap.max": (_SIZE_TEXT, _size_or_max),
    "pids.max": ("a number of processes from 1 on, or max", _processes),
    "cpu.max": (
        f"a number of CPUs such as 0.5, max, or quota and period in microseconds, the quota at least {MIN_PERIOD_US}, "
        f"the period {MIN_PERIOD_US} to {MAX_PERIOD_US}",
        _cpu,
    ),
    "cpu.weight": _WEIGHT,
    "cpuset.cpus": _CPU_LIST,
    "cpuset.mems": _CPU_LIST,
    "io.weight": _WEIGHT,
    "io.max": (f"a device such as xvda or 202:0 and its {', '.join(_IO_KEYS)}, such as xvda rbps=1m", _io),
}
LIMITS = tuple(_FILES)
