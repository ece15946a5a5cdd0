"""A WorkloadSpec and its image's config, checked, into the spec of a container as the zone's runtime takes it.

Source:  runtime/init/container, the package's docstring, for the keys.
"""

from __future__ import annotations

import posixpath
import re
import secrets
from dataclasses import replace
from typing import Any

from pipeline.bundle.capabilities import changed
from pipeline.bundle.health import resolve_health
from pipeline.bundle.model import Process, Volume
from pipeline.bundle.process import inner, resolve_process
from pipeline.bundle.security import STRICT_MAP
from pipeline.bundle.spec import NAME, ZoneSpec, hostname_of
from pipeline.bundle.volumes import directory
from pipeline.jsonmodel import to_json
from runtime.host.api import common_pb2 as pb
from runtime.host.daemon import confinement
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.volumes import MOST_DIRECTORIES
from runtime.host.serve.answers import NotServed

Json = dict[str, Any]

_NAMESPACES = {
    pb.PROCESS_NAMESPACE_UTS: "uts",
    pb.PROCESS_NAMESPACE_IPC: "ipc",
    pb.PROCESS_NAMESPACE_USER: "user",
    pb.PROCESS_NAMESPACE_PID: "pid",
    pb.PROCESS_NAMESPACE_NET: "net",
    pb.PROCESS_NAMESPACE_CGROUP: "cgroup",
    pb.PROCESS_NAMESPACE_TIME: "time",
}
_CAPABILITY = re.compile(r"(?:CAP_)?([A-Z_]{2,32})")
_LIMIT = re.compile(r"(cpu|cpuset|io|memory|pids)\.[a-z0-9_.]{2,40}")


def name_of(spec: pb.WorkloadSpec) -> str:
    """The workload's name, or one made up. Raises BadRequest."""
    name = spec.name or f"workload-{secrets.token_hex(4)}"
    if not NAME.fullmatch(name):
        raise _bad("name", "letters, digits, - and _, at most 63", name)
    return name


def container(spec: pb.WorkloadSpec, name: str, config: Json, *, passwd: bytes, group: bytes) -> Json:
    """The container's spec; where its root lies, and what `mounts` gives it, is filled in by the core.

    config:  of the image; passwd, group: its account files.
    Raises:  BadRequest, NotServed, BadImageConfig, NoSuchUser.
    """
    security = spec.security
    process = resolve(spec.process, name, spec.image.digest, config, passwd=passwd, group=group)
    document: Json = {
        "root": {"readonly": security.read_only_rootfs},
        "process": to_json(process),
        "namespaces": _namespaces(security),
        "mounts": [_scratch(mount) for mount in spec.scratch_mount],
        "stdin_open": spec.process.stdin,
        "limits": {"unified": dict(_limit(limit) for limit in spec.cgroup_limits)} if spec.cgroup_limits else {},
    }
    if spec.process.tty and spec.process.HasField("terminal_size"):
        size = spec.process.terminal_size
        document["process"]["size"] = [size.rows, size.columns]
    capabilities = document["process"]["capabilities"] = _capabilities(security)
    if security.privileged:
        document["process"]["no_new_privileges"] = False
        document |= {"masked_paths": [], "readonly_paths": []}
    else:
        document["process"]["seccomp"] = confinement.default_filter(capabilities["bounding"])
    check = resolve_health(None, inner(config, spec.image.digest), subject=f"image {spec.image.digest}", key="")
    if check is not None:
        document["healthcheck"] = to_json(check)
    if document["namespaces"]["uts"] == "own":
        document["hostname"] = hostname_of(name)
    return document


def mounts(spec: pb.WorkloadSpec) -> tuple[Volume, ...]:
    """The directories of the host it is to have; the core looks at what is there. Raises BadRequest, BadSpec."""
    if len(spec.mounts) > MOST_DIRECTORIES:
        raise _bad("mounts", f"at most {MOST_DIRECTORIES}", str(len(spec.mounts)))
    found = [directory(mount.host_path, mount.target_path, subject="workload spec: mounts") for mount in spec.mounts]
    taken = {posixpath.normpath(mount.path) for mount in spec.scratch_mount}
    for volume in found:
        if volume.target in taken:
            raise _bad("mounts.target_path", "each target once", volume.target)
        taken.add(volume.target)
    return tuple(found)


def resolve(process: pb.ProcessSpec, name: str, image: str, config: Json, *, passwd: bytes, group: bytes) -> Process:
    """The process, over what the image's config says."""
    spec = ZoneSpec(
        name,
        image,
        command=tuple(process.command) or None,
        env=environment(process),
        user=user(process),
        workdir=process.working_directory or None,
        hostname=hostname_of(name),
    )
    return replace(resolve_process(spec, config, passwd=passwd, group=group), tty=process.tty)


def environment(process: pb.ProcessSpec) -> dict[str, str]:
    """The variables of a process. Raises BadRequest."""
    for variable in process.environment:
        if not variable.key or "=" in variable.key or "\0" in variable.key + variable.value:
            raise _bad("process.environment", "a name without = and a value", variable.key)
    return {variable.key: variable.value for variable in process.environment}


def user(process: pb.ProcessSpec) -> str | None:
    """USER[:GROUP], by names or numbers; None where neither is said."""
    who, group = _account(process.user), _account(process.group)
    if not who and not group:
        return None
    return f"{who or '0'}:{group}" if group else who


def _account(value: pb.IdOrNameValue) -> str:
    match value.WhichOneof("id_or_name"):
        case "id":
            return str(value.id)
        case "name":
            if not value.name or ":" in value.name:
                raise _bad("process.user", "a name without :", value.name)
            return value.name
        case _:
            return ""


# -- what it may -------------------------------------------------------------------------------------------------------


def _capabilities(security: pb.WorkloadSecuritySpec) -> Json:
    if security.privileged:
        return {key: ["ALL"] for key in confinement.SETS}
    dropped = _names("drop_capabilities", security.drop_capabilities)
    ambient = _names("raise_ambient_capabilities", security.raise_ambient_capabilities)
    raised = [*_names("raise_capabilities", security.raise_capabilities), *ambient]
    if both := set(dropped) & set(raised):
        raise _bad("security.drop_capabilities", "others than those that are raised", min(both))
    return confinement.sets(changed(raised, dropped, ambient))


def _names(field: str, values: Any) -> list[str]:
    names = []
    for value in values:
        if (match := _CAPABILITY.fullmatch(value.upper())) is None:
            raise _bad(f"security.{field}", "names such as CAP_NET_ADMIN", value)
        names.append(match[1])
    return names


def _namespaces(security: pb.WorkloadSecuritySpec) -> Json:
    found: Json = dict.fromkeys(("pid", "uts", "ipc", "cgroup"), "own")
    if security.strict_user_namespace:
        found["user"] = {"uid_maps": STRICT_MAP, "gid_maps": STRICT_MAP}
    disabled = set(security.disable_namespaces)
    if pb.PROCESS_NAMESPACE_MOUNT in disabled:
        raise _not_served("security.disable_namespaces", "MOUNT", "a container has a root of its own")
    if security.disable_all_namespaces:
        disabled = set(_NAMESPACES)
    for number in disabled:
        found[_NAMESPACES[number]] = "zone"
    return found


def _scratch(mount: pb.WorkloadScratchMount) -> Json:
    if not mount.path.startswith("/") or "\0" in mount.path:
        raise _bad("scratch_mount.path", "an absolute path", mount.path)
    return {"destination": mount.path, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]}


def _limit(limit: pb.CgroupLimit) -> tuple[str, str]:
    if not _LIMIT.fullmatch(limit.limit_name) or not limit.value.isprintable() or not limit.value:
        raise _bad("cgroup_limits", "a file of cgroup v2 and what is written to it", limit.limit_name)
    return limit.limit_name, limit.value


def _bad(field: str, expected: str, got: str) -> BadRequest:
    return BadRequest(f"workload spec: {field}", expected=expected, got=repr(got)[:120])


def _not_served(field: str, got: str, why: str) -> NotServed:
    return NotServed(f"workload spec: {field}", got=got, hint=why)
