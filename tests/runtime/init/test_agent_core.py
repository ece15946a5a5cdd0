"""The agent's own turns: children that end, words of pid 1, the end of the zone; none that fails ends another."""

import errno
import os
import socket
import subprocess
from types import SimpleNamespace

import pytest
from support.descriptors import descriptors, opened_since

from runtime.init.agent import container, core, execs, starting
from runtime.init.agent import loop as loop_module
from runtime.init.agent.execs import Exec
from runtime.init.agent.loop import READ, Loop
from runtime.init.agent.stream import Stream
from runtime.init.container import launched
from runtime.init.container.cgroup import Cgroup
from runtime.init.failure import ContainerFailure


class World:
    """An agent whose children end when the test says so; `init` is pid 1's end of the socket."""

    def __init__(self, monkeypatch):
        self._ended = []
        monkeypatch.setattr(core, "read_signals", lambda fd: os.read(fd, 1))
        monkeypatch.setattr(core.kernel, "wait", lambda pid: self._ended.pop(0) if self._ended else None)
        self._signals, self._signal = os.pipe()
        self.init, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.init.setblocking(False)
        self.agent = core.Agent({}, [], self._theirs, self._signals)

    def end(self, *pids, code=0):
        """Children end, all at once; the agent has its turn."""
        self._ended += [(pid, code << 8, {}) for pid in pids]
        os.write(self._signal, b"!")
        self.turn()

    def turn(self):
        turn(self.agent.loop)

    def close(self):
        for end in (self.init, self._theirs):
            end.close()
        for fd in (self._signals, self._signal):
            os.close(fd)


def turn(loop):
    loop.stopped = False
    loop.after(0, lambda: setattr(loop, "stopped", True))
    loop.run()


def fail(*_arguments):
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.fixture
def world(monkeypatch):
    made = World(monkeypatch)
    yield made
    made.close()


def test_a_child_whose_end_cannot_be_handled_keeps_no_other_from_being_reaped(world, capfd):
    told = []
    world.agent.children |= {7: fail, 8: lambda status: told.append(8), 9: lambda status: told.append(9)}
    world.end(7, 8)
    assert told == [8] and "the end of process 7: OSError: [Errno 24]" in capfd.readouterr().err
    world.end(9)
    assert told == [8, 9] and not world.agent.children


def test_what_a_word_of_pid_1_breaks_does_not_make_the_agent_deaf(world):
    asked = []

    def refuse(number):
        asked.append(number)
        fail()

    world.agent.containers["main"] = SimpleNamespace(active=True, signal=refuse)
    for number in (15, 1):
        world.init.send(b"signal %d" % number)
        world.turn()
    assert asked == [15, 1]


def test_a_handler_that_raises_is_not_called_again_unless_the_zone_would_hang_without_it():
    loop, called, pipes = Loop(), [], [os.pipe(), os.pipe()]

    def raising(fd, vital):
        def handler():
            called.append(vital)
            os.read(fd, 1)
            fail()

        return handler

    for vital, (reader, _) in zip((True, False), pipes, strict=True):
        loop.watch(reader, READ, raising(reader, vital), vital=vital)
    for _ in range(2):
        for _, writer in pipes:
            os.write(writer, b"!")
        turn(loop)
    assert sorted(called) == [False, True, True]
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_the_zone_ends_though_a_container_cannot_be_killed(world):
    def stuck():
        raise ContainerFailure("cgroup", "cgroup other: killing: Too many open files")

    world.agent.containers["other"] = SimpleNamespace(name="other", kill=stuck, drained=True, outputs={})
    world.agent.end("code 3")
    world.turn()
    assert world.init.recv(100) == b"exit code 3"


def test_every_container_is_asked_to_stop_though_one_cannot_be(world, capfd):
    asked = []

    def active(name, stop):
        return SimpleNamespace(name=name, active=True, stop=stop, ended=[], outputs={}, drained=True)

    def note(number, timeout_s):
        asked.append((number, timeout_s))

    for name, stop in (("stuck", fail), ("other", note), (core.MAIN, note)):
        world.agent.containers[name] = active(name, stop)
    world.init.send(b"stop 12 3")
    world.turn()
    assert asked == [(None, 3.0), (12, 3.0)]
    assert "stopping container stuck: OSError: [Errno 24]" in capfd.readouterr().err


def test_the_zone_waits_for_its_containers_though_one_cannot_be_asked_to_stop(world):
    one = SimpleNamespace(name="one", active=True, stop=fail, ended=[], outputs={}, drained=True, kill=lambda: None)
    world.agent.containers["one"] = one
    world.agent.stop(15, 1.0)
    one.active = False
    for callback in one.ended:
        callback()
    world.turn()
    assert world.init.recv(100) == b"exit code 0"


@pytest.fixture
def launch(monkeypatch):
    """What the container runtime forks. Its process runs as soon as `answers` is set; `speaks` it is heard of then."""
    speaks, ours = socket.socketpair()
    made = SimpleNamespace(fd=ours.fileno(), close=ours.close, speaks=speaks, answers=False)
    made.hear = lambda ended: SimpleNamespace(pid=7, terminal=-1) if made.answers else None
    made.runtime = SimpleNamespace(
        begin=lambda given, find: made,
        began=lambda hear: hear(),
        exited=lambda status: {"code": status >> 8},
        cgroup=SimpleNamespace(watch=lambda: -1, leave=lambda: True),
    )
    monkeypatch.setattr(container, "Runtime", lambda name, spec: made.runtime)
    yield made
    speaks.close()


def test_the_zone_ends_with_its_workload_whatever_else_fails_at_its_end(world, launch):
    launch.answers = True
    launch.speaks.close()
    main = container.Container(world.agent, core.MAIN, {})
    main.ended.append(fail)
    world.agent.start_main(main)
    world.end(7, code=3)
    assert [world.init.recv(100), world.init.recv(100)] == [b"phase workload", b"exit code 3"]


def test_a_workload_that_is_slow_to_start_is_waited_for_by_the_loop(world, launch, monkeypatch):
    monkeypatch.setattr(core, "_AT_ONCE_S", 0.01)
    world.agent.start_main(container.Container(world.agent, core.MAIN, {}))
    for _ in range(2):
        world.turn()
        with pytest.raises(BlockingIOError):
            world.init.recv(100)
        launch.speaks.send(b"R")
    launch.answers = True
    world.turn()
    assert world.init.recv(100) == b"phase workload" and not world.agent.starting


def test_what_is_said_to_a_workload_that_is_slow_to_start_holds_for_it(world, launch, monkeypatch):
    told = []
    monkeypatch.setattr(core, "_AT_ONCE_S", 0.0)
    launch.runtime.update = lambda limits: told.append(limits)
    launch.runtime.kill = lambda number, *, everyone: told.append((number, everyone))
    main = container.Container(world.agent, core.MAIN, {})
    world.agent.start_main(main)
    main.limit({"pids_max": 77})
    world.init.send(b"signal 12")
    world.turn()
    main.signal(1, everyone=True)
    assert told == [{"pids_max": 77}]
    launch.answers = True
    launch.speaks.send(b"R")
    world.turn()
    assert told == [{"pids_max": 77}, (12, False), (1, True)]


def test_what_cannot_be_asked_to_end_is_ended_when_its_time_is_over(world, launch, monkeypatch):
    killed = []
    monkeypatch.setattr(container.cgroup, "freeze", lambda name, *, frozen: fail())
    monkeypatch.setattr(container, "takes", lambda pid, number: True)
    launch.answers = True
    launch.runtime.plan = {"process": {"stop_signal": 15, "stop_timeout_s": 10}}
    launch.runtime.kill = lambda number: None
    launch.runtime.cgroup.kill = lambda: killed.append(1)
    other = container.Container(world.agent, "other", {})
    other.start(lambda: None, fail).look()
    other.state = container.PAUSED
    with pytest.raises(OSError, match="Too many open files"):
        other.stop(None, 0.0)
    world.turn()
    assert killed == [1]


def test_a_terminal_of_what_ends_as_it_begins_is_closed(world, launch):
    master, slave = os.openpty()
    process = subprocess.Popen(["sleep", "100"])
    launch.hear = lambda ended: SimpleNamespace(pid=process.pid, terminal=master)
    launch.runtime.cgroup.watch, launch.runtime.delete = fail, lambda *, force: None
    other = container.Container(world.agent, "other", {"process": {"tty": True}})
    starting = other.start(fail, lambda error: None)
    before = descriptors()
    starting.look()
    assert not opened_since(before) and launch.fd not in dict(descriptors())
    assert other.state == "stopped" and process.wait() == -9
    for fd in (master, slave):
        os.close(fd)


def test_a_container_that_could_not_be_watched_has_no_output_to_wait_for(world, launch):
    """The zone's end, and whoever reads its output, would wait for more."""
    process = subprocess.Popen(["sleep", "100"])
    launch.hear = lambda ended: SimpleNamespace(pid=process.pid, terminal=-1)
    launch.runtime.cgroup.watch, launch.runtime.delete = fail, lambda *, force: None
    other = container.Container(world.agent, "other", {})
    other.start(fail, lambda error: None).look()
    assert other.state == "stopped" and other.drained and process.wait() == -9


def test_a_start_that_fails_is_told_though_its_remains_stay(world, launch, capfd):
    def stuck(*, force):
        raise ContainerFailure("cgroup", "cgroup main: removing it: Device or resource busy")

    def never(ended):
        raise ContainerFailure("process", "expected the command to run within 60 s")

    told = []
    other = container.Container(world.agent, "other", {})
    other.ended.append(lambda: told.append("end"))
    launch.runtime.delete, launch.hear = stuck, never
    other.start(fail, lambda error: told.append(error.sentence)).look()
    assert told == ["expected the command to run within 60 s", "end"] and not other.active
    assert "removing it: Device or resource busy" in capfd.readouterr().err


def test_a_child_that_ends_as_it_starts_is_known_before_it_is_reaped(world, launch, monkeypatch):
    seen = [0, 7]
    monkeypatch.setattr(core, "_AT_ONCE_S", 0.0)
    monkeypatch.setattr(core.kernel, "next_dead", lambda: seen.pop(0) if seen else 0)
    world.agent.start_main(container.Container(world.agent, core.MAIN, {}))
    world.end(7, code=3)  # but the look for who has ended came just before
    with pytest.raises(BlockingIOError):
        world.init.recv(100)
    launch.answers = True
    world.end()
    assert [world.init.recv(100), world.init.recv(100)] == [b"phase workload", b"exit code 3"]


def test_a_process_that_is_paused_on_its_way_to_its_command_has_its_time_once_that_is_over(world, launch, monkeypatch):
    """A probe of a container's health would count as one that failed."""
    clock, told = SimpleNamespace(now=0.0, time=lambda: 0.0), []
    clock.monotonic = lambda: clock.now
    for module in (loop_module, launched, starting):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(container.cgroup, "freeze", lambda name, *, frozen: None)
    launch.answers = True
    other = container.Container(world.agent, "other", {})
    other.start(lambda: None, fail).look()
    process = subprocess.Popen(["sleep", "100"])
    speaks, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    further = launched.Launch(ours, process.pid, -1, staged=False)
    launch.runtime.begin_further = lambda request, given: further
    execs.start(world.agent, other, {"argv": ["id"]}, stdin=False, began=fail, failed=told.append)
    other.freeze(frozen=True)
    for now, over in ((100, 0), (400, 0), (460, 1)):
        clock.now = now
        world.turn()
        assert len(told) == over
        if now == 400:
            other.freeze(frozen=False)
    assert process.wait() == -9
    speaks.close()


def test_an_exec_that_is_refused_at_once_says_so_and_no_more(world, capfd):
    def refuse(request, given):
        raise ContainerFailure("spec", "process.cwd: expected an absolute path")

    sent = []
    stream = Stream(SimpleNamespace(put=sent.append, streams={}), 1, "exec")
    running = SimpleNamespace(runtime=SimpleNamespace(oom_kills=lambda: 0, begin_further=refuse), turns=None)
    Exec(world.agent, stream, running, {"argv": ["id"]})
    assert stream.over and b"process.cwd" in sent[0] and not capfd.readouterr().err


def test_figures_that_cannot_be_read_are_none_and_no_failure(tmp_path):
    """How a container has ended is told with one, and must not be lost for want of it."""
    (tmp_path / "memory.events").mkdir()  # reading it fails, and not as where there is none
    group = Cgroup("x", {}, "")
    group.fd = os.open(tmp_path, os.O_RDONLY)
    assert group.counts("memory.events") == group.counts("nothing") == {}
    os.close(group.fd)


def test_a_timer_that_is_further_off_than_the_kernel_can_wait_ends_nothing(world):
    """A health check may come once a year."""
    world.agent.loop.after(86400 * 365, fail)
    world.agent.loop.watch(world.init.fileno(), READ, lambda: setattr(world.agent.loop, "stopped", True))
    world.agent.phase("late")
    world.agent.loop.run()
    assert world.init.recv(100) == b"phase late"
