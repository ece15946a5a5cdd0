"""This dom0's own zoned, started by whichever command of root's comes first."""

from __future__ import annotations

import os

from runtime.host.client.endpoint import Endpoint, is_control_domain
from runtime.host.unixsocket import connect_unix

LOOK_TIMEOUT_S = 5.0


def start_if_due(endpoint: Endpoint) -> None:
    """Start zoned where it is this machine's, nobody listens, and we may; else the call itself says what is wrong.

    Raises:  HostDown where it does not come.
    """
    if not endpoint.is_own or os.geteuid() != 0 or not is_control_domain():
        return
    try:
        connect_unix(endpoint.path, timeout_s=LOOK_TIMEOUT_S).close()
    except (ConnectionRefusedError, FileNotFoundError):
        from pipeline.progress import Progress
        from runtime.host.hosts import XenHost

        XenHost(path=endpoint.path).up(Progress())
    except OSError:
        return
