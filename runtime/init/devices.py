"""Wait for a device to appear: woken by the kernel's uevents, sure by looking."""

import _socket
import posix
import select
import time

from runtime.init import abi

_LOOK_AGAIN_MS = 100  # an event may be lost when the socket's buffer is full


def exists(path: str) -> bool:
    """Is there something of this name?"""
    try:
        posix.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def wait_for(path: str, timeout_s: float) -> bool:
    """True as soon as `path` exists, False when it still does not after `timeout_s` seconds."""
    if exists(path):
        return True
    end = time.monotonic() + timeout_s
    events = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, abi.NETLINK_KOBJECT_UEVENT)
    try:
        events.bind((0, 1))
        events.setblocking(False)
        poll = select.poll()
        poll.register(events.fileno(), select.POLLIN)
        while not exists(path):  # looked at after the bind: what came in between is seen
            left_ms = int((end - time.monotonic()) * 1000)
            if left_ms <= 0:
                return False
            if poll.poll(min(left_ms, _LOOK_AGAIN_MS)):
                _drain(events)
        return True
    finally:
        events.close()


def _drain(events: _socket.socket) -> None:
    try:
        while True:
            events.recv(65536)
    except OSError:
        return  # EAGAIN: empty. ENOBUFS: events were lost, and the next look finds the device anyway
