"""`python -m runtime.net FILE`: make the network that a file declares (declared.py), keep it until SIGTERM or SIGINT.

Says one line of JSON when it serves: the addresses of its ports, by zone.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.net.declared import kept, parse


def main(arguments: list[str]) -> int:
    """Run; the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m runtime.net FILE\n")
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    ends = {signal.SIGTERM, signal.SIGINT}
    # Waited for below, in the order of things: blocked from before the first thread, which has it from this one.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        with kept(parse(Path(arguments[0]).read_bytes())) as networks:
            ports = {name: [each.key for each in network.published()] for name, network in networks.items()}
            sys.stdout.write(json.dumps(ports) + "\n")
            sys.stdout.flush()
            signal.sigwait(ends)
    except (RuntimeFault, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
