"""The agent itself: its children, its containers, its word with pid 1, and how the zone ends."""

import _socket
import posix
import time

from runtime.init import abi, kernel
from runtime.init.agent.container import Container
from runtime.init.agent.errors import Refused
from runtime.init.agent.loop import READ, Loop
from runtime.init.failure import Failure
from runtime.init.report import say
from runtime.init.supervise import parse_stop, read_signals

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

    from runtime.init.agent.link import Link
    from runtime.init.agent.starting import Starting
    from runtime.init.agent.stream import Stream
    from runtime.init.container.container import Container as Runtime

MAIN = "main"
# What the workload has the processor for before this program goes on with loading what it needs for the host: with one
# processor, it would else wait for that.
_HEAD_START_S = 0.001
_HOST_S = 5.0  # a zone that has ended waits so long for a host that has not come, or not asked for what is left
# And so long for one that has, and makes no progress in taking it: it may have much to do, or have been killed, and the
# next one takes it.
_STORED_S = 30.0
_AT_ONCE_S = 1.0  # so long for the workload's start, before the host is listened to meanwhile
_DRAIN_S = 2.0  # without any host, so long for what the workload wrote to be read
_TAIL_BYTES = 65536


class Unlinked:
    """In the place of the link, until there is one: nobody hears anything."""

    attended, session, unsent_bytes = False, "", 0

    def note(self, event: str, fields: dict[str, object]) -> None:
        """What has happened by then is in the greeting."""

    def expect(self) -> None:
        """Nobody is waited for."""

    def pump(self) -> None:
        """Nothing is to be sent."""


class Agent:
    """Everything in one place; the methods the host can call are in methods.py.

    children:  pid -> what to call with its wait status.
    starting:  processes on their way to their command.
    """

    def __init__(
        self, data: dict[str, object], timings: list[tuple[str, float]], init: _socket.socket, signal_fd: int
    ) -> None:
        self.data, self.timings = data, timings
        self.loop = Loop()
        self.children: dict[int, Callable[[int], object]] = {}
        self.starting: list[Starting] = []
        self.containers: dict[str, Container] = {}
        self.session_began: list[Callable[[], object]] = []
        self.link: Link | Unlinked = Unlinked()
        self._init, self._signal_fd = init, signal_fd
        self.used: dict[str, object] = {}  # by the child that is just told to have ended
        self._had_session = False
        self._outcome = ""
        self._over_at = self._progress_at = 0.0
        self._left: tuple[int, int] = (0, 0)
        self.loop.watch(signal_fd, READ, self._reap, vital=True)
        self.loop.watch(init.fileno(), READ, self._init_says, vital=True)
        self.loop.each_time(self._each_time)

    def connect(self, path: str, fd: int | None) -> None:
        """Begin to listen to the host. Imported here: the workload has been started without it."""
        from runtime.init.agent.link import Link

        link = self.link = Link(
            self.loop,
            opened=self._opened,
            hello=self._hello,
            began=self._session_began,
            ended=lambda: None,
            waited=self._host_is_waited_for,
            silent=self._host_is_gone,
        )
        link.start(path, fd)

    def phase(self, name: str) -> None:
        """Tell pid 1 (and through it xenstore) and the host that a phase has been reached."""
        self.timings.append((name, time.monotonic()))
        self._tell_init(f"phase {name}")
        self.link.note("phase", {"name": name, "at": round(self.timings[-1][1], 3)})

    def warn(self, sentence: str) -> None:
        """Something is not as it should be, and the zone goes on: said on the console and to the host."""
        say(f"agent: {sentence}")
        self.link.note("warning", {"sentence": sentence[:400]})

    def attempt(self, what: str, action: "Callable[..., object]", *arguments: object) -> None:
        """Do it; when it fails that is said, and keeps nothing else from being done."""
        try:
            action(*arguments)
        except (Failure, Refused) as failure:
            self.warn(f"{what}: {failure.sentence}")
        except Exception as error:
            self.warn(f"{what}: {type(error).__name__}: {error}")

    def container(self, name: object) -> Container:
        """Raises Refused."""
        found = self.containers.get(name) if isinstance(name, str) else None
        if found is None:
            raise Refused("container", f"container {name!r:.80}: expected one of {sorted(self.containers)}")
        return found

    def runtime_of(self, name: str) -> "Runtime | None":
        """The container runtime's side of a container that runs, for others that share its namespaces."""
        found = self.containers.get(name)
        return found.runtime_if_running() if found is not None else None

    def start_main(self, container: Container) -> None:
        """Run the zone's workload; the zone ends with it, or when it cannot start."""
        self.containers[container.name] = container
        container.ended.append(lambda: self.end(self._outcome_of(container)))
        try:
            container.start(self._main_runs, self._main_failed).wait(_AT_ONCE_S)
        except Failure as failure:
            self._main_failed(failure)

    def stop(self, number: int, timeout_s: float) -> None:
        """End the zone: its workload gets the signal, other containers theirs; whatever is left dies at the end."""
        main = self.containers.get(MAIN)
        for container in list(self.containers.values()):
            if container.active:
                asked = number if container is main else None
                self.attempt(f"stopping container {container.name}", container.stop, asked, timeout_s)
        if main is None or not main.active:
            self._end_when_all_have("code 0")

    def end(self, outcome: str) -> None:
        """The zone is over; it stays until the host has what it should know, within bounds."""
        if self._outcome:
            return
        self._outcome = outcome
        self._over_at = self._progress_at = time.monotonic()
        for container in self.containers.values():
            self.attempt(f"killing container {container.name}", container.kill)
        self._look_again()

    def _end_when_all_have(self, outcome: str) -> None:
        active = [container for container in self.containers.values() if container.active]
        if not active:
            self.end(outcome)
        else:
            active[0].ended.append(lambda: self._end_when_all_have(outcome))

    def _main_runs(self) -> None:
        time.sleep(_HEAD_START_S)
        self.phase("workload")

    def _main_failed(self, error: Exception) -> None:
        reason, sentence = "internal", f"{type(error).__name__}: {error}"
        if isinstance(error, Failure):
            reason, sentence = error.reason, error.sentence
        self.end(f"failed {reason} {sentence}")
        self.link.note("failed", {"reason": reason, "sentence": sentence})

    # Handlers of the loop.

    def _each_time(self) -> None:
        self.link.pump()
        if self._outcome and self._may_go():
            self._go()

    def _reap(self) -> None:
        read_signals(self._signal_fd)
        while True:
            try:
                ended = self._next_dead() if self.starting else -1
                found = kernel.wait(ended) if ended else None
            except ChildProcessError:
                return
            if found is None:
                return
            pid, status, self.used = found
            told = self.children.pop(pid, None)
            if told is not None:
                self.attempt(f"the end of process {pid}", told, status)

    def _next_dead(self) -> int:
        """The child to be reaped next, or 0. What one said that ends as it starts is heard before: then it is known."""
        pid = kernel.next_dead()
        for starting in list(self.starting) if pid else ():
            starting.look(pid)
        return pid

    def _init_says(self) -> None:
        text = self._init.recv(4096).decode("ascii", "replace")
        word, _, rest = text.partition(" ")
        if word == "signal":
            main = self.containers.get(MAIN)
            if main is not None and main.active:
                main.signal(int(rest))
        elif word == "stop":
            request = parse_stop(rest)
            if request is not None:
                self.stop(*request)
        elif not text:
            posix._exit(1)  # pid 1 is gone, and with it the zone

    def _tell_init(self, text: str) -> None:
        try:
            self._init.send(text.encode("utf-8", "replace")[:4000])
        except OSError as error:
            say(f"agent: pid 1 does not hear {text!r:.60}: {error}")

    # The link's questions.

    def _opened(self, stream: "Stream", params: dict[str, object]) -> None:
        from runtime.init.agent import methods

        methods.call(self, stream, params)

    def _hello(self) -> list[dict[str, object]]:
        boot = {name: round(at, 3) for name, at in self.timings}
        known = [container.describe() for container in self.containers.values()]
        brief = [{"id": one["id"], "state": one["state"]} for one in known]
        said: dict[str, object] = {"boot": boot, "now": round(time.monotonic(), 3)}
        if self._outcome:
            said["outcome"] = self._outcome[:256]
        return [said | {"containers": known}, said | {"containers": brief, "more": True}, {"more": True}]

    def _session_began(self) -> None:
        self._had_session = True
        self._progress_at = time.monotonic()
        for action in self.session_began:
            action()

    def _host_is_waited_for(self) -> bool:
        outputs = [output for container in self.containers.values() for output in container.outputs.values()]
        return any(output.ring.room == 0 for output in outputs)

    def _host_is_gone(self) -> None:
        say("agent: the host does not take the output; the oldest of it is dropped until it comes back")
        for container in self.containers.values():
            for output in container.outputs.values():
                output.pump()

    # The end.

    def _outcome_of(self, container: Container) -> str:
        found = container.exit or {}
        return f"code {found['code']}" if "code" in found else f"signal {found.get('signal', abi.SIGKILL)}"

    def _look_again(self) -> None:
        # Wakes the loop, which then asks _may_go.
        self.loop.after(0.1, self._look_again)

    def _may_go(self) -> bool:
        now = time.monotonic()
        drained = all(container.drained for container in self.containers.values())
        if not self.link.attended:
            return drained or now - self._over_at > _DRAIN_S
        if not self.link.session:
            return now - self._over_at > _HOST_S
        outputs = [output for container in self.containers.values() for output in container.outputs.values()]
        left = (sum([output.ring.end - output.ring.start for output in outputs]), self.link.unsent_bytes)
        if drained and left == (0, 0):
            return True
        if left != self._left:
            self._left, self._progress_at = left, now
        asked = any(output.readers for output in outputs)
        return now - self._progress_at > (_STORED_S if asked else _HOST_S)

    def _go(self) -> None:
        if not self._had_session and self.link.attended:
            self._print_what_nobody_read()
        self._tell_init(f"exit {self._outcome}")
        self.loop.stopped = True

    def _print_what_nobody_read(self) -> None:
        for container in self.containers.values():
            for fd, output in container.outputs.items():
                ring = output.ring
                data = ring.read(max(ring.start, ring.end - _TAIL_BYTES), _TAIL_BYTES)
                write_all(fd, data)


def write_all(fd: int, data: bytes) -> None:
    """Write to the console, whatever it says."""
    try:
        while data:
            data = data[posix.write(fd, data) :]
    except OSError:
        return
