"""The console against a guest that behaves, and one that does not."""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.hypervisor import FakeXen

from runtime.boot.console import MAX_PENDING_INPUT_BYTES, Console, LogFile, Ring
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import HypervisorFault
from runtime.boot.model import Domid, EvtchnPort, Mfn

OUT, OUT_CONS, OUT_PROD, IN_CONS, IN_PROD = 1024, 3080, 3084, 3072, 3076


class Guest:
    """The guest's half of a ring."""

    def __init__(self) -> None:
        self.page = bytearray(4096)

    def get(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self.page, offset)[0])

    def set(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self.page, offset, value & 0xFFFFFFFF)

    def say(self, data: bytes) -> None:
        produced = self.get(OUT_PROD)
        for index, byte in enumerate(data):
            self.page[OUT + (produced + index) % 2048] = byte
        self.set(OUT_PROD, produced + len(data))

    def hear(self) -> bytes:
        consumed, produced = self.get(IN_CONS), self.get(IN_PROD)
        self.set(IN_CONS, produced)
        return bytes(self.page[(consumed + index) % 1024] for index in range(produced - consumed & 0xFFFFFFFF))


@pytest.mark.parametrize("start", [0, 2000, 2047, 0xFFFFFFF0, 0xFFFFFFFF])
def test_output_is_whole_across_both_wraps(start: int) -> None:
    guest = Guest()
    guest.set(OUT_CONS, start)
    guest.set(OUT_PROD, start)
    ring = Ring(memoryview(guest.page))
    text = bytes(range(256)) * 8
    guest.say(text)
    assert ring.take_output() == (text, False)
    assert guest.get(OUT_CONS) == (start + 2048) & 0xFFFFFFFF
    assert ring.take_output() == (b"", False)


@pytest.mark.parametrize("produced", [2049, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_indices_without_sense_are_reset_and_reading_goes_on(produced: int) -> None:
    guest = Guest()
    guest.set(OUT_PROD, produced)
    ring = Ring(memoryview(guest.page))
    assert ring.take_output() == (b"", True)
    guest.say(b"again")
    assert ring.take_output() == (b"again", False)


@pytest.mark.parametrize("start", [0, 1000, 1023, 0xFFFFFFF0])
def test_input_fills_the_ring_and_no_more(start: int) -> None:
    guest = Guest()
    guest.set(IN_CONS, start)
    guest.set(IN_PROD, start)
    ring = Ring(memoryview(guest.page))
    text = bytes(range(250)) * 5
    assert ring.put_input(text) == 1024
    assert ring.put_input(b"x") == 0
    assert guest.hear() == text[:1024]
    assert ring.put_input(text[1024:]) == 226
    assert guest.hear() == text[1024:]


def test_input_indices_without_sense_take_nothing() -> None:
    guest = Guest()
    guest.set(IN_CONS, 5)
    before = bytes(guest.page)
    assert Ring(memoryview(guest.page)).put_input(b"x") == 0
    assert bytes(guest.page) == before


def test_log_is_bounded_by_two_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(path, max_bytes=1000)
    for number in range(1000):
        log.write(b"%09d\n" % number)
    log.close()
    old = (tmp_path / "log.1").read_bytes()
    assert len(old) <= 1000
    assert path.stat().st_size <= 1000
    assert (old + path.read_bytes()).endswith(b"000000998\n000000999\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1"]


class SharedXen(FakeXen):
    """Maps the console page truly shared, so that the guest's half can change it under the reader."""

    def __init__(self) -> None:
        super().__init__()
        self.guest = Guest()
        self.domains[1] = self.domains[0].__class__("u", bytes(16), unbound={2: 0})
        self.shared = 0

    @contextmanager
    def map_foreign(self, domid: int, mfns: array[int]) -> Iterator[memoryview]:
        self.shared += 1
        view = memoryview(self.guest.page)
        try:
            yield view
        finally:
            view.release()
            self.shared -= 1


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def xen() -> SharedXen:
    return SharedXen()


def open_console(xen: SharedXen, tmp_path: Path) -> Console:
    return Console(Hypervisor(xen), Domid(1), Mfn(9), EvtchnPort(2), tmp_path / "log")


def test_console_logs_what_the_guest_says_and_passes_input(xen: SharedXen, tmp_path: Path) -> None:
    console = open_console(xen, tmp_path)
    (channel,) = xen.channels
    for number in range(300):
        xen.guest.say(b"line %d\n" % number)
        channel.fire()
        until(lambda: xen.guest.get(OUT_CONS) == xen.guest.get(OUT_PROD))
    heard = b""
    assert console.write(b"i" * 3000) == 3000
    while len(heard) < 3000:
        until(lambda: xen.guest.get(IN_PROD) != xen.guest.get(IN_CONS))
        heard += xen.guest.hear()
        channel.fire()
    console.close()
    assert heard == b"i" * 3000
    assert (tmp_path / "log").read_bytes() == b"".join(b"line %d\n" % number for number in range(300))
    assert console.tail(9) == "line 299\n"
    assert channel.notified >= 3


def test_last_words_are_kept_at_close(xen: SharedXen, tmp_path: Path) -> None:
    console = open_console(xen, tmp_path)
    xen.guest.say(b"panic")
    console.close()
    console.close()
    assert console.tail() == "panic"
    assert console.write(b"x") == 0
    assert xen.shared == 0
    assert xen.channels == []


def test_input_nobody_reads_is_bounded(xen: SharedXen, tmp_path: Path) -> None:
    console = open_console(xen, tmp_path)
    taken = sum(console.write(b"x" * 50_000) for _ in range(10))
    console.close()
    assert taken <= MAX_PENDING_INPUT_BYTES + 1024


def test_garbage_in_the_ring_is_told_in_the_log(xen: SharedXen, tmp_path: Path) -> None:
    console = open_console(xen, tmp_path)
    xen.guest.set(OUT_PROD, 0x12345678)
    xen.channels[0].fire()
    until(lambda: "output is lost" in console.tail())
    xen.guest.say(b"still here")
    xen.channels[0].fire()
    until(lambda: console.tail().endswith("still here"))
    console.close()


@pytest.mark.parametrize("port", [7])
def test_console_that_cannot_be_bound_leaves_nothing(xen: SharedXen, tmp_path: Path, port: int) -> None:
    with pytest.raises(HypervisorFault):
        Console(Hypervisor(xen), Domid(1), Mfn(9), EvtchnPort(port), tmp_path / "log")
    assert xen.shared == 0
    assert xen.channels == []
