"""`up` of a lab whose QEMU is made up: what an interrupt or a fault in the middle of it leaves to the next one."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.said import Said

from pipeline.progress import Progress
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host.faults import CallTimeout, ConnectionLost, HostDown, RemoteFault
from runtime.host.lab import channel, comeback, process, zoned
from runtime.host.lab import lab as labs
from runtime.host.lab.config import LabConfig
from runtime.host.lab.errors import LabFailed, LabOutdated, QmpError
from runtime.host.lab.lab import Lab
from runtime.host.lab.parts import Parts
from runtime.host.lab.state import Record


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """This process stands for its QEMU; it serves, started from the parts "key"."""
    made = Lab(LabConfig(), Store(tmp_path / "store"), directory=tmp_path / "lab")
    ticks = process.start_ticks(os.getpid())
    assert ticks is not None
    record = Record(
        os.getpid(), ticks, process.boot_id(), "key", "debian12", "tcg", 1024, 400, 2, 0.0, restored=False, ready=True
    )
    made.state.directory.mkdir()
    made.state.write(record)
    parts = Parts("qemu", "tcg", "", None, (), "key")  # type: ignore[arg-type]
    monkeypatch.setattr(labs, "gather", lambda *_, **__: parts)
    monkeypatch.setattr(labs, "check_resources", lambda *_: None)
    monkeypatch.setattr(zoned, "await_answer", lambda *_: None)
    monkeypatch.setattr(process, "end", lambda *_: None)
    return made


def test_zones_whose_return_was_interrupted_are_brought_back_by_the_next(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[Progress] = []

    def bring_back(_: Lab, progress: Progress) -> None:
        turns.append(progress)
        if len(turns) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(comeback, "bring_back", bring_back)
    with pytest.raises(KeyboardInterrupt):
        lab.up()
    assert lab.up().returned
    assert lab.up() == lab.state.read()
    assert len(turns) == 2, "the third has nothing to do"


def test_who_needs_the_lab_meanwhile_does_not_wait_and_does_not_help(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, turns = threading.Event(), threading.Event(), []

    def bring_back(_: Lab, __: Progress) -> None:
        turns.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(120)

    monkeypatch.setattr(comeback, "bring_back", bring_back)
    first = threading.Thread(target=lab.up)
    first.start()
    assert begun.wait(120)
    assert not lab.up().returned
    go_on.set()
    first.join(120)
    assert lab.up().returned
    assert len(turns) == 1


def test_a_lab_that_ended_while_its_zones_came_back_is_not_said_to_be_whole(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bring_back(_: Lab, __: Progress) -> None:
        found = lab.state.read()
        assert found is not None
        lab.state.write(replace(found, started_unix_s=1.0))

    monkeypatch.setattr(comeback, "bring_back", bring_back)
    assert not lab.up().returned
    found = lab.state.read()
    assert found is not None
    assert not found.returned


@pytest.mark.parametrize(
    "problem",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        LabFailed("the lab's snapshot", expected="QEMU to save it", got="state failed"),
        QmpError("QEMU", got="Migration is not allowed"),
    ],
)
def test_a_snapshot_that_cannot_be_saved_keeps_no_lab_from_serving(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    record, progress = lab.state.read(), Said()
    assert record is not None
    cold(lab, monkeypatch, record, problem)
    assert lab.up(progress).ready
    assert len(progress.lines) == 1
    assert "snapshot could not be saved" in progress.lines[0]


def test_an_interrupt_while_the_snapshot_is_saved_leaves_no_qemu(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    record = lab.state.read()
    assert record is not None
    cold(lab, monkeypatch, record, KeyboardInterrupt())
    ended: list[int] = []
    monkeypatch.setattr(process, "marked", lambda mark: [4711])
    monkeypatch.setattr(process, "end", lambda pid, mark: ended.append(pid))
    with pytest.raises(KeyboardInterrupt):
        lab.up()
    assert ended == [4711, 4711], "once before the start, once after the interrupt"
    assert lab.state.read() is None


def cold(lab: Lab, monkeypatch: pytest.MonkeyPatch, record: Record, problem: BaseException) -> None:
    """The next `up` is a cold start, whose snapshot meets the problem."""

    class NoQmp:
        def __enter__(self) -> None:
            return None

        def __exit__(self, *_: object) -> None:
            pass

    def save(*_: Any) -> int:
        raise problem

    def launch(parts: Parts, *, restore: bool) -> Record:
        lab.state.write(replace(record, ready=False))
        return record

    def configure(made: Record) -> Record:
        lab.state.write(made)
        return made

    lab.state.path("record.json").unlink()
    monkeypatch.setattr(lab, "_launch", launch)
    monkeypatch.setattr(lab, "_configure", configure)
    monkeypatch.setattr(lab, "_qmp", NoQmp)
    monkeypatch.setattr(lab.snapshots, "save", save)
    monkeypatch.setattr(comeback, "bring_back", lambda *_: None)


@pytest.mark.parametrize("keeps", [True, False])
def test_lab_that_another_command_started_meanwhile_keeps_its_settings(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    record = lab.state.read()
    assert record is not None
    wanted: list[int] = []

    def gather(config: LabConfig, *_: Any, **__: Any) -> Parts:
        wanted.append(config.memory_mib)
        return Parts("qemu", "tcg", "", None, (), record.key)  # type: ignore[arg-type]

    monkeypatch.setattr(labs, "gather", gather)
    lab.state.write(replace(record, memory_mib=4096, returned=True))
    lab.keeps = keeps
    lab.up()
    assert wanted == [4096 if keeps else LabConfig().memory_mib]


@pytest.mark.parametrize("key", ["key", "older"])
def test_zoned_that_is_on_its_way_back_is_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Else the lab would be ended, and with it the zones, to which the death of a zoned does no harm."""
    record = lab.state.read()
    assert record is not None
    waited, pings = list[float](), list[str]()

    def await_answer(_: Path, timeout_s: float) -> None:
        waited.append(timeout_s)
        if timeout_s < 60:
            raise HostDown("zoned", got="nobody listens")

    monkeypatch.setattr(zoned, "await_answer", await_answer)
    monkeypatch.setattr(zoned, "live_zones", lambda *_: ["web"])
    monkeypatch.setattr(channel, "call", lambda _, method, **__: pings.append(method))
    parts = Parts("qemu", "tcg", "", None, (), key)  # type: ignore[arg-type]
    if key == record.key:
        assert lab._serves(record, parts, Said())
    else:
        with pytest.raises(LabOutdated, match="which runs web"):
            lab._serves(record, parts, Said())
    assert len(waited) == 2 and pings == ["ping"]


def test_lab_whose_dom0_is_silent_too_is_started_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    record = lab.state.read()
    assert record is not None
    waited = list[float]()

    def await_answer(_: Path, timeout_s: float) -> None:
        waited.append(timeout_s)
        raise HostDown("zoned", got="nobody listens")

    def call(*_: Any, **__: Any) -> None:
        raise CallTimeout("dom0 of the lab", got="no answer")

    monkeypatch.setattr(zoned, "await_answer", await_answer)
    monkeypatch.setattr(channel, "call", call)
    parts = Parts("qemu", "tcg", "", None, (), record.key)  # type: ignore[arg-type]
    said = Said()
    assert not lab._serves(record, parts, said)
    assert len(waited) == 1 and "nobody listens" in said.lines[0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (HostDown("zoned", got="nobody listens"), ""),
        (ConnectionLost("zoned", got="the connection is lost"), ""),
        (CallTimeout("zoned", got="no answer"), "zones or none: its zoned does not say"),
        (RemoteFault("zones.sqlite", got="damaged"), "zones or none: its zoned does not say"),
    ],
)
def test_a_zoned_that_does_not_say_whom_it_serves_is_not_taken_for_empty(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, fault: RuntimeFault, words: str
) -> None:
    record = lab.state.read()
    assert record is not None
    older = replace(record, key="older")
    lab.state.write(older)

    class Client:
        host = type("Host", (), {"ListZones": None})

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def call(self, *_: Any, **__: Any) -> Any:
            raise fault

    monkeypatch.setattr("runtime.host.client.connect", lambda _: Client())
    monkeypatch.setattr(zoned, "lab_endpoint", lambda _: None)
    parts = Parts("qemu", "tcg", "", None, (), "key")  # type: ignore[arg-type]
    if words:
        with pytest.raises(LabOutdated, match=words):
            lab._serves(older, parts, Said())
    else:
        assert not lab._serves(older, parts, Said())
