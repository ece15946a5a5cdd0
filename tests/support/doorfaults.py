"""Every edge through which a boot touches the outside, counted; the n-th fails once, or the process is killed there.

The seam is here alone: a wrapper for what is handed in (door, ledger), replaced names for what modules call by
themselves (xenstore's router, netlink, `ip` and `nft`, namespaces, loop ioctls, engines, what makes a scratch disk).
Those of the threads that serve consoles are among them: how many there are is the guest's will. Not counted: what the
kernel undoes by itself at exit.
Standard library and the runtime only: it runs in the lab's dom0 as well.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from runtime.boot.errors import HypervisorFault

Failure = Callable[[str], BaseException]
# Held while a hypercall is under way: a process is killed between two of them, whichever thread comes to the point.
BUSY = threading.RLock()


class Points:
    """Counts edges, the calls of each name by themselves: how often a wait looks is not the same in two runs.

    at:    the point, as NAME#NTH, that fails ("fail") or at which this process ends ("kill"); "": none does.
    seen:  the points passed, in order. fired: was `at` among them?
    """

    def __init__(self, at: str = "", what: str = "fail", before_kill: Callable[[], None] = lambda: None) -> None:
        self.at, self.what, self.before_kill = at, what, before_kill
        self.seen: list[str] = []
        self.fired = False
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, name: str, failure: Failure) -> None:
        with self._lock:
            self._counts[name] += 1
            point = f"{name}#{self._counts[name]}"
            self.seen.append(point)
            if point != self.at:
                return
            self.fired = True
            if self.what == "kill":
                with BUSY:
                    self.before_kill()
                    os.kill(os.getpid(), signal.SIGKILL)
        raise failure(name)


def do_again(steps: Iterable[Callable[[], Any]]) -> None:
    """Do each, and again what fails: one failure was injected, and may be met by a second. Raises the third."""
    failures = 0
    for step in steps:
        while True:
            try:
                step()
                break
            except Exception:
                failures += 1
                if failures > 2:
                    raise


def was_injected(text: str, points: Points) -> bool:
    """Is this traceback one of what was made to fail?

    Of what failed in the process that holds a new namespace, the number alone is told.
    """
    return "injected" in text or ("namespace" in points.at and "unshare: Input/output error" in text)


def hypervisor_failure(name: str) -> BaseException:
    fault = HypervisorFault(name, got="injected EIO")
    fault.errno = errno.EIO
    return fault


def os_failure(name: str) -> BaseException:
    return OSError(errno.EIO, f"injected at {name}")


def xenstore_failure(name: str) -> BaseException:
    from pyxs.exceptions import PyXSError

    return PyXSError(errno.EIO, f"injected at {name}")


class FaultyDoor:
    """A Door each of whose calls is a point, those that are added to the Door later as well."""

    def __init__(self, door: Any, points: Points) -> None:
        self._door, self.points = door, points

    def hypercall(self, name: str, number: int, *arguments: int) -> int:
        self.points(f"hypercall {name.partition(' of domain ')[0]}", hypervisor_failure)  # the next run has another
        with BUSY:
            return int(self._door.hypercall(name, number, *arguments))

    def bind_event_channel(self, domid: Any, port: Any) -> FaultyChannel:
        self.points("door bind_event_channel", hypervisor_failure)
        with BUSY:
            return FaultyChannel(self._door.bind_event_channel(domid, port), self)

    def close(self) -> None:
        self._door.close()

    def __getattr__(self, name: str) -> Any:
        plain = getattr(self._door, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.points(f"door {name}", hypervisor_failure)
            return plain(*arguments, **options)

        return counted if callable(plain) else plain


class FaultyChannel:
    """An event channel whose ioctls are points; that of its end is the kernel's."""

    def __init__(self, channel: Any, door: FaultyDoor) -> None:
        self._channel, self._door = channel, door
        self.fileno, self.close = channel.fileno, channel.close

    def acknowledge(self) -> None:
        self._door.points("evtchn acknowledge", os_failure)
        self._channel.acknowledge()

    def notify(self) -> None:
        self._door.points("evtchn notify", os_failure)
        self._channel.notify()


def faulty_record(record: Callable[..., Any], points: Points) -> Callable[..., None]:
    """A ledger that may not be written."""

    def counted(kind: str, **fields: Any) -> None:
        points(f"ledger {kind}", os_failure)
        record(kind, **fields)

    return counted


@contextmanager
def faulty_edges(points: Points) -> Iterator[None]:
    """Makes a point of every edge that modules call by name, in this process."""
    with ExitStack() as stack:
        for owner, name, label, failure in _edges():
            plain = getattr(owner, name)
            stack.enter_context(mock.patch.object(owner, name, _counted(plain, label, failure, points)))
        _fault_xenstore(stack, points)
        _fault_sysctls(stack, points)
        yield


def _edges() -> Iterator[tuple[Any, str, str, Failure]]:
    from runtime.host import loops, scratchdisk
    from runtime.net import commands, furnish, netlink, netns, published
    from runtime.net.engine import processes, proxy

    loops_fcntl = SimpleNamespace(ioctl=loops.fcntl.ioctl)
    loops.fcntl = loops_fcntl  # type: ignore[assignment]
    scratch_os = _Stand(os)
    scratchdisk.os = scratch_os  # type: ignore[assignment]
    yield loops_fcntl, "ioctl", "loop ioctl", os_failure
    yield scratch_os, "open", "scratch open", os_failure
    yield scratchdisk, "_format", "scratch format", os_failure
    yield scratch_os, "fsync", "scratch fsync", os_failure
    yield scratch_os, "rename", "scratch rename", os_failure
    yield netlink.Rtnetlink, "request", "netlink", os_failure
    yield commands, "feed", "command", os_failure
    yield netns, "call", "namespace", os_failure
    yield furnish, "listen", "listen inside", os_failure
    yield furnish, "bind_udp", "bind inside", os_failure
    yield furnish, "catch_udp", "datagrams inside", os_failure
    yield furnish, "tap", "packet socket", os_failure
    yield furnish, "raw_sender", "raw socket", os_failure
    yield furnish, "echo_socket", "echo socket", os_failure
    yield published, "listen", "listen", os_failure
    yield processes, "hold", "pidfd", os_failure
    yield proxy.ProxyEngine, "prepare", "engine start", os_failure
    yield proxy, "ask", "engine asked", os_failure


class _Stand:
    """A module as one other module sees it."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _counted(plain: Callable[..., Any], label: str, failure: Failure, points: Points) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        points(label, failure)
        return plain(*arguments, **options)

    return counted


def _fault_xenstore(stack: ExitStack, points: Points) -> None:
    from pyxs._internal import Op

    from runtime.boot import xenstore

    words = {value: name.lower() for name, value in Op._asdict().items()}
    plain = xenstore._Router.send_all

    def send_all(self: Any, packets: Any) -> Any:
        for packet in packets:
            points(f"xenstore {words.get(packet.op, packet.op)}", xenstore_failure)
        return plain(self, packets)

    stack.enter_context(mock.patch.object(xenstore._Router, "send_all", send_all))


def _fault_sysctls(stack: ExitStack, points: Points) -> None:
    from runtime.net import furnish

    plain = furnish.sysctl

    def sysctl(settings: Any, subject: str) -> None:
        for setting in settings:
            points(f"sysctl {setting[0]}", os_failure)
            plain([setting], subject)

    stack.enter_context(mock.patch.object(furnish, "sysctl", sysctl))
