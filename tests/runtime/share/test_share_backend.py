"""zoned's part in a share, with a fake xenstored and processes that only say that they serve."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.xenstored import FakeXenstored

from runtime.boot import ninepfs
from runtime.boot.errors import DeviceFault, DomainGone
from runtime.boot.model import Domid
from runtime.boot.nodes import XenbusState
from runtime.boot.xenstore import XenStore
from runtime.net.engine import processes
from runtime.net.errors import EngineFault
from runtime.share import backend
from runtime.share.backend import Share, end_processes
from runtime.share.calls import share_filter
from runtime.share.model import ShareSpec

FRONT, BACK = "/local/domain/1/device/9pfs/0", "/local/domain/0/backend/9pfs/1/0"
SERVES = """
import json, os, sys, time
told = json.loads(sys.stdin.readline())
os.write(told["ready"], b"serving\\n")
print(json.dumps(told), os.listdir(os.open(".", os.O_RDONLY, dir_fd=told["directory"])), file=sys.stderr, flush=True)
time.sleep(1000)
"""
ENDS = "import sys; sys.stdin.readline(); sys.exit('no such grant')"


class World:
    """A host with a directory, and a front end to play."""

    def __init__(self, directory: Path) -> None:
        self.xenstored = FakeXenstored(directory)
        self.store = XenStore(self.xenstored.path, timeout_s=60)
        self.store.apply(ninepfs.plan_share("share0", 0, Domid(1)))
        self.shared, self.log = directory / "shared", directory / "log"
        self.shared.mkdir()
        (self.shared / "file").touch()
        self.records: list[dict[str, Any]] = []
        self.domain: Any = SimpleNamespace(domid=Domid(1), uuid="u", name="web", xenstore=self.store)

    def record(self, kind: str, **fields: Any) -> None:
        self.records.append({"kind": kind, **fields})

    def share(self, **options: Any) -> Share:
        return Share(self.domain, ShareSpec(0, self.shared, readonly=True), self.record, self.log, **options)

    def publish(self, **nodes: str) -> None:
        offered = {"version": "1", "num-rings": "1", "ring-ref0": "8", "event-channel-0": "9"}
        for name, value in (offered | {name.replace("_", "-"): value for name, value in nodes.items()}).items():
            self.xenstored.put(f"{FRONT}/{name}", value.encode())
        self.state(XenbusState.INITIALISED)

    def state(self, state: XenbusState) -> None:
        self.xenstored.put(f"{FRONT}/state", str(state.value).encode())

    def says(self, state: XenbusState) -> None:
        until(lambda: self.xenstored.value(f"{BACK}/state") == str(state.value))

    def kinds(self) -> list[str]:
        return [record["kind"] for record in self.records]

    def process(self) -> tuple[int, int]:
        return self.records[-1]["pid"], self.records[-1]["start_time"]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Waits until what follows the front end has looked at it from beginning to end."""
    looks: list[Share] = []
    look = Share._look

    def count(share: Share) -> None:
        try:
            look(share)
        finally:
            looks.append(share)

    monkeypatch.setattr(Share, "_look", count)
    monkeypatch.setattr(backend, "_LOOK_AGAIN_S", 0.02)

    def wait() -> None:
        before = len(looks)
        until(lambda: len(looks) >= before + 2)  # one may have been under way

    return wait


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(process: tuple[int, int]) -> bool:
    return processes.start_time_of(process[0]) == process[1]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(backend, "_CODE", SERVES)
    world = World(tmp_path)
    yield world
    end_processes(world.records)
    world.store.close()
    world.xenstored.close()


@pytest.fixture
def share(world: World) -> Iterator[Share]:
    share = world.share()
    yield share
    share.close()


def test_rings_that_are_offered_are_served_and_the_zone_is_told(world: World, share: Share) -> None:
    world.publish()
    world.says(XenbusState.CONNECTED)
    assert world.kinds() == ["process"] and runs(world.process())
    until(lambda: world.log.read_text().endswith("\n"))
    told, _, listed = world.log.read_text().partition("} ")
    document = json.loads(told + "}")
    assert (document["domid"], document["rings"], document["readonly"]) == (1, [[8, 9]], True)
    assert document["seccomp"] == share_filter()
    assert listed == "['file']\n"


def test_process_ends_with_the_driver_and_another_serves_the_next(world: World, share: Share) -> None:
    world.publish()
    world.says(XenbusState.CONNECTED)
    first = world.process()
    world.state(XenbusState.CLOSED)
    world.says(XenbusState.CLOSED)
    assert not runs(first) and world.kinds() == ["process", "process.gone"]
    world.state(XenbusState.INITIALISING)
    world.says(XenbusState.INIT_WAIT)
    world.publish(ring_ref0="10")
    world.says(XenbusState.CONNECTED)
    assert world.process() != first and runs(world.process())


def test_close_ends_the_process_and_can_be_done_twice(world: World) -> None:
    share = world.share()
    world.publish()
    world.says(XenbusState.CONNECTED)
    served = world.process()
    share.close()
    share.close()
    assert not runs(served) and world.kinds() == ["process", "process.gone"]


@pytest.mark.parametrize("how", ["close", "let_go"])
def test_process_that_does_not_come_to_serve_is_not_waited_for_at_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A next zoned, if there is one, starts another: the zone was not told that this one serves."""
    monkeypatch.setattr(backend, "_CODE", "import time; time.sleep(1000)")
    monkeypatch.setattr(backend, "_READY_S", 1e6)
    share = world.share()
    world.publish()
    until(world.kinds)
    process = world.process()
    getattr(share, how)()
    assert not share._thread.is_alive() and not runs(process)
    assert world.kinds() == ["process", "process.gone"]
    assert world.xenstored.value(f"{BACK}/state") == "2"


def test_directory_that_does_not_answer_is_not_waited_for_at_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers = threading.Event(), threading.Event()
    find = backend.open_directory

    def hang(*arguments: Any) -> int:
        asked.set()
        assert answers.wait(30)
        return find(*arguments)

    monkeypatch.setattr(backend, "open_directory", hang)
    monkeypatch.setattr(backend, "_CLOSING_S", 0.05)
    share = world.share()
    world.publish()
    assert asked.wait(30)
    share.close()
    assert share._thread.is_alive()
    answers.set()
    share._thread.join(30)
    assert world.kinds() == [], "nobody is there to end what would be begun now"


def test_later_zoned_goes_on_with_the_process_of_the_one_before(world: World, looked: Callable[[], None]) -> None:
    before = world.share()
    world.publish()
    world.says(XenbusState.CONNECTED)
    served = world.process()
    before.let_go()
    assert runs(served)
    after = world.share(records=list(world.records))
    try:
        looked()
        assert runs(served) and world.kinds() == ["process"]
        world.state(XenbusState.CLOSING)
        world.says(XenbusState.CLOSING)  # what a Linux that shuts down waits for
        assert not runs(served) and world.kinds() == ["process", "process.gone"]
        world.state(XenbusState.CLOSED)
        world.says(XenbusState.CLOSED)
    finally:
        after.close()


def test_zone_without_a_zoned_is_served_by_the_next(world: World) -> None:
    world.publish()
    share = world.share()
    try:
        world.says(XenbusState.CONNECTED)
    finally:
        share.close()


def test_what_a_ledger_names_ends_with_it(world: World) -> None:
    share = world.share()
    world.publish()
    world.says(XenbusState.CONNECTED)
    share.let_go()
    served = world.process()
    other = {"kind": "process", "pid": os.getpid(), "start_time": processes.start_time_of(os.getpid())}
    end_processes([*world.records, other])  # one that is no share's is not ours to end
    assert not runs(served)
    end_processes(world.records)


def test_process_that_does_not_end_keeps_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL waits for a file system that answers no more."""
    killed: list[int] = []

    def kill(pid: int, start_time: int) -> None:
        killed.append(pid)
        if pid < 3:
            raise EngineFault(f"process {pid}", expected="it to end when killed", got="it still runs")

    monkeypatch.setattr(processes, "kill", kill)
    named = [{"kind": "process", "share": pid, "pid": pid, "start_time": 7} for pid in (1, 2, 3, 4)]
    with pytest.raises(EngineFault, match="it still runs"):
        end_processes(named)
    assert sorted(killed) == [1, 2, 3, 4]


@pytest.mark.parametrize("nodes", [{"version": "2"}, {"num_rings": "0"}, {"ring_ref0": "x"}, {"event_channel_0": ""}])
def test_what_can_be_no_rings_starts_nothing(world: World, share: Share, nodes: dict[str, str], caplog: Any) -> None:
    world.publish(**nodes)
    until(lambda: "expected rings of its driver" in caplog.text)
    assert world.records == []


def test_symlink_that_took_the_directorys_place_is_not_followed(world: World, share: Share, caplog: Any) -> None:
    """A zone that has what is above may put one there after the directory was looked at."""
    world.shared.rename(world.shared.with_name("before"))
    world.shared.symlink_to("/etc")
    world.publish()
    until(lambda: "expected a path without symlinks" in caplog.text)
    assert world.records == []


def test_process_that_cannot_serve_is_told_with_its_words_and_not_tried_again(
    world: World, share: Share, caplog: Any, monkeypatch: pytest.MonkeyPatch, looked: Callable[[], None]
) -> None:
    monkeypatch.setattr(backend, "_CODE", ENDS)
    world.publish()
    until(lambda: "no such grant" in caplog.text)
    world.state(XenbusState.INITIALISED)
    world.publish()
    looked()
    assert world.kinds() == ["process", "process.gone"]
    assert world.xenstored.value(f"{BACK}/state") == str(XenbusState.INIT_WAIT.value)


def test_zone_that_says_nonsense_over_and_over_does_not_fill_the_log(world: World, share: Share, caplog: Any) -> None:
    for number in range(100):
        before = caplog.text.count("expected rings")
        world.publish(version=str(2 + number))
        until(lambda before=before: "no more is told" in caplog.text or caplog.text.count("expected rings") > before)
    assert caplog.text.count("expected rings") == 40


def test_zone_that_connects_over_and_over_does_not_fill_the_ledger(
    world: World, share: Share, monkeypatch: pytest.MonkeyPatch, looked: Callable[[], None]
) -> None:
    monkeypatch.setattr(backend, "_STARTS_AT_ONCE", 3, raising=False)
    monkeypatch.setattr(backend, "_APART_S", 3600.0, raising=False)
    for _ in range(3):
        world.publish()
        world.says(XenbusState.CONNECTED)
        world.state(XenbusState.CLOSED)
        world.says(XenbusState.CLOSED)
    world.publish()
    looked()
    assert world.kinds() == ["process", "process.gone"] * 3
    assert world.xenstored.value(f"{BACK}/state") == str(XenbusState.CLOSED.value)
    monkeypatch.setattr(backend, "_APART_S", 0.0)
    world.says(XenbusState.CONNECTED)


def test_process_that_dies_is_noticed_and_the_zone_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_LOOK_AGAIN_S", 0.05)
    share = world.share()
    try:
        world.publish()
        world.says(XenbusState.CONNECTED)
        processes.kill(*world.process())
        until(lambda: world.kinds() == ["process", "process.gone"])
        world.says(XenbusState.CLOSED)
    finally:
        share.close()


def test_share_is_connected_when_the_zone_has_been_told(world: World, share: Share) -> None:
    world.domain.shutdown_state = lambda: None
    assert not share.connected()
    late = share.not_connected("nothing of it")
    assert late.temporary and "expected the zone's driver to connect, got nothing of it" in str(late)
    world.publish()
    until(share.connected)
    assert world.xenstored.value(f"{BACK}/state") == str(XenbusState.CONNECTED.value)


def test_share_that_never_will_be_connected_says_why(world: World, share: Share) -> None:
    world.domain.shutdown_state = lambda: None
    world.publish(num_rings="9")
    until(lambda: "1 to 2 rings" in str(share.not_connected("nothing of it")))
    assert not share.connected() and not share.not_connected("").temporary
    share.let_go()
    with pytest.raises(DeviceFault, match="1 to 2 rings"):
        share.connected()
    world.domain.shutdown_state = lambda: "poweroff"
    with pytest.raises(DomainGone, match="zone web: expected it running"):
        share.connected()


def test_process_that_made_a_forbidden_call_is_told_as_that(
    world: World, share: Share, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"import os, sys; sys.stdin.readline(); os.kill(os.getpid(), {signal.SIGSYS})"
    monkeypatch.setattr(backend, "_CODE", code)
    world.publish()
    until(lambda: "it ended: killed for a system call it may not make" in caplog.text)
