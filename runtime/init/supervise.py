"""What pid 1 does while the workload runs: reap, forward signals, stop it when asked, tell how it ended."""

import posix
import select
import time
from _struct import unpack_from

from runtime.init import abi, kernel
from runtime.init.report import Reporter, say

FORWARDED = (abi.SIGTERM, abi.SIGINT, abi.SIGHUP, abi.SIGQUIT, abi.SIGUSR1, abi.SIGUSR2, abi.SIGWINCH)
WATCHED = (abi.SIGCHLD, *FORWARDED)
_REMAINS_S = 2.0  # how long killed processes may take to go


def outcome_text(status: int) -> str:
    """`code N` or `signal N` for a wait status."""
    if posix.WIFSIGNALED(status):
        return f"signal {posix.WTERMSIG(status)}"
    return f"code {posix.WEXITSTATUS(status)}"


def parse_stop(text: str) -> tuple[int, float] | None:
    """The signal and the seconds of a stop request `SIGNUM TIMEOUT_S`; None when it is not one."""
    words = text.split()
    if len(words) != 2 or not words[0].isdigit() or not 1 <= int(words[0]) <= 64:
        return None
    whole, dot, fraction = words[1].partition(".")
    if not whole.isdigit() or (dot and not fraction.isdigit()):
        return None
    return int(words[0]), float(words[1])


class Supervisor:
    """Watches one workload. Its signals must have been blocked before the fork."""

    def __init__(self, report: Reporter, signal_fd: int) -> None:
        self._report, self._signal_fd = report, signal_fd
        self._kill_at: float | None = None

    def run(self, pid: int) -> str:
        """Wait for the end of `pid`, then end what it left behind; returns the outcome."""
        while True:
            self._wait()
            status = self._handle_signals(pid)
            if status is not None:
                _end_remains()
                return outcome_text(status)
            if request := self._report.stop_request():
                self._stop(pid, request)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                say("the workload did not stop in time and is killed")
                _kill(-1, abi.SIGKILL)
                self._kill_at = None

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._signal_fd, select.POLLIN)
        if self._report.bus is not None:
            poll.register(self._report.bus.fd, select.POLLIN)
        poll.poll(None if self._kill_at is None else max(0, int((self._kill_at - time.monotonic()) * 1000) + 1))

    def _handle_signals(self, pid: int) -> int | None:
        for number in self._signals():
            if number in FORWARDED:
                _kill(pid, number)
        return _reap(pid)

    def _signals(self) -> list[int]:
        try:
            data = posix.read(self._signal_fd, abi.SIGNALFD_SIGINFO_BYTES * 16)
        except BlockingIOError:
            return []
        return [unpack_from("=I", data, at)[0] for at in range(0, len(data), abi.SIGNALFD_SIGINFO_BYTES)]

    def _stop(self, pid: int, text: str) -> None:
        request = parse_stop(text)
        if request is None:
            say(f"stop request {text!r:.60} is not SIGNUM TIMEOUT_S and is ignored")
            return
        number, timeout_s = request
        _kill(pid, number)
        self._kill_at = time.monotonic() + timeout_s


def _reap(wanted: int) -> int | None:
    """Collect every dead child; the wait status of `wanted` if it is among them."""
    found = None
    while True:
        try:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == wanted:
            found = status


def _kill(pid: int, number: int) -> None:
    try:
        posix.kill(pid, number)
    except ProcessLookupError:
        return


def _end_remains() -> None:
    """Kill everything else in the zone (kill(-1) spares its caller) and wait for it to be gone."""
    end = time.monotonic() + _REMAINS_S
    _kill(-1, abi.SIGKILL)
    while time.monotonic() < end:
        try:
            if posix.waitpid(-1, posix.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return


def prepare() -> int:
    """Block the watched signals and return the descriptor that reads them."""
    kernel.block_signals(WATCHED)
    return kernel.signal_fd(WATCHED)
