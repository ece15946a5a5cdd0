"""What the lab's dom0 gets only once it runs, as it must not be in the snapshot: keys, and the state disk."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
from pathlib import Path
from typing import Any

from runtime.host.dom0 import daemonstate, statedisk
from runtime.host.ledger import BOOT
from runtime.host.wire import Call

RUN_TLS = daemonstate.RUN / "tls"
# Of the parameter `tls`: key -> file. Source: runtime/host/serve/tls.py.
FILES = {"ca": "ca.pem", "certificate": "server.pem", "key": "server.key", "listen": "listen"}
RANDOM = Path("/dev/urandom")
# Source: include/uapi/linux/random.h: _IOW('R', 0x03, int[2]), _IO('R', 0x07).
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
SERVING_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0


def configure(params: dict[str, Any], call: Call) -> dict[str, Any]:
    """Put the state disk and the keys in place, then have zoned take them; zones are not touched.

    params:  tls {ca, certificate, key: PEM, listen: ADDRESS:PORT}, state_disk: a serial number, or "" for none,
             boot: a name for this start, seed: 64 hex digits of entropy. A restored machine would else be the same
             one again: its boot id, and every random number it draws.
    Shape:   {disk: what was done with it, pid: zoned's}, when zoned serves.
    """
    credit_entropy(bytes.fromhex(params["seed"]))
    (daemonstate.RUN / BOOT).write_text(f"{params['boot']}\n", "ascii")
    disk = statedisk.mount(params["state_disk"]) if params.get("state_disk") else "none"
    write_credentials(params["tls"])
    (daemonstate.RUN / daemonstate.CONFIGURED).touch()
    daemonstate.tell(signal.SIGHUP)
    pid, _ = daemonstate.wait_for("serving", timeout_s=SERVING_TIMEOUT_S)
    return {"disk": disk, "pid": pid}


def write_credentials(tls: dict[str, str], directory: Path = RUN_TLS) -> None:
    """Put credentials in place as one: zoned finds the old ones, none, or the new ones."""
    new = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    for key, name in FILES.items():
        fd = os.open(new / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(tls[key])
    shutil.rmtree(directory, ignore_errors=True)
    new.rename(directory)


def ready(params: dict[str, Any], call: Call) -> dict[str, Any]:
    """Wait until dom0 is up and zoned with it.

    params:  timeout_s.
    Shape:   {pid, state}.
    """
    pid, state = daemonstate.wait_for("waiting", "serving", timeout_s=float(params["timeout_s"]))
    return {"pid": pid, "state": state}


def stop(params: dict[str, Any], call: Call) -> dict[str, Any]:
    """Before the lab's end: zoned ends and stays down, the state disk is whole.

    Shape:   {unmounted: was there one}.
    """
    (daemonstate.RUN / daemonstate.STOPPING).touch()
    if daemonstate.tell(signal.SIGTERM):
        daemonstate.wait_for("down", timeout_s=STOP_TIMEOUT_S)
    return {"unmounted": statedisk.unmount()}


def credit_entropy(seed: bytes, device: Path = RANDOM) -> None:
    """Mix a seed into the kernel's pool and have its generator begin anew from there.

    Source:  random(4); include/uapi/linux/random.h, struct rand_pool_info.
    """
    fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)
        fcntl.ioctl(fd, RNDRESEEDCRNG)
    finally:
        os.close(fd)
