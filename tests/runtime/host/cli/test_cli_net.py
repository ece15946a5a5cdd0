"""`zone net`: networks, what passes through them, captures."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
from pathlib import Path

import pytest

from runtime.host.api import host_pb2 as pb

WEB = pb.ZoneFlows(
    zone="web",
    flows=[
        pb.Flow(
            protocol="tcp",
            zone_side="10.75.0.2:40000",
            outside="[2001:db8::7]:443",
            state="open",
            bytes_up=700,
            bytes_down=3 << 20,
            age_s=75,
        )
    ],
    counters={"accepted": 3, "bytes_up": 900},
)
PIECES = [
    pb.CaptureNetworkReply(pcap=b"\x4d\x3c\xb2\xa1" + bytes(20)),
    pb.CaptureNetworkReply(pcap=b"\x00\xff\r\nframes", frames=2),
    pb.CaptureNetworkReply(frames=2, lost=5),
]
FILE = PIECES[0].pcap + PIECES[1].pcap


def test_networks(zone, zoned) -> None:
    zoned.networks.append(
        pb.NetworkInfo(name="default", ipv4="10.75.0.0/16", gateway4="10.75.0.1", engine="up", zones=["web"])
    )
    assert zone("net", "ls").splitlines()[1].split() == ["default", "10.75.0.0/16", "10.75.0.1", "up", "web"]
    assert zone("net", "ls", "-q") == "default\n"


def test_networks_are_made_and_removed_by_name(zone, zoned) -> None:
    assert zone("net", "create", "back") == "back\n"
    assert zone("net", "create", "--mtu", "9000", "front") == "front\n"
    assert [(call.name, call.mtu) for _, call in zoned.calls] == [("back", 0), ("front", 9000)]
    assert zone("net", "ls", "-q") == "back\nfront\n"
    assert zone("net", "rm", "back", "front") == "back\nfront\n"
    assert zoned.networks == []


def test_flows_of_all_zones_or_of_one(zone, zoned) -> None:
    for name in ("web", "db"):
        zoned.add(name)
    dead = pb.ZoneFlows(zone="db", problem="network engine of zone db: expected an answer, got it ended")
    zoned.flows += [dead, WEB]
    head, row = zone("net", "flows").splitlines()
    assert head.split("  ")[0] == "ZONE"
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [
        *("web", "tcp", "10.75.0.2:40000", "[2001:db8::7]:443", "open", "700 B", "3.0 MiB", "1 min")
    ]
    assert zone.err == "db: network engine of zone db: expected an answer, got it ended\n"
    assert zone("net", "flows", "web") and zone.err == ""
    assert zoned.calls[-1][1].zone == "web"
    for words in ((), ("--counters",), ("--format", "json")):
        zone("net", "flows", *words, "db", code=1)
    assert zone.sentence("net", "flows", "wbe") == "zone: no such zone as wbe, did you mean web?"


def test_counters_are_a_table_of_their_own_and_json_has_both(zone, zoned) -> None:
    zoned.add("web")
    zoned.flows.append(WEB)
    rows = [line.split() for line in zone("net", "flows", "--counters").splitlines()]
    assert rows == [["ZONE", "COUNTER", "VALUE"], ["web", "accepted", "3"], ["web", "bytes_up", "900"]]
    (found,) = json.loads(zone("net", "flows", "--format", "json"))
    assert found["flows"][0]["bytes_down"] == 3 << 20
    assert found["counters"] == {"accepted": 3, "bytes_up": 900}


def test_capture_is_written_as_it_came_for_its_owner_alone(zone, zoned, tmp_path: Path) -> None:
    zoned.add("web")
    zoned.capture = PIECES
    file = tmp_path / "web.pcap"
    words = ("--count", "2", "--seconds", "1.5", "--port", "53", "--address", "2001:DB8::0:7", "--snap", "96")
    assert zone("net", "capture", "web", "-o", str(file), *words) == ""
    assert file.read_bytes() == FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert zone.err == f"capturing to {file}\n2 frames, 5 lost: they came faster than they were taken\n"
    assert zoned.calls[-1][1] == pb.CaptureNetworkRequest(
        zone="web", count=2, seconds=1.5, snap_bytes=96, host="2001:db8::7", port=53
    )


def test_capture_that_does_not_begin_leaves_the_file_as_it_was(zone, zoned, tmp_path: Path) -> None:
    zoned.add("web")
    file = tmp_path / "kept.pcap"
    file.write_text("of before")
    assert zone.sentence("net", "capture", "wbe", "-o", str(file)).endswith("did you mean web?")
    assert file.read_text() == "of before"


def test_capture_that_cannot_be_written_says_so(zone, zoned, tmp_path: Path) -> None:
    zoned.add("web")
    zoned.capture = PIECES
    said = zone.sentence("net", "capture", "web", "-o", str(tmp_path / "none" / "x"))
    assert "expected to write it, got [Errno 2] No such file or directory" in said


def test_capture_to_stdout_is_the_file_and_nothing_else(start, zoned) -> None:
    zoned.add("web")
    zoned.capture = PIECES
    process = start("net", "capture", "web", "-o", "-")
    out, err = process.communicate(timeout=120)
    assert (out, process.returncode) == (FILE, 0)
    assert err.startswith(b"capturing to stdout\n2 frames, 5 lost")


def test_interrupt_is_the_end_of_a_capture_that_has_begun(start, zoned, tmp_path: Path) -> None:
    zoned.add("web")
    zoned.capture, zoned.capture_goes_on = PIECES, True
    file = tmp_path / "web.pcap"
    process = start("net", "capture", "web", "-o", str(file))
    while not (file.exists() and file.read_bytes() == FILE):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, file.read_bytes()) == (0, FILE)
    assert err.startswith(f"capturing to {file}\n2 frames".encode())


def test_reader_that_goes_ends_a_capture(start, zoned) -> None:
    zoned.add("web")
    zoned.capture, zoned.capture_goes_on = [PIECES[0], *[PIECES[1]] * 30_000], True
    process = start("net", "capture", "web", "-o", "-")
    assert process.stdout.read(4) == FILE[:4]
    process.stdout.close()
    assert process.wait(120) == 141


def test_terminal_is_no_place_for_a_capture(start, zoned) -> None:
    zoned.add("web")
    terminal, other = pty.openpty()
    try:
        process = start("net", "capture", "web", "-o", "-", stdout=other)
        _, err = process.communicate(timeout=120)
    finally:
        os.close(terminal)
        os.close(other)
    assert process.returncode == 1
    assert b"expected stdout to be a file or a pipe, got a terminal" in err
    assert zoned.calls == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("web",), "required: -o/--output"),
        (("web", "-o", "x", "--count", "0"), "expected a number from 1"),
        (("web", "-o", "x", "--port", "http"), "expected a number from 1 to 65535, got 'http'"),
        (("web", "-o", "x", "--port", "65536"), "expected a number from 1 to 65535"),
        (("web", "-o", "x", "--seconds", "nan"), "expected seconds, got 'nan'"),
        (("web", "-o", "x", "--seconds", "-1"), "expected seconds, got '-1'"),
        (("web", "-o", "x", "--address", "example.org"), "expected an IPv4 or IPv6 address, got 'example.org'"),
    ],
)
def test_wrong_lines_are_refused_before_anybody_is_asked(zone, zoned, words: tuple[str, ...], said: str) -> None:
    assert zone("net", "capture", *words, code=2) == ""
    assert said in zone.err
    assert zoned.calls == []
