"""A config of Edera's styrolite (kinds Create and Attach) as a container spec. No system calls.

Source:  styrolite 0.4.1, src/config.rs. Where that only warns, this fails; what is not named below is refused.
"""

from runtime.init.container import capabilities
from runtime.init.failure import ContainerFailure

Json = dict[str, object]
_NAMESPACES = {
    "Uts": "uts",
    "Ipc": "ipc",
    "Pid": "pid",
    "Net": "net",
    "Cgroup": "cgroup",
    "Time": "time",
    "User": "user",
}
_DEFAULT = ["Mount", "Time", "Uts", "Pid", "Ipc", "User"]
_LIMITS = {
    "address_space_size": "as",
    "core_size": "core",
    "cpu_time": "cpu",
    "data_space_size": "data",
    "file_size": "fsize",
    "locked_space_size": "memlock",
    "msgqueue_size": "msgqueue",
    "nice_ceiling": "nice",
    "open_files": "nofile",
    "thread_limit": "nproc",
    "resident_space_size": "rss",
    "real_time_priority": "rtprio",
    "real_time_limit": "rttime",
    "pending_signal_limit": "sigpending",
    "main_thread_stack_size": "stack",
}
_CREATE = (
    *("kind", "workload_id", "rootfs", "rootfs_readonly", "exec", "uid_mappings", "gid_mappings", "mounts"),
    *("masked_paths", "readonly_paths", "limits", "cgroupfs", "hostname", "mutations", "namespaces", "setgroups_deny"),
    *("capabilities", "skip_two_stage_userns"),
)
_ATTACH = ("kind", "pid", "exec", "workload_id", "cgroupfs", "namespaces", "capabilities")
_EXEC = (
    *("executable", "arguments", "working_directory", "environment", "uid", "gid", "supplemental_gids"),
    *("process_limits", "no_new_privs", "seccomp", "apparmor", "oom_score_adj"),
)
_MOUNT = (
    *("source", "target", "fstype", "bind", "recurse", "unshare", "safe", "create_mountpoint", "read_only", "data"),
)


def create(config: Json, *, permitted: int, uptime_s: int, pid: int) -> tuple[str, Json]:
    """(id, container spec) of a Create.

    permitted: the caller's own capabilities, which is what a container has without `capabilities`.
    uptime_s:  so that an own time namespace begins at its start.
    Raises:    ContainerFailure "spec".
    """
    _only(config, _CREATE, "")
    for key in ("cgroupfs", "hostname"):
        _text(config, key)
    _flag(config, "skip_two_stage_userns", "")
    names = _namespaces(config.get("namespaces"))
    if "Mount" not in names:
        raise _bad("namespaces", "Mount among them", names)
    identity = _text(config, "workload_id") or str(pid)
    maps = {key: _maps(config, f"{key}_mappings") for key in ("uid", "gid")}
    inner: Json = {ours: "own" if theirs in names else "zone" for theirs, ours in _NAMESPACES.items()}
    inner["user"] = "zone"
    process = exec_process(config, permitted)
    for key, other in (("uid", "gid"), ("gid", "uid")):
        # The root of the container would be that of the zone.
        if maps[key] and "User" not in names:
            raise _bad(f"{key}_mappings", "none without User among the namespaces", maps[key])
        if maps[key] and not maps[other]:
            raise _bad(f"{other}_mappings", f"rows, as {key}_mappings has", maps[other])
    if maps["uid"]:
        given = config.get("setgroups_deny") is not None
        deny = _flag(config, "setgroups_deny", "") if given else not process["groups"]
        inner["user"] = {"uid_maps": maps["uid"], "gid_maps": maps["gid"], "deny_setgroups": deny}
    if "Time" in names:
        inner["time"] = {"boottime": -max(0, uptime_s - 1)}
    if config.get("hostname") and "Uts" not in names:  # there it is the machine's that is changed
        raise _bad("hostname", "none without Uts among the namespaces", config["hostname"])
    hostname = config.get("hostname") or f"styrolite-{identity}"
    return f"styrolite-{identity}", {
        "root": {
            "path": config.get("rootfs") or "",
            "readonly": _flag(config, "rootfs_readonly", ""),
            "directories": [_mutation(item, at) for at, item in enumerate(_items(config, "mutations"))],
        },
        "process": process,
        "hostname": hostname if "Uts" in names else "",
        "namespaces": inner,
        "mounts": [_mount(item, at) for at, item in enumerate(_items(config, "mounts"))],
        "masked_paths": config.get("masked_paths"),
        "readonly_paths": config.get("readonly_paths"),
        "limits": {"unified": limits} if (limits := _object(config, "limits")) else {},
    }


def attach(config: Json, *, permitted: int) -> tuple[int, list[str], Json]:
    """(pid of the supervisor, namespaces to join in our words, process) of an Attach; ContainerFailure "spec"."""
    _only(config, _ATTACH, "")
    for key in ("cgroupfs", "workload_id"):
        _text(config, key)
    pid = config.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1:
        raise _bad("pid", "the pid of a supervisor", pid)
    names = _namespaces(config.get("namespaces"))
    joined = [ours for theirs, ours in _NAMESPACES.items() if theirs in names]
    return pid, joined + (["mount"] if "Mount" in names else []), exec_process(config, permitted)


def exec_process(config: Json, permitted: int) -> Json:
    """The process of `exec`, and of `capabilities` beside it."""
    inner = config.get("exec")
    if not isinstance(inner, dict):
        raise _bad("exec", "an object", inner)
    _only(inner, _EXEC, "exec")
    if inner.get("apparmor"):
        raise _bad("exec.apparmor", "no AppArmor profile, as the zone's kernel is its own", inner["apparmor"])
    environment, limits = _object(inner, "environment"), _object(inner, "process_limits")
    _only(limits, tuple(_LIMITS), "exec.process_limits")
    for key, value in environment.items():
        if not isinstance(value, str):
            raise _bad(f"exec.environment.{key}", "text", value)
    return {
        "argv": [inner["executable"], *_items(inner, "arguments")] if inner.get("executable") else [],
        "env": [f"{key}={value}" for key, value in environment.items()],
        "cwd": _text(inner, "working_directory") or "/",
        "uid": 0 if inner.get("uid") is None else inner["uid"],
        "gid": 0 if inner.get("gid") is None else inner["gid"],
        "groups": _items(inner, "supplemental_gids"),
        # Unlike there, a limit that is not set is inherited.
        "rlimits": {_LIMITS[key]: [value, value] for key, value in limits.items() if value is not None},
        "no_new_privileges": _flag(inner, "no_new_privs", "exec."),
        "seccomp": _filter(inner.get("seccomp")),
        "oom_score_adj": inner.get("oom_score_adj"),
        "capabilities": _capabilities(config.get("capabilities"), permitted),
    }


def _capabilities(value: object, permitted: int) -> Json:
    """The caller's own, without what is dropped and with what is raised; inheritable is what is ambient only."""
    given = _object({"capabilities": value}, "capabilities")
    _only(given, ("raise", "raise_ambient", "drop"), "capabilities")
    masks = {}
    for key in ("raise", "raise_ambient", "drop"):
        masks[key] = 0
        for name in _items(given, key):
            found = permitted if str(name).upper() == "ALL" else capabilities.bit(str(name))
            if found is None:
                raise _bad(f"capabilities.{key}", "names of capabilities", name)
            masks[key] |= found
    left = permitted & ~masks["drop"] | masks["raise"] | masks["raise_ambient"]
    ambient = capabilities.names(masks["raise_ambient"])
    full: Json = {key: capabilities.names(left) for key in ("bounding", "effective", "permitted")}
    return full | {"inheritable": ambient, "ambient": ambient}


def _filter(value: object) -> str | None:
    """{"instructions": [[code, jt, jf, k]…]} as hex."""
    if value is None:
        return None
    rows = value.get("instructions") if isinstance(value, dict) else None
    if not isinstance(rows, list) or not all(_is_instruction(row) for row in rows):
        raise _bad("exec.seccomp", "instructions [code, jt, jf, k]", value)
    data = [code.to_bytes(2, "little") + bytes((yes, no)) + k.to_bytes(4, "little") for code, yes, no, k in rows]
    return b"".join(data).hex()


def _is_instruction(row: object) -> bool:
    tops = (1 << 16, 1 << 8, 1 << 8, 1 << 32)
    return (
        isinstance(row, list)
        and len(row) == 4
        and all(type(number) is int and 0 <= number < top for number, top in zip(row, tops, strict=True))
    )


def _mount(item: object, at: int) -> Json:
    if not isinstance(item, dict) or not isinstance(item.get("target"), str):
        raise _bad(f"mounts[{at}]", "an object with a target", item)
    _only(item, _MOUNT, f"mounts[{at}]")
    for key in ("bind", "recurse", "unshare", "safe", "create_mountpoint", "read_only"):
        _flag(item, key, f"mounts[{at}].")
    source, kind, data = (_text(item, key) for key in ("source", "fstype", "data"))
    deep = "r" if item.get("recurse") else ""
    options = [f"{deep}bind"] if item.get("bind") else []
    if item.get("safe"):
        options += [
            option for name in ("nosuid", "nodev", "noexec") for option in ((name, f"r{name}") if deep else (name,))
        ]
    elif item.get("bind") and source.startswith("/dev/"):
        options.append("dev")
    if item.get("read_only"):
        options += ["ro", "rro"] if deep else ["ro"]
    if item.get("unshare"):
        options.append(f"{deep}private")
    options += data.split(",") if data else []
    target = "/" + str(item["target"]).lstrip("/")
    return {"destination": target, "type": "bind" if item.get("bind") else kind, "source": source, "options": options}


def _mutation(item: object, at: int) -> str:
    if not isinstance(item, dict) or item.get("kind") != "CreateDir" or not isinstance(item.get("target"), str):
        raise _bad(f"mutations[{at}]", "the kind CreateDir with a target", item)
    return "/" + str(item["target"]).lstrip("/")


def _maps(config: Json, where: str) -> list[list[object]]:
    rows = []
    for row in _items(config, where):
        if not isinstance(row, dict):
            raise _bad(where, "rows of base_nsid, base_hostid and remap_count", row)
        rows.append([row.get("base_nsid"), row.get("base_hostid"), row.get("remap_count")])
    return rows


def _namespaces(value: object) -> list[str]:
    names = _DEFAULT if value is None else value
    if not isinstance(names, list) or any(name not in ("Mount", *_NAMESPACES) for name in names):
        raise _bad("namespaces", f"names of Mount, {', '.join(_NAMESPACES)}", value)
    return [str(name) for name in names]


def _items(document: Json, key: str) -> list[object]:
    value = document.get(key)
    if value is not None and not isinstance(value, list):
        raise _bad(key, "a list", value)
    return value or []


def _object(document: Json, key: str) -> Json:
    value = document.get(key)
    if value is not None and not isinstance(value, dict):
        raise _bad(key, "an object", value)
    return value or {}


def _text(document: Json, key: str) -> str:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise _bad(key, "text", value)
    return value or ""


def _flag(document: Json, key: str, where: str) -> bool:
    value = document.get(key)
    if value is not None and not isinstance(value, bool):
        raise _bad(f"{where}{key}", "true or false", value)
    return value or False


def _only(document: Json, keys: tuple[str, ...], where: str) -> None:
    for key in document:
        if key not in keys:
            raise _bad(f"{where}.{key}" if where else key, f"only the keys {', '.join(keys)}", key)


def _bad(key: str, expected: str, got: object) -> ContainerFailure:
    return ContainerFailure("spec", f"styrolite config: key {key}: expected {expected}, got {got!r:.80}")
