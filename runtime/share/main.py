"""The process that serves one directory of this host to one zone: told by one line, then without all it does not need.

It holds the guest's pages and event channels, so that it serves on while there is no zoned. It ends when the guest
breaks its rings, and is killed when the guest's driver lets go, or the guest is gone: whoever comes again has a new
one. It holds no state outside itself, so SIGKILL is a proper end.
It stays root, for the files may be anybody's, with four of root's capabilities, no_new_privs and a list of system calls
(calls.py); its root is empty, and the directory it serves is a descriptor.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from runtime import capabilities
from runtime.boot.grants import GrantDevice
from runtime.boot.model import Domid
from runtime.boot.ninepfs import MOST_ORDER, Offer
from runtime.boot.privcmd import BoundChannel
from runtime.net.engine import confine
from runtime.share.fids import Limits
from runtime.share.model import MOST_BYTES, READY, load
from runtime.share.rings import BrokenRing, Ring, read_grants
from runtime.share.server import Server
from runtime.share.transport import Line, Transport

CAPABILITIES = (0, 1, 3, 4)  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID: see linux/capability.h
_DESCRIPTORS = 8192
_MEMORY_BYTES = 256 << 20


def main() -> None:
    """Serve a share. Effects: changes the root, the privileges and the limits of this process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    text = sys.stdin.readline()
    if not text:
        return  # whoever started this died before it said what to do
    config = load(text)
    with ExitStack() as resources:
        try:
            lines = [_line(Domid(config.domid), ring, resources) for ring in config.rings]
            server = Server(config.directory, readonly=config.readonly, limits=limits_of(lines))
            _confine(bytes.fromhex(config.seccomp))
            os.write(config.ready, READY)
            os.close(config.ready)
            Transport(lines, server.handle).run()
        except BrokenRing as problem:
            sys.exit(f"domain {config.domid} broke its ring: {problem}")


def limits_of(lines: Sequence[Line]) -> Limits:
    """A reply goes back by the ring its request came by: any of them has room for it, or it would wait for ever."""
    return Limits(message_bytes=min(line.ring.most_bytes for line in lines))


def _line(domid: Domid, offered: Offer, resources: ExitStack) -> Line:
    grants = GrantDevice()
    resources.callback(grants.close)
    page = resources.enter_context(grants.map(domid, [offered.reference]))
    _, references = read_grants(page, most_order=MOST_ORDER)
    data = resources.enter_context(grants.map(domid, references))
    ring = Ring(page, data, most_bytes=MOST_BYTES)
    resources.callback(ring.release)
    bell = BoundChannel(domid, offered.port)
    resources.callback(bell.close)
    return Line(ring, bell)


def _confine(program: bytes) -> None:
    confine.bound_descriptors(_DESCRIPTORS)
    confine.bound_memory(_MEMORY_BYTES)
    os.umask(0)
    confine.empty_root()
    confine.forbid_new_privileges()
    capabilities.hold(CAPABILITIES)
    confine.limit_calls(program)
