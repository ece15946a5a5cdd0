"""A workload's standard streams: logs, input, a terminal, and output that outlives its reader."""

import os
import time

import pytest
from support.zonebox import sh

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]


def test_the_logs_come_from_their_offsets_and_end_with_the_workload(start):
    zone = start(sh("echo one; echo two >&2; read x; echo $x; exit 5"), extra={"stdin_open": True})
    zone.host.until_output("main", 1, 4)
    logs = zone.host.open("logs", container="main", **{"from": {"1": 2, "2": 0}})
    typed = zone.host.open("stdin", id="main")
    typed.write(b"three\n")
    assert zone.host.note("exit")["code"] == 5
    zone.host.until(lambda: logs.ended == {1, 2})
    assert (bytes(logs.data[1]), bytes(logs.data[2])) == (b"e\nthree\n", b"two\n")
    assert logs.wait() == {} and typed.wait() == {}
    assert zone.wait()[1] == "zone: the workload exited with code 5"


def test_the_end_of_stdin_reaches_the_workload(start):
    zone = start({"argv": ["wc", "-c"]}, extra={"stdin_open": True})
    logs = zone.host.open("logs", container="main")
    typed = zone.host.open("stdin", id="main")
    typed.write(bytes(200_000))
    typed.eof()
    logs.wait()
    assert logs.data[1] == b"200000\n" and zone.wait()[1].endswith("code 0")


def test_a_workload_on_a_terminal(start):
    zone = start(sh("stty size; read x; stty size; exit 6", tty=True), extra={"stdin_open": True, "tty_size": [11, 22]})
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"11 22" in logs.data[1])
    typed = zone.host.open("stdin", id="main")
    typed.event(resize=[33, 44])
    typed.write(b"\n")
    logs.wait()
    assert b"33 44" in logs.data[1] and zone.wait()[1].endswith("code 6")


def test_output_is_kept_for_a_host_that_comes_late(start):
    zone = start(sh("echo early; : > /ending; exit 2"), hello=False)
    zone.workload_ended("ending")
    greeting = zone.host.hello()
    assert greeting["containers"][0]["exit"] == {"code": 2} and greeting["outcome"] == "code 2"
    logs = zone.host.open("logs", container="main")
    logs.wait()
    assert logs.data[1] == b"early\n" and zone.wait()[1].endswith("code 2")


def test_what_no_host_ever_read_is_shown_on_the_console(start):
    out, end = start(sh("echo unread; exit 2"), hello=False).wait()
    assert out == "unread\n" and end.endswith("code 2")


def test_acknowledged_output_is_not_sent_again_and_the_rest_is(start):
    zone = start(sh("head -c 200000 /dev/zero; exec sleep 100"))
    logs = zone.host.open("logs", container="main")
    logs.hold = True
    zone.host.until(lambda: len(logs.data[1]) == 65536)
    logs.release()
    zone.host.until(lambda: len(logs.data[1]) == 200_000)
    (main,) = zone.host.hello()["containers"]
    start_at, end_at = main["output"]["1"]
    assert end_at == 200_000 and 65536 <= start_at <= 200_000
    again = zone.host.open("logs", container="main", **{"from": {"1": start_at}})
    zone.host.until(lambda: len(again.data[1]) == end_at - start_at)
    assert not again.events


def test_host_that_is_slow_to_store_what_is_left_gets_all_of_it(start):
    zone = start(sh("head -c 200000 /dev/zero; exit 3"))
    logs = zone.host.open("logs", container="main")
    logs.hold = True
    zone.host.note("exit")
    slow_until = time.monotonic() + 5
    while time.monotonic() < slow_until:
        zone.host.take(0.1)
    assert len(logs.data[1]) == 65536
    logs.hold = False
    logs.release()
    logs.wait()
    assert len(logs.data[1]) == 200_000 and zone.wait()[1].endswith("code 3")
