"""What a lab leaves on disk: stale records, pids used again, killed starters, locks."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.store import Store
from runtime.host.lab import process, statefile
from runtime.host.lab.config import LabConfig
from runtime.host.lab.errors import LabFailed, StateDiskInUse
from runtime.host.lab.lab import Lab
from runtime.host.lab.reach import state_directory
from runtime.host.lab.state import Record, State

SLEEPER = "import signal, sys, time; print('up', flush=True); time.sleep(120)"


def record_of(pid: int) -> Record:
    ticks = process.start_ticks(pid)
    assert ticks is not None
    return Record(
        pid, ticks, process.boot_id(), "key", "debian12", "tcg", 1024, 400, 2, 0.0, restored=False, ready=True
    )


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "lab")


@pytest.fixture
def qemu(state: State) -> Iterator[subprocess.Popen[str]]:
    """Something that runs under the lab's mark."""
    words = [sys.executable, "-c", SLEEPER, "-name", f"{state.mark},debug-threads=on"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    yield child
    child.kill()
    child.wait()


def test_a_record_survives_writing_and_reading(state: State) -> None:
    record = record_of(os.getpid())
    state.write(record)
    assert state.read() == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_record_that_cannot_be_read_counts_as_none(state: State, text: str) -> None:
    state.directory.mkdir()
    state.path("record.json").write_text(text)
    assert state.read() is None


def test_a_pid_used_again_or_another_boot_is_not_the_lab(qemu: subprocess.Popen[str]) -> None:
    record = record_of(qemu.pid)
    assert process.is_alive(record.pid, record.start_ticks, record.boot_id)
    assert not process.is_alive(record.pid, record.start_ticks + 1, record.boot_id)
    again = replace(record, boot_id="another")
    assert not process.is_alive(again.pid, again.start_ticks, again.boot_id)


def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    deadline = time.monotonic() + 120
    while process.start_ticks(child.pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.returncode = 0


def test_only_processes_with_the_labs_mark_are_found_and_ended(state: State, qemu: subprocess.Popen[str]) -> None:
    assert process.marked(state.mark) == [qemu.pid]
    assert process.marked(state.mark + "0") == []
    process.end(os.getpid(), state.mark)  # no mark: must not hit us
    process.end(qemu.pid, state.mark)
    assert process.marked(state.mark) == []


def test_one_that_ignores_sigterm_is_killed(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_TIMEOUT_S", 0.2)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER
    child = subprocess.Popen([sys.executable, "-c", code, "-name", state.mark], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    process.end(child.pid, state.mark)
    assert process.marked(state.mark) == []
    child.returncode = -signal.SIGKILL


def test_directories_have_different_marks_and_one_directory_has_one(tmp_path: Path) -> None:
    assert State(tmp_path / "a").mark != State(tmp_path / "b").mark
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert State(tmp_path / "link").mark == State(tmp_path / "a").mark


def test_the_lock_of_a_killed_holder_is_free(state: State) -> None:
    code = (
        "import sys; from pathlib import Path; from runtime.host.lab.state import State; import time\n"
        "with State(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(120)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(state.directory)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LabFailed, match="its lock"), state.lock(timeout_s=0.2):
        pass
    holder.kill()
    holder.wait()
    with state.lock(timeout_s=120):
        pass


def test_who_waits_while_the_lab_is_ended_gets_a_lock_that_counts(state: State) -> None:
    entered = threading.Event()

    def wait() -> None:
        with state.lock(timeout_s=120):
            assert state.path("lock").exists()
            entered.set()

    with state.lock():
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.2)
        state.clear(keep_lock=False)
        assert not state.directory.exists()
    waiter.join(120)
    assert entered.is_set()


def test_clearing_keeps_only_the_lock_until_the_lab_is_over(state: State) -> None:
    with state.lock():
        state.path("console.log").write_text("x")
        state.clear(keep_lock=True)
        assert [path.name for path in state.directory.iterdir()] == ["lock"]
        state.clear(keep_lock=False)
    assert not state.directory.exists()


def test_the_directory_is_below_the_runtime_directory_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert state_directory("debian12") == tmp_path / "zonewright/lab/debian12"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert state_directory("debian13") == tmp_path / "s/zonewright/lab/debian13"


def test_a_process_we_spawn_is_in_another_session_and_logs_to_its_directory(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getsid(0) == os.getpid(), os.getcwd(), flush=True)"
    pid = process.spawn([sys.executable, "-c", code], cwd=tmp_path)
    assert process.wait_gone(pid, 120)
    assert (tmp_path / process.LOG).read_text() == f"True {tmp_path}\n"


def test_last_words_are_the_last_lines_of_the_first_log_that_says_something(tmp_path: Path) -> None:
    (tmp_path / "qemu.log").write_text("")
    (tmp_path / "console.log").write_text("a\nb\n\x1b[6n\x00c\nd\n\n")
    assert process.last_words(tmp_path, "none", "qemu.log", "console.log") == "b | [6n c | d"
    assert process.last_words(tmp_path, "qemu.log") == "no message"


def test_clearing_never_takes_the_state_disk(state: State) -> None:
    with state.lock():
        state.path("state.img").write_bytes(b"x")
        state.path("client.key").write_bytes(b"x")
        state.clear(keep_lock=False)
    assert [path.name for path in state.directory.iterdir()] == ["state.img"]


def test_a_labs_state_lies_where_a_reboot_leaves_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert Lab(LabConfig(), Store(tmp_path / "store")).state_disk == tmp_path / "s/zonewright/lab/debian12/state.img"
    own = Lab(LabConfig(), Store(tmp_path / "store"), directory=tmp_path / "own")
    assert own.state_disk == tmp_path / "own" / "state.img"
    own.state_disk.parent.mkdir()
    own.state_disk.write_bytes(b"x")
    assert own.down() is False and own.state_disk.exists()
    assert own.down(wipe=True) is False and not own.state_disk.parent.exists()


def test_a_state_disk_that_another_lab_runs_from_is_not_wiped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that was started with another XDG_RUNTIME_DIR: another session's of the same user."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    lab = Lab(LabConfig(), Store(tmp_path / "store"))
    statefile.make(lab.state_disk)
    with open(lab.state_disk, "rb") as other:
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, statefile.FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0))
        with pytest.raises(StateDiskInUse, match="expected nobody else to use it"):
            lab.down(wipe=True)
        assert lab.state_disk.exists()
    lab.down(wipe=True)
    assert not lab.state_disk.parent.exists()


def test_lab_that_is_started_as_its_state_is_wiped_finds_none_and_keeps_what_it_makes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither by this lab's directory, nor from another session's."""
    lab = Lab(LabConfig(), Store(tmp_path / "store"), directory=tmp_path / "own")
    statefile.make(lab.state_disk)
    unlink, refused = Path.unlink, []

    def others(path: Path, missing_ok: bool = False) -> None:
        if path == lab.state_disk:
            with pytest.raises(LabFailed, match="another command that holds it"):
                lab.state.take("lock", timeout_s=0)
            with open(path, "rb") as other, pytest.raises(BlockingIOError):
                fcntl.fcntl(other, fcntl.F_OFD_SETLK, statefile.FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0))
            refused.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", others)
    lab.down(wipe=True)
    assert refused and not lab.state_disk.parent.exists()
