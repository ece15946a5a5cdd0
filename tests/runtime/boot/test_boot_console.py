"""The console against a guest that behaves, and one that does not; served by a thread, and by an asyncio loop."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from support.rings import IN_CONS, IN_PROD, OUT_CONS, OUT_PROD, SharedXen, until

from runtime.boot.attend import LoopAttendant
from runtime.boot.console import MAX_PENDING_INPUT_BYTES, Console, LogFile
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import HypervisorFault
from runtime.boot.model import Domid, EvtchnPort, Mfn


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


def test_log_goes_on_when_its_disk_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile(tmp_path / "log", max_bytes=10)
    log.write(b"0123456789")
    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "_open", lambda self: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        log.write(b"lost")
        log.write(b"lost")
    log.write(b"back")
    log.close()
    assert (tmp_path / "log").read_bytes() == b"back"
    assert (tmp_path / "log.1").read_bytes() == b"0123456789"


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
    assert 2 <= channel.notified < 10  # for the input, not for each of 300 lines


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


def test_a_loop_serves_many_consoles_without_a_thread_and_none_starves(tmp_path: Path) -> None:
    """Nineteen zones flood their rings for as long as the twentieth needs to say a hundred lines."""
    lines = b"".join(b"line %d\n" % number for number in range(100))

    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        attendant = LoopAttendant(loop)
        xens = [SharedXen() for _ in range(20)]
        consoles = [
            Console(Hypervisor(xen), Domid(1), Mfn(9), EvtchnPort(2), tmp_path / str(number), attendant=attendant)
            for number, xen in enumerate(xens)
        ]
        quiet, *floods = xens
        said = turns = 0
        while said < 100 or quiet.guest.get(OUT_PROD) != quiet.guest.get(OUT_CONS):
            for xen in floods:
                xen.guest.say(b"x" * xen.guest.room())
                xen.channels[0].fire()
            if said < 100:
                quiet.guest.say(b"line %d\n" % said)
                quiet.channels[0].fire()
                said += 1
            await asyncio.sleep(0)
            turns += 1
        assert turns < 400  # about one a turn of the loop, whatever the others do
        for console in consoles:
            console.close()
        assert all(xen.channels == [] and xen.shared == 0 for xen in xens)
        return [os.path.getsize(tmp_path / str(number)) for number in range(20)]

    quiet, *floods = asyncio.run(run())
    assert (tmp_path / "0").read_bytes() == lines
    assert quiet == len(lines)
    assert min(floods) >= 40 * 2048


def test_a_console_of_a_loop_is_closed_from_another_thread(xen: SharedXen, tmp_path: Path) -> None:
    async def run() -> None:
        attendant = LoopAttendant(asyncio.get_running_loop())

        def work() -> None:
            arguments = (Hypervisor(xen), Domid(1), Mfn(9), EvtchnPort(2), tmp_path / "log")
            console = Console(*arguments, attendant=attendant)
            console.write(b"input")
            until(lambda: xen.guest.get(IN_PROD) != xen.guest.get(IN_CONS))
            xen.guest.say(b"last words")
            console.close()

        await asyncio.to_thread(work)

    asyncio.run(run())
    assert (tmp_path / "log").read_bytes() == b"last words"
    assert xen.guest.hear() == b"input"
    assert xen.channels == []


def test_a_console_outlives_its_loop(xen: SharedXen, tmp_path: Path) -> None:
    async def run() -> Console:
        attendant = LoopAttendant(asyncio.get_running_loop())
        return Console(Hypervisor(xen), Domid(1), Mfn(9), EvtchnPort(2), tmp_path / "log", attendant=attendant)

    console = asyncio.run(run())
    xen.guest.say(b"said to nobody")
    console.close()
    assert (tmp_path / "log").read_bytes() == b"said to nobody"
    assert xen.shared == 0
