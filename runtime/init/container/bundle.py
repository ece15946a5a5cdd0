"""An OCI runtime bundle (DIR/config.json) as a container spec. No system calls.

Source:  OCI runtime specification 1.2, config.md and config-linux.md. Unknown keys are ignored, as it says; known ones
         that are not done here are refused.
"""

from runtime.init.failure import ContainerFailure

# namespace type of the specification -> ours
_NAMESPACES = {
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
# What is refused where it is given and not empty: (path, why)
_REFUSED = (
    (("hooks",), "no hooks, as nothing of the zone is run beside a container"),
    (("vm",), "no vm"),
    (("process", "apparmorProfile"), "no AppArmor profile, as the zone's kernel is its own"),
    (("process", "selinuxLabel"), "no SELinux label, as the zone's kernel is its own"),
    (("process", "scheduler"), "no scheduler"),
    (("process", "ioPriority"), "no I/O priority"),
    (("process", "execCPUAffinity"), "no CPU affinity of exec"),
    (("linux", "intelRdt"), "no Intel RDT"),
    (("linux", "mountLabel"), "no mount label"),
    (("linux", "personality"), "no personality"),
    (("linux", "memoryPolicy"), "no memory policy"),
    (("linux", "netDevices"), "no network devices to be moved"),
    (("linux", "resources", "hugepageLimits"), "no limit of huge pages"),
    (("linux", "resources", "network"), "no network classes"),
    (("linux", "resources", "rdma"), "no RDMA limits"),
    (("linux", "resources", "memory", "kernel"), "no limit of kernel memory"),
    (("linux", "resources", "memory", "kernelTCP"), "no limit of TCP memory"),
    (("linux", "resources", "memory", "swappiness"), "no swappiness"),
    (("linux", "resources", "memory", "disableOOMKiller"), "no disabling of the OOM killer"),
    (("linux", "resources", "memory", "checkBeforeUpdate"), "no check of the usage before a limit is set"),
    (("linux", "resources", "cpu", "realtimeRuntime"), "no real-time runtime"),
    (("linux", "resources", "cpu", "realtimePeriod"), "no real-time period"),
    (("linux", "resources", "cpu", "idle"), "no idle"),
    (("linux", "resources", "cpu", "burst"), "no burst"),
    (("linux", "resources", "blockIO", "weightDevice"), "no weight of one device"),
    (("linux", "resources", "blockIO", "leafWeight"), "no leaf weight"),
)
_THROTTLES = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}
Json = dict[str, object]


def spec_of(config: object, directory: str) -> Json:
    """The container spec of a parsed config.json; `linux.seccomp` is left to the caller. Raises ContainerFailure."""
    if not isinstance(config, dict):
        raise _bad("config.json", "an object", config)
    version = config.get("ociVersion")
    if not isinstance(version, str) or version.partition(".")[0] != "1":
        raise _bad("ociVersion", "1.x", version)
    for path, expected in _REFUSED:
        value = _at(config, *path)
        if path == ("hooks",) and isinstance(value, dict) and not any(value.values()):
            continue  # lists of none, as generators write them
        # 0 is what there is anyway, but of memory it is a wish as any other.
        if value or (value == 0 and value is not False and "memory" in path):
            raise _bad(".".join(path), expected, value)
    process, root = _at(config, "process"), _at(config, "root")
    if not isinstance(process, dict):
        raise _bad("process", "an object", process)
    place = root.get("path") if isinstance(root, dict) else None
    if not isinstance(root, dict) or not isinstance(place, str) or not place:
        raise _bad("root", "an object with a path", root)
    linux = _object(config, "linux")
    own = _namespaces(linux)
    return {
        "root": {
            "path": place if place.startswith("/") else f"{directory}/{place}",
            "readonly": False if root.get("readonly") is None else root["readonly"],
        },
        "process": _process(process),
        "hostname": config.get("hostname", ""),
        "domainname": config.get("domainname", ""),
        "namespaces": own,
        "mounts": _mounts(_items(config, "mounts")),
        "default_mounts": False,
        "masked_paths": _items(linux, "maskedPaths"),
        "readonly_paths": _items(linux, "readonlyPaths"),
        "devices": [_device(item) for item in _items(linux, "devices")],
        "limits": _limits(_object(linux, "resources")),
        "sysctl": _object(linux, "sysctl"),
        "propagation": _propagation(linux.get("rootfsPropagation")),
    }


def seccomp_of(config: Json) -> Json | None:
    """The profile, where there is one; a listener for notifications is refused."""
    profile = _at(config, "linux", "seccomp")
    if profile is None:
        return None
    if not isinstance(profile, dict) or profile.get("listenerPath") or profile.get("listenerMetadata"):
        raise _bad("linux.seccomp", "a profile without a listener", profile)
    return profile


def _process(process: Json) -> Json:
    user, size = _object(process, "user"), _object(process, "consoleSize")
    limits: dict[str, list[object]] = {}
    for item in _items(process, "rlimits"):
        kind, pair = _rlimit(item)
        if kind in limits:
            raise _bad("process.rlimits", "each type once", kind)
        limits[kind] = pair
    found: Json = {
        "argv": _items(process, "args"),
        "env": _items(process, "env"),
        "cwd": process.get("cwd", ""),
        "uid": user.get("uid", 0),
        "gid": user.get("gid", 0),
        "groups": _items(user, "additionalGids"),
        "umask": user.get("umask", 0o022),
        "tty": process.get("terminal", False),
        # Without an object the specification gives none, and without the flag no protection.
        "capabilities": _object(process, "capabilities"),
        "no_new_privileges": process.get("noNewPrivileges", False),
        "rlimits": limits,
    }
    if "oomScoreAdj" in process:
        found["oom_score_adj"] = process["oomScoreAdj"]
    if size and process.get("terminal"):
        found["size"] = [size.get("height", 0), size.get("width", 0)]
    return found


def _rlimit(item: object) -> tuple[str, list[object]]:
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        raise _bad("process.rlimits", "objects of type, soft and hard", item)
    return item["type"], [item.get("soft"), item.get("hard")]


def _namespaces(linux: Json) -> Json:
    """A namespace that is not listed is that of the caller: the zone's."""
    found: Json = dict.fromkeys(_NAMESPACES.values(), "zone")
    mount = False
    seen: set[object] = set()
    for item in _items(linux, "namespaces"):
        kind = item.get("type") if isinstance(item, dict) else None
        path = item.get("path") if isinstance(item, dict) else None
        if not isinstance(kind, str):
            raise _bad("linux.namespaces", "objects with a type", item)
        if kind in seen:
            raise _bad("linux.namespaces", "each type once", kind)
        seen.add(kind)
        if kind == "mount" and not path:
            mount = True
            continue
        if kind not in _NAMESPACES or (path and kind == "user"):
            raise _bad("linux.namespaces", f"mount without a path, {', '.join(_NAMESPACES)}", item)
        found[_NAMESPACES[kind]] = f"path:{path}" if path else "own"
    if not mount:
        raise _bad("linux.namespaces", "a mount namespace", "none")
    for key in ("uidMappings", "gidMappings"):
        if found["user"] != "own" and linux.get(key):
            raise _bad(f"linux.{key}", "none without a new user namespace", linux[key])
    if found["user"] == "own":
        found["user"] = {
            key: [_map(row, f"{key[0]}idMappings") for row in _items(linux, f"{key[0]}idMappings")]
            for key in ("uid_maps", "gid_maps")
        }
    if offsets := _object(linux, "timeOffsets"):
        if found["time"] != "own":
            raise _bad("linux.timeOffsets", "none without a new time namespace", offsets)
        found["time"] = {clock: _seconds(clock, value) for clock, value in offsets.items()}
    return found


def _map(row: object, key: str) -> list[object]:
    if not isinstance(row, dict):
        raise _bad(f"linux.{key}", "objects of containerID, hostID and size", row)
    return [row.get("containerID"), row.get("hostID"), row.get("size")]


def _seconds(clock: str, value: object) -> object:
    if not isinstance(value, dict):
        raise _bad(f"linux.timeOffsets.{clock}", "an object", value)
    if _number(value, "nanosecs", f"linux.timeOffsets.{clock}"):
        raise _bad(f"linux.timeOffsets.{clock}.nanosecs", "whole seconds only", value["nanosecs"])
    return value.get("secs", 0)


def _mounts(items: list[object]) -> list[Json]:
    """In their order. The options of a remount are said of the mount before it at that place, after its own.

    Where there is none before, one with a source of its own is a bind mount as any other: its flags come with it.
    """
    made: list[Json] = []
    for at, item in enumerate(items):
        mount = _mount(item, at)
        options = _items(mount, "options")
        if "remount" not in options:
            made.append(mount)
            continue
        place = str(mount.get("destination")).rstrip("/")
        before = next((one for one in reversed(made) if str(one.get("destination")).rstrip("/") == place), None)
        if before is not None:
            more = [option for option in options if option not in ("remount", "bind", "rbind")]
            before["options"] = [*_items(before, "options"), *more]
        elif {"bind", "rbind"} & set(map(str, options)) and str(mount.get("source", "")).startswith("/"):
            made.append(mount | {"options": [option for option in options if option != "remount"]})
        else:
            raise _bad(f"mounts[{at}].options", "remount of what is mounted before it", place)
    return made


def _mount(item: object, at: int) -> Json:
    if not isinstance(item, dict):
        raise _bad(f"mounts[{at}]", "an object", item)
    for key in ("uidMappings", "gidMappings"):
        if item.get(key):
            raise _bad(f"mounts[{at}].{key}", "no id-mapped mount", item[key])
    found = {key: item[key] for key in ("destination", "type", "source", "options") if item.get(key) is not None}
    for key in ("type", "source"):
        if not isinstance(found.get(key, ""), str):
            raise _bad(f"mounts[{at}].{key}", "text", found[key])
    place = found.get("destination")
    if isinstance(place, str) and place and not place.startswith("/"):
        found["destination"] = f"/{place}"  # as the specification says of what older tools write
    return found


def _device(item: object) -> object:
    if not isinstance(item, dict):
        return item
    found = {key: item[key] for key in ("path", "type", "major", "minor", "uid", "gid") if item.get(key) is not None}
    return found | ({"mode": item["fileMode"]} if item.get("fileMode") is not None else {})


def _limits(resources: Json) -> Json:
    """Limits of cgroup v2. Rules for devices need none: only the devices listed are there, and none other works."""
    memory, cpu, pids = _object(resources, "memory"), _object(resources, "cpu"), _object(resources, "pids")
    found: Json = {}
    _items(resources, "devices")
    whole = memory.get("useHierarchy")
    if whole is not None and whole is not True:
        raise _bad("linux.resources.memory.useHierarchy", "true, as cgroup v2 has nothing else", whole)
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None:
        found["memory_max"] = _or_max(limit)
    if memory.get("reservation") is not None:
        found["memory_low"] = _or_max(memory["reservation"])
    if swap is not None:
        # Here it is memory and swap together, there swap alone.
        if swap == -1:
            found["memory_swap_max"] = "max"
        elif type(swap) is type(limit) is int and swap >= limit > 0:
            found["memory_swap_max"] = swap - limit
        else:
            raise _bad("linux.resources.memory.swap", "-1 or at least memory.limit", swap)
    if shares := _number(cpu, "shares", "linux.resources.cpu"):
        found["cpu_weight"] = 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142
    if cpu.get("quota") is not None or cpu.get("period") is not None:
        quota, period = (_number(cpu, key, "linux.resources.cpu") for key in ("quota", "period"))
        found["cpu_max"] = "max" if quota in (-1, 0) else [quota, period or 100000]
    for key, ours in (("cpus", "cpuset_cpus"), ("mems", "cpuset_mems")):
        if cpu.get(key) not in (None, ""):
            found[ours] = cpu[key]
    if pids.get("limit") is not None:
        most = _number(pids, "limit", "linux.resources.pids")
        found["pids_max"] = "max" if most in (-1, 0) else most
    if unified := _object(resources, "unified"):
        found["unified"] = unified
    return found | _block_io(_object(resources, "blockIO"))


def _block_io(io: Json) -> Json:
    found: Json = {}
    if weight := _number(io, "weight", "linux.resources.blockIO"):
        found["io_weight"] = 1 + (max(10, min(weight, 1000)) - 10) * 9999 // 990
    rows: dict[str, Json] = {}
    for key, ours in _THROTTLES.items():
        for item in _items(io, key):
            if not isinstance(item, dict):
                raise _bad(f"linux.resources.blockIO.{key}", "objects of major, minor and rate", item)
            device = f"{item.get('major')}:{item.get('minor')}"
            rows.setdefault(device, {"device": device})[ours] = item.get("rate")
    if rows:
        found["io_max"] = list(rows.values())
    return found


def _or_max(value: object) -> object:
    return "max" if value == -1 else value


def _propagation(value: object) -> str:
    if value in (None, "", "private", "rprivate"):
        return "private"
    if value in ("slave", "rslave"):
        return "slave"
    raise _bad("linux.rootfsPropagation", "private or slave", value)


def _at(document: object, *path: str) -> object:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _object(document: Json, key: str) -> Json:
    value = document.get(key)
    if value is not None and not isinstance(value, dict):
        raise _bad(key, "an object", value)
    return value or {}


def _items(document: Json, key: str) -> list[object]:
    value = document.get(key)
    if value is not None and not isinstance(value, list):
        raise _bad(key, "a list", value)
    return value or []


def _number(document: Json, key: str, where: str) -> int:
    """A number; 0, which stands for none, where there is none."""
    value = 0 if document.get(key) is None else document[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise _bad(f"{where}.{key}", "a number", value)
    return value


def _bad(key: str, expected: str, got: object) -> ContainerFailure:
    return ContainerFailure("spec", f"config.json: key {key}: expected {expected}, got {got!r:.80}")
