"""Loop devices for real: taken, raced for, written through, given back."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from runtime.host import loops
from runtime.host.loops import LoopDevice, LoopFault


@pytest.fixture
def image(tmp_path: Path) -> Path:
    if os.geteuid() != 0 or not os.path.exists(loops.CONTROL):
        pytest.skip("needs root and loop devices")
    path = tmp_path / "image"
    path.write_bytes(b"first".ljust(1 << 20, b"\0"))
    return path


class Ledger:
    def __init__(self) -> None:
        self.records: list[tuple[str, str]] = []

    def __call__(self, kind: str, **fields: Any) -> None:
        self.records.append((kind, fields["device"]))


def test_device_is_recorded_before_it_is_taken_and_again_when_it_is_given_back(image: Path) -> None:
    seen: list[tuple[str, bool]] = []

    def record(kind: str, device: str, file: str) -> None:
        seen.append((kind, device in loops.in_use()))

    loop = LoopDevice(image, record)
    assert loops.in_use()[str(loop.device)] == str(image)
    assert loop.device.read_bytes()[:5] == b"first"
    loop.close()
    loop.close()
    assert str(loop.device) not in loops.in_use()
    assert seen == [("loop", False), ("loop.gone", False)]


def test_device_is_given_back_though_its_ledger_has_no_room_to_say_so(
    image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def record(kind: str, device: str, file: str) -> None:
        if kind == "loop.gone":
            raise OSError(28, "No space left on device")

    loop = LoopDevice(image, record)
    loop.close()
    assert str(loop.device) not in loops.in_use()
    assert "its ledger does not know: [Errno 28] No space left on device" in caplog.text


def test_read_only_device_refuses_writes_and_the_other_writes_through(image: Path) -> None:
    loop = LoopDevice(image, Ledger())
    fd = os.open(loop.device, os.O_WRONLY)
    with pytest.raises(PermissionError):
        os.write(fd, bytes(512))
    os.close(fd)
    loop.close()
    loop = LoopDevice(image, Ledger(), readonly=False)
    fd = os.open(loop.device, os.O_WRONLY)
    os.write(fd, b"later".ljust(512, b"\0"))
    os.fsync(fd)
    os.close(fd)
    loop.close()
    assert image.read_bytes()[:5] == b"later"


def test_number_that_another_process_took_first_is_let_go_and_the_next_is_used(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, other = Ledger(), LoopDevice(image, Ledger())
    plain, told = fcntl.ioctl, []

    def raced(fd: int, number: int, *rest: Any) -> Any:
        if number == loops.LOOP_CTL_GET_FREE and not told:
            told.append(1)
            return int(other.device.name.removeprefix("loop"))
        return plain(fd, number, *rest)

    monkeypatch.setattr(loops.fcntl, "ioctl", raced)
    loop = LoopDevice(image, ledger)
    assert loop.device != other.device
    assert ledger.records == [
        ("loop", str(other.device)),
        ("loop.gone", str(other.device)),
        ("loop", str(loop.device)),
    ]
    loop.close()
    other.close()


def test_other_errors_than_a_lost_race_are_told_at_once(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = fcntl.ioctl, []

    def failing(fd: int, number: int, *rest: Any) -> Any:
        if number == loops.LOOP_CONFIGURE:
            calls.append(number)
            raise OSError(22, "Invalid argument")
        return plain(fd, number, *rest)

    monkeypatch.setattr(loops.fcntl, "ioctl", failing)
    before = len(os.listdir("/proc/self/fd"))
    ledger = Ledger()
    with pytest.raises(LoopFault, match="Invalid argument"):
        LoopDevice(image, ledger)
    assert len(calls) == 1
    assert [kind for kind, _ in ledger.records] == ["loop", "loop.gone"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_missing_file_is_named() -> None:
    with pytest.raises(LoopFault, match="/none: expected a readable file"):
        LoopDevice(Path("/none"), Ledger())
