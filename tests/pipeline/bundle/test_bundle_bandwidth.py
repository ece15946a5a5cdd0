"""A bandwidth as people write it."""

from __future__ import annotations

import pytest

from pipeline.bundle.bandwidth import bandwidth_text, parse_bandwidth
from pipeline.bundle.errors import BadSpec
from pipeline.bundle.spec import load_spec


@pytest.mark.parametrize(
    ("text", "bit_s"),
    [
        ("64kbit", 64_000),
        ("100mbit", 100_000_000),
        ("1.5gbit", 1_500_000_000),
        ("1500.001kbit", 1_500_001),
        ("100gbit", 100_000_000_000),
    ],
)
def test_rate_is_bits_per_second_and_is_shown_as_it_was_written(text: str, bit_s: int) -> None:
    assert parse_bandwidth(text, subject="s") == bit_s
    assert bandwidth_text(bit_s) == text


@pytest.mark.parametrize(
    "text", ["", "100", "100m", "100Mbit", "-1mbit", "1 mbit", "mbit", "1mbit\n", "١mbit", "1.mbit"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(BadSpec, match="s: expected a rate such as 100mbit"):
        parse_bandwidth(text, subject="s")


@pytest.mark.parametrize("text", ["0mbit", "63.999kbit", "100.001gbit"])
def test_rate_no_zone_can_have_is_refused(text: str) -> None:
    with pytest.raises(BadSpec, match=f"s: expected 64kbit to 100gbit, got {text}"):
        parse_bandwidth(text, subject="s")


def test_zone_file_has_it(tmp_path) -> None:
    (tmp_path / "web.toml").write_text('image = "x"\n[network]\nbandwidth = "100mbit"\n')
    assert load_spec("web", tmp_path).network.bandwidth_bit_s == 100_000_000
