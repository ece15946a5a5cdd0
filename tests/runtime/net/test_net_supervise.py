"""The supervisor of engines, with processes that are none: whom it replaces, and whom it leaves alone."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime.net import supervise
from runtime.net.engine import processes
from runtime.net.errors import EngineFault, SilentEngine
from runtime.net.supervise import EngineSupervisor


class Process:
    """An engine as a supervisor sees it.

    asked: what it says to who asks whether it serves, one after the other, and the last of it from then on; None: yes.
    """

    def __init__(self, *asked: EngineFault | None) -> None:
        self._asked, self.at_its_last = list(asked) or [None], threading.Event()
        self._child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        self.pid, self.start_time = self._child.pid, processes.start_time_of(self._child.pid) or 0

    def alive(self) -> bool:
        return processes.start_time_of(self.pid) == self.start_time

    def last_words(self) -> str:
        return "no message"

    def wait_ready(self, timeout_s: float) -> None:
        if len(self._asked) == 1:
            self.at_its_last.set()
        if (fault := self._asked.pop(0) if len(self._asked) > 1 else self._asked[0]) is not None:
            raise fault

    def stop(self) -> None:
        self._child.kill()
        self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()


class Network:
    """A network with such an engine; revivals fail as `faults` says, one after the other."""

    def __init__(self, name: str, *faults: EngineFault) -> None:
        self.name = self.netns = self.whose = name
        self.segment = self
        self.engine, self.faults, self.revivals = Process(), list(faults), 0

    def alive(self) -> bool:
        return self.engine.alive()

    def revive(self, *, only_dead: bool = False) -> None:
        if only_dead and self.alive():
            return
        self.engine.stop()
        self.engine = Process()
        self.revivals += 1
        if self.faults:
            raise self.faults.pop(0)


class Watch:
    """A supervisor, what it told, and a way to wait for it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.sentences: list[str] = []
        self._news = threading.Condition()
        self._networks: list[Network] = []
        self._open = True
        self.supervisor = EngineSupervisor(self._tell)

    def _tell(self, network: Any, event: str, text: str) -> None:
        with self._news:
            self.told.append((network.name, event))
            self.sentences.append(text)
            self._news.notify_all()

    def network(self, name: str, *faults: EngineFault) -> Any:
        made = Network(name, *faults)
        self._networks.append(made)
        return made

    def wait(self, name: str, event: str) -> list[str]:
        """What was told of a network, once that was."""
        with self._news:
            assert self._news.wait_for(lambda: (name, event) in self.told, 30), self.told
            return [each for of, each in self.told if of == name]

    def end(self) -> None:
        """Let the supervisor end, with what it has begun."""
        if self._open:
            self._open = False
            self.supervisor.close()

    def close(self) -> None:
        self.end()
        for network in self._networks:
            network.engine.stop()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    for pause in ("FIRST_DELAY_S", "LOOK_S"):
        monkeypatch.setattr(supervise, pause, 0.01)
    made = Watch()
    yield made
    made.close()


def fault(*, temporary: bool) -> EngineFault:
    return EngineFault("network engine", expected="an answer", got="none", temporary=temporary)


def test_next_engine_that_does_not_answer_is_replaced_though_it_runs(watch: Watch) -> None:
    network = watch.network("web", fault(temporary=True), fault(temporary=True))
    watch.supervisor.add(network)
    network.engine.stop()
    assert watch.wait("web", "revived") == ["died", "failed", "failed", "revived"]
    assert network.revivals == 3


def test_next_engine_that_refuses_a_zone_is_left_to_the_others(watch: Watch) -> None:
    network = watch.network("web", fault(temporary=False))
    watch.supervisor.add(network)
    network.engine.stop()
    assert watch.wait("web", "revived") == ["died", "failed", "revived"]
    assert network.revivals == 1


def test_engine_that_a_boot_has_replaced_meanwhile_is_watched_as_it_is(watch: Watch) -> None:
    network = watch.network("web")
    tell = watch.supervisor._on_event

    def boot_first(of: Any, event: str, text: str) -> None:
        if event == "died" and network.revivals == 0:
            network.revive(only_dead=True)
        tell(of, event, text)

    watch.supervisor._on_event = boot_first
    watch.supervisor.add(network)
    network.engine.stop()
    assert watch.wait("web", "revived") == ["died", "revived"]
    assert network.revivals == 1
    watch.told.clear()
    network.engine.stop()
    watch.wait("web", "revived")
    assert network.revivals == 2


SILENT = SilentEngine("network engine", expected="an answer", got="no answer: timed out", temporary=True)
SHORT = EngineFault("network engine", expected="an answer", got="no answer: Too many open files", temporary=True)


def having(watch: Watch, *asked: EngineFault | None) -> Any:
    """A network that is watched, whose engine says so to who asks."""
    network = watch.network("web")
    network.engine.stop()
    network.engine = Process(*asked)
    watch.supervisor.add(network)
    return network


def test_engine_that_runs_and_stays_silent_is_ended_and_replaced_as_one_that_died(watch: Watch) -> None:
    network = having(watch, SILENT)
    hung = network.engine
    assert watch.wait("web", "revived") == ["died", "revived"]
    assert not hung.alive()
    assert network.engine.at_its_last.wait(30), "the next one is asked in its turn"
    assert network.revivals == 1
    assert "did not answer 3 times in a row" in watch.sentences[0]


@pytest.mark.parametrize(
    "asked",
    [
        (SILENT, SILENT, None, SILENT, SILENT, None),  # a machine that is slow now and then
        (SHORT, SHORT, SHORT, SHORT, None),  # what its zoned lacks is no fault of its
        (*[EngineFault("network engine", expected="status to be done", got="no")] * 4, None),  # an answer
    ],
)  # fmt: skip
def test_engine_that_answers_now_and_then_is_left_alone(watch: Watch, asked: tuple[EngineFault | None, ...]) -> None:
    network = having(watch, *asked)
    assert network.engine.at_its_last.wait(30)
    watch.end()
    assert watch.told == []
    assert network.engine.alive()


def test_silent_engine_that_cannot_be_ended_yet_is_tried_again(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals, stop = [EngineFault("process 1", expected="it to end when killed", got="it still runs")], Process.stop

    def stop_later(engine: Process) -> None:
        if refusals and threading.current_thread() is not threading.main_thread():
            raise refusals.pop()
        stop(engine)

    monkeypatch.setattr(Process, "stop", stop_later)
    having(watch, SILENT)
    assert watch.wait("web", "revived") == ["died", "revived"]
    assert refusals == []


# -- a zoned that is short of something --------------------------------------------------------------------------------


def once_short(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception, *, thread: str = "") -> None:
    """Have a function fail the next time that it is called, by a thread whose name begins so."""
    usual, due = getattr(owner, name), [error]

    def short(*arguments: Any, **options: Any) -> Any:
        if due and threading.current_thread().name.startswith(thread):
            raise due.pop()
        return usual(*arguments, **options)

    monkeypatch.setattr(owner, name, short)


def test_engine_that_no_thread_can_be_had_for_is_replaced(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    network = watch.network("web")
    watch.supervisor.add(network)
    once_short(monkeypatch, threading.Thread, "start", RuntimeError("can't start new thread"), thread="engines")
    for _ in range(2):
        watch.told.clear()
        network.engine.stop()
        assert watch.wait("web", "revived") == ["died", "revived"]


def test_engine_that_there_is_no_descriptor_to_watch_is_watched_later(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = watch.network("web")
    watch.supervisor.add(network)
    once_short(monkeypatch, processes, "hold", OSError(errno.EMFILE, "Too many open files"), thread="revive")
    for _ in range(2):
        watch.told.clear()
        network.engine.stop()
        assert watch.wait("web", "revived") == ["died", "revived"]


def test_process_of_which_nothing_can_be_read_is_held_no_longer(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = watch.network("web").engine
    before = len(os.listdir("/proc/self/fd"))
    once_short(monkeypatch, processes, "start_time_of", OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(OSError, match="Too many"):
        processes.hold(engine.pid, engine.start_time)
    assert len(os.listdir("/proc/self/fd")) == before


def test_revival_that_cannot_tell_whether_an_engine_runs_is_tried_again(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = watch.network("web", fault(temporary=False))
    watch.supervisor.add(network)
    once_short(monkeypatch, network, "alive", OSError(errno.EMFILE, "Too many open files"), thread="revive")
    network.revive = lambda *, only_dead=False: Network.revive(network)
    network.engine.stop()
    assert watch.wait("web", "revived") == ["died", "failed", "failed", "revived"]


class Interrupted:
    """The supervisor's lock: others have it between its poll and what it does by that, once."""

    def __init__(self, supervisor: EngineSupervisor, others: Callable[[], None]) -> None:
        self._supervisor, self._others = supervisor, others
        self._lock = supervisor._lock

    def __enter__(self) -> None:
        if threading.current_thread() is self._supervisor._thread:
            self._supervisor._lock = self._lock
            self._others()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_engine_that_lives_is_not_taken_for_the_one_whose_descriptors_number_it_has(watch: Watch) -> None:
    first, second = watch.network("first"), watch.network("second")
    watch.supervisor.add(first)
    number = watch.supervisor._watched["first"].pidfd

    replaced = threading.Event()

    def replace() -> None:
        watch.supervisor.discard(first)
        below: list[int] = []  # a descriptor gets the lowest number that is free
        while (fd := os.dup(watch.supervisor._wake_read)) < number:
            below.append(fd)
        os.close(fd)
        watch.supervisor.add(second)
        assert watch.supervisor._watched["second"].pidfd == number
        for fd in below:
            os.close(fd)
        replaced.set()

    watch.supervisor._lock = Interrupted(watch.supervisor, replace)  # type: ignore[assignment]
    first.engine.stop()
    assert replaced.wait(30)
    watch.end()
    assert watch.told == []
    assert second.engine.alive()
