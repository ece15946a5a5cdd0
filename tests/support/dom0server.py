"""Two more addresses of the lab's dom0, and somebody there who takes connections: what egress rules can name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from runtime.host.lab.lab import Lab
from support.labzones import wait_for
from support.zonecommand import ZoneCommand

NAMED, OTHER, PORT = "198.51.100.7", "198.51.100.8", 8099
_SERVER = f"""
import socket
listener = socket.create_server(("", {PORT}))
while True:
    listener.accept()[0].close()
"""
_LISTENS = f"00000000:{PORT:04X} 00000000:0000 0A"  # 0A: LISTEN. Source: include/net/tcp_states.h


@contextlib.contextmanager
def serving(lab: Lab) -> Iterator[None]:
    """As long as it is needed."""
    addresses = " ".join(f"ip address add {address}/32 dev lo;" for address in (NAMED, OTHER))
    start = f"setsid python3 -c '{_SERVER}' </dev/null >/dev/null 2>&1 & echo $! >/run/tests-server"
    assert lab.shell(f"{addresses} {start}")[0] == 0
    try:
        wait_for(lambda: lab.shell(f"grep -q '{_LISTENS}' /proc/net/tcp")[0] == 0, "server in dom0")
        yield
    finally:
        lab.shell(f"kill $(cat /run/tests-server); rm /run/tests-server; ip address del {NAMED}/32 dev lo")
        lab.shell(f"ip address del {OTHER}/32 dev lo")


def reaches(zone: ZoneCommand, name: str, address: str) -> bool:
    """Is a connection of a zone's taken there? One that is closed is refused, and does not hang."""
    connect = f"timeout 20 bash -c '</dev/tcp/{address}/{PORT}'; echo $?"
    code = int(zone("exec", name, "sh", "-c", connect))
    assert code in (0, 1), (code, zone.err)
    return code == 0
