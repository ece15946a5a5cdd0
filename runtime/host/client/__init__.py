"""From an address to zoned: `connect(ADDRESS)` is a HostClient, whichever way the address leads.

endpoint: addresses, read. dial: unix socket, ssh, TLS -> a connected stream. channel: gRPC on it. client: calls and
streams for commands, which are not asynchronous themselves. failures: what went wrong, as one sentence. dialstdio: the
far end of ssh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.host.client.client import HostClient
    from runtime.host.client.endpoint import Endpoint


def connect(address: str | Endpoint = "") -> HostClient:
    """A client of the zoned at an address; nothing is dialled before the first call.

    address: "" (what $ZONE_HOST, else this machine, says), xen, lab[:NAME], unix:PATH, ssh://[USER@]HOST[:PORT],
             tls://HOST[:PORT]; or an Endpoint.
    Raises:  BadHostAddress; LabDown where the lab is meant and not up.
    """
    # Imported late: gRPC costs a command that ends before it calls anything 60 ms.
    from runtime.host.client.client import HostClient
    from runtime.host.client.endpoint import Endpoint, endpoint_of

    return HostClient(address if isinstance(address, Endpoint) else endpoint_of(address))
