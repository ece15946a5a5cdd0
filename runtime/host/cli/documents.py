"""Protobuf messages as JSON-like data, and zones as rows: what `--format` and the tables are made from."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from runtime.host.cli.terminal import duration_text, escaped

GONE = ("exited", "failed")
PROCESS_STATES = ("running", "ready")
SHORT_DIGITS = 12


def document(message: Any) -> Any:
    """A message as JSON-like data under its field names: every field, also those that have their default."""
    return {field.name: _value(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields}


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: value[key] for key in sorted(value)}
    if hasattr(value, "DESCRIPTOR"):
        return document(value)
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return [document(item) if hasattr(item, "DESCRIPTOR") else item for item in value]


def zone_document(zone: Any) -> dict[str, Any]:
    """A zone as JSON-like data; `exit` is null while it has not ended."""
    made: dict[str, Any] = document(zone)
    if zone.state not in GONE and not zone.exit.text:
        made["exit"] = None
    return made


def state_text(zone: Any, now: float, *, brief: bool = False) -> str:
    """`ready 5 min (healthy, paused)`, `exited (exit code 3) 2 h ago`; brief, for a table: `exited (3) 2 h ago`."""
    state = escaped(zone.state)
    if zone.state in PROCESS_STATES:
        words = [*([escaped(zone.health)] if zone.health else []), *(["paused"] if zone.paused else [])]
        more = f" ({', '.join(words)})" if words else ""
        return f"{state} {duration_text(now - zone.started_unix_s)}{more}"
    if zone.state in GONE:
        text = _end_word(zone.exit) if brief else zone.exit.text
        why = f" ({escaped(text)})" if zone.exit.text else ""
        return f"{state}{why} {duration_text(now - zone.finished_unix_s)} ago" if zone.finished_unix_s else state + why
    return state


def _end_word(exit: Any) -> str:
    """How a process ended, in a word: its code, unless something else ended it."""
    if exit.oom:
        return "out of memory"
    return "crashed" if exit.crashed else str(exit.code)


def ports_text(zone: Any) -> str:
    """`8080->80, 192.0.2.1:8443->443, 53->53/udp`: as `-p` takes them, 127.0.0.1 and tcp left out."""
    return ", ".join(text.removeprefix("127.0.0.1:").removesuffix("/tcp") for text in port_texts(zone.ports))


def port_texts(rules: Iterable[Any]) -> list[str]:
    """`127.0.0.1:8080->80/tcp`; ports that follow one another are one text: `127.0.0.1:8000-8010->9000-9010/tcp`."""
    runs: list[list[Any]] = []
    for rule in rules:
        if runs and _follows(rule, runs[-1][-1]):
            runs[-1].append(rule)
        else:
            runs.append([rule])
    return [_run_text(run[0], run[-1]) for run in runs]


def _follows(rule: Any, before: Any) -> bool:
    same = (rule.host_address, rule.protocol) == (before.host_address, before.protocol)
    return same and (rule.host_port, rule.zone_port) == (before.host_port + 1, before.zone_port + 1)


def _run_text(first: Any, last: Any) -> str:
    more = (f"-{last.host_port}", f"-{last.zone_port}") if last is not first else ("", "")
    return f"{host_end(first)}{more[0]}->{first.zone_port}{more[1]}/{first.protocol or 'tcp'}"


def host_end(rule: Any) -> str:
    """Where a port is on the user's machine: `127.0.0.1:8080`, `[::1]:8080`."""
    address = f"[{rule.host_address}]" if ":" in rule.host_address else rule.host_address
    return f"{address}:{rule.host_port}"


def restart_text(policy: Any) -> str:
    """`on-failure:3`."""
    name = policy.name or "no"
    return f"{name}:{policy.max_retries}" if policy.max_retries else str(name)


def short(text: str) -> str:
    """An image for a table: digests cut."""
    if text.startswith("sha256:"):
        return text[: len("sha256:") + SHORT_DIGITS]
    head, at, digest = text.partition("@sha256:")
    return (
        f"{head}@{digest[:SHORT_DIGITS]}"
        if at
        else text.removeprefix("docker://docker.io/library/").removeprefix("docker://")
    )


def time_text(unix_s: float) -> str:
    """A moment in UTC, RFC 3339 with microseconds; "" for never."""
    if not unix_s:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s)) + f".{int(unix_s % 1 * 1e6):06d}Z"
