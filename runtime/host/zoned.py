"""zoned, as small as can be: answers pings and serves the lab's own methods."""

from __future__ import annotations

import threading
from pathlib import Path

from runtime.host.dom0.methods import lab_methods, serve_lab_ports
from runtime.host.wire import Server

SOCKET = Path("/run/zonewright/zoned.sock")


def main() -> None:
    """Serve for ever."""
    server = Server({"ping": lambda params, emit: {"pong": True}, **lab_methods()})
    SOCKET.parent.mkdir(parents=True, exist_ok=True)
    listener = server.listen(SOCKET)
    serve_lab_ports(server)
    threading.Event().wait()
    listener.close()


if __name__ == "__main__":
    main()
