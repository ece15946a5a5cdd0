"""`zone sysctl`: settings of a zone's kernel."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(autouse=True)
def settings(zoned) -> dict[str, str]:
    zoned.add("web")
    found = zoned.settings["web"] = {"vm.swappiness": "60", "net.ipv4.tcp_wmem": "4096\t16384", "a.b": "x\x1b[2J\ny"}
    return found


def test_settings_are_shown_and_changed_in_order(zone, settings: dict[str, str]) -> None:
    said = zone("sysctl", "web", "vm.swappiness", "vm.swappiness=10", "vm.swappiness")
    assert said == "vm.swappiness = 60\nvm.swappiness = 10\nvm.swappiness = 10\n"
    assert zone("sysctl", "-n", "web", "a.b=") == "\n" and settings["a.b"] == ""


def test_what_a_zone_answers_moves_no_cursor(zone) -> None:
    assert zone("sysctl", "-n", "web", "net.ipv4.tcp_wmem", "a.b") == "4096    16384\nx\\x1b[2J\ny\n"


def test_json_has_keys_and_values(zone) -> None:
    found = json.loads(zone("sysctl", "--format", "json", "web", "vm.swappiness=1", "net.ipv4.tcp_wmem"))
    assert found == [{"key": "vm.swappiness", "value": "1"}, {"key": "net.ipv4.tcp_wmem", "value": "4096\t16384"}]


def test_refusal_is_one_sentence_behind_what_was_done(zone, settings: dict[str, str]) -> None:
    assert zone("sysctl", "web", "vm.swappiness=5", "vm.nothing", code=1) == "vm.swappiness = 5\n"
    assert zone.err == "error: zone web: sysctl vm.nothing: No such file or directory\n"
    assert settings["vm.swappiness"] == "5"
    assert "no such zone as wep, did you mean web?" in zone.sentence("sysctl", "wep", "vm.swappiness")
    assert "expected KEY or KEY=VALUE, got '=1'" in zone("sysctl", "web", "=1", code=2) + zone.err
