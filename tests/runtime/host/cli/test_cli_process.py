"""`zone exec`, `zone attach`: bytes, exit codes, signals, and the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import threading
from collections.abc import Iterator

import pytest
from support.fakeprocesses import Processes
from support.fakerefusals import Refused
from support.terminals import Terminal

pytestmark = pytest.mark.usefixtures("programs")

# `zone`, which says on descriptor argv[1] that it is about to write what came.
ANNOUNCING = """
import os, sys
from runtime.host.cli import console, main
told, write_all = int(sys.argv.pop(1)), console.write_all
def announced(fd, data):
    os.write(told, b"!")
    write_all(fd, data)
console.write_all = announced
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def web(zoned):
    return zoned.add("web")


@pytest.mark.parametrize(
    ("argv", "code"), [(("both",), 3), (("nowhere",), 127), (("not-executable",), 126)], ids=lambda value: str(value)
)
def test_exit_code_is_the_commands_own(zone, argv: tuple[str, ...], code: int) -> None:
    zone("exec", "web", *argv, code=code)


def test_stdout_and_stderr_come_apart_byte_for_byte(start) -> None:
    process = start("exec", "web", "both")
    assert process.communicate(timeout=120) == (b"out\0\xff\n", b"err\n")
    assert process.returncode == 3


def test_stdin_goes_through_byte_for_byte_from_a_pipe(start) -> None:
    data = os.urandom(3_000_001)
    process = start("exec", "-i", "web", "cat")
    assert process.communicate(data, timeout=120) == (data, b"")
    assert process.returncode == 0


def test_stdin_may_be_a_file(start, tmp_path) -> None:
    (tmp_path / "in").write_bytes(b"\x1d\x03a file\0" * 1000)  # Ctrl-] and Ctrl-C are bytes like any other here
    with open(tmp_path / "in", "rb") as file:
        process = start("exec", "-i", "web", "cat", stdin=file)
        assert process.communicate(timeout=120)[0] == (tmp_path / "in").read_bytes()


def test_without_i_the_command_has_no_stdin(zoned, zone) -> None:
    zone("exec", "web", "both", code=3)
    (start,) = [message.start for method, message in zoned.calls if method == "ExecZone"]
    assert not start.stdin and not start.tty


def test_options_reach_the_command_and_what_follows_it_is_its_own(zoned, zone, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("OURS", "1")
    (tmp_path / "env").write_text("# a comment\nA=file\n\nB=file=b\n")
    options = ("-u", "www-data", "-w", "/srv", "-e", "OURS", "-e", "A=flag", "-e", "NOT_OURS", "--env-file")
    zone("exec", *options, str(tmp_path / "env"), "web", "both", "-e", "--help", "--", code=3)
    (start,) = [message.start for method, message in zoned.calls if method == "ExecZone"]
    assert (start.user, start.cwd, list(start.argv)) == ("www-data", "/srv", ["both", "-e", "--help", "--"])
    assert sorted(start.env) == ["A=flag", "B=file=b", "OURS=1"]


def test_lines_of_an_env_file_end_where_docker_ends_them(zoned, zone, tmp_path) -> None:
    (tmp_path / "env").write_bytes("\ufeffA=1\r\nB=two\u2028lines\x0c \nC".encode())
    zone("exec", "--env-file", str(tmp_path / "env"), "web", "both", code=3)
    assert list(zoned.calls[-1][1].start.env) == ["A=1", "B=two\u2028lines\x0c "]
    said = zone.sentence("exec", "--env-file", "nowhere", "web", "both")
    assert said == "--env-file nowhere: expected a text file, got No such file or directory"


def test_what_is_run_in_the_zone_itself_is_asked_for_as_such(zoned, zone) -> None:
    zone("exec", "--zone", "web", "both", code=3)
    zone("exec", "web", "both", "--zone", code=3)
    starts = [message.start for method, message in zoned.calls if method == "ExecZone"]
    assert [(start.outside, list(start.argv)) for start in starts] == [(True, ["both"]), (False, ["both", "--zone"])]


def test_detached_returns_when_it_has_started(zoned, zone, programs) -> None:
    assert zone("exec", "-d", "web", "wait") == ""
    assert zoned.calls[-1][1].start.detach


def test_signal_while_a_detached_command_is_being_started_ends_it(zoned, start, monkeypatch) -> None:
    asked = threading.Event()

    async def never(self, *_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Processes, "_process", never)
    process = start("exec", "-d", "web", "wait")
    assert asked.wait(120)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=120) == (b"", b"") and process.returncode == 143


def test_no_command_and_no_terminal_are_refused_before_anything_is_asked(zoned, zone, monkeypatch) -> None:
    assert "expected a command" in zone.sentence("exec", "web")
    read, _ = os.pipe()
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    assert "stdin: expected a terminal, for -t" in zone.sentence("exec", "-it", "web", "both")
    os.close(read)
    assert zoned.calls == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_the_commands_and_so_is_its_end(start, programs, number: signal.Signals) -> None:
    process = start("exec", "web", "wait")
    assert programs.wait(120)
    process.send_signal(number)
    assert process.wait(120) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signal_that_was_ignored_as_it_was_started_is_none_of_the_commands(start, programs, number) -> None:
    """As nohup does it, and a shell without job control for what it starts in the background."""
    process = start("exec", "web", "stubborn", preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    assert programs.wait(120)
    process.send_signal(number)
    for _ in range(2):  # of two that come at once, the later one may be told first
        process.send_signal(signal.SIGUSR1)
        assert process.stderr.readline() == b"got %d\n" % signal.SIGUSR1


def test_command_that_ignores_three_signals_is_left(start, programs) -> None:
    process = start("exec", "web", "stubborn")
    assert programs.wait(120)
    for count in range(3):
        process.send_signal(signal.SIGINT)
        if count < 2:
            assert process.stderr.readline() == b"got 2\n"
    assert process.wait(120) == 1
    assert b"did not end at 3 signals" in process.stderr.read()


def test_leaving_a_command_that_ignores_signals_is_no_success_on_a_terminal_either(start, programs) -> None:
    terminal = Terminal(start, "exec", "web", "stubborn")
    assert programs.wait(120)
    for count in range(3):
        terminal.process.send_signal(signal.SIGINT)
        if count < 2:
            terminal.until(b"got 2")
    assert terminal.end() == 1
    terminal.close()


@pytest.fixture
def full() -> Iterator[int]:
    """A pipe that takes nothing any more, and whose reader is there and reads nothing."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")], ids=",".join)
def test_three_signals_leave_a_command_whose_output_nobody_reads(zoned, start, full, streams: tuple[str, ...]) -> None:
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    async def talk(run) -> int:
        await run.out(b"a word")
        while True:
            signals.put(await run.signals.get())

    zoned.programs["talk"] = talk
    told, tell = os.pipe()
    words = (str(tell), "exec", "web", "talk")
    process = start(*words, code=ANNOUNCING, pass_fds=(tell,), **dict.fromkeys(streams, full))
    assert os.read(told, 1) == b"!"
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        assert signals.get(timeout=120) == signal.SIGTERM
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 1
    assert process.stderr is None or b"did not end at 3 signals" in process.stderr.read()
    os.close(told)
    os.close(tell)


def test_reader_that_goes_away_ends_it(start) -> None:
    process = start("exec", "-i", "web", "cat")
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):  # of ours: it may have ended before it took all of it
        process.stdin.write(b"x" * 100_000)
        process.stdin.flush()
    assert process.wait(120) == 141
    assert b"Traceback" not in process.stderr.read()


@pytest.fixture
def terminal(start) -> Iterator[Terminal]:
    made = Terminal(start, "exec", "-it", "web", "terminal")
    made.until(b"$ ")
    yield made
    made.close()


def test_terminal_passes_every_key_and_its_size(terminal: Terminal) -> None:
    terminal.type(b"\x03\x04\x1a\x13size\r")  # Ctrl-C, -D, -Z and -S are the zone's
    terminal.until(b"\x03\x04\x1a\x13size\r")
    terminal.until(b"33x101\r\n")
    terminal.type(b"exit\r")
    assert terminal.end() == 7


def test_terminal_that_changes_its_size_says_so(terminal: Terminal) -> None:
    terminal.resize(12, 34)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.until(b"resized 12x34\r\n")
    terminal.type(b"exit\r")
    assert terminal.end() == 7


def test_ctrl_bracket_leaves_with_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.type(b"half\x1d")
    assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ended_from_outside_the_terminal_is_as_it_was(terminal: Terminal, number: signal.Signals) -> None:
    terminal.process.send_signal(number)
    assert terminal.end() == 128 + number


def test_zoned_that_fails_meanwhile_is_no_success(zoned, zone) -> None:
    async def refuse(run) -> int:
        raise Refused("zone web", got="its channel is broken")

    zoned.programs["refused"] = refuse
    assert zone.sentence("exec", "web", "refused") == "zone web: its channel is broken"


def test_host_that_dies_leaves_the_terminal_as_it_was(terminal: Terminal, zoned) -> None:
    zoned.wait(zoned.drop())
    assert terminal.end() == 1
    terminal.until(b"error: ")


def test_attach_replays_takes_input_and_ends_with_the_workloads_code(zoned, start) -> None:
    async def workload(run) -> int:
        assert run.start.replay
        await run.out(b"before\n")
        return len(await run.read())

    zoned.programs["web"] = workload
    process = start("attach", "web")
    assert process.communicate(b"12345", timeout=120)[0] == b"before\n"
    assert process.returncode == 5


def test_attach_of_a_zone_that_has_ended_is_refused(zoned, zone) -> None:
    zoned.add("old", state="exited")
    assert "zone old: expected it running, got it is exited" in zone.sentence("attach", "--no-stdin", "old")


def test_without_i_the_command_reads_the_end_of_its_input(zoned, zone) -> None:
    assert zone("exec", "web", "cat") == ""


def test_attach_uses_the_terminal_where_the_workload_has_one(zoned, start) -> None:
    zoned.add("shell", tty=True)
    zoned.programs["shell"] = zoned.programs["terminal"]
    terminal = Terminal(start, "attach", "shell")
    terminal.until(b"$ ")
    terminal.type(b"size\r")
    terminal.until(b"33x101\r\n")
    terminal.type(b"\x1d")
    assert terminal.end() == 0
    assert zoned.zones["shell"].state == "ready"
    terminal.close()
