"""Check a container spec and fill in its defaults; the keys are told in the package's docstring. No system calls."""

from runtime.init.container import abi, accounts, capabilities, mountspec
from runtime.init.failure import ContainerFailure

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

_ID_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
_MAX_ID = 64
FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": abi.SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": abi.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
}
_MAX_FILTER_INSTRUCTIONS = 4096  # BPF_MAXINSNS, include/uapi/linux/bpf_common.h

_SPEC: dict[str, tuple[tuple[type, ...], object]] = {
    "root": ((dict,), None),
    "process": ((dict,), None),
    "hostname": ((str,), ""),
    "domainname": ((str,), ""),
    "namespaces": ((dict,), {}),
    "mounts": ((list,), []),
    "default_mounts": ((bool,), True),
    "masked_paths": ((list, type(None)), None),
    "readonly_paths": ((list, type(None)), None),
    "devices": ((list,), []),
    "limits": ((dict,), {}),
    "sysctl": ((dict,), {}),
    "propagation": ((str,), "private"),
}
_ROOT: dict[str, tuple[tuple[type, ...], object]] = {
    "path": ((str,), ""),
    "device": ((str,), ""),
    "readonly": ((bool,), False),
    "replace": ((bool,), False),
    "overlay_size_mib": ((int,), 0),
    "etc": ((dict,), {}),
    "directories": ((list,), []),
}
_PROCESS: dict[str, tuple[tuple[type, ...], object]] = {
    "argv": ((list,), []),
    "env": ((list,), []),
    "cwd": ((str,), "/"),
    "uid": ((int,), 0),
    "gid": ((int,), 0),
    "groups": ((list,), []),
    "user": ((str,), ""),
    "umask": ((int,), 0o022),
    "tty": ((bool,), False),
    "size": ((list, type(None)), None),
    "capabilities": ((dict, type(None)), None),
    "no_new_privileges": ((bool,), True),
    "seccomp": ((str, type(None)), None),
    "seccomp_flags": ((list,), []),
    "rlimits": ((dict,), {}),
    "oom_score_adj": ((int, type(None)), None),
    "init": ((bool,), False),
    "stop_signal": ((int,), 15),
    "stop_timeout_s": ((int, float), 10),
}
_NAMESPACES: dict[str, tuple[tuple[type, ...], object]] = {
    "pid": ((str,), "own"),
    "uts": ((str,), "own"),
    "ipc": ((str,), "own"),
    "cgroup": ((str,), "own"),
    "net": ((str,), "zone"),
    "user": ((dict, str), "zone"),
    "time": ((dict, str), "zone"),
}


def check_id(name: str) -> str:
    """A container's id, which becomes the name of a cgroup. Raises ContainerFailure "spec"."""
    good = 0 < len(name) <= _MAX_ID and name[0] not in ".-" and all(letter in _ID_LETTERS for letter in name)
    if not good:
        raise bad("id", f"1 to {_MAX_ID} letters, digits, _ . - that begin with a letter, digit or _", name)
    return name


def check(spec: object) -> dict[str, object]:
    """The spec with every key present and every value checked; raises ContainerFailure "spec" naming the key."""
    found = fill(spec, _SPEC, "")
    root = found["root"] = fill(found["root"], _ROOT, "root")
    if bool(root["path"]) == bool(root["device"]):
        raise bad("root", "one of path and device", {key: root[key] for key in ("path", "device")})
    absolute(root["path"] or "/", "root.path")
    _device_name(str(root["device"]))
    if root["etc"]:
        _etc(root["etc"])
    texts(root["directories"], "root.directories", absolute)
    for key in ("hostname", "domainname"):
        if "\0" in str(found[key]):
            raise bad(key, "a string without NUL", found[key])
    process = found["process"] = check_process(found["process"])
    names = found["namespaces"] = _namespaces(found["namespaces"])
    if (found["hostname"] or found["domainname"]) and names["uts"] == "zone":
        raise bad("hostname", "nothing, as the container has the zone's uts namespace", found["hostname"])
    if process["init"] and names["pid"] != "own":
        raise bad("process.init", "false, as the container has no pid namespace of its own", True)
    found["mounts"] = [mountspec.check(item, f"mounts[{index}]") for index, item in enumerate(items(found, "mounts"))]
    for key in ("masked_paths", "readonly_paths"):
        if found[key] is not None:
            texts(found[key], key, absolute)
    if found["limits"]:
        from runtime.init.container import limits  # this and the like only where there are any, as most have none

        found["limits"] = limits.check(found["limits"])
    if found["sysctl"]:
        from runtime.init.container import sysctl

        found["sysctl"] = sysctl.check(found["sysctl"], names)
    if found["propagation"] not in ("private", "slave"):
        raise bad("propagation", "private or slave", found["propagation"])
    return found


def check_process(process: object) -> dict[str, object]:
    """The same for a process, of a container or to be run in one."""
    found = fill(process, _PROCESS, "process")
    argv = texts(found["argv"], "process.argv")
    if not argv:
        raise ContainerFailure("command-127", "neither the image nor the zone names a command")
    texts(found["env"], "process.env")
    absolute(found["cwd"], "process.cwd")
    for key in ("uid", "gid"):
        accounts.check_id(found[key], f"process.{key}")
    for group in items(found, "groups"):
        accounts.check_id(group, "process.groups")
    for key, low, high in (("umask", 0, 0o777), ("stop_signal", 1, 64), ("oom_score_adj", -1000, 1000)):
        value = found[key]
        if isinstance(value, int) and not low <= value <= high:
            raise bad(f"process.{key}", f"a number from {low} to {high}", value)
    size = found["size"]
    if size is not None and not (
        isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 <= n <= 65535 for n in size)
    ):
        raise bad("process.size", "[rows, columns]", size)
    found["capabilities"] = capabilities.check(found["capabilities"])
    if found["rlimits"]:
        from runtime.init.container import rlimits

        found["rlimits"] = rlimits.check(found["rlimits"])
    found["seccomp"] = _filter(found["seccomp"])
    for flag in items(found, "seccomp_flags"):
        if not isinstance(flag, str) or flag not in FILTER_FLAGS:
            raise bad("process.seccomp_flags", f"only {', '.join(FILTER_FLAGS)}", flag)
    return found


def fill(document: object, keys: dict[str, tuple[tuple[type, ...], object]], where: str) -> dict[str, object]:
    """Defaults for what is missing; an unknown key or a wrong type is refused."""
    if not isinstance(document, dict):
        raise bad(where or "the spec", "an object", document)
    for key in document:
        if key not in keys:
            raise bad(_join(where, key), f"only the keys {', '.join(keys)}", key)
    filled = {}
    for key, (kinds, default) in keys.items():
        value = document.get(key, default)
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        if wrong:
            raise bad(_join(where, key), " or ".join(kind.__name__ for kind in kinds), value)
        filled[key] = value
    return filled


def texts(value: object, where: str, check_one: "Callable[[object, str], object] | None" = None) -> list[str]:
    """A list of strings without NUL."""
    if not isinstance(value, list):
        raise bad(where, "a list", value)
    for index, item in enumerate(value):
        if not isinstance(item, str) or "\0" in item:
            raise bad(f"{where}[{index}]", "a string without NUL", item)
        if check_one is not None:
            check_one(item, f"{where}[{index}]")
    return value


def absolute(value: object, where: str) -> object:
    """A path that begins with a slash."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise bad(where, "an absolute path", value)
    return value


def items(document: dict[str, object], key: str) -> list[object]:
    """A value known to be a list."""
    value = document[key]
    return value if isinstance(value, list) else []


def bad(key: str, expected: str, got: object) -> ContainerFailure:
    """The failure for a key of the spec."""
    return ContainerFailure("spec", f"container spec: key {key}: expected {expected}, got {got!r:.80}")


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _device_name(name: str) -> None:
    parts = name.split("/")
    if name and ("\0" in name or any(part in ("", ".", "..") for part in parts)):
        raise bad("root.device", "a name below /dev, such as xvdc", name)


def _etc(files: object) -> None:
    """Each is a file of its own name right in /etc, which is what the descriptor of that is good for."""
    for name, text in files.items() if isinstance(files, dict) else ():
        if not isinstance(text, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
            raise bad("root.etc", "names of files, without a slash, and their text", name)


def _namespaces(value: object) -> dict[str, object]:
    found = fill(value, _NAMESPACES, "namespaces")
    for key, kind in found.items():
        if isinstance(kind, str) and kind not in ("own", "zone") and not kind.startswith(("container:", "path:/")):
            raise bad(f"namespaces.{key}", "own, zone, container:ID or path:/…", kind)
        if key == "user" and kind != "zone":
            found[key] = accounts.check_maps(kind)
        elif key == "time" and isinstance(kind, dict):
            offsets = {"monotonic": ((int,), 0), "boottime": ((int,), 0)}
            found[key] = fill(kind, offsets, "namespaces.time")  # type: ignore[arg-type]
    return found


def _filter(value: object) -> bytes | None:
    """The hex digits of a compiled filter as bytes."""
    if value is None:
        return None
    try:
        program = bytes.fromhex(str(value))
    except ValueError:
        raise bad("process.seccomp", "hex digits of a compiled filter", value) from None
    if not program or len(program) % 8 or len(program) > _MAX_FILTER_INSTRUCTIONS * 8:
        raise bad("process.seccomp", "1 to 4096 instructions of 8 bytes", f"{len(program)} bytes")
    return program
