"""`zone snoop`: frames of the agent channel as people and programs read them."""

from __future__ import annotations

import json

import pytest

from runtime.host.api import control_pb2 as pb
from runtime.host.cli.terminal import escaped
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


def test_zone_made_while_it_goes_on_has_its_name_and_one_gone_again_its_id(zone, channel) -> None:
    def later() -> pb.SnoopIdmReply:
        made = channel.add("late").id
        packets = [pb.SnoopIdmPacket(packet=frames.message(frames.NOTE, 0, b"{}"), to="host", **{"from": end})
                   for end in (made, "gone")]  # fmt: skip
        return pb.SnoopIdmReply(packets=packets)

    channel.snooped.append(later)
    assert [line.split(" ", 1)[1] for line in zone("snoop").splitlines()[-2:]] == [
        "late < NOTE link {}",
        "gone < NOTE link {}",
    ]


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


EVERY = {
    "HELLO link {}": frames.message(frames.HELLO, 0, b"{}"),
    "OPEN stream 1 {}": frames.message(frames.OPEN, 1, b"{}"),
    "DATA stream 1 fd 1 x": frames.data(1, 1, b"x"),
    "EOF stream 1 fd 2": frames.frame(frames.EOF, 1, b"", 2),
    "EVENT stream 1 {}": frames.message(frames.EVENT, 1, b"{}"),
    "RESULT stream 1 {}": frames.message(frames.RESULT, 1, b"{}"),
    "CREDIT link 7 bytes": frames.credit(0, 0, 7),
    "CREDIT stream 1 fd 2 9 bytes": frames.credit(1, 2, 9),
    "CANCEL stream 1": frames.frame(frames.CANCEL, 1),
    "NOTE link {}": frames.message(frames.NOTE, 0, b"{}"),
    "LOST link a frame that ends in 0x00": frames.data(1, 1, b"x")[:-1] + b"\0",
    "LOST link a frame within a message": frames.frame(frames.NOTE | frames.MORE, 0) + frames.credit(1, 2, 9),
}


@pytest.mark.parametrize("text", EVERY)
def test_each_kind_of_frame_has_its_line(zone, zoned, text: str) -> None:
    zoned.snooped.append(pb.SnoopIdmReply(packets=[packet_of(zoned, EVERY[text])]))
    assert zone("snoop").split(" ", 1)[1] == f"web < {text}\n"


def packet_of(zoned, frame: bytes) -> pb.SnoopIdmPacket:
    """What the zone web says."""
    return pb.SnoopIdmPacket(packet=frame, to="host", **{"from": zoned.add("web").id})


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 900 + b"]" * 900,
        b'{"a":' * 980 + b"1" + b"}" * 980,
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":%b}' % (b"9" * 5000),
        b'{"a":"\xff"}',
        b"",
    ],
    ids=["deep list", "deep object", "NaN", "infinite", "too great", "digits", "no UTF-8", "nothing"],
)
@pytest.mark.parametrize("format", ["table", "json", "yaml"])
def test_message_that_is_hardly_json_is_shown_as_its_bytes_in_every_format(
    zone, zoned, format: str, text: bytes
) -> None:
    zoned.snooped.append(pb.SnoopIdmReply(packets=[packet_of(zoned, frames.message(frames.NOTE, 0, text))]))
    said = zone("snoop", "--format", format)
    assert zone.err == "" and "NOTE" in said
    if format == "json":
        found = json.loads(said)
        assert found["data"] == escaped(text) and found["size_bytes"] == len(text) and "message" not in found
