"""The engine pasta for zones in real Xen, where dom0 has one that will do: Debian 13's."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPException

import pytest
from support.dom0server import NAMED, OTHER, PORT, reaches, serving
from support.labzones import get, wait_for
from support.ports import free_port
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab

pytestmark = pytest.mark.xen

IMAGE = "recipe:nginx"
ENGINE = ("--network-engine", "pasta")
# Says whom; dom0 has no pkill.
KILL_PASTA = """for at in /proc/[0-9]*; do case "$(cat $at/comm 2>/dev/null)" in
pas[st]*) kill -9 "${at#/proc/}" && echo "$at" ;; esac; done"""


@pytest.fixture
def needed(lab: Lab) -> None:
    if lab.config.flavour != "debian13":
        pytest.skip(f"dom0 {lab.config.flavour} has no pasta that will do; ./doit flavours runs this on debian13")


@pytest.fixture
def served(lab: Lab) -> Iterator[None]:
    with serving(lab):
        yield


def serves(port: int) -> bool:
    try:
        return "nginx" in get(f"http://127.0.0.1:{port}/")
    except (OSError, HTTPException):
        return False


def test_host_without_it_says_so_and_nothing_is_left(zone: ZoneCommand, lab: Lab) -> None:
    if lab.config.flavour == "debian13":
        pytest.skip("dom0 debian13 has a pasta that will do; ./doit test runs this on debian12")
    zone("run", "-d", "--name", "web", *ENGINE, IMAGE, code=125)
    assert b"network engine pasta" in zone.err and b"the engine splice" in zone.err
    assert zone("ps", "-aq") == ""


@pytest.mark.slow
def test_zone_serves_reaches_what_its_rules_name_and_outlives_zoned_and_pasta(
    needed: None, served: None, zone: ZoneCommand, lab: Lab
) -> None:
    port = free_port()
    rule = ("--egress", f"allow {NAMED} {PORT}")
    zone("run", "-d", "--name", "web", "-m", "128m", *ENGINE, *rule, "-p", f"{port}:80", IMAGE)
    zone("wait", "--until", "ports", "web")
    wait_for(lambda: serves(port), "web's page")
    assert reaches(zone, "web", NAMED) and not reaches(zone, "web", OTHER)
    zone("net", "flows", "web", code=1)
    assert b"expected one that tells what passes, got pasta" in zone.err

    before = int(lab.call("ping")["zoned"]["pid"])
    assert lab.shell(f"kill -9 {before}")[0] == 0
    assert serves(port)
    assert lab.call("ready", {"timeout_s": 120}, timeout_s=180)["pid"] != before
    assert serves(port) and reaches(zone, "web", NAMED) and not reaches(zone, "web", OTHER)

    assert lab.shell(KILL_PASTA)[1].split()
    wait_for(lambda: serves(port), "web's page by another pasta")
    assert reaches(zone, "web", NAMED) and not reaches(zone, "web", OTHER)
