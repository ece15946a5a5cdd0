"""`zone host`, `system`, `net`, `top`, `metrics`: the host, and what zones use of it."""

from __future__ import annotations

import json
import re
import socket

import pytest

from pipeline import compose
from pipeline.env import Env
from pipeline.initrd.model import InitrdResult
from pipeline.jsonmodel import from_json
from runtime.host.api import host_pb2 as pb
from runtime.host.images.model import Platform
from runtime.host.images.platform import blobs


@pytest.fixture(autouse=True)
def web(zoned):
    zoned.metrics["web"] = [
        ("memory_kib.MemTotal", 250 << 10, "count"),
        ("memory_kib.MemAvailable", 189 << 10, "count"),
    ]
    zoned.metrics["web"] += [("cpu.cpu.user", 12.0, "count"), ("cpu.cpu.system", 0.5, "count")]
    zoned.metrics["web"] += [("containers.main.pids", 9, "count"), ("uptime_s", 300.25, "seconds")]
    passed = {"lo.rx": 99, "eth0.rx": 2048, "eth1.rx": 3072, "lo.tx": 98, "eth0.tx": 7}
    zoned.metrics["web"] += [(f"network.{name}_bytes", value, "bytes") for name, value in passed.items()]
    moved = {"xvda.read": 1 << 20, "xvdb.read": 2 << 20, "xvdb1.read": 2 << 20, "loop0.read": 9, "xvda.written": 0}
    zoned.metrics["web"] += [(f"disks.{name}_bytes", value, "bytes") for name, value in moved.items()]
    pressed = {"cpu": 1.5, "io": 0.0, "memory": 20.0}
    zoned.metrics["web"] += [(f"pressure.{kind}.some.avg10", value, "percent") for kind, value in pressed.items()]
    zoned.metrics["web"] += [("containers.main.cpu.usage_usec", 1_500_000, "microseconds")]
    zoned.processes["web"] = [
        pb.ZoneProcess(pid=1, parent=0, uid=0, state="S", resident_kib=5000, cpu_s=0.4, command="nginx: master"),
        pb.ZoneProcess(pid=7, parent=1, uid=33, state="R", resident_kib=7000, cpu_s=9.1, command="nginx\x1b[2J"),
    ]
    return zoned.add("web")


def test_top_has_a_row_for_each_running_zone_even_one_that_does_not_answer(zone, zoned) -> None:
    zoned.add("mute", state="running")
    zoned.add("old", state="exited")
    head, web, mute = zone("top", "--once").splitlines()
    assert re.split(r" {2,}", head) == [
        *("NAME", "STATE", "CPU", "MEMORY", "OF", "PROCESSES", "VCPUS"),
        *("NET IN", "NET OUT", "READ", "WRITTEN", "PRESSURE"),
    ]
    assert re.split(r" {2,}", web) == [
        *("web", "ready", "12.5 s", "61.0 MiB", "250.0 MiB", "9", "1"),
        *("5.0 KiB", "7 B", "3.0 MiB", "0 B", "cpu 1.5% io 0% memory 20%"),
    ]
    assert mute.split() == ["mute", "running", "256.0", "MiB", "1"]
    assert json.loads(zone("top", "--format", "json"))[0]["memory"] == "61.0 MiB"


def test_top_of_a_zone_is_its_processes_the_busiest_first(zone) -> None:
    _, busy, idle = zone("top", "--once", "web").splitlines()
    assert busy.split() == ["7", "1", "33", "R", "6.8", "MiB", "9.10", "s", "nginx\\x1b[2J"]
    assert idle.endswith("nginx: master")


def test_top_shows_the_share_of_a_processor_since_the_last_look(zoned, start) -> None:
    process = start("top", "--interval", "0.01")
    assert b"12.5 s" in [process.stdout.readline() for _ in range(2)][1]
    zoned.metrics["web"][2] = ("cpu.cpu.user", 14.0, "count")
    while re.search(rb"web +ready +[1-9][0-9]*%", process.stdout.readline()) is None:
        pass


def test_metrics(zone) -> None:
    shown = [line.split(maxsplit=1) for line in zone("metrics", "web").splitlines()[1:]]
    assert ["pressure.memory.some.avg10", "20 %"] in shown and shown[-1] == [
        "containers.main.cpu.usage_usec",
        "1.500 s",
    ]
    assert shown[:6] == [
        ["memory_kib.MemTotal", "250.0 MiB"],
        ["memory_kib.MemAvailable", "189.0 MiB"],
        ["cpu.cpu.user", "12"],
        ["cpu.cpu.system", "0.5"],
        ["containers.main.pids", "9"],
        ["uptime_s", "300.250 s"],
    ]
    assert json.loads(zone("metrics", "web", "--format", "json"))["metrics"][4] == {
        "name": "containers.main.pids",
        "value": 9.0,
        "unit": "count",
    }


def test_metrics_are_shown_as_the_zone_tells_them(zone) -> None:
    blocks = zone("metrics", "--watch", "--interval", "0.5", "web").split("\n\n")
    assert blocks[0].split() == ["NAME", "VALUE", "memory_kib.MemTotal", "250.0", "MiB"]
    assert blocks[-1].split() == ["NAME", "VALUE", "interval_s", "0.500", "s"]
    lines = zone("metrics", "--watch", "web", "--format", "json").splitlines()
    assert len(lines) == len(blocks)
    assert json.loads(lines[-1])["metrics"] == [{"name": "interval_s", "value": 2.0, "unit": "seconds"}]


def test_check_exits_1_where_something_is_left_behind(zone, zoned) -> None:
    assert zone("system", "check").startswith("nothing is left behind, and nothing is missing (1 domain, 1 netns)\n")
    zoned.findings.append(
        pb.CheckFinding(kind="domain", what="domain 7", problem="not in any ledger", remedy="xl destroy 7")
    )
    shown = zone("system", "check", code=1)
    assert "domain  domain 7  not in any ledger  xl destroy 7" in shown and "not seen: event channels" in shown
    assert json.loads(zone("system", "check", "--format", "json", code=1))["findings"][0]["what"] == "domain 7"


def test_prune_says_what_went_or_would(zone, zoned) -> None:
    zoned.add("old", state="exited")
    assert zone("system", "prune", "--dry-run") == "zone old\n4.0 KiB would be freed\n" and "old" in zoned.zones
    assert zone("system", "prune", "--blobs") == "zone old\n4.0 KiB freed\n" and "old" not in zoned.zones
    assert zoned.calls[-1][1].blobs


def test_df(zone) -> None:
    assert zone("system", "df").splitlines()[2].split() == ["blobs", "9", "73.0", "MiB", "20.0", "MiB"]


def test_status_of_a_host_that_is_up_and_of_one_that_is_not(zone, zoned, monkeypatch, tmp_path) -> None:
    zoned.missing.append("xenstored does not run")
    shown = zone("host", "status")
    assert re.search(r"^free memory: +1.0 GiB$", shown, re.M) and re.search(r"^up: +yes$", shown, re.M)
    assert "xenstored does not run" in shown
    assert json.loads(zone("host", "status", "--format", "json"))["free_memory_kib"] == 1 << 20
    monkeypatch.setenv("ZONE_HOST", f"unix:{tmp_path}/nobody.sock")
    status = json.loads(zone("host", "status", "--format", "json"))
    assert status["up"] is False and "expected zoned to listen" in status["problem"]


def test_only_a_lab_can_be_ended(zone) -> None:
    said = zone.sentence("host", "down")
    assert "expected the lab" in said and "zone stop ends a zone" in said


def test_console_of_a_host_that_is_no_lab_is_what_its_xen_has_said(zone, zoned) -> None:
    lines = [f"(XEN) line {number}" for number in range(100)]
    zoned.xen_said = "\r\n".join([*lines, "(d3) \x1b[2Jclear\tthe screen"]) + "\n"
    last = "(d3) \\x1b[2Jclear  the screen\n"
    assert zone("host", "console") == "".join(f"{line}\n" for line in lines) + last
    shown = zone("host", "console", "--tail")
    assert shown.count("\n") == 40 and shown.endswith(f"(XEN) line 99\n{last}")


def test_console_of_a_host_that_cannot_be_asked_is_an_error(zone, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ZONE_HOST", f"unix:{tmp_path}/nobody.sock")
    assert "expected zoned to listen on" in zone.sentence("host", "console")


def test_topology(zone) -> None:
    assert zone("host", "topology").splitlines() == [
        "CPU  SOCKET  NODE  CORE  THREAD  CLASS",
        "0    0       0     0     0       performance",
        "1    0       0     1     0       efficiency",
    ]
    assert json.loads(zone("host", "topology", "--format", "json"))[1]["class"] == "efficiency"


def test_platform_is_sent_once_and_named(zone, zoned, monkeypatch) -> None:
    def tiny(reference: str, env: Env) -> InitrdResult:
        kernel, base, modules = (env.store.put(text) for text in (b"kernel", b"base", b"modules"))
        return InitrdResult(kernel, f"6.1-{reference}", base, modules, ())

    monkeypatch.setattr(compose, "initrd_of", tiny)
    assert zone("host", "platform").endswith("boots zones from recipe:debian-cloud (parts sent: 4)\n")
    method, request = zoned.calls[-1]
    platform = from_json(Platform, json.loads(request.platform), subject="platform")
    assert method == "SetPlatform" and platform.initrd.release == "6.1-recipe:debian-cloud"
    assert {str(blob.digest) for blob in blobs(platform)} == set(zoned.blobs)
    assert zone("host", "platform", "--kernel", "recipe:k").endswith("boots zones from recipe:k (parts sent: 0)\n")


def test_dial_stdio_carries_bytes_both_ways(start, tmp_path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "far.sock"))
        listener.listen()
        process = start("host", "dial-stdio", "--socket", str(tmp_path / "far.sock"))
        connection, _ = listener.accept()
        with connection:
            process.stdin.write(b"\0ask")
            process.stdin.flush()
            assert connection.recv(4, socket.MSG_WAITALL) == b"\0ask"
            connection.sendall(b"answer\xff")
        assert process.communicate(timeout=120)[0] == b"answer\xff"
