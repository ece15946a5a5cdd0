"""The lab's keys: an authority that lives for one start of it, a server certificate for dom0, a client's for this user.

The client's files lie in the lab's directory, which only its user may enter; the authority's key is kept nowhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.store import write_atomic
from runtime.host import certificates
from runtime.host.client.endpoint import TLS_PORT, Credentials
from runtime.host.lab.qemu import DOM0_ADDRESS
from runtime.host.lab.reach import ADDRESS

DAYS = 365  # a lab that is up for longer gets new ones at its next start


def make(directory: Path) -> dict[str, Any]:
    """Write the client's files; returns what the agent's `configure` takes as `tls`."""
    authority = certificates.new_authority("the lab", days=DAYS)
    server = certificates.new_server(authority, [ADDRESS, DOM0_ADDRESS], days=DAYS)
    client = certificates.new_client(authority, "zone", days=DAYS)
    mine = Credentials(directory)
    for path, data in (
        (mine.ca, authority.certificate),
        (mine.certificate, client.certificate),
        (mine.key, client.key),
    ):
        write_atomic(path, data, mode=0o600)
    return {
        "ca": authority.certificate.decode(),
        "certificate": server.certificate.decode(),
        "key": server.key.decode(),
        "listen": f"{DOM0_ADDRESS}:{TLS_PORT}",
    }
