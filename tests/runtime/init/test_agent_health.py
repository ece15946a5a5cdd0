"""When a container is probed, and what of it counts, by a clock that the test moves."""

from types import SimpleNamespace

import pytest

from runtime.init.agent import health


class World:
    """An agent with one container; `pass_time` moves the clock, probes end when the test says so."""

    def __init__(self, monkeypatch):
        self.now, self.timers, self.notes, self.killed, self.probes = 0.0, [], [], [], 0
        self.loop = SimpleNamespace(after=self._after, cancel=self._cancel)
        self.link = SimpleNamespace(note=lambda event, fields: self.notes.append(fields["state"]))
        self.children, self.outputs, self.slow, self.full = {}, {}, False, False
        self.container = SimpleNamespace(name="main", pid=7, state="running", health="")
        monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(health, "start", self._start)
        monkeypatch.setattr(health.posix, "kill", lambda pid, number: self.killed.append(pid))

    def _after(self, seconds, callback):
        self.timers.append((self.now + seconds, callback))
        return callback

    def _cancel(self, timer):
        self.timers = [one for one in self.timers if one[1] is not timer]

    def _start(self, *_arguments, began, failed, **_keywords):
        self.probes += 1
        if self.full:
            raise OSError(24, "Too many open files")
        if self.slow:
            return SimpleNamespace(cancel=failed)
        began(SimpleNamespace(outputs=self.outputs, close=lambda: None), 100 + self.probes)
        return None

    def pass_time(self, seconds):
        end = self.now + seconds
        while due := [one for one in self.timers if one[0] <= end + 1e-9]:
            first = min(due, key=lambda one: one[0])
            self.timers.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = end

    def answer(self, code):
        """The probe that runs ends."""
        ((pid, ended),) = self.children.items()
        del self.children[pid]
        ended(code << 8)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def begin(world, **check):
    health.begin(world, world.container, {"argv": ["x"], "interval_s": 10, "timeout_s": 3, "retries": 1} | check)


def test_paused_container_is_not_probed_and_not_taken_for_one_that_hangs(world):
    begin(world)
    world.pass_time(10)
    world.answer(0)
    world.container.state = "paused"
    world.pass_time(100)
    assert (world.probes, world.notes, world.killed) == (1, ["healthy"], [])
    world.container.state = "running"
    world.pass_time(10)
    assert world.probes == 2
    world.answer(0)
    assert world.notes == ["healthy"]


def test_probe_that_takes_too_long_is_killed_with_all_it_began(world):
    begin(world)
    world.pass_time(12.9)
    assert world.killed == []
    world.pass_time(0.1)
    assert world.killed == [-101]


def test_probe_whose_command_does_not_run_in_time_is_called_off(world):
    begin(world)
    world.slow = True
    world.pass_time(12.9)
    assert world.notes == []
    world.pass_time(0.1)
    assert (world.notes, world.killed) == (["unhealthy"], [])
    world.slow = False
    world.pass_time(10)
    world.answer(0)
    assert world.notes == ["unhealthy", "healthy"]


def test_probe_that_stands_still_with_a_paused_container_has_its_time_once_that_goes_on(world):
    begin(world)
    world.pass_time(11)
    world.container.state = "paused"
    world.pass_time(100)
    assert world.killed == []
    world.container.state = "running"
    world.pass_time(3)
    assert world.killed == [-101]


def test_failures_count_one_after_the_other_and_not_in_the_start_period(world):
    begin(world, start_period_s=25, start_interval_s=10, retries=2)
    for code in (1, 1, 1):  # at 10 and 20, which do not count, and at 30
        world.pass_time(10)
        world.answer(code)
    assert world.notes == []
    for code, notes in (
        (0, ["healthy"]),
        (1, ["healthy"]),
        (0, ["healthy"]),
        (1, ["healthy"]),
        (2, ["healthy", "unhealthy"]),
    ):
        world.pass_time(10)
        world.answer(code)
        assert world.notes == notes


def test_container_that_was_started_again_is_probed_as_another(world):
    begin(world)
    world.container.pid = 8
    world.pass_time(50)
    assert world.probes == 0


class Endless:
    """A pipe that is never empty; `taken` counts how often it was read since others had their turn."""

    def __init__(self):
        self.taken, self.turns = 0, 0

    def take(self, limit):
        self.taken += 1
        assert self.taken < 100, "nobody else ever has a turn"
        return b"y" * limit

    def later(self):
        self.taken, self.turns = 0, self.turns + 1

    def drain(self):
        self.wake()


def test_probe_that_says_more_than_can_be_read_leaves_others_their_turn(world):
    world.outputs = {1: Endless(), 2: Endless()}
    begin(world)
    world.pass_time(10)
    assert [source.turns for source in world.outputs.values()] == [1, 1]
    world.outputs[1].wake()
    assert world.outputs[1].turns == 2
    world.answer(0)
    assert world.notes == ["healthy"]


def test_probe_that_finds_no_descriptor_left_is_not_the_last(world):
    begin(world)
    world.full = True
    world.pass_time(10)
    assert world.notes == ["unhealthy"]
    world.full = False
    world.pass_time(10)
    world.answer(0)
    assert world.notes == ["unhealthy", "healthy"]
