"""Looks at the kernel of this host and at files. Reads only; a thing that goes away meanwhile is not there."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.host import loops
from runtime.host.check.expected import Expected
from runtime.host.check.model import Found, HostPort, Process
from runtime.net import netns
from runtime.net.engine.processes import start_time_of
from runtime.net.strays import is_engine
from runtime.share.strays import serves_directory

NAMESPACE_PREFIX = "zw-"
# Of a table in /proc/net, the state that counts: LISTEN, and CLOSE, which is a UDP socket without a peer. An engine's
# flows to the outside have one. Source: include/net/tcp_states.h.
_STATES = {"tcp": "0A", "udp": "07"}
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_LIMIT = 10_000  # files looked at below one directory
IMAGE_TASK = "runtime.host.images.child"  # as runtime/host/images/tasks.py starts it


@dataclass(frozen=True)
class Places:
    """Where a host has things.

    directories:  those that are ours as a whole: everything in them belongs to somebody, or is a leak.
    containers:   directories in them that are there without any zone; what is in those belongs to somebody.
    """

    directories: tuple[Path, ...] = (Path("/run/zonewright"),)
    containers: tuple[str, ...] = ("net", "console", "ledger", "logs")
    backends: Path = Path("/sys/bus/xen-backend/devices")
    cgroups: Path = Path("/sys/fs/cgroup/zonewright")
    proc: Path = Path("/proc")


def look_at_host(expected: Expected, places: Places, found: Found) -> None:
    """Everything but Xen and xenstore."""
    found.kernel.update(name for name in _names(places.backends) if name.count("-") >= 2 and _is_backend(name))
    found.loops.update(loops.in_use())
    _look_at_network(found)
    _look_at_processes(expected, places, found)
    _look_at_ports(expected, places, found)
    _look_at_files(expected, places, found)


def _is_backend(name: str) -> bool:
    return name.split("-", 2)[1].isdigit()


def _look_at_network(found: Found) -> None:
    found.interfaces.update(name for _, name in socket.if_nameindex())
    mounted = {path for path in _mount_points() if path.startswith(f"{netns.DIRECTORY}/")}
    for name in _names(netns.DIRECTORY):
        if not name.startswith(NAMESPACE_PREFIX):
            continue
        found.namespaces[name] = str(netns.path_of(name)) in mounted
        if found.namespaces[name]:
            try:
                found.links[name] = netns.inside(name, lambda: {link for _, link in socket.if_nameindex()})
            except RuntimeFault as fault:
                found.unseen.append(str(fault))


def _look_at_processes(expected: Expected, places: Places, found: Found) -> None:
    own = str(os.getpid())
    for pid in _numbers(_names(places.proc)):
        line = _text(places.proc / str(pid) / "cmdline")
        if is_engine(line) and (start_time := start_time_of(pid)) is not None:
            found.engines.add(Process(pid, start_time))
        if serves_directory(line) and (start_time := start_time_of(pid)) is not None:
            found.shares.add(Process(pid, start_time))
        fields = _text(places.proc / str(pid) / "stat").rpartition(")")
        states = fields[2].split()
        if states[:2] == ["Z", own]:
            found.zombies[pid] = fields[0].partition("(")[2]
        if IMAGE_TASK in line.split("\0") and states[1:2] != [own] and (start_time := start_time_of(pid)) is not None:
            found.orphans.add(Process(pid, start_time))
    for process in expected.engines.keys() | expected.processes.keys():
        if start_time_of(process.pid) == process.start_time:
            found.processes.add(process)


def _look_at_ports(expected: Expected, places: Places, found: Found) -> None:
    """Sockets of the calling thread's namespace, which is the host's."""
    by_inode = dict(_listening(places.proc / "thread-self" / "net"))
    found.listening.update(by_inode.values())
    for process in found.engines:
        found.held[process] = set(_held_by(places.proc / str(process.pid), by_inode))
    found.own.update(_held_by(places.proc / "self", by_inode))


def _held_by(process: Path, by_inode: Mapping[str, HostPort]) -> Iterator[HostPort]:
    for fd in _names(process / "fd"):
        try:
            match = _SOCKET.fullmatch(os.readlink(process / "fd" / fd))
        except OSError:
            continue
        if match and match[1] in by_inode:
            yield by_inode[match[1]]


def _listening(net: Path) -> Iterator[tuple[str, HostPort]]:
    """inode -> port. Source: net/ipv4/tcp_ipv4.c, get_tcp4_sock: addresses in the machine's byte order."""
    for table in ("tcp", "tcp6", "udp", "udp6"):
        protocol = table[:3]
        for line in _text(net / table).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _STATES[protocol]:
                address, port = fields[1].split(":")
                words = bytes.fromhex(address)
                packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                yield fields[9], HostPort(str(ipaddress.ip_address(packed)), int(port, 16), protocol)


def _look_at_files(expected: Expected, places: Places, found: Found) -> None:
    roots = tuple(str(directory) for directory in places.directories)
    for path in _mount_points():
        is_namespace = path.startswith(f"{netns.DIRECTORY}/{NAMESPACE_PREFIX}")
        if is_namespace or any(path.startswith(f"{root}/") for root in roots):
            found.mounts.add(path)
    if places.cgroups.is_dir():
        found.cgroups.update(str(path) for path in places.cgroups.iterdir() if path.is_dir())
    own = {str(directory / name) for directory in places.directories for name in places.containers}
    for directory in places.directories:
        for count, path in enumerate(_walk(directory, found.mounts)):
            if count >= _LIMIT:
                found.unseen.append(f"files below {directory}: more than {_LIMIT}")
                break
            if path not in own:
                found.files.add(path)
    found.files.update(path for path in expected.paths if os.path.lexists(path))


def _walk(directory: Path, mounts: Iterable[str]) -> Iterator[str]:
    """Everything below a directory, but not into what is mounted there, which is somebody's as a whole."""
    for root, directories, files in os.walk(directory):
        yield from (os.path.join(root, name) for name in (*directories, *files))
        directories[:] = [name for name in directories if os.path.join(root, name) not in mounts]


def _mount_points() -> list[str]:
    """Source: proc(5), mountinfo: the fifth field, with blanks and backslashes in octal."""
    lines = _text(Path("/proc/thread-self/mountinfo")).splitlines()
    points = (line.split()[4] for line in lines)
    return [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point) for point in points]


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _numbers(names: Iterable[str]) -> list[int]:
    return [int(name) for name in names if name.isdigit()]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
