"""How a zone ended, from what is there to tell: the agent's note, the init's word in xenstore, Xen's own reason."""

from __future__ import annotations

import signal as signals
from collections.abc import Mapping
from typing import Any

from runtime.host.daemon.model import ExitStatus

_OOM_TEXT = " (out of memory)"
_FAILED_CODE = 125  # docker's, for what failed before the process ran
_CRASH_CODE = 255
_MAX_REASON_CHARACTERS = 64
_MAX_TEXT_CHARACTERS = 1024


def by_code(code: int, *, oom: bool = False) -> ExitStatus:
    """It exited by itself."""
    return ExitStatus(code & 0xFF, 0, oom, text=f"exit code {code & 0xFF}{_OOM_TEXT if oom else ''}")


def by_signal(number: int, *, oom: bool = False) -> ExitStatus:
    """A signal ended it."""
    try:
        name = signals.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return ExitStatus(128 + number, number, oom, text=f"killed by {name}{_OOM_TEXT if oom else ''}")


def failed(reason: str, text: str, *, code: int = _FAILED_CODE) -> ExitStatus:
    """It never came to run, or nobody knows how it ended."""
    return ExitStatus(code, reason=reason[:_MAX_REASON_CHARACTERS], text=text[:_MAX_TEXT_CHARACTERS])


def crashed(reason: str) -> ExitStatus:
    """Its kernel ended it."""
    return ExitStatus(_CRASH_CODE, crashed=True, reason=reason, text=f"the zone's kernel ended: {reason}")


def from_agent(document: object, *, oom: bool = False) -> ExitStatus | None:
    """{"code": n} or {"signal": n}, with "oom"; or {"failed": REASON, "sentence": S}. None for anything else."""
    if not isinstance(document, Mapping):
        return None
    oom = oom or document.get("oom") is True
    if (number := _number(document, "signal")) is not None and 0 < number < 128:
        return by_signal(number, oom=oom)
    if (number := _number(document, "code")) is not None:
        return by_code(number, oom=oom)
    if isinstance(reason := document.get("failed"), str):
        return failed(_printable(reason), _printable(str(document.get("sentence", reason))), code=_code_of(reason))
    return None


def from_xenstore(text: str, *, oom: bool = False) -> ExitStatus | None:
    """`code 3`, `signal 9`, `failed REASON SENTENCE`: as the zone's init writes it. None where it says nothing."""
    kind, _, rest = text.partition(" ")
    if kind in ("code", "signal") and rest.isascii() and rest.isdigit() and len(rest) < 4:
        return from_agent({kind: int(rest)}, oom=oom)
    if kind == "failed" and rest:
        reason, _, sentence = rest.partition(" ")
        return failed(reason, sentence or reason, code=_code_of(reason))
    return None


def from_xen(reason: str) -> ExitStatus:
    """The domain's own end, where nobody in it told of the workload's."""
    if reason == "crash":
        return crashed(reason)
    if reason == "destroyed":
        return failed("destroyed", "somebody destroyed its domain", code=_CRASH_CODE)
    return failed(reason, f"its domain ended ({reason}) without a word of its workload", code=_CRASH_CODE)


def _code_of(reason: str) -> int:
    """command-127 and command-126 are a shell's codes for what cannot be executed."""
    word, _, number = reason.rpartition("-")
    return int(number) if word and number in ("126", "127") else _FAILED_CODE


def _number(document: Mapping[str, Any], key: str) -> int | None:
    value = document.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:_MAX_TEXT_CHARACTERS])
