"""What pid 1 does while the agent runs: reap, pass on signals and stop requests, end the zone when it is over.

With the agent it speaks over a socket, one word and its arguments a packet:

    to the agent    signal N           pid 1 was sent signal N
                    stop N SECONDS     the host asks through xenstore to stop the workload: signal N, later SIGKILL
    from it         phase NAME         NAME has been reached
                    exit OUTCOME       the zone is over: `code N`, `signal N` or `failed REASON SENTENCE`
                    lost SENTENCE      the agent cannot go on, and ends
"""

import _socket
import posix
import select
import time
from _struct import unpack_from

from runtime.init import abi, kernel
from runtime.init.report import Reporter, say

FORWARDED = (abi.SIGTERM, abi.SIGINT, abi.SIGHUP, abi.SIGQUIT, abi.SIGUSR1, abi.SIGUSR2, abi.SIGWINCH)
WATCHED = (abi.SIGCHLD, *FORWARDED)
_REMAINS_S = 2.0  # how long killed processes may take to go
_AGENT_S = 5.0  # how much longer than a stop request allows the agent may take
_LONGEST_S = 86400.0  # poll(2) has an int of milliseconds, which is 24 days; a stop may be given longer
_PACKET_BYTES = 4096


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
    """Watches the agent. Its signals must have been blocked before the fork.

    agent_lost:  it ended without a word on how the zone did, and the host has heard none from it either.
    """

    def __init__(self, report: Reporter, signal_fd: int, agent: _socket.socket) -> None:
        self._report, self._signal_fd, self._agent = report, signal_fd, agent
        self.agent_lost, self._last_words = False, ""
        self._kill_at: float | None = None

    def run(self, pid: int) -> str:
        """Wait until the agent says how the zone ended, or dies; end what is left; return the outcome."""
        outcome = ""
        while not outcome:
            self._wait()
            self._forward_signals()
            status = kernel.reap(pid)
            outcome = self._messages()
            if status is not None and not outcome:
                self.agent_lost = True
                outcome = f"failed agent the zone's agent ended with {outcome_text(status)}{self._last_words}"
            if request := self._report.stop_request():
                self._stop(request)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                say("the agent did not stop the zone in time and everything is killed")
                outcome = outcome or f"signal {abi.SIGKILL}"
        _end_remains()
        return outcome

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._signal_fd, select.POLLIN)
        poll.register(self._agent.fileno(), select.POLLIN)
        if self._report.bus is not None:
            poll.register(self._report.bus.fd, select.POLLIN)
        left_s = None if self._kill_at is None else min(self._kill_at - time.monotonic(), _LONGEST_S)
        poll.poll(None if left_s is None else max(0, int(left_s * 1000) + 1))

    def _messages(self) -> str:
        """What the agent said; the outcome when it is over, else ""."""
        while True:
            try:
                text = self._agent.recv(_PACKET_BYTES).decode("utf-8", "replace")
            except OSError:
                return ""  # EAGAIN, or the agent is gone, which its status tells
            word, _, rest = text.partition(" ")
            if word == "exit":
                return rest
            if word == "phase":
                self._report.phase(rest)
            if word == "lost":
                self._last_words = f": {rest}"
            if not text:
                return ""

    def _forward_signals(self) -> None:
        for number in read_signals(self._signal_fd):
            if number in FORWARDED:
                self._tell(f"signal {number}")

    def _stop(self, text: str) -> None:
        request = parse_stop(text)
        if request is None:
            say(f"stop request {text!r:.60} is not SIGNUM TIMEOUT_S and is ignored")
            return
        number, timeout_s = request
        self._tell(f"stop {number} {timeout_s}")
        self._kill_at = time.monotonic() + timeout_s + _AGENT_S

    def _tell(self, text: str) -> None:
        try:
            self._agent.send(text.encode())
        except OSError as error:
            say(f"the agent does not hear {text!r}: {error}")


def read_signals(signal_fd: int) -> list[int]:
    """The numbers of the signals that wait in a signalfd."""
    try:
        data = posix.read(signal_fd, abi.SIGNALFD_SIGINFO_BYTES * 16)
    except BlockingIOError:
        return []
    return [unpack_from("=I", data, at)[0] for at in range(0, len(data), abi.SIGNALFD_SIGINFO_BYTES)]


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


def prepare() -> tuple[int, _socket.socket, _socket.socket]:
    """Block the watched signals; the descriptor that reads them, and the two ends of the socket to the agent."""
    kernel.block_signals(WATCHED)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    ours.setblocking(False)
    theirs.setblocking(False)
    return kernel.signal_fd(WATCHED), ours, theirs
