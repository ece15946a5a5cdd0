"""Which kernel parameters a container may have of its own."""

from runtime.init.failure import ContainerFailure

# Kept by the ipc namespace: ipc/ipc_sysctl.c, ipc/mq_sysctl.c.
_IPC = ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced", "auto_msgmni")


def check(values: object, namespaces: dict[str, object]) -> dict[str, str]:
    """Path below /proc/sys -> value; raises ContainerFailure "spec" for what belongs to the whole zone."""
    if not isinstance(values, dict):
        raise ContainerFailure("spec", f"container spec: key sysctl: expected an object, got {values!r:.80}")
    found = {}
    for key, value in values.items():
        path = str(key).replace(".", "/") if "/" not in str(key) else str(key)
        if not isinstance(value, str) or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise ContainerFailure(
                "spec",
                f"container spec: key sysctl.{key!r:.80}: expected a path below /proc/sys and text, got {value!r:.80}",
            )
        needed = owner(path)
        if needed is None or namespaces[needed] == "zone":
            expected = f"an own {needed} namespace" if needed else "a parameter of the ipc or net namespace"
            raise ContainerFailure("spec", f"container spec: key sysctl: expected {expected} for {key}, got the zone's")
        found[path] = value
    return found


def owner(path: str) -> str | None:
    """The namespace a parameter belongs to; None: the kernel has one for all."""
    head, _, rest = path.partition("/")
    if head == "net":
        return "net"
    if (head == "kernel" and rest in _IPC) or path.startswith("fs/mqueue/"):
        return "ipc"
    return None
