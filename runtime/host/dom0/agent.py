"""The agent of the lab's dom0: a process of its own that serves the virtio-serial ports.

It is what the lab reaches dom0 by before zoned serves, and still reaches it by when zoned has been killed. Its protocol
is `runtime.host.wire`. busybox init starts it, and again should it end.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

from runtime.host.dom0 import configure, methods
from runtime.host.dom0.daemonstate import heard
from runtime.host.wire import Call, Method, Server

log = logging.getLogger("runtime.host.dom0.agent")


def ping(params: dict[str, Any], call: Call) -> dict[str, Any]:
    """Alive? And how far is zoned?"""
    pid, state = heard()
    return {"pong": True, "pid": os.getpid(), "zoned": {"pid": pid, "state": state}}


METHODS: dict[str, Method] = {
    "ping": ping,
    "ready": configure.ready,
    "configure": configure.configure,
    "stop": configure.stop,
    "set_clock": methods.set_clock,
    "sh": methods.shell,
}


def main() -> int:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    # Before any thread: sigwait in the main thread takes what is blocked everywhere.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    ports = methods.serve_lab_ports(Server(METHODS))
    log.info("serving %d ports", ports)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


if __name__ == "__main__":
    sys.exit(main())
