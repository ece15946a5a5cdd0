"""`zone logs`, `zone events`."""

from __future__ import annotations

import json
import select
import signal
import time

import pytest

from runtime.host.cli.moments import duration_s, moment


@pytest.fixture(autouse=True)
def web(zoned):
    now = time.time()
    zoned.logs["web"] = [
        (now - 7200, "stdout", b"long ago\n"),
        (now - 7200, "console", b"[    0.000000] Linux\n"),
        (now - 30, "stdout", b"half a "),
        (now - 20, "stdout", b"line\xff\n"),
        (now - 10, "stderr", b"oops\n"),
    ]
    return zoned.add("web")


def test_logs_keep_output_and_errors_apart_byte_for_byte(start) -> None:
    assert start("logs", "web").communicate(timeout=120) == (b"long ago\nhalf a line\xff\n", b"oops\n")


def test_since_until_tail_and_console(zone) -> None:
    assert zone("logs", "--since", "1h", "--until", "5s", "--tail", "1", "web") == "" and zone.err == "oops\n"
    assert zone("logs", "--until", "1h", "web") == "long ago\n"
    assert zone("logs", "--console", "web") == "[    0.000000] Linux\n"
    assert zone("logs", "-n", "0", "web") == ""
    assert zone("logs", "-n", "99999999999999999999", "--until", "1h", "web") == "long ago\n"


@pytest.mark.parametrize(
    "option", [("--since", "1h"), ("--until", "5s"), ("--timestamps",)], ids=lambda words: words[0]
)
def test_times_of_a_console_are_refused(zone, zoned, option: tuple[str, ...]) -> None:
    said = zone.sentence("logs", "--console", *option, "web")
    assert "expected no --since, --until or --timestamps for a console, got one, of which no times are kept" in said
    assert zoned.calls == []


def test_times_of_a_zone_that_has_only_a_console_are_refused(zone, zoned) -> None:
    zoned.logs["web"] = [(0.0, "console", b"[    0.000000] Linux\n")]
    zoned.console_alone.add("web")
    assert "no times are kept" in zone.sentence("logs", "--timestamps", "web")
    assert zone("logs", "web") == "[    0.000000] Linux\n"


def test_timestamps_stand_where_a_line_begins(start) -> None:
    out, _ = start("logs", "-t", "--since", "1h", "web").communicate(timeout=120)
    stamp, rest = out.split(b" ", 1)
    assert rest == b"half a line\xff\n" and stamp.endswith(b"Z") and len(stamp) == len("2026-11-27T08:00:00.000000Z")


def test_line_that_was_drawn_over_itself_has_one_time(start, zoned) -> None:
    zoned.logs["web"] = [(time.time(), "stdout", b"10%\r20%\r\n\x0cdone\r\n")]
    out, _ = start("logs", "-t", "web").communicate(timeout=120)
    assert [line.partition(b" ")[2] for line in out.split(b"\n")] == [b"10%\r20%\r", b"\x0cdone\r", b""]


def test_follow_goes_on_until_the_zone_ends(zoned, start, web) -> None:
    process = start("logs", "-f", "--tail", "0", "web")

    async def say() -> None:
        while not any(method == "ReadLogs" for method, _ in zoned.calls):
            await zoned.called.wait()
        await zoned.log("web", "stdout", b"new\n")
        await zoned.end(web, 0)

    zoned.wait(say())
    assert process.communicate(timeout=120) == (b"new\n", b"") and process.returncode == 0


STREAMING = {
    "WatchEvents": ("events", "--since", ""),
    "ReadLogs": ("logs", "-f", "--tail", "0", "web"),
    "ListZones": ("ps", "--watch"),
    "ReadMetrics": ("top",),
}


async def asked_for(zoned, method: str) -> None:
    while not any(called == method for called, _ in zoned.calls):
        await zoned.called.wait()


@pytest.mark.parametrize("method", STREAMING)
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, b""), (signal.SIGINT, 130, b"interrupted\n")],
    ids=["term", "int"],
)
def test_signal_ends_what_streams_without_a_traceback(
    zoned, start, method, number: int, code: int, said: bytes
) -> None:
    process = start(*STREAMING[method])
    zoned.wait(asked_for(zoned, method))
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (code, said), err.decode()


def test_sigterm_ends_a_command_whose_output_nobody_takes(zoned, start, web) -> None:
    process = start(*STREAMING["ReadLogs"])
    zoned.wait(asked_for(zoned, "ReadLogs"))
    zoned.wait(zoned.log("web", "stdout", b"x" * 1_000_000))  # more than a pipe holds: it waits in write(2)
    assert select.select([process.stdout], [], [], 120)[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143 and process.stderr.read() == b""


@pytest.mark.parametrize("method", ["WatchEvents", "ReadLogs"])
def test_reader_that_has_gone_ends_what_streams_as_sigpipe_does(zoned, start, web, method) -> None:
    process = start(*STREAMING[method])
    zoned.wait(asked_for(zoned, method))
    process.stdout.close()

    async def say() -> None:
        await zoned.change(zoned.zones["web"], "ready", "zone.ready")
        await zoned.log("web", "stdout", b"new\n")

    zoned.wait(say())
    assert process.wait(120) == 141 and process.stderr.read() == b""
    process.stdout = None


def test_events_of_the_past_end_with_the_last(zoned, zone, web) -> None:
    zoned.wait(zoned.end(web, 1))
    zoned.wait(zoned.change(zoned.add("db"), "ready", "zone.ready"))
    first, second = zone("events", "--since", "start").splitlines()
    assert first.split()[1:] == ["1", "zone.exited", "web", "code=1"] and second.split()[1:] == [
        "2",
        "zone.ready",
        "db",
    ]
    assert zone("events", "--since", "1").split()[1] == "2"
    assert "no such token" in zone.sentence("events", "--since", "99")
    assert [json.loads(line)["zone"] for line in zone("events", "--since", "10m", "--format", "json").splitlines()] == [
        "web",
        "db",
    ]
    assert zone("events", "--since", "start", "db").split()[-1] == "db"
    assert zone("events", "--since", "start", "web", "--format", "yaml").startswith('---\ntoken: "1"\n')


def test_events_from_now_on_come_as_they_happen(zoned, start, web) -> None:
    zoned.wait(zoned.end(web, 1))
    process = start("events", "--format", "json")

    async def happen() -> None:
        while not any(method == "WatchEvents" for method, _ in zoned.calls):
            await zoned.called.wait()
        await zoned.change(web, "ready", "zone.ready")

    zoned.wait(happen())
    assert json.loads(process.stdout.readline())["kind"] == "zone.ready"
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds
    assert abs(moment(text) - (time.time() - seconds)) < 60


def test_moments() -> None:
    assert moment("1700000000") == 1700000000
    assert moment("2026-11-27T08:00:00+00:00") == 1795766400
    assert moment("2026-11-27T08:00:00Z") == 1795766400
