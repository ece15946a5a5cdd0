"""Limits of a container, as what is written into its cgroup."""

from runtime.init.container.cgroup import CONTROLLERS
from runtime.init.failure import ContainerFailure

# key -> (file, lowest, highest): Documentation/admin-guide/cgroup-v2.rst
_NUMBERS = {
    "memory_max": ("memory.max", 0, None),
    "memory_high": ("memory.high", 0, None),
    "memory_low": ("memory.low", 0, None),
    "memory_swap_max": ("memory.swap.max", 0, None),
    "pids_max": ("pids.max", 1, None),
    "cpu_weight": ("cpu.weight", 1, 10000),
    "io_weight": ("io.weight", 1, 10000),
}
_LISTS = {"cpuset_cpus": "cpuset.cpus", "cpuset_mems": "cpuset.mems"}
_IO_KEYS = ("rbps", "wbps", "riops", "wiops")
_MIN_PERIOD_US, _MAX_PERIOD_US = 1000, 1_000_000  # kernel/sched/core.c


def check(value: object) -> dict[str, str]:
    """The writes: file of the cgroup -> text. Raises ContainerFailure "spec".

    Semantics: "max" lifts a limit. What is not named is left as it is.
    """
    if not isinstance(value, dict):
        raise _bad("limits", "an object", value)
    writes: dict[str, str] = {}
    for key, wanted in value.items():
        where = f"limits.{key}"
        if key in _NUMBERS:
            file, low, high = _NUMBERS[key]
            writes[file] = _number(wanted, where, low, high)
        elif key in _LISTS:
            writes[_LISTS[key]] = _cpu_list(wanted, where)
        elif key == "cpu_max":
            writes["cpu.max"] = _cpu_max(wanted, where)
        elif key == "io_max":
            writes["io.max"] = _io_max(wanted, where)
        elif key == "unified":
            writes |= _unified(wanted)
        else:
            raise _bad(where, f"only the keys {', '.join([*_NUMBERS, *_LISTS, 'cpu_max', 'io_max', 'unified'])}", key)
    return writes


def _number(value: object, where: str, low: int, high: int | None) -> str:
    if value == "max" and high is None:
        return "max"
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        upper = f"at most {high}" if high is not None else "or max"
        raise _bad(where, f"a number from {low} on, {upper}", value)
    return str(value)


def _cpu_list(value: object, where: str) -> str:
    if not isinstance(value, str) or not value or set(value) - set("0123456789,-"):
        raise _bad(where, 'numbers such as "0-1,3"', value)
    return value


def _cpu_max(value: object, where: str) -> str:
    if value == "max":
        return "max"
    good = isinstance(value, list) and len(value) == 2 and all(isinstance(part, int) for part in value)
    if not isinstance(value, list) or not good or not _MIN_PERIOD_US <= value[1] <= _MAX_PERIOD_US:
        raise _bad(where, f"max or [quota_us, period_us], the period from {_MIN_PERIOD_US} to {_MAX_PERIOD_US}", value)
    if value[0] < _MIN_PERIOD_US:
        raise _bad(where, f"a quota of at least {_MIN_PERIOD_US} us", value)
    return f"{value[0]} {value[1]}"


def _io_max(value: object, where: str) -> str:
    """Rows {"device": "202:0", "rbps": N, …}, one line each."""
    lines = []
    for row in value if isinstance(value, list) else [value]:
        if not isinstance(row, dict) or set(row) - {"device", *_IO_KEYS} or len(row) < 2:
            raise _bad(where, f"rows of device and {', '.join(_IO_KEYS)}", row)
        major, colon, minor = str(row.get("device", "")).partition(":")
        if not colon or not major.isdigit() or not minor.isdigit():
            raise _bad(f"{where}.device", "MAJOR:MINOR", row.get("device"))
        numbers = [f"{key}={_number(row[key], f'{where}.{key}', 1, None)}" for key in _IO_KEYS if key in row]
        lines.append(" ".join([f"{major}:{minor}", *numbers]))
    return "\n".join(lines)


def _unified(value: object) -> dict[str, str]:
    """Files of cgroup v2 by their own names, as linux.resources.unified of a bundle; those of cgroup.* are ours."""
    if not isinstance(value, dict):
        raise _bad("limits.unified", "an object", value)
    for key, text in value.items():
        controller, dot, rest = str(key).partition(".")
        if controller not in CONTROLLERS or not dot or not rest.replace(".", "").replace("_", "").isalnum():
            raise _bad("limits.unified", f"files of {', '.join(CONTROLLERS)}", key)
        if not isinstance(text, str):
            raise _bad(f"limits.unified.{key}", "text", text)
    return dict(value)


def _bad(key: str, expected: str, got: object) -> ContainerFailure:
    return ContainerFailure("spec", f"container spec: key {key}: expected {expected}, got {got!r:.80}")
