"""What the zone and its containers use, from /proc and the cgroup tree.

Source:  proc(5); Documentation/admin-guide/iostats.rst; Documentation/admin-guide/cgroup-v2.rst.
"""

import posix
import time

from runtime.init import mounts
from runtime.init.agent import cgroup
from runtime.init.agent.system import meminfo
from runtime.init.channel.frames import MAX_MESSAGE_BYTES
from runtime.init.channel.jsonwrite import dumps

TICKS_PER_S = 100  # USER_HZ, fixed on x86-64
_SECTOR_BYTES = 512
_MAX_PROCESSES = 2000  # each takes a while
_MAX_BYTES = MAX_MESSAGE_BYTES - 4096  # of them all; a letter of a command takes up to six
_COMMAND_BYTES = 1024  # so much of one is read; it may have a megabyte
_CPU_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_NET_FIELDS = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped")
_NET_COLUMNS = (0, 1, 2, 3, 8, 9, 10, 11)
_CONTAINER_NUMBERS = {"memory_bytes": "memory.current", "memory_peak_bytes": "memory.peak", "pids": "pids.current"}
_MEMORY = ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Shmem", "SwapTotal", "SwapFree")


def collect(containers: list[str]) -> dict[str, object]:
    """Everything at once; what this kernel does not tell is left out."""
    stat = _read("/proc/stat")
    return {
        "unix_s": round(time.time(), 3),
        "uptime_s": round(time.monotonic(), 3),
        "memory_kib": {name: value for name, value in meminfo().items() if name in _MEMORY},
        "cpu": cpu_times(stat),
        "load": load(_read("/proc/loadavg")),
        "processes": process_counts(stat, _read("/proc/loadavg")) | {"count": len(_pids())},
        "disks": disks(_read("/proc/diskstats")),
        "network": network(_read("/proc/net/dev")),
        "pressure": {name: pressure(_read(f"/proc/pressure/{name}")) for name in ("cpu", "io", "memory")},
        "containers": {name: of_container(name) for name in containers},
    }


def cpu_times(stat: str) -> dict[str, dict[str, float]]:
    """Seconds by kind, for all CPUs ("cpu") and for each ("cpu0")."""
    found = {}
    for line in stat.splitlines():
        words = line.split()
        if words and words[0].startswith("cpu"):
            found[words[0]] = {
                kind: int(ticks) / TICKS_PER_S for kind, ticks in zip(_CPU_FIELDS, words[1:], strict=False)
            }
    return found


def load(loadavg: str) -> dict[str, float]:
    """How many processes ran or waited for a disk, on the average of the last minutes."""
    return {name: float(word) for name, word in zip(("1min", "5min", "15min"), loadavg.split(), strict=False)}


def process_counts(stat: str, loadavg: str) -> dict[str, int]:
    """How many exist, run, wait for a disk, and have ever been forked."""
    found = {}
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name in ("processes", "procs_running", "procs_blocked"):
            found[{"processes": "forked", "procs_running": "running", "procs_blocked": "blocked"}[name]] = int(value)
    words = loadavg.split()
    if len(words) > 3:
        found["threads"] = int(words[3].partition("/")[2])
    return found


def disks(diskstats: str) -> dict[str, dict[str, int]]:
    """Requests, bytes and busy milliseconds by device; devices nobody has used are left out."""
    found = {}
    for line in diskstats.splitlines():
        words = line.split()
        if len(words) < 14 or (words[3] == "0" and words[7] == "0"):
            continue
        found[words[2]] = {
            "reads": int(words[3]),
            "read_bytes": int(words[5]) * _SECTOR_BYTES,
            "writes": int(words[7]),
            "written_bytes": int(words[9]) * _SECTOR_BYTES,
            "busy_ms": int(words[12]),
        }
    return found


def network(dev: str) -> dict[str, dict[str, int]]:
    """Counters by interface."""
    found = {}
    for line in dev.splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and len(words) >= 16:
            found[name.strip()] = {field: int(words[at]) for field, at in zip(_NET_FIELDS, _NET_COLUMNS, strict=True)}
    return found


def pressure(text: str) -> dict[str, dict[str, float]]:
    """{"some": {"avg10": …, "total_us": …}, "full": …} of a pressure file."""
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        values = found[words[0]] = {}
        for word in words[1:]:
            name, _, value = word.partition("=")
            values["total_us" if name == "total" else name] = int(value) if name == "total" else float(value)
    return found


def of_container(name: str) -> dict[str, object]:
    """Memory, CPU, processes, disks and pressure of one cgroup."""
    base = cgroup.path_of(name)
    found: dict[str, object] = {}
    for key, file in _CONTAINER_NUMBERS.items():
        text = _read(f"{base}/{file}").strip()
        if text.isdigit():
            found[key] = int(text)
    for key, file in (("cpu", "cpu.stat"), ("memory_events", "memory.events")):
        values = numbers(_read(f"{base}/{file}"))
        if values:
            found[key] = values
    io = io_stat(_read(f"{base}/io.stat"))
    if io:
        found["io"] = io
    for kind in ("cpu", "io", "memory"):
        values_of = pressure(_read(f"{base}/{kind}.pressure"))
        if values_of:
            found[f"{kind}_pressure"] = values_of
    try:
        status = posix.statvfs(mounts.root_of(name))
        found["root_bytes"] = {
            "total": status.f_blocks * status.f_frsize,
            "free": status.f_bavail * status.f_frsize,
        }
    except OSError:
        return found
    return found


def numbers(text: str) -> dict[str, int]:
    """`name number` lines."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found


def io_stat(text: str) -> dict[str, dict[str, int]]:
    """`major:minor rbytes=… wbytes=…` lines."""
    found = {}
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        pairs = [word.partition("=") for word in rest.split()]
        values = {name: int(value) for name, _, value in pairs if value.isdigit()}
        if values:
            found[device] = values
    return found


def processes(container: str | None) -> dict[str, object]:
    """The processes of a container, or all of the zone: pid, parent, user, state, memory, CPU time, command."""
    pids = _pids() if container is None else cgroup.processes(container)
    found: list[dict[str, object]] = []
    told, room = 0, _MAX_BYTES
    for pid in sorted(pids)[:_MAX_PROCESSES]:
        one = process(pid)
        room -= len(dumps(one)) + 1
        if room < 0:
            break
        told += 1
        found += [one] if one is not None else []
    return {"processes": found} | ({"left_out": len(pids) - told} if len(pids) > told else {})


def _pids() -> list[int]:
    return [int(name) for name in posix.listdir("/proc") if name.isdigit()]


def process(pid: int) -> dict[str, object] | None:
    """One process; None when it has gone meanwhile."""
    stat = parse_stat(_read(f"/proc/{pid}/stat"))
    if stat is None:
        return None
    try:
        command = _beginning(f"/proc/{pid}/cmdline").rstrip("\0").replace("\0", " ")
        stat["uid"] = posix.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    return stat | {"command": command[:256] or f"[{stat.pop('name')}]"}


def parse_stat(text: str) -> dict[str, object] | None:
    """/proc/PID/stat; a name may hold blanks and brackets."""
    head, bracket, rest = text.rpartition(")")
    pid, _, name = head.partition(" (")
    words = rest.split()
    if not bracket or len(words) < 22:
        return None
    return {
        "pid": int(pid),
        "name": name,
        "state": words[0],
        "ppid": int(words[1]),
        "threads": int(words[17]),
        "cpu_s": (int(words[11]) + int(words[12])) / TICKS_PER_S,
        "started_s": int(words[19]) / TICKS_PER_S,
        "rss_kib": int(words[21]) * 4,
    }


def _read(path: str) -> str:
    try:
        return cgroup.read(path)
    except OSError:
        return ""


def _beginning(path: str) -> str:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, _COMMAND_BYTES).decode("ascii", "replace")
    finally:
        posix.close(fd)
