"""Has xenstored lost what it was told since this host came up? A mark in it, and one in /run, which goes with the host.

The kernel of dom0 asks xenstored to be told of new devices when it comes up, and never again: with a xenstored that was
started anew no zone gets its disks and its interface, until the host itself is restarted. A live update keeps both.
Seen with the xenstored of Xen 4.17 and Linux 6.1; drivers/xen/xenbus/xenbus_xs.c, xs_resume.
"""

from __future__ import annotations

from pathlib import Path

from runtime.boot.xenstore import XenStore
from runtime.errors import RuntimeFault

NODE = "/tool/zonewright/seen"
FILE = "xenstore-seen"
FORGOTTEN = str(
    RuntimeFault(
        "xenstored",
        expected="the one that this host came up with",
        got="one that was started since, of which dom0's kernel hears of no new devices",
        hint="restart the host; zones that run go on until then",
    )
)


def has_forgotten(xenstore: XenStore, run: Path) -> bool:
    """Is the mark gone? Makes both where there are none yet. Raises XenstoreFault, OSError."""
    mark = run / FILE
    if xenstore.read(NODE) is None:
        if mark.exists():
            return True
        xenstore.write(NODE, "")
    mark.touch()
    return False
