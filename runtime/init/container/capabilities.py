"""The five capability sets of a process: names to bits, and setting exactly these."""

import errno

from runtime.init.container import abi, calls
from runtime.init.failure import ContainerFailure

# include/uapi/linux/capability.h: the position is the number
# fmt: off
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)
# fmt: on
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
# What containerd gives a container: pkg/oci/spec.go, defaultUnixCaps.
# fmt: off
DEFAULT = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)
# fmt: on
_MAX_NUMBER = 63


def check(value: object) -> dict[str, int]:
    """Masks of the five sets, from {"bounding": ["CAP_CHOWN", …], …}; None is containerd's default.

    Semantics: a set that is left out is empty; ALL stands for every capability known here.
    Raises:    ContainerFailure "spec": an unknown name, or sets the kernel would not take together.
    """
    if value is None:
        given: dict[object, object] = {name: list(DEFAULT) for name in ("bounding", "effective", "permitted")}
    elif isinstance(value, dict):
        given = value
    else:
        raise _bad("", "an object of sets", value)
    for key in given:
        if key not in SETS:
            raise _bad("", f"only the sets {', '.join(SETS)}", key)
    masks = {name: _mask(given.get(name, []), name) for name in SETS}
    for small, large in (("effective", "permitted"), ("ambient", "permitted"), ("ambient", "inheritable")):
        if beyond := masks[small] & ~masks[large]:
            raise _bad(f".{small}", f"only what is {large} as well", " ".join(names(beyond)))
    return masks


def bit(name: str) -> int | None:
    """The mask of one capability, with or without CAP_; None for a name unknown here."""
    short = name.upper().removeprefix("CAP_")
    return 1 << NAMES.index(short) if short in NAMES else None


def names(mask: int) -> list[str]:
    """The names of a mask."""
    return [f"CAP_{name}" for number, name in enumerate(NAMES) if mask >> number & 1]


def _mask(value: object, where: str) -> int:
    if not isinstance(value, list):
        raise _bad(f".{where}", "a list of names", value)
    mask = 0
    for name in value:
        found = (1 << len(NAMES)) - 1 if name == "ALL" else bit(name) if isinstance(name, str) else None
        if found is None:
            raise _bad(f".{where}", "names of capabilities", name)
        mask |= found
    return mask


def _bad(where: str, expected: str, got: object) -> ContainerFailure:
    key = f"process.capabilities{where}"
    return ContainerFailure("spec", f"container spec: key {key}: expected {expected}, got {got!r:.80}")


def drop_bounding(keep: int) -> None:
    """Drop from the bounding set what is not kept, unknown capabilities of a newer kernel too.

    Raises:  OSError; ContainerFailure "capabilities" for what is to be kept and is not there: nobody can add it.
    """
    missing = keep
    for number in range(_MAX_NUMBER + 1):
        try:
            there = calls.prctl(abi.PR_CAPBSET_READ, number)
        except OSError as error:
            if error.errno == errno.EINVAL:  # beyond the kernel's last
                break
            raise
        if there and keep >> number & 1:
            missing &= ~(1 << number)
        elif there:
            calls.prctl(abi.PR_CAPBSET_DROP, number)
    if missing:
        told = " ".join(names(missing))
        raise ContainerFailure("capabilities", f"bounding set: expected {told} among what the caller has, got none")


def apply(masks: dict[str, int]) -> None:
    """Set the four sets of the thread and read them back. Raises OSError, ContainerFailure "capabilities"."""
    calls.prctl(abi.PR_CAP_AMBIENT, abi.PR_CAP_AMBIENT_CLEAR_ALL)
    wanted = (masks["effective"], masks["permitted"], masks["inheritable"])
    calls.capset(*wanted)
    for number in range(len(NAMES)):
        if masks["ambient"] >> number & 1:
            calls.prctl(abi.PR_CAP_AMBIENT, abi.PR_CAP_AMBIENT_RAISE, number)
    # capset(2) may grant less than what is asked for without an error.
    if (got := calls.capget()) != wanted:
        told = ", ".join(
            f"{key} {value:#x}" for key, value in zip(("effective", "permitted", "inheritable"), got, strict=True)
        )
        raise ContainerFailure("capabilities", f"capabilities: expected the sets of the spec, got {told}")
