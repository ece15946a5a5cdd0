"""Run `ip`, `tc` and `nft` with a text on standard input."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from runtime.net.errors import NetworkFault

_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_TIMEOUT_S = 60


def feed(argv: Sequence[str], text: str, *, subject: str) -> None:
    """Run a program in this thread's network namespace, `text` on its standard input.

    Raises:  NetworkFault with the end of what it said on stderr.
    """
    try:
        done = subprocess.run(argv, input=text.encode(), capture_output=True, env=_ENV, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError:
        package = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables"}.get(argv[0], argv[0])
        raise NetworkFault(subject, expected=f"program {argv[0]}", got="none", hint=f"package {package}") from None
    except subprocess.TimeoutExpired:
        raise NetworkFault(subject, expected=f"{argv[0]} to end within {_TIMEOUT_S} s", got="it still runs") from None
    if done.returncode != 0:
        said = " | ".join(done.stderr.decode(errors="replace").split("\n")[:4]).strip(" |")
        raise NetworkFault(subject, expected=f"{' '.join(argv)} to succeed", got=said[:600])
