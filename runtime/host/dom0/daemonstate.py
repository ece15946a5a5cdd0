"""What zoned and the lab's agent tell each other in /run/zonewright: two small files and a signal.

zoned.json    {pid, state}: waiting (for the agent's configuration), starting, serving
configured    there once the agent has put credentials and state in place; it then sends SIGHUP
stopping      there once the host goes down: zoned is not started again
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from runtime.errors import RuntimeFault

RUN = Path("/run/zonewright")
STATE, CONFIGURED, STOPPING = "zoned.json", "configured", "stopping"
PROCESS = "zoned"  # as the kernel lists it
POLL_S = 0.05


class ZonedAbsent(RuntimeFault):
    """zoned does not run, or does not come so far as it is waited for."""


def say(state: str, *, run: Path = RUN) -> None:
    """As zoned: tell what this process is doing."""
    path = run / STATE
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps({"pid": os.getpid(), "state": state}))
    new.rename(path)


def heard(*, run: Path = RUN) -> tuple[int, str]:
    """The zoned that runs and its state; (0, "down") without one."""
    try:
        told = json.loads((run / STATE).read_text())
        pid, state = int(told["pid"]), str(told["state"])
        # A state outlives a zoned that was killed, and its pid may be another's by now.
        if Path(f"/proc/{pid}/comm").read_text() == f"{PROCESS}\n":
            return pid, state
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return 0, "down"


def wait_for(*states: str, timeout_s: float, run: Path = RUN) -> tuple[int, str]:
    """Wait until zoned is in one of the states. Raises ZonedAbsent."""
    deadline = time.monotonic() + timeout_s
    while (found := heard(run=run))[1] not in states:
        if time.monotonic() > deadline:
            raise ZonedAbsent(
                "zoned",
                expected=f"it {' or '.join(states)} within {timeout_s:.0f} s",
                got=found[1],
                hint=f"see {run / 'zoned.log'} in dom0",
                temporary=True,
            )
        time.sleep(POLL_S)  # a file on tmpfs; an inotify watch would cost more code than these looks cost time
    return found


def tell(number: signal.Signals, *, run: Path = RUN) -> int:
    """Signal the zoned that runs; its pid, or 0 without one."""
    pid, _ = heard(run=run)
    if pid:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return 0
    return pid
