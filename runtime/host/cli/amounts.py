"""Memory, vCPUs, MTU and bandwidth as users write them, after docker."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

_UNITS_MIB = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1 << 20}
_LEAST_MIB, _MOST_MIB = 1, 1 << 20
# As network.mtu and resources.vcpus in zones/zone.schema.json.
_LEAST_MTU, _MOST_MTU = 1280, 65000
_MOST_CPUS = 32


def memory_mib(text: str) -> int:
    """`256m`, `1g`, `1.5g`; without a unit MiB, as everywhere here, where docker would take bytes.

    Raises:  what argparse expects of a type.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?:([kmgt])(?:i?b)?)?", text.strip().lower())
    if match is None:
        raise ArgumentTypeError(f"expected an amount such as 256m or 1g, got {text!r}")
    amount = float(match[1]) * _UNITS_MIB[match[2] or "m"]
    if not _LEAST_MIB <= amount < _MOST_MIB:
        hint = " (without a unit it is MiB)" if match[2] is None else ""
        raise ArgumentTypeError(f"expected 1 MiB to 1 TiB, got {text}{hint}")
    return int(amount)


def whole_cpus(text: str) -> int:
    """A number of vCPUs. Raises what argparse expects of a type: half a vCPU is none."""
    match = re.fullmatch(r"([0-9]{1,9})(?:\.0*)?", text)
    if match is None or not 0 < int(match[1]) <= _MOST_CPUS:
        raise ArgumentTypeError(f"expected a whole number of vCPUs, at most {_MOST_CPUS}, got {text!r}")
    return int(match[1])


def mtu_bytes(text: str) -> int:
    """What zones/zone.schema.json takes for network.mtu. Raises what argparse expects of a type."""
    if not text.isascii() or not text.isdecimal() or not _LEAST_MTU <= int(text) <= _MOST_MTU:
        raise ArgumentTypeError(f"expected an MTU from {_LEAST_MTU} to {_MOST_MTU} bytes, got {text!r}")
    return int(text)


def bandwidth_or_none(text: str | None) -> int | None:
    """`100mbit` in bits per second, 0 for `none`, None for what was not given. Raises BadSpec."""
    from pipeline.bundle.bandwidth import parse_bandwidth

    if text is None:
        return None
    return 0 if text == "none" else parse_bandwidth(text, subject="--bandwidth")
