"""One program, several names: argv[0] decides what it is."""

import gc
import sys

from runtime.init.report import say


def main() -> int:
    """The exit code of the program called by this name. Imported late, so that each name loads only what it needs."""
    name = sys.argv[0].rpartition("/")[2] if sys.argv else ""
    if name == "init":  # without looking for garbage, as main.c begins: until the workload runs there is none
        from runtime.init import boot

        return boot.main()
    gc.enable()
    if name == "styrolite":
        from runtime.init.container import styrolite

        return styrolite.main(sys.argv[1:])
    if name == "zone":
        say("the zone's agent is a part of init: expected nothing to start it by hand")
        return 1
    say(f"called as {name!r}: expected init, zone or styrolite")
    return 1
