"""From an address to zoned: `connect(ADDRESS)` is a HostClient, whichever way the address leads.

endpoint: addresses, read. dial: unix socket, ssh, TLS -> a connected stream. channel: gRPC on it. client: calls and
streams for commands, which are not asynchronous themselves. failures: what went wrong, as one sentence. dialstdio: the
far end of ssh. ondemand: this dom0's own zoned, started where it does not run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.host.client.client import HostClient
    from runtime.host.client.endpoint import Endpoint


def connect(address: str | Endpoint = "", *, start: bool = True) -> HostClient:
    """A client of the zoned at an address; nothing is dialled before the first call.

    address: "" (what $ZONE_HOST, else this machine, says), xen, lab[:NAME], unix:PATH, ssh://[USER@]HOST[:PORT],
             tls://HOST[:PORT]; or an Endpoint.
    start:   a zoned of this dom0 that does not run is started, if we are root.
    Raises:  BadHostAddress; LabDown where the lab is meant and not up; HostDown where zoned does not come.
    """
    # Imported late: gRPC costs a command that ends before it calls anything 60 ms.
    from runtime.host.client.client import HostClient
    from runtime.host.client.endpoint import Endpoint, endpoint_of

    endpoint = address if isinstance(address, Endpoint) else endpoint_of(address)
    if start and endpoint.is_own:
        from runtime.host.client.ondemand import start_if_due

        start_if_due(endpoint)
    return HostClient(endpoint)
