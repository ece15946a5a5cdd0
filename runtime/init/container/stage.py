"""The stage: a process between the caller and one in a user or time namespace, or in namespaces of others.

It has the zone's privileges, prepares what these are needed for, clones the container's process as its own sibling
(CLONE_PARENT) and ends. Few containers have one: launcher.py imports this for those that do.
"""

import posix

from runtime.init.container import abi, accounts, calls, mounter, procfs
from runtime.init.container.launcher import PROC, Child, be_container, call, do


def be_stage(child: Child, plan: dict[str, object]) -> None:
    """Prepare with the zone's privileges and clone the container's process; never returns, in neither of them."""
    flags, maps, offsets, joins = plan["flags"], plan["maps"], plan["time"], plan["joins"]
    assert isinstance(flags, int) and isinstance(joins, list)
    for (flag, name), fd in zip(joins, child.extra, strict=True):
        call("namespace", f"joining the namespace {name}", calls.setns, fd, flag)
    if isinstance(offsets, dict):
        call("namespace", "making a time namespace", calls.unshare, abi.CLONE_NEWTIME)
        text = "".join(f"{clock} {seconds} 0\n" for clock, seconds in offsets.items() if seconds)
        if text:
            call("namespace", "setting its clocks", procfs.write, PROC, "self/timens_offsets", text.encode())
    work = mounter.Mounter()
    do(work, plan["stage"])
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    # Owned by its user namespace, the mounts can be changed from inside; without one, the stage's are as good.
    flags = flags if isinstance(maps, dict) else flags & ~abi.CLONE_NEWNS
    pid = call("namespace", "entering the container's namespaces", calls.clone, flags | abi.CLONE_PARENT)
    if pid == 0:
        posix.close(writer)
        if posix.read(reader, 1) != b"g":
            posix._exit(127)  # the stage has told why
        posix.close(reader)
        become_inside(maps)
        be_container(child, work, plan)
    child.say(b"P", str(pid))
    if isinstance(maps, dict):
        if maps["deny_setgroups"]:
            call("namespace", "denying setgroups", procfs.write, PROC, f"{pid}/setgroups", b"deny")
        for kind in ("uid", "gid"):
            rows = accounts.map_text(maps[f"{kind}_maps"])
            call("namespace", f"mapping {kind}s", procfs.write, PROC, f"{pid}/{kind}_map", rows)
    posix.write(writer, b"g")
    posix._exit(0)


def become_inside(maps: object) -> None:
    """In a user namespace: an id that exists there, so that what is made belongs to somebody."""
    if isinstance(maps, dict):
        uid, gid = accounts.inside_root(maps["uid_maps"]), accounts.inside_root(maps["gid_maps"])
        call("user", f"becoming group {gid} of the user namespace", posix.setresgid, gid, gid, gid)
        call("user", f"becoming user {uid} of the user namespace", posix.setresuid, uid, uid, uid)
