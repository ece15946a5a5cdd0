"""What the host may ask of, or set in, the zone's kernel: facts, virtual CPUs, memory, sysctls."""

import errno
import posix
import time

from runtime.init import abi, devices, kernel
from runtime.init.agent.cgroup import read, write
from runtime.init.agent.errors import Refused
from runtime.init.agent.loop import Loop
from runtime.init.agent.stream import Stream
from runtime.init.failure import why

_CPUS = "/sys/devices/system/cpu"
_BALLOON = "/sys/devices/system/xen_memory/xen_memory0"
_CPU_TRY_S, _CPU_TRIES = 0.05, 200


def info() -> dict[str, object]:
    """The kernel, the host's name for it, how long it has run."""
    name = posix.uname()
    return {
        "hostname": name.nodename,
        "kernel": name.release,
        "kernel_version": name.version,
        "machine": name.machine,
        "cpus": online(),
        "memory_kib": meminfo().get("MemTotal", 0),
        "uptime_s": round(time.monotonic(), 3),
        "unix_s": round(time.time(), 3),
    }


def meminfo() -> dict[str, int]:
    """/proc/meminfo in KiB."""
    found = {}
    for line in read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0])
    return found


def memory() -> dict[str, object]:
    """What the kernel has, and what the balloon driver holds and aims at, in KiB."""
    found = meminfo()
    result: dict[str, object] = {
        "total_kib": found.get("MemTotal", 0),
        "free_kib": found.get("MemFree", 0),
        "available_kib": found.get("MemAvailable", 0),
    }
    for key, path in (("current_kib", "info/current_kb"), ("target_kib", "target_kb")):
        try:
            result[key] = int(read(f"{_BALLOON}/{path}").strip())
        except (OSError, ValueError):
            continue  # no balloon driver here
    return result


def ranges(text: str) -> list[int]:
    """The numbers of "0-2,5"."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found += range(int(first), int(last or first) + 1)
    return found


def online() -> int:
    """How many CPUs run."""
    return len(ranges(read(f"{_CPUS}/online")))


def set_cpus(loop: Loop, stream: Stream, wanted: int) -> None:
    """Bring so many CPUs online, lowest first, and the others offline; the result says how many run then.

    One that the host has only just made available may take a moment to be there.
    """
    tries = _CPU_TRIES

    def step() -> None:
        nonlocal tries
        tries -= 1
        _switch(wanted)
        if online() == wanted or not tries:
            stream.succeed({"online": online()})
        else:
            stream.after(_CPU_TRY_S, step)

    step()


def _switch(wanted: int) -> None:
    for number in range(wanted):
        _cpu(number, "1")
    for number in ranges(read(f"{_CPUS}/online"))[wanted:]:
        _cpu(number, "0")


def _cpu(number: int, state: str) -> None:
    path = f"{_CPUS}/cpu{number}/online"
    if not devices.exists(path):  # not there yet, or the first one, which cannot be switched off
        return
    try:
        if read(path).strip() != state:
            write(path, state)
    except OSError as error:
        # It is just coming or going, and is tried again; EINVAL: its file is there before it is itself
        # (drivers/xen/cpu_hotplug.c, enable_hotplug_cpu). Anything else is the kernel's refusal.
        if error.errno not in (errno.ENODEV, errno.EBUSY, errno.ENOENT, errno.EINVAL):
            raise Refused("unsupported", f"cpu {number}: {why(error)}") from None


def sysctl(key: str, value: str | None) -> str:
    """Set (unless None) and read a setting, named "net.core.somaxconn" or "net/core/somaxconn". Raises Refused."""
    path = key if "/" in key else key.replace(".", "/")
    root_fd = posix.open("/proc/sys", abi.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        if value is not None:
            fd = kernel.open_in(root_fd, path, posix.O_WRONLY, resolve=abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_SYMLINKS)
            try:
                posix.write(fd, value.encode())
            finally:
                posix.close(fd)
        fd = kernel.open_in(root_fd, path, posix.O_RDONLY, resolve=abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_SYMLINKS)
        try:
            return posix.read(fd, 65536).decode("ascii", "replace").strip()
        finally:
            posix.close(fd)
    except OSError as error:
        setting = key if value is None else f"{key}={value!r:.60}"
        raise Refused(errno.errorcode.get(error.errno or 0, "internal"), f"sysctl {setting}: {why(error)}") from None
    finally:
        posix.close(root_fd)
