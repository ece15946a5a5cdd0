"""Methods of the lab's agent: the clock after a restore, and a shell for tests and for looking into it.

Whoever reaches them owns the QEMU this dom0 lives in, so they open nothing that is not open already.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from runtime.host.wire import Call, Server

PORTS = Path("/sys/class/virtio-ports")
PORT_PREFIX = "zonewright."
# QEMU's user-mode network. Source: QEMU, net/slirp.c, net_slirp_init.
LAB_SUBNET = "10.0.2.0/24"
SHELL_OUTPUT_LIMIT_BYTES = 4 << 20
CLOCK_STEP_S = 1.0


def set_clock(params: dict[str, Any], emit: Call) -> dict[str, Any]:
    """Set the wall clock. A restored machine goes on at the moment it was saved.

    params:  unix_s, the caller's time.
    """
    skew = float(params["unix_s"]) - time.time()
    if abs(skew) > CLOCK_STEP_S:
        time.clock_settime(time.CLOCK_REALTIME, float(params["unix_s"]))
    return {"skew_s": skew}


def shell(params: dict[str, Any], emit: Call) -> dict[str, Any]:
    """Run a shell command.

    params:  command, timeout_s (60), input (text).
    Shape:   {code, output}: standard output and error, mixed; code 124 after a timeout.
    """
    timeout_s = float(params.get("timeout_s", 60))
    process = subprocess.Popen(
        ["/bin/sh", "-c", str(params["command"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(str(params.get("input", "")).encode(), timeout=timeout_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        code = 124
    return {"code": code, "output": output[-SHELL_OUTPUT_LIMIT_BYTES:].decode(errors="replace")}


def lab_ports() -> list[Path]:
    """The virtio-serial ports of the lab's channel, empty outside of a lab."""
    named = ((entry, _text(entry / "name")) for entry in sorted(PORTS.glob("*")))
    return [Path("/dev") / entry.name for entry, name in named if name.startswith(PORT_PREFIX)]


def serve_lab_ports(server: Server) -> int:
    """Serve every port of the channel, each in a thread; returns how many there are."""
    ports = lab_ports()
    for path in ports:
        server.serve_port(path)
    return len(ports)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
