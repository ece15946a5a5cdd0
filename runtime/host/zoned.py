"""zoned: owns the zones of one host and serves its methods on a unix socket and, in the lab, on the channel's ports."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.dom0.methods import LAB_SUBNET, lab_methods, lab_ports, serve_lab_ports
from runtime.host.wire import Call, Method, Server

log = logging.getLogger("zoned")

RUN = Path("/run/zonewright")
SOCKET = RUN / "zoned.sock"


class AlreadyRunning(RuntimeFault):
    """Another zoned owns this host's zones."""


def main() -> int:
    """Serve until SIGTERM; the zones end with zoned until it can adopt them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    RUN.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        lock = _only_one()
    except RuntimeFault as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    methods: dict[str, Method] = dict(lab_methods()) if lab_ports() else {}
    try:
        methods |= _zone_methods()
    except (RuntimeFault, OSError) as error:
        if not lab_ports():
            sys.stderr.write(f"error: {error}\n")
            return 1
        # In the lab somebody has to be able to look into why: the shell works, and every call says what is missing.
        log.error("%s", error)
        methods["ping"] = _broken(str(error))
    server = Server(methods)
    listener = server.listen(SOCKET)
    ports = serve_lab_ports(server)
    log.info("serving %s and %d ports", SOCKET, ports)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    listener.close()
    os.close(lock)
    return 0


def _only_one() -> int:
    lock = os.open(RUN / "zoned.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AlreadyRunning("zoned", got="another one runs on this host") from None
    return lock


def _zone_methods() -> dict[str, Method]:
    # Imported here, so that a host that cannot load them still says why.
    from runtime.boot.doors import open_doors
    from runtime.boot.xenstore import XenStore
    from runtime.host.service import Service

    # In the lab the network card's subnet leads to the loopback of whoever runs the lab: closed, as any loopback is.
    service = Service(RUN, open_doors(), XenStore(), deny=(LAB_SUBNET,) if lab_ports() else ())
    service.start()
    return service.methods()


def _broken(why: str) -> Method:
    def ping(params: dict[str, Any], call: Call) -> dict[str, Any]:
        raise RuntimeFault("zoned", got=why)

    return ping


if __name__ == "__main__":
    # Before any thread: sigwait in the main thread takes what is blocked everywhere.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main())
