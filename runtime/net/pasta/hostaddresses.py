"""What this host's routing calls its own: the addresses that are closed to a zone unless a rule names them."""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_network

from runtime.net.errors import NetworkFault
from runtime.net.pasta.plan import HostAddresses

_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_TIMEOUT_S = 60
_SUBJECT = "routes of this host"
_ASKED_ALWAYS = ("local", "main", "default")  # ip-rule(8)


def read() -> HostAddresses:
    """Of the calling thread's namespace, all tables. Raises NetworkFault."""
    barred = [*_routes(4, "broadcast"), *_routes(4, "anycast"), *_routes(6, "anycast")]
    return HostAddresses(tuple(sorted({*_routes(4, "local"), *_routes(6, "local")})), tuple(sorted(set(barred))))


def _routes(version: int, kind: str) -> list[str]:
    argv = ["ip", "-j", f"-{version}", "route", "show", "table", "all", "type", kind]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env=_ENV, timeout=_TIMEOUT_S, check=True
        )
        return destinations(version, done.stdout.decode())
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        raise NetworkFault(_SUBJECT, expected=f"{' '.join(argv)} to say them", got=str(error)) from error


def destinations(version: int, said: str) -> list[str]:
    """Of `ip -j route`. Raises ValueError, KeyError, TypeError.

    A default route names no address. In a table that is not asked unless a rule says so it is for whoever the rule is
    about: for TPROXY, packets with a mark (Documentation/networking/tproxy.rst), which pasta's have not.
    """
    everything = "0.0.0.0/0" if version == 4 else "::/0"
    found = []
    for route in json.loads(said or "[]"):
        default = route["dst"] == "default"
        if not default or route.get("table", "main") in _ASKED_ALWAYS:
            found.append(str(ip_network(everything if default else route["dst"])))
    return found
