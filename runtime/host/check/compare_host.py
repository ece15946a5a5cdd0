"""The host's kernel and files against the ledgers. Pure: facts in, findings out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath

from runtime.host.check.compare import NO_LEDGER, gone, remove_zone
from runtime.host.check.expected import Expected
from runtime.host.check.model import Finding, Found, HostPort, Process

_VIF = re.compile(r"vif(\d+)\.\d+")
_DELETED = " (deleted)"


def compare_loops(expected: Expected, found: Found, ours: Iterable[str]) -> Iterator[Finding]:
    """Loop devices. Without a ledger only those over files below `ours` are looked at: others have their own owners."""
    roots = tuple(ours)
    for device, file in sorted(found.loops.items()):
        zone, wanted = expected.loops.get(device, ("", ""))
        plain = file.removesuffix(_DELETED)
        if not zone:
            if _is_below(plain, roots):
                yield Finding("loop", f"{device} over {file}", NO_LEDGER, f"losetup -d {device}")
        elif plain != wanted:
            problem = f"the ledger of zone {zone} has it over {wanted}"
            yield Finding("loop", f"{device} over {file}", problem, remove_zone(zone))
        elif file != plain:
            yield Finding("loop", f"{device} over {plain}", "the file has been removed", remove_zone(zone))
    for device, (zone, _) in sorted(expected.loops.items()):
        if device not in found.loops:
            yield Finding("loop", device, gone(zone), remove_zone(zone))


def compare_namespaces(expected: Expected, found: Found) -> Iterator[Finding]:
    """Network namespaces and the vifs in them."""
    for name, mounted in sorted(found.namespaces.items()):
        if name not in expected.namespaces:
            yield Finding("netns", name, NO_LEDGER, f"ip netns delete {name}")
        elif not mounted:
            zone = expected.namespaces[name]
            yield Finding("netns", name, "a name without a namespace", remove_zone(zone))
    for name, zone in sorted(expected.namespaces.items()):
        if name not in found.namespaces:
            yield Finding("netns", name, gone(zone), remove_zone(zone))
    yield from _compare_vifs(expected, found)


def _compare_vifs(expected: Expected, found: Found) -> Iterator[Finding]:
    alive = {str(domain.domid) for domain in found.domains}
    attached = {vif for vifs in expected.vifs.values() for vif in vifs}
    for name in sorted(found.interfaces):
        if (match := _VIF.fullmatch(name)) is None:
            continue
        if match[1] not in alive:
            yield Finding("vif", name, "the interface of a domain that is gone")
        elif name in attached:
            yield Finding("vif", name, "it is in the host's network, not in its zone's", f"ip link set {name} down")
    for namespace, links in sorted(found.links.items()):
        wanted = expected.vifs.get(namespace, {})
        for vif, zone in sorted(wanted.items()):
            if vif not in links | found.interfaces:
                yield Finding("vif", f"{vif} in {namespace}", gone(zone), remove_zone(zone))
        for name in sorted(links - wanted.keys()):
            if _VIF.fullmatch(name):
                remedy = f"ip -n {namespace} link set {name} down"
                yield Finding("vif", f"{name} in {namespace}", NO_LEDGER, remedy)


def compare_processes(expected: Expected, found: Found) -> Iterator[Finding]:
    """Engines and servers of directories, processes a ledger names, children nobody has waited for, stray image tasks.

    A stray one's zoned is gone.
    """
    for process in sorted(found.engines - expected.engines.keys()):
        what = f"{process.pid} (a network engine)"
        yield Finding("process", what, NO_LEDGER, f"kill -9 {process.pid}")
    for process in sorted(found.shares - expected.processes.keys()):
        what = f"{process.pid} (serves a directory)"
        yield Finding("process", what, NO_LEDGER, f"kill -9 {process.pid}")
    wanted: Mapping[Process, str] = expected.engines | expected.processes
    for process, zone in sorted(wanted.items()):
        if process not in found.processes:
            yield Finding("process", str(process.pid), gone(zone), remove_zone(zone))
    for pid, name in sorted(found.zombies.items()):
        yield Finding("process", f"{pid} ({name})", "it ended and zoned did not wait for it")
    for process in sorted(found.orphans):
        yield Finding("process", f"{process.pid} (an image task)", "its zoned is gone", f"kill -9 {process.pid}")


def compare_ports(expected: Expected, found: Found, own: Iterable[HostPort] | None = None) -> Iterator[Finding]:
    """Ports of the host: those an engine holds without a ledger, those a ledger has that nobody listens on.

    own:  what this process listens on for a reason; all else it listens on is a leak. None: that is not compared.
    """
    for process, held in sorted(found.held.items()):
        for port in sorted(held - expected.listeners.keys()):
            problem = f"engine {process.pid} listens there, {NO_LEDGER}"
            yield Finding("port", str(port), problem, f"kill -9 {process.pid}")
    for port in sorted(found.own - expected.listeners.keys() - set(own)) if own is not None else ():
        problem = "zoned listens there, for no zone"
        yield Finding("port", str(port), problem, "restart zoned, which zones do not notice")
    for port, zone in sorted(expected.listeners.items()):
        if port not in found.listening:
            yield Finding("port", str(port), gone(zone), remove_zone(zone))


def compare_paths(expected: Expected, found: Found, allowed: Iterable[str]) -> Iterator[Finding]:
    """Mounts, cgroups and files below the directories that are ours. allowed: paths the caller vouches for."""
    vouched = tuple(allowed)
    namespaces = {f"/run/netns/{name}" for name in expected.namespaces}
    known_mounts = expected.mounts.keys() | namespaces
    for path in sorted(found.mounts - known_mounts):
        if path not in vouched:
            yield Finding("mount", path, NO_LEDGER, f"umount {path}")
    for path, zone in sorted(expected.mounts.items()):
        if path not in found.mounts:
            yield Finding("mount", path, gone(zone), remove_zone(zone))
    for path in sorted(found.cgroups - expected.cgroups.keys()):
        yield Finding("cgroup", path, NO_LEDGER, f"rmdir {path}")
    for path, zone in sorted(expected.cgroups.items()):
        if path not in found.cgroups:
            yield Finding("cgroup", path, gone(zone), remove_zone(zone))
    explained = (*vouched, *expected.paths, *expected.mounts)
    # A directory on the way to something that is explained is explained by it.
    on_the_way = {str(parent) for path in explained for parent in PurePath(path).parents}
    for path in _topmost(path for path in found.files - on_the_way if not _is_below(path, explained)):
        yield Finding("file", path, NO_LEDGER, f"rm -r {path}")
    for path, zone in sorted(expected.paths.items()):
        if path not in found.files:
            yield Finding("file", path, gone(zone), remove_zone(zone))


def _is_below(path: str, roots: tuple[str, ...]) -> bool:
    """Is the path one of the roots, or below one?"""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _topmost(paths: Iterable[str]) -> Iterator[str]:
    """Paths, without those below another of them."""
    unexplained = set(paths)
    for path in sorted(unexplained):
        if not any(str(parent) in unexplained for parent in PurePath(path).parents):
            yield path
