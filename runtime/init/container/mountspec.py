"""What is mounted in a container: options to flags, the mounts every container has, what is hidden. No system calls."""

from runtime.init.container import abi
from runtime.init.failure import ContainerFailure

# option -> (flags to set, flags to clear)
_FLAGS = {
    "ro": (abi.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, abi.MOUNT_ATTR_RDONLY),
    "nosuid": (abi.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, abi.MOUNT_ATTR_NOSUID),
    "nodev": (abi.MOUNT_ATTR_NODEV, 0),
    "dev": (0, abi.MOUNT_ATTR_NODEV),
    "noexec": (abi.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, abi.MOUNT_ATTR_NOEXEC),
    "nosymfollow": (abi.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, abi.MOUNT_ATTR_NOSYMFOLLOW),
    "nodiratime": (abi.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, abi.MOUNT_ATTR_NODIRATIME),
    # The access time is one field: what sets it clears it first (mount_setattr(2)).
    "relatime": (0, abi.MOUNT_ATTR__ATIME),
    "norelatime": (abi.MOUNT_ATTR_STRICTATIME, abi.MOUNT_ATTR__ATIME),
    "noatime": (abi.MOUNT_ATTR_NOATIME, abi.MOUNT_ATTR__ATIME),
    "atime": (0, abi.MOUNT_ATTR__ATIME),
    "strictatime": (abi.MOUNT_ATTR_STRICTATIME, abi.MOUNT_ATTR__ATIME),
    "nostrictatime": (0, abi.MOUNT_ATTR__ATIME),
}
_PROPAGATION = {
    "private": (abi.MS_PRIVATE, False),
    "rprivate": (abi.MS_PRIVATE, True),
    "slave": (abi.MS_SLAVE, False),
    "rslave": (abi.MS_SLAVE, True),
    "shared": (abi.MS_SHARED, False),
    "rshared": (abi.MS_SHARED, True),
    "unbindable": (abi.MS_UNBINDABLE, False),
    "runbindable": (abi.MS_UNBINDABLE, True),
}
# What is so anyway, or only about what the kernel logs.
_IDLE = ("defaults", "", "silent", "loud", "noiversion")
# The same of a whole file system, of which a bind mount changes nothing.
_IDLE_OF_BINDS = (("async", None), ("nolazytime", None), ("nomand", None))
_REFUSED = {
    "tmpcopyup": "no copying of the image into a tmpfs",
    "idmap": "no id-mapped mount",
    "ridmap": "no id-mapped mount",
    "remount": "flags with the mount they are of",
}
# All devices of the zone, and the hypervisor's own files.
_CLOSED_KINDS = ("devtmpfs", "xenfs")
_SAFE = ["nosuid", "nodev", "noexec"]
# The mounts of the OCI runtime specification, config-linux.md "Default Filesystems", and the order they are made in.
DEFAULTS: tuple[dict[str, object], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": _SAFE},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", *_SAFE]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup2", "options": ["ro", *_SAFE]},
    {"destination": "/dev", "type": "dev", "source": "dev", "options": ["nosuid", "noexec"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "dev", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*_SAFE, "mode=1777"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _SAFE},
)
# What containerd and moby hide (containerd pkg/oci/spec.go, moby oci/defaults.go).
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# The way to the hypervisor is closed to every container, whatever its spec says.
ALWAYS_MASKED = ("/proc/xen", "/sys/hypervisor", "/sys/bus/xen", "/sys/bus/xen-backend")
# What a masked directory still tells, as copies: a workload may know that it runs on Xen, and in which domain.
TOLD = {"/sys/hypervisor": ("type", "uuid")}
CLOSED = ("/dev/xen", "/proc/xen", "/sys/hypervisor", "/dev/hvc0", "/dev/hvc1", "/dev/console", "/dev/kmsg")
# Kinds that show the namespaces of whoever mounts them; the others can be made before the container's are entered.
_OF_NAMESPACES = {"proc": "pid", "mqueue": "ipc", "cgroup2": "cgroup", "sysfs": "net"}


def check(item: object, where: str) -> dict[str, object]:
    """A mount with its options worked out.

    Gives:   destination, type, source, rbind (None where it is no bind), set, clear, recursive_set, recursive_clear,
             propagation, parameters.
    Raises:  ContainerFailure "spec".
    """
    if not isinstance(item, dict) or set(item) - {"destination", "type", "source", "options"}:
        raise _bad(where, "an object of destination, type, source and options", item)
    given = {key: value for key, value in item.items() if value is not None}
    destination, source = given.get("destination"), given.get("source", "")
    kind, options = given.get("type", ""), given.get("options", [])
    for key, value in (("destination", destination), ("source", source), ("type", kind)):
        if not isinstance(value, str) or "\0" in value:
            raise _bad(f"{where}.{key}", "text", value)
    if not isinstance(options, list) or not all(isinstance(option, str) and "\0" not in option for option in options):
        raise _bad(f"{where}.options", "a list of text", options)
    assert isinstance(destination, str) and isinstance(source, str)
    parts = [part for part in destination.split("/") if part not in ("", ".")]
    if not destination.startswith("/") or ".." in parts or not parts:
        raise _bad(f"{where}.destination", "an absolute path below / without ..", destination)
    found = _options(options, where, devices=kind == "devpts")
    found |= {"destination": "/" + "/".join(parts), "type": "cgroup2" if kind == "cgroup" else kind, "source": source}
    if kind in ("bind", "none", "") and found["rbind"] is None:
        if kind != "bind":
            raise _bad(f"{where}.type", "a file system, or bind among the options", kind)
        found["rbind"] = False
    if kind in _CLOSED_KINDS and found["destination"] != "/dev":  # where it is not what is mounted
        raise _bad(f"{where}.type", "no way to the hypervisor", kind)
    if found["rbind"] is not None:
        if not source.startswith("/"):
            raise _bad(f"{where}.source", "an absolute path to bind", source)
        parameters = found["parameters"]
        assert isinstance(parameters, list)
        if wrong := [pair for pair in parameters if pair not in _IDLE_OF_BINDS]:
            raise _bad(f"{where}.options", "options a bind mount has", wrong)
    return found


def _options(options: list[object], where: str, *, devices: bool) -> dict[str, object]:
    """Flags, propagation and parameters.

    devices: do they work without the option dev? On a devpts they are its terminals, and what writes bundles says none.
    """
    set_, clear, rbind = 0 if devices else abi.MOUNT_ATTR_NODEV, 0, None
    deep = deep_clear = 0
    propagation: list[tuple[int, bool]] = []
    parameters: list[tuple[str, str | None]] = []
    for option in map(str, options):
        if option in ("bind", "rbind"):
            rbind = option == "rbind"
        elif option in _FLAGS:
            set_, clear = _and_then(set_, clear, *_FLAGS[option])
        elif option[:1] == "r" and option[1:] in _FLAGS:
            deep, deep_clear = _and_then(deep, deep_clear, *_FLAGS[option[1:]])
        elif option in _REFUSED:
            raise _bad(f"{where}.options", _REFUSED[option], option)
        elif option in _PROPAGATION:
            propagation.append(_PROPAGATION[option])
        elif option not in _IDLE:
            key, equals, value = option.partition("=")
            parameters.append((key, value if equals else None))
    return {
        "rbind": rbind,
        "set": set_,
        "clear": clear,
        "recursive_set": deep,
        "recursive_clear": deep_clear,
        "propagation": propagation,
        "parameters": parameters,
    }


def _and_then(set_: int, clear: int, on: int, off: int) -> tuple[int, int]:
    """What is set and cleared, and then by a later option; mount_setattr(2) clears before it sets."""
    return set_ & ~off | on, clear & ~on | off


def arrange(mounts: list[dict[str, object]], *, defaults: bool) -> list[dict[str, object]]:
    """All mounts of a container, in order: one for a default's destination takes the default's place.

    /dev is always the runtime's own: it is the one place where devices work.
    """
    given = {str(mount["destination"]): mount for mount in mounts}
    base = [check(item, "default") for item in DEFAULTS if defaults or item["type"] == "dev"]
    arranged = []
    for mount in base:
        place = str(mount["destination"])
        arranged.append(mount if mount["type"] == "dev" else given.pop(place, mount))
        given.pop(place, None)
    return arranged + [mount for mount in mounts if given.get(str(mount["destination"])) is mount]


def needs_inside(mount: dict[str, object], namespaces: dict[str, object]) -> bool:
    """Must this be mounted from inside the container's namespaces?"""
    namespace = _OF_NAMESPACES.get(str(mount["type"]))
    return mount["rbind"] is None and namespace is not None and namespaces[namespace] == "own"


def closed(path: str) -> bool:
    """Would binding this path give the container a way to the hypervisor or the zone's consoles?"""
    whole = "/" + path.strip("/")
    above = whole.rstrip("/") + "/"
    return any(place == whole or place.startswith(above) or whole.startswith(place + "/") for place in CLOSED)


def _bad(key: str, expected: str, got: object) -> ContainerFailure:
    return ContainerFailure("spec", f"container spec: key {key}: expected {expected}, got {got!r:.80}")
