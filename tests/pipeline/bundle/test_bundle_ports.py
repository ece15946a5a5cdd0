"""Port rules: what is read, and what is said about what cannot be."""

from __future__ import annotations

import json
import re

import pytest

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import Port
from pipeline.bundle.ports import MOST_PORTS, check_ports, overlap, parse_host_ends, parse_ports
from pipeline.bundle.spec import ZONES
from runtime.net.engine.model import MAX_PUBLISHED

RULES = {
    "8080:80": [Port("127.0.0.1", 8080, 80)],
    "[::1]:8443:443/tcp": [Port("::1", 8443, 443)],
    "53:53/udp": [Port("127.0.0.1", 53, 53, "udp")],
    "0.0.0.0:53:5353/udp": [Port("0.0.0.0", 53, 5353, "udp")],
    "127.0.0.2:8000-8002:9000-9002": [Port("127.0.0.2", 8000 + n, 9000 + n) for n in range(3)],
    "5000-5001:53-54/udp": [Port("127.0.0.1", 5000 + n, 53 + n, "udp") for n in range(2)],
    "8000-8000:80": [Port("127.0.0.1", 8000, 80)],
    "80": [Port("127.0.0.1", 0, 80)],
    "8000-8001/udp": [Port("127.0.0.1", 0, 8000 + n, "udp") for n in range(2)],
    "0.0.0.0::80": [Port("0.0.0.0", 0, 80)],
    "[::]::8000-8001": [Port("::", 0, 8000 + n) for n in range(2)],
}
NO_RULES = {
    "": "a port rule such as",
    "a:b": "a port rule such as",
    ":80": "a port rule such as",
    "127.0.0.1:80": "a port rule such as",
    "80:80/sctp": "a port rule such as",
    "1:2:3:4": "a port rule such as",
    "80-:80": "a port rule such as",
    "٨٠:80": "a port rule such as",
    "0:80": "ports from 1 to 65535, the lower one first, got '0:80'",
    "8080:65536": "ports from 1 to 65535",
    "8010-8000:9010-9000": "the lower one first",
    "1.2.3:80:80": "an IPv4 or IPv6 address, got '1.2.3'",
    "300.0.0.1::80": "an IPv4 or IPv6 address",
    "8000-8010:9000-9009": "as many ports of the host as of the zone, got 11 for 10 in '8000-8010:9000-9009'",
    "8000-8010:80": r"got 11 for 1 in '8000-8010:80' \(one of the host's leads to one of the zone\)",
    "8000:80-81": "got 1 for 2",
}


@pytest.mark.parametrize(("text", "expected"), RULES.items(), ids=RULES)
def test_rule_is_read(text: str, expected: list[Port]) -> None:
    assert parse_ports(text, subject="s") == tuple(expected)


@pytest.mark.parametrize(("text", "said"), NO_RULES.items(), ids=NO_RULES)
def test_what_is_no_rule_is_refused_with_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(BadSpec, match=f"web.toml: key ports: expected .*{said}"):
        parse_ports(text, subject="web.toml: key ports")


def test_schema_takes_what_is_read_and_nothing_that_is_not_a_rule() -> None:
    schema = json.loads((ZONES / "zone.schema.json").read_text())
    pattern = re.compile(schema["properties"]["ports"]["items"]["pattern"])
    assert [text for text in RULES if not pattern.search(text)] == []
    forms = [text for text, said in NO_RULES.items() if said == "a port rule such as"]
    assert [text for text in forms if pattern.search(text)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", [Port("127.0.0.1", 8080, 0)]),
        ("0.0.0.0:53/udp", [Port("0.0.0.0", 53, 0, "udp")]),
        ("[::1]:8000-8001", [Port("::1", 8000, 0), Port("::1", 8001, 0)]),
    ],
)
def test_end_on_the_host_is_read(text: str, expected: list[Port]) -> None:
    assert parse_host_ends(text, subject="s") == tuple(expected)


@pytest.mark.parametrize("text", ["web", "8080:80", "0", "127.0.0.1:", "x:80"])
def test_what_is_no_end_on_the_host_is_refused(text: str) -> None:
    with pytest.raises(BadSpec, match="--publish-rm: expected"):
        parse_host_ends(text, subject="--publish-rm")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Port("127.0.0.1", 80, 1), Port("127.0.0.1", 80, 2), True),
        (Port("127.0.0.1", 80, 1), Port("127.0.0.2", 80, 1), False),
        (Port("0.0.0.0", 80, 1), Port("127.0.0.2", 80, 1), True),
        (Port("0.0.0.0", 80, 1), Port("::", 80, 1), False),
        (Port("::1", 80, 1), Port("0:0::1", 80, 1), True),
        (Port("0.0.0.0", 53, 53), Port("0.0.0.0", 53, 53, "udp"), False),
        (Port("0.0.0.0", 53, 53, "udp"), Port("127.0.0.1", 53, 5, "udp"), True),
        (Port("0.0.0.0", 0, 53), Port("0.0.0.0", 0, 53), False),
    ],
)
def test_ports_overlap_by_address_number_and_protocol(one: Port, other: Port, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


def test_two_rules_for_one_port_are_refused_and_one_for_each_protocol_is_not() -> None:
    check_ports([*parse_ports("53:53", subject="s"), *parse_ports("53:53/udp", subject="s")], subject="s")
    udp = parse_ports("53:53/udp", subject="s")
    with pytest.raises(BadSpec, match=r"s: expected each host port once, got 127\.0\.0\.1:53/udp twice"):
        check_ports([*udp, *udp], subject="s")
    with pytest.raises(BadSpec, match=r"got 0\.0\.0\.0:53/udp beside 127\.0\.0\.1:53/udp"):
        check_ports([*udp, *parse_ports("0.0.0.0:53:54/udp", subject="s")], subject="s")


def test_a_zone_has_no_more_ports_than_its_engine_takes() -> None:
    assert MOST_PORTS == MAX_PUBLISHED
    check_ports(parse_ports(f"1-{MOST_PORTS}:1-{MOST_PORTS}", subject="s"), subject="s")
    with pytest.raises(BadSpec, match=f"expected at most {MOST_PORTS} ports, got {MOST_PORTS + 1}"):
        check_ports(parse_ports(f"1-{MOST_PORTS + 1}:1-{MOST_PORTS + 1}", subject="s"), subject="s")
