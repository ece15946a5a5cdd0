"""Processes on their way to their command, heard by the loop: what holds one up holds up nobody else.

Each has the limits of its container from the first on: in one that is at its cpu.max it takes seconds.
"""

import posix
import select
import time

from runtime.init.abi import SIGKILL
from runtime.init.agent.loop import READ
from runtime.init.container.launched import START_TIMEOUT_S

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

    from runtime.init.agent.core import Agent
    from runtime.init.container.container import Container as Runtime
    from runtime.init.container.launched import Launch, Started

_NEVER_S = float("inf")


class Starting:
    """One of them, among agent.starting until it is over.

    hear:    as Launch.hear, of which this may be a part.
    began:   called with the process once its command runs; when it raises, that is the end of the process.
    failed:  called with the reason why it does not.
    runtime: of the container that it is a further process of.
    """

    def __init__(
        self,
        agent: "Agent",
        launch: "Launch",
        hear: "Callable[[int], Started | None]",
        *,
        began: "Callable[[Started], object]",
        failed: "Callable[[Exception], object]",
        runtime: "Runtime | None" = None,
    ) -> None:
        self._agent, self._launch, self._hear, self._began, self._failed = agent, launch, hear, began, failed
        self.over, self.runtime = False, runtime
        agent.starting.append(self)
        agent.loop.watch(launch.fd, READ, self.look)
        self._timer = agent.loop.after(START_TIMEOUT_S, self.look)

    def look(self, ended: int = 0) -> None:
        """See what it has come to. ended: a child that is about to be reaped."""
        if self.over:
            return
        try:
            process = self._hear(ended)
        except Exception as error:
            self._leave()
            self._failed(error)
            return
        if process is None:
            return
        self._leave()
        pid = process.pid
        try:
            self._began(process)
        except Exception as error:
            posix.kill(pid, SIGKILL)  # nobody knows of it
            self._failed(error)

    def hold(self, *, held: bool) -> None:
        """It stands still with its container, and has its time once that goes on."""
        self._agent.loop.cancel(self._timer)
        self._launch.end_s = _NEVER_S if held else time.monotonic() + START_TIMEOUT_S
        if not held:
            self._timer = self._agent.loop.after(START_TIMEOUT_S, self.look)

    def cancel(self, why: Exception) -> None:
        """Nobody wants it any more: it is killed, and has failed."""
        if not self.over:
            self._launch.kill()
            self._leave()
            self._failed(why)

    def wait(self, seconds: float) -> None:
        """Do nothing else until it is over, but not for longer than this."""
        end_s = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._launch.fd, select.POLLIN)
        while not self.over and (left_s := end_s - time.monotonic()) > 0:
            poll.poll(int(left_s * 1000) + 1)
            self.look()

    def _leave(self) -> None:
        self.over = True
        self._agent.starting.remove(self)
        self._agent.loop.forget(self._launch.fd)
        self._agent.loop.cancel(self._timer)
        self._launch.close()
