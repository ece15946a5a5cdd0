"""From a container spec to the ordered list of what is done for it. Pure: a plan can be printed and compared."""

from runtime.init.container import abi, accounts, devices, mountspec
from runtime.init.container import spec as specs

# namespace -> its flag; mount is always the container's own
FLAGS = {
    "pid": abi.CLONE_NEWPID,
    "uts": abi.CLONE_NEWUTS,
    "ipc": abi.CLONE_NEWIPC,
    "cgroup": abi.CLONE_NEWCGROUP,
    "net": abi.CLONE_NEWNET,
    "user": abi.CLONE_NEWUSER,
    "time": abi.CLONE_NEWTIME,
}
_USUAL = {"proc": "/proc", "sysfs": "/sys"}
FILTER_FLAGS = specs.FILTER_FLAGS
Step = tuple[object, ...]


def plan(spec: object) -> dict[str, object]:
    """Check a spec and plan its container.

    Gives:   spec     the spec with its defaults
             flags    the namespaces the container's process is cloned into
             joins    [(flag, "container:ID" or "path:/…")]: namespaces of others
             time     offsets of an own time namespace, or None
             maps     id maps of an own user namespace, or None
             limits   writes into its cgroup
             stage    steps with the privileges of the zone, before the container's namespaces are entered
             inside   steps in its namespaces, until its root is the root
             tail     steps of its process, until the command is executed
             process  what is started then
    Raises:  ContainerFailure "spec", "user" or "command-127".
    Effects: none.
    """
    found = specs.check(spec)
    names = found["namespaces"]
    assert isinstance(names, dict)
    maps = names["user"] if isinstance(names["user"], dict) else None
    # A cgroup namespace has its root where its maker is, so that one is made once the cgroup has been entered.
    process = found["process"]
    assert isinstance(process, dict)
    own = [key for key in FLAGS if isinstance(names[key], dict) or names[key] == "own"]
    flags = abi.CLONE_NEWNS | sum(FLAGS[key] for key in own if key not in ("cgroup", "time"))
    joins = [(FLAGS[key], str(names[key])) for key in FLAGS if str(names[key]).startswith(("container:", "path:"))]
    stage, inside = _mount_steps(found, names, maps)
    return {
        "spec": found,
        "flags": flags,
        "joins": joins,
        "time": (names["time"] if isinstance(names["time"], dict) else {}) if "time" in own else None,
        "maps": maps,
        "limits": found["limits"],
        "stage": [("propagation", found["propagation"]), *stage],
        "inside": [*_identity_steps(found, names, own), *inside],
        "tail": process_plan(process, groups_denied=maps is not None and bool(maps["deny_setgroups"])),
        "process": process,
    }


def process_plan(process: dict[str, object], *, groups_denied: bool = False, entering: bool = False) -> list[Step]:
    """What a checked process is given and what is taken from it, in order.

    entering: a container that runs. The process that all is taken from has the pid namespace of the zone, and forks
              ("apart") the one that is seen in the container's, where a debugger may be (CVE-2016-9962).

    The user is looked up first, as root; a filter comes last, unless only the privileges that are about to go allow
    it; and descriptors are closed before the directory is changed (CVE-2024-21626).
    """
    masks, rlimits, flags = process["capabilities"], process["rlimits"], process["seccomp_flags"]
    assert isinstance(masks, dict) and isinstance(rlimits, dict) and isinstance(flags, list)
    steps: list[Step] = [("keyring",)]
    steps.append(("account", process["user"], process["uid"], process["gid"], process["groups"], groups_denied))
    steps.append(("streams", process["tty"]))
    session: list[Step] = [] if process["init"] else [("session", process["tty"])]
    steps += [] if entering else session
    # Nothing is opened behind this, so that a limit of three descriptors is one of the command, not of its start.
    forks = [("rlimit", number, *pair) for number, pair in rlimits.items() if entering and number == abi.RLIMIT_NPROC]
    steps += [("ceiling", number, hard) for _, number, _, hard in forks]
    steps += [("rlimit", number, *pair) for number, pair in rlimits.items() if not forks or number != abi.RLIMIT_NPROC]
    # Before any filter: profiles are older than close_range(2), and a bundle's may refuse it.
    steps.append(("close",))
    filters: list[Step] = []
    if process["seccomp"] is not None:
        filters.append(("seccomp", process["seccomp"], sum(FILTER_FLAGS[flag] for flag in set(map(str, flags)))))
    late = bool(process["no_new_privileges"])
    steps += [] if late else filters
    steps += [("bounding", masks["bounding"]), ("identity",), ("capabilities", masks), ("umask", process["umask"])]
    steps += [("apart",), *forks, *session] if entering else []
    steps += [("death",), ("cwd", process["cwd"])]
    steps += [("no_new_privileges",)] if late else []
    steps += [("signals",), ("ready",)]
    return steps + (filters if late else [])


def _identity_steps(found: dict[str, object], names: dict[str, object], own: list[str]) -> list[Step]:
    steps: list[Step] = [("cgroup_namespace",)] if "cgroup" in own else []
    if found["hostname"]:
        steps.append(("hostname", found["hostname"]))
    if found["domainname"]:
        steps.append(("domainname", found["domainname"]))
    values = found["sysctl"]
    assert isinstance(values, dict)
    return steps + [("sysctl", path, value) for path, value in values.items()]


def _mount_steps(
    found: dict[str, object], names: dict[str, object], maps: dict[str, object] | None
) -> tuple[list[Step], list[Step]]:
    """(stage, inside). Own devices and mounts are made before any path of the image is looked at (CVE-2026-41579)."""
    root, process = found["root"], found["process"]
    assert isinstance(root, dict) and isinstance(process, dict)
    owner = (accounts.outside_id(maps["uid_maps"]), accounts.outside_id(maps["gid_maps"])) if maps else (0, 0)
    nodes = devices.plan(found["devices"], maps)
    stage: list[Step] = [("workshop",), ("devices", nodes, owner, process["tty"])]
    if root["device"]:
        stage.append(("root_device", root["device"], root["overlay_size_mib"]))
    else:
        stage.append(("root_path", root["path"]))
    stage.append(("workshop_away",))
    if root["readonly"]:
        stage.append(("seal_below",))
    if root["etc"]:
        stage.append(("etc", root["etc"]))
    stage += [("directory", path) for path in root["directories"]]
    inside: list[Step] = [("attach_root",)]
    checked, hidden = found["mounts"], list(mountspec.ALWAYS_MASKED)
    assert isinstance(checked, list)
    for number, mount in enumerate(mountspec.arrange(checked, defaults=bool(found["default_mounts"]))):
        mount = _owned(mount, maps, owner)
        place = mount["destination"]
        strict = "replace" if root["device"] or root["replace"] else "refuse"
        if mount["type"] == "dev":
            stage += [("target", place, True)] if maps else []
            inside += [("put", "dev", place, strict), *[("node", node[0]) for node in nodes]]
            continue
        inside_only = mountspec.needs_inside(mount, names)
        make: Step = ("make", number, mount)
        stage += [] if inside_only else [make]
        stage += [("target", place, None if mount["rbind"] is not None else True, number)] if maps else []
        inside += [make] if inside_only else []
        usual = _USUAL.get(str(mount["type"]))
        if usual is not None and place != usual:
            closed = [path for path in mountspec.ALWAYS_MASKED if path.startswith(f"{usual}/")]
            hidden += [f"{place}{path[len(usual) :]}" for path in closed]
        real = strict if usual is not None else "follow"
        inside.append(("put", number, place, real))
        inside += [("spread", number, flag, deep) for flag, deep in _pairs(mount["propagation"])]
    masked = mountspec.MASKED if found["masked_paths"] is None else _texts(found["masked_paths"])
    readonly = mountspec.READONLY if found["readonly_paths"] is None else _texts(found["readonly_paths"])
    inside += [("readonly", path) for path in readonly]
    inside += [("mask", path) for path in dict.fromkeys([*masked, *hidden])]
    inside += [("terminal", process["size"])] if process["tty"] else []
    inside += [("seal",)] if root["readonly"] else []
    inside.append(("pivot",))
    return stage, inside


def _owned(mount: dict[str, object], maps: dict[str, object] | None, owner: tuple[int, int]) -> dict[str, object]:
    """A mount whose ids are those of the container's users, where it has a user namespace and asks for none itself."""
    if maps is None or mount["rbind"] is not None or mount["type"] not in ("tmpfs", "devpts"):
        return mount
    parameters = _pairs(mount["parameters"])
    given = {str(key) for key, _ in parameters}
    if mount["type"] == "devpts":
        group = accounts.mapped(maps["gid_maps"], 5)
        parameters = [pair for pair in parameters if pair[0] != "gid"] + ([("gid", str(group))] if group else [])
        given |= {"uid", "gid"}
    added = [(key, str(number)) for key, number in zip(("uid", "gid"), owner, strict=True) if key not in given]
    return mount | {"parameters": [*parameters, *added]}


def _pairs(value: object) -> list[tuple[object, object]]:
    assert isinstance(value, list)
    return value


def _texts(value: object) -> list[str]:
    assert isinstance(value, list)
    return value
