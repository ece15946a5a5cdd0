"""One program, several names: argv[0] decides what it is."""

import gc
import sys

from runtime.init import imports
from runtime.init.report import say


def main() -> int:
    """The exit code of the program called by this name. Imported late, so that each name loads only what it needs."""
    name = sys.argv[0].rpartition("/")[2] if sys.argv else ""
    if name == "init":
        # Nothing that is made until the workload runs is garbage: looking for it costs a tenth of the start.
        gc.disable()
        imports.install()
        from runtime.init import boot

        return boot.main()
    if name == "styrolite":
        from runtime.init.container import styrolite

        return styrolite.main(sys.argv[1:])
    if name == "zone":
        say("the zone's agent is a part of init: expected nothing to start it by hand")
        return 1
    say(f"called as {name!r}: expected init, zone or styrolite")
    return 1
