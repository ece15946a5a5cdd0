"""What the host learns of a boot: phases, timings and the end, in xenstore and (the end always) on the console."""

import posix
import time

from runtime.init import kernel, xenbus

PHASE, TIMINGS, EXIT, STOP = "zone/state/phase", "zone/state/timings", "zone/state/exit", "zone/control/stop"
_SETTLE_S = 10.0
_ASK_S = 1.0  # a boot does not hang on a xenstored that is away: what it is asked comes later then
_FLUSH_STEPS, _FLUSH_STEP_S = 100, 0.01


def say(line: str) -> None:
    """One line on the console, whole in one write; a console that refuses it stops nothing."""
    data = f"zone: {line}\n".encode("utf-8", "backslashreplace")
    try:
        posix.write(2, data)
    except OSError:
        return  # nobody is there to be told


def timings_text(timings: list[tuple[str, float]]) -> str:
    """`init=0.120 modules=0.300 …`: seconds since the kernel started, when each phase was reached."""
    return " ".join(f"{name}={seconds:.3f}" for name, seconds in timings)


class Reporter:
    """Keeps the timings and the connection to xenstore, where there is one.

    doing:  the step that goes on: (reason, what is done), for what fails in it and has no words of its own.
    """

    def __init__(self) -> None:
        self.bus: xenbus.Xenbus | None = None
        self.timings: list[tuple[str, float]] = []
        self.doing = ("internal", "the boot")

    def connect(self) -> None:
        """Open xenstore and ask to hear of stop requests; without Xen the console lines are all there is."""
        self.bus = xenbus.connect()
        if self.bus is None:
            return
        try:
            self.bus.watch(STOP)
        except OSError as error:
            self._gone(error)

    def disconnect(self) -> None:
        """Forget the connection, in a process it does not belong to."""
        if self.bus is not None:
            posix.close(self.bus.fd)
            self.bus = None

    def phase(self, name: str) -> None:
        """A phase has been reached: what it stands for is done."""
        self.timings.append((name, time.monotonic()))
        if self.bus is None:
            say(f"phase {name} after {self.timings[-1][1]:.3f} s")
            return
        self._write(PHASE, name)
        self._write(TIMINGS, timings_text(self.timings))

    def exit(self, outcome: str) -> None:
        """Tell how it ended: "code N", "signal N" or "failed REASON SENTENCE"; waits until xenstore has it."""
        say(sentence(outcome))
        self._write(EXIT, outcome)
        self.phase("exited")
        if self.bus is None:
            return
        try:
            if not self.bus.settle(_SETTLE_S) or self.bus.error:
                say(f"xenstore did not take the report: {self.bus.error or 'no answer'}")
        except (OSError, ValueError) as error:
            self._gone(error)

    def flush(self) -> None:
        """Let the console send what it holds, within bounds: a host that reads nothing must not keep a zone alive."""
        for _ in range(_FLUSH_STEPS):
            if kernel.unsent_bytes(2) == 0:
                return
            time.sleep(_FLUSH_STEP_S)

    def stop_request(self, *, sure: bool = False) -> str | None:
        """The host's stop request, when one has come since the last call. sure: xenstore is asked in any case."""
        if self.bus is None:
            return None
        found = None
        try:
            if sure:
                self.bus.changed()
                found = self.bus.read(STOP, _ASK_S)
            # Again and again: an event that arrives while the value is read would not wake the supervisor any more.
            while self.bus.changed():
                found = self.bus.read(STOP, _SETTLE_S)
            return found
        except (OSError, ValueError) as error:
            self._gone(error)
            return None

    def _write(self, path: str, value: str) -> None:
        if self.bus is None:
            return
        try:
            self.bus.write(path, value)
        except OSError as error:
            self._gone(error)

    def _gone(self, error: Exception) -> None:
        # Reporting must never end a zone: a broken connection is said once and not used any more.
        say(f"xenstore is gone: {error}")
        self.bus = None


def sentence(outcome: str) -> str:
    """The console's line for an outcome."""
    kind, _, rest = outcome.partition(" ")
    if kind == "code":
        return f"the workload exited with code {rest}"
    if kind == "signal":
        return f"the workload was killed by signal {rest}"
    reason, _, text = rest.partition(" ")
    return f"failed ({reason}): {text}"
