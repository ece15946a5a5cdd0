"""`zone snoop`: frames of the agent channel as people and programs read them."""

from __future__ import annotations

import json

import pytest

from runtime.host.api import control_pb2 as pb
from runtime.init.channel import frames


@pytest.fixture
def channel(zoned):
    """Two zones, and what passes on their channels."""
    web, db = zoned.add("web").id, zoned.add("db").id
    call = json.dumps({"method": "exec", "params": {"argv": ["x" * 5000]}}).encode()

    def packet(to_zone: bool, zone_id: str, frame: bytes) -> pb.SnoopIdmPacket:
        ends = ("host", zone_id) if to_zone else (zone_id, "host")
        return pb.SnoopIdmPacket(packet=frame, to=ends[1], **{"from": ends[0]})

    zoned.snooped += [
        pb.SnoopIdmReply(
            packets=[
                packet(True, web, frames.message(frames.OPEN, 7, call)),
                packet(False, web, frames.frame(frames.DATA, 7, b"a\x1b[2J\xff\n", 2)),
                packet(True, web, frames.credit(7, 1, 65536)),
            ]
        ),
        pb.SnoopIdmReply(
            packets=[
                packet(False, db, frames.message(frames.NOTE, 0, b'{"event":"port"}')),
                packet(False, db, frames.message(frames.RESULT, 1, b"not json")),
                packet(False, db, b"\x77junk, no frame"),
            ],
            skipped=3,
        ),
    ]
    return zoned


def test_each_frame_is_a_line_with_its_direction_kind_stream_and_content(zone, channel) -> None:
    said = [line.split(" ", 1)[1] for line in zone("snoop").splitlines()]
    assert said[0].startswith('web > OPEN stream 7 {"method": "exec", "params": {"argv": ["xxx')
    assert said[0].endswith("x… (5044 bytes)")
    assert said[1:] == [
        "web < DATA stream 7 fd 2 a\\x1b[2J\\xff\\n",
        "web > CREDIT stream 7 fd 1 65536 bytes",
        'db < NOTE link {"event": "port"}',
        "db < RESULT stream 1 not json",
        "db < LOST link a frame of kind 0x77",
    ]
    assert zone.err == "3 frames left out: they came faster than they were taken\n"


def test_of_one_zone_only_its_own(zone, channel) -> None:
    assert {line.split()[1] for line in zone("snoop", "db").splitlines()} == {"db"}
    assert zone.sentence("snoop", "dbb") == "zone: no such zone as dbb, did you mean db?"


def test_json_and_yaml_have_whole_messages(zone, channel) -> None:
    found = [json.loads(line) for line in zone("snoop", "--format", "json").splitlines()]
    assert found[0]["message"]["params"]["argv"] == ["x" * 5000] and found[0]["to_zone"] is True
    assert [one["kind"] for one in found] == ["OPEN", "DATA", "CREDIT", "NOTE", "RESULT", "LOST"]
    assert (found[1]["data"], found[1]["fd"], found[2]["credit"]) == ("a\\x1b[2J\\xff\\n", 2, 65536)
    assert found[3]["zone_id"] == channel.zones["db"].id
    assert "kind: CREDIT" in zone("snoop", "--format", "yaml")
