"""What root in a workload's container may: names of capabilities, and a spec's changes to what every one has."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import Capabilities

ALL = "ALL"
# What containerd gives a container: pkg/oci/spec.go, defaultUnixCaps. The zone's runtime has the same by default.
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)
# What ALL stands for in the zone's runtime: include/uapi/linux/capability.h.
EVERY_CAPABILITY = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)


def parse_capabilities(
    add: Sequence[str], drop: Sequence[str], ambient: Sequence[str], *, subjects: tuple[str, str, str]
) -> Capabilities | None:
    """What is added to and dropped from what every workload has; None where nothing is.

    subjects: what a sentence about each of the three begins with.
    Raises:   BadSpec for a name that is none, and for one that is both added and dropped.
    """
    if not (add or drop or ambient):
        return None
    raised, dropped, kept = (
        [_name(text, f"{subject}[{index}]") for index, text in enumerate(texts)]
        for texts, subject in zip((add, drop, ambient), subjects, strict=True)
    )
    if both := [name for name in dropped if name in (*raised, *kept)]:
        raise BadSpec(subjects[1], expected="others than those that are added", got=both[0])
    return changed([*raised, *kept], dropped, kept)


def changed(raised: Iterable[str], dropped: Collection[str], ambient: Iterable[str]) -> Capabilities:
    """The default ones with those raised and without those dropped.

    Semantics: to drop ALL is to begin with none; beside a raised ALL, what is dropped is what is missing of all.
    """
    base = [] if ALL in dropped else CAPABILITIES
    bounding = expanded([*base, *raised], dropped=dropped)
    return Capabilities(tuple(bounding), tuple(expanded(ambient, dropped=dropped)))


def expanded(capabilities: Iterable[str], *, dropped: Collection[str] = ()) -> list[str]:
    """Each capability once and by its own name, ALL as what it stands for, without those that are dropped.

    A filter is made for names: with ALL among them it would allow no more than for none.
    """
    names = [name for word in capabilities for name in (EVERY_CAPABILITY if word == ALL else (word,))]
    return [name for name in dict.fromkeys(names) if name not in dropped]


def _name(text: str, subject: str) -> str:
    name = text.upper().removeprefix("CAP_")
    if name != ALL and name not in EVERY_CAPABILITY:
        near = difflib.get_close_matches(name, EVERY_CAPABILITY, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        raise BadSpec(subject, expected="a capability such as NET_ADMIN, or ALL", got=repr(text)[:80], hint=hint)
    return name
