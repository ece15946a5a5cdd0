"""What an extension image says of itself: annotations of its manifest or, where a tool cannot set those, config labels.

All keys begin with `dev.zonewright.extension.`; of a key that is in both places the annotation counts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from pipeline.extension.errors import NotAnExtension
from pipeline.extension.model import ExtensionKind, Facts, Phase

PREFIX = "dev.zonewright.extension."
KEYS = ("kind", "phase", "abi", "arch", "kernel_release", "provides", "requires", "conflicts", "order")
# The kernel's names of machines beside those of images.
ARCHITECTURES = {"amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64", "any": "any"}
_NAME = re.compile(r"[a-z0-9][a-z0-9+._-]{0,63}")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~-]{0,63}")
_ORDER_MAX = 10_000
E = TypeVar("E", bound=Enum)


def parse_facts(annotations: Mapping[str, str], config: Mapping[str, Any], *, subject: str) -> Facts:
    """Read and check what an image says.

    config:  of the image: its labels, and the architecture where no key names one.
    Raises:  NotAnExtension naming the key.
    """
    said = _said(annotations, config, subject)
    if not said:
        raise NotAnExtension(
            subject,
            expected=f"an extension image, with {PREFIX}kind as annotation of its manifest or label of its config",
            got="an image without",
        )
    kind = _enum(ExtensionKind, "kind", said, subject)
    phase = _enum(Phase, "phase", said, subject)
    if kind is ExtensionKind.INIT and phase is not Phase.INITRD:
        raise _wrong("phase", "initrd for the kind init", phase.value, subject)
    release = said.get("kernel_release", "")
    if kind is ExtensionKind.MODULES and not _RELEASE.fullmatch(release):
        raise _wrong("kernel_release", "the release its modules are for, as uname -r says it", release, subject)
    arch = said.get("arch", str(config.get("architecture", "")))
    if arch not in ARCHITECTURES:
        raise _wrong("arch", "amd64, arm64 or any", arch, subject)
    return Facts(
        kind=kind,
        phase=phase,
        abi=_number("abi", said, subject),
        arch=ARCHITECTURES[arch],
        kernel_release=release,
        provides=_names("provides", said, subject),
        requires=_names("requires", said, subject),
        conflicts=_names("conflicts", said, subject),
        order=_number("order", {"order": "0"} | said, subject),
    )


def _said(annotations: Mapping[str, str], config: Mapping[str, Any], subject: str) -> dict[str, str]:
    inner = config.get("config") or {}
    labels = inner.get("Labels") or {} if isinstance(inner, dict) else {}
    for name, said in (("labels", labels), ("annotations", annotations)):
        if not isinstance(said, Mapping) or not all(isinstance(value, str) for value in said.values()):
            raise NotAnExtension(subject, expected=f"{name} from string to string", got=repr(said)[:80])
    found = {key: value.strip() for key, value in ({**labels, **annotations}).items() if key.startswith(PREFIX)}
    for key in found:
        if key.removeprefix(PREFIX) not in KEYS:
            near = difflib.get_close_matches(key.removeprefix(PREFIX), KEYS, n=1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else f"there are: {', '.join(KEYS)}"
            raise NotAnExtension(f"{subject}: key {key}", got="no such key of extensions", hint=hint)
    return {key.removeprefix(PREFIX): value for key, value in found.items()}


def _wrong(key: str, expected: str, got: str, subject: str) -> NotAnExtension:
    return NotAnExtension(f"{subject}: key {PREFIX}{key}", expected=expected, got=repr(got)[:80] if got else "none")


def _enum(kind: type[E], key: str, said: Mapping[str, str], subject: str) -> E:
    values = [str(member.value) for member in kind]
    if said.get(key) not in values:
        raise _wrong(key, f"one of {', '.join(values)}", said.get(key, ""), subject)
    return kind(said[key])


def _number(key: str, said: Mapping[str, str], subject: str) -> int:
    text = said.get(key, "")
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) > _ORDER_MAX:
        raise _wrong(key, f"a number from 0 to {_ORDER_MAX}", text, subject)
    return int(text)


def _names(key: str, said: Mapping[str, str], subject: str) -> tuple[str, ...]:
    names = [name for name in re.split(r"[\s,]+", said.get(key, "")) if name]
    for name in names:
        if not _NAME.fullmatch(name):
            raise _wrong(key, "names of small letters, digits and +._-, with blanks between", name, subject)
    return tuple(dict.fromkeys(names))
