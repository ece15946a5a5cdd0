"""Others that bring a namespace's packets out without the host's routing: pasta and slirp4netns, at MTU 1500.

They are attached to the client's own namespace, without the bridge and the vif that a zone has: that is the better for
them.
"""

from __future__ import annotations

import shutil
import subprocess
import time

from netplace import NetPlace, Way
from run import NotMeasured
from support.networld import OUTSIDE4
from support.pastabuild import NoPasta, find_pasta

from pipeline.store import Store
from runtime.net import netns

MTU = 1500
_START_S = 5.0


def pasta(place: NetPlace) -> Way:
    """Outwards only; without --no-map-gw the servers, which are the gateway here, would be the host's loopback.

    Debian 12's is none to compare with: where there is no later one, it is built.
    """
    try:
        program = find_pasta(place.directory("pasta"), Store())
    except NoPasta as error:
        raise NotMeasured(str(error)) from error
    none = ("-t", "none", "-u", "none", "-T", "none", "-U", "none")
    words = ("--foreground", "--runas", "0", "--netns-only", "--config-net", "--no-map-gw", "--mtu", str(MTU), *none)
    return _started(place, "pasta", program, *words, "--netns", "{}")


def slirp4netns(place: NetPlace) -> Way:
    """As podman starts it."""
    program = shutil.which("slirp4netns")
    if program is None:
        raise NotMeasured("slirp4netns is not installed")
    words = ("--configure", f"--mtu={MTU}", "--disable-host-loopback", "--netns-type=path")
    return _started(place, "slirp4netns", program, *words, "{}", "tap0")


def _started(place: NetPlace, name: str, program: str, *words: str) -> Way:
    """A way through a program that serves a new namespace, whose path stands where {} is. Raises NotMeasured."""
    inner = place.namespace(name)
    argv = [word.format(netns.path_of(inner)) for word in words]
    process = place.start(place.host, program, *argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + _START_S
    while "default" not in place.world.shell(inner, "ip route"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotMeasured(f"{name} does not start")
        time.sleep(0.05)
    return Way(name, inner, OUTSIDE4, place.outside)
