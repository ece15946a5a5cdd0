"""`zone ps`, `inspect`, `port`: what is shown of zones, and how."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import time
from argparse import Namespace
from types import SimpleNamespace

import pytest

from runtime.host.cli import ps
from runtime.host.cli.ps import condition, fits


@pytest.fixture
def zones(zoned):
    zoned.add("web", ports=((8080, 80), (8443, 443)), labels={"tier": "front", "x": ""}, memory_max_mib=512)
    zoned.add("db", state="running", image="docker://docker.io/library/postgres:16", health="starting")
    old = zoned.add("old", state="exited", finished_unix_s=time.time() - 7200)
    old.exit.code, old.exit.text = 3, "exit code 3"
    return zoned


def test_table_has_a_row_for_each_running_zone(zone, zones) -> None:
    head, web, db = zone("ps").splitlines()
    assert head.split() == ["NAME", "IMAGE", "STATE", "DOMID", "MIB", "VCPUS", "ADDRESS", "PORTS"]
    assert "ready 5 min" in web and "256/512" in web and web.endswith(" 8080->80, 8443->443")
    assert "running 5 min (starting)" in db and " postgres:16 " in db


def test_all_has_what_ended_and_how(zone, zones) -> None:
    assert "exited (3) 2 h ago" in zone("ps", "-a").splitlines()[-1]


def test_table_of_usual_names_fits_100_columns(zone, zoned) -> None:
    zoned.add("nginx-3fa2", image="recipe:nginx", ports=((8080, 80),), memory_max_mib=512, vcpus_max=2)
    ended = zoned.add("job", state="failed", image="sha256:1e0b535c55e8" + "7" * 52, finished_unix_s=time.time() - 600)
    ended.exit.reason, ended.exit.code, ended.exit.text = "command-127", 127, "no-such-command: not found " * 4
    head, *rows = zone("ps", "-a").splitlines()
    assert " sha256:1e0b535c55e8 " in rows[1] and " failed (127) 10 min ago " in rows[1]
    assert max(map(len, [head, *rows])) <= 100


def test_only_what_p_would_leave_out_is_left_out_of_ports(zone, zones) -> None:
    zones.zones["db"].ports.add(host_address="192.0.2.1", host_port=53, zone_port=53, protocol="udp")
    assert zone("ps").splitlines()[-1].endswith(" 192.0.2.1:53->53/udp")


@pytest.mark.parametrize(
    ("end", "word"),
    [
        ({"oom": True, "code": 137}, "out of memory"),
        ({"crashed": True, "code": 255}, "crashed"),
        ({"code": 143}, "143"),
    ],
    ids=["oom", "crash", "signal"],
)
def test_table_has_a_word_for_each_end(zone, zones, end, word: str) -> None:
    zones.zones["old"].exit.Clear()
    zones.zones["old"].exit.MergeFrom(type(zones.zones["old"].exit)(text="a sentence", **end))
    assert f"exited ({word}) 2 h ago" in zone("ps", "-a").splitlines()[-1]


def test_json_has_every_field_and_no_exit_of_a_zone_that_runs(zone, zones) -> None:
    web, _, old = json.loads(zone("ps", "-a", "--format", "json"))
    assert web["ports"][0] == {
        "host_address": "127.0.0.1",
        "host_port": 8080,
        "address": "127.0.0.1",
        "port": 8080,
        "zone_port": 80,
        "protocol": "tcp",
    }
    assert (web["exit"], web["labels"], web["memory_max_mib"]) == (None, {"tier": "front", "x": ""}, 512)
    assert old["exit"] == {
        "code": 3,
        "signal": 0,
        "oom": False,
        "crashed": False,
        "reason": "",
        "text": "exit code 3",
    }


def test_yaml_says_what_json_does(zone, zones) -> None:
    shown = zone("ps", "--format", "yaml")
    assert shown.startswith("- id: ") and "\n  name: web\n" in shown and '\n  - "10.75.0.2/16"\n' in shown


def test_quiet_is_names(zone, zones) -> None:
    assert zone("ps", "-aq").split() == ["web", "db", "old"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["name=e"], ["web"]),
        (["state=exited"], ["old"]),
        (["status=ready"], ["web"]),
        (["exited=3"], ["old"]),
        (["exited=0"], []),
        (["label=tier"], ["web"]),
        (["label=tier=front"], ["web"]),
        (["label=tier=back"], []),
        (["health=starting"], ["db"]),
        (["image=postgres"], ["db"]),
        (["name=web", "name=db"], ["web", "db"]),
        (["name=web", "state=running"], []),
    ],
    ids=" ".join,
)
def test_filter(zone, zones, filters: list[str], names: list[str]) -> None:
    assert zone("ps", "-q", *(word for text in filters for word in ("--filter", text))).split() == names


@pytest.mark.parametrize("record", ["", '{"api_port": 1}'], ids=["never up", "died"])
def test_lab_that_is_down_has_no_zones(zone, monkeypatch, tmp_path, record: str) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("ZONE_HOST", "lab:quiet")
    directory = tmp_path / "zonewright" / "lab" / "quiet"
    directory.mkdir(parents=True)
    if record:
        (directory / "record.json").write_text(record)
        for name in ("ca.pem", "client.pem", "client.key"):
            (directory / name).touch()
    assert zone("ps", "-q") == "" and json.loads(zone("ps", "--format", "json")) == []
    assert "zone host up" in zone.sentence("ps", "--watch") or record


def test_lab_that_runs_and_does_not_answer_may_have_zones(zone, monkeypatch, tmp_path) -> None:
    from runtime.host.hosts import LabHost

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("ZONE_HOST", "lab:quiet")
    monkeypatch.setattr(LabHost, "is_up", lambda host: True)
    assert "the lab: not up" in zone.sentence("ps")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("unix:{}/nobody.sock", "expected zoned to listen on"),
        ("tls://127.0.0.1:1", "expected this client's credentials in"),
        ("ssh://root@dom0.example", "expected ssh to lead to zoned"),
        ("ssh://root@no-ssh.example", "to start"),
    ],
    ids=["nobody listens", "no credentials", "refused", "no ssh"],
)
def test_host_that_cannot_be_asked_is_an_error_and_no_empty_table(
    zone, monkeypatch, tmp_path, address: str, said: str
) -> None:
    refusing = tmp_path / "ssh"
    refusing.write_text("#!/bin/sh\necho 'Permission denied (publickey).' >&2\nexit 255\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("ZONE_SSH", str(tmp_path / "none") if "no-ssh" in address else str(refusing))
    monkeypatch.setenv("ZONE_HOST", address.format(tmp_path))
    assert said in zone.sentence("ps")
    assert said in zone.sentence("ps", "--format", "json")


def test_socket_that_one_may_not_use_is_an_error_and_no_empty_table(zone, zones, monkeypatch) -> None:
    from runtime.host.client import dial

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(dial, "connect_unix", refuse)
    assert "zoned is root's" in zone.sentence("ps")


def test_what_a_zone_says_of_itself_cannot_act_on_the_terminal(zone, zoned) -> None:
    bad = zoned.add("bad", state="failed", finished_unix_s=1.0, image="x\x1b[2J")
    bad.exit.text = "\x1b]0;owned\x07 and\nmore"
    bad.console_tail.extend(["[    0.1] \x1b[31mred"])
    for words in (
        ("ps", "-a"),
        ("inspect", "bad"),
        ("ps", "-a", "--format", "json"),
        ("inspect", "bad", "--format", "yaml"),
    ):
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", zone(*words)) is None


def test_inspect_asks_anew_and_shows_what_the_zone_has(zone, zones) -> None:
    zones.zones["web"].egress.extend(["allow 192.0.2.1 443", "deny any"])
    zones.zones["web"].bandwidth_bit_s = 1_500_000
    zones.zones["web"].refuse.extend(["cp", "exec"])
    shown = zone("inspect", "web")
    assert re.search(r"^bandwidth: +1\.5mbit$", shown, re.M)
    assert re.search(r"^egress: +allow 192\.0\.2\.1 443\negress: +deny any$", shown, re.M)
    assert re.search(r"^refuses: +cp, exec$", shown, re.M)
    assert re.search(r"^memory: +256 MiB of at most 512 MiB, it has 232 MiB$", shown, re.M)
    assert re.search(r"^vcpus: +1 of at most 1, 1 online$", shown, re.M)
    assert re.search(r"^label: +tier=front$", shown, re.M) and "finished" not in shown
    assert [method for method, _ in zones.calls] == ["GetZone"] and zones.calls[0][1].fresh


def test_inspect_of_several_is_a_list(zone, zones) -> None:
    assert [one["name"] for one in json.loads(zone("inspect", "db", "web", "--format", "json"))] == ["db", "web"]
    assert zone("inspect", "db", "web").count("\n\nzone:") == 1


def test_inspect_lists_volumes_and_devices(zone, zones) -> None:
    web = zones.zones["web"]
    web.volumes.add(source="/dev/sdb", target="/data", type="ext4", readonly=True, device="xvdc")
    web.volumes.add(source="tmpfs", target="/tmp", type="tmpfs", size_mib=64)
    web.devices.add(name="xvda", kind="disk", source="sha256:" + "1" * 64, purpose="rootfs", readonly=True)
    web.devices.add(name="eth0", kind="network", source="00:16:3e:00:00:01", purpose="network")
    lines = [line.split(maxsplit=1) for line in zone("inspect", "web").splitlines()]
    assert [text for key, text in lines if key == "volume:"] == [
        "/dev/sdb -> /data, ext4, read-only, as xvdc",
        "tmpfs -> /tmp, tmpfs of at most 64 MiB",
    ]
    assert [text for key, text in lines if key == "device:"] == [
        "xvda: disk, rootfs, read-only, sha256:" + "1" * 64,
        "eth0: network, 00:16:3e:00:00:01",
    ]
    (document,) = json.loads(zone("inspect", "web", "--format", "json"))
    assert document["volumes"][0] == {
        "source": "/dev/sdb",
        "target": "/data",
        "type": "ext4",
        "readonly": True,
        "device": "xvdc",
        "size_mib": 0,
    }
    assert [device["name"] for device in document["devices"]] == ["xvda", "eth0"]
    shown = zone("inspect", "web", "--format", "yaml")
    assert "target: /data" in shown and "purpose: rootfs" in shown


def test_port(zone, zones) -> None:
    assert zone("port", "web").splitlines() == ["80/tcp   ->  127.0.0.1:8080", "443/tcp  ->  127.0.0.1:8443"]
    assert zone("port", "web", "443/tcp") == "127.0.0.1:8443\n"
    said = "expected port 25/tcp to be published, got 80/tcp, 443/tcp"
    assert said in zone.sentence("port", "web", "25")
    assert json.loads(zone("port", "web", "80", "--format", "json"))[0]["host_port"] == 8080
    assert zone("port", "db") == ""


def test_tcp_and_udp_of_one_port_are_two(zone, zones) -> None:
    zones.zones["db"].ports.add(host_address="127.0.0.1", host_port=53, zone_port=53, protocol="tcp")
    zones.zones["db"].ports.add(host_address="0.0.0.0", host_port=5353, zone_port=53, protocol="udp")
    assert zone("port", "db").splitlines() == ["53/tcp  ->  127.0.0.1:53", "53/udp  ->  0.0.0.0:5353"]
    assert (zone("port", "db", "53"), zone("port", "db", "53/udp")) == ("127.0.0.1:53\n", "0.0.0.0:5353\n")
    assert "expected port 80/udp to be published, got 53/tcp, 53/udp" in zone.sentence("port", "db", "80/udp")
    assert "53->53, 0.0.0.0:5353->53/udp" in zone("ps", "-a")
    zone("port", "db", "53/sctp", code=2)
    assert "expected a port such as 80 or 53/udp, got '53/sctp'" in zone.err


def test_ports_that_follow_one_another_are_shown_as_a_range(zone, zones) -> None:
    for protocol, numbers in (("udp", (8000, 8001, 8002, 8004)), ("tcp", (8005,))):
        for number in numbers:
            zones.zones["db"].ports.add(
                host_address="127.0.0.1", host_port=number, zone_port=number + 1000, protocol=protocol
            )
    assert "8000-8002->9000-9002/udp, 8004->9004/udp, 8005->9005\n" in zone("ps", "-a")
    assert re.search(r"^port: +127\.0\.0\.1:8000-8002->9000-9002/udp$", zone("inspect", "db"), re.M)


def test_watch_is_a_block_for_each_change_where_there_is_no_terminal(zones, start) -> None:
    process = start("ps", "--watch")
    block = [process.stdout.readline() for _ in range(3)]
    assert block[1].startswith(b"web ")
    zones.wait(zones.end(zones.zones["db"], 0))
    assert process.stdout.readline() == b"\n"
    assert [process.stdout.readline().split()[0] for _ in range(2)] == [b"NAME", b"web"]
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130 and process.stderr.read() == b"interrupted\n"


class LateZoned:
    """It hears that somebody watches after all else that is asked; what was watched then, each time it was asked."""

    host = SimpleNamespace(WatchEvents="watch", ListZones="list")

    def __init__(self) -> None:
        self.watched, self.listed = False, []

    @contextlib.asynccontextmanager
    async def opened(self, method):
        yield self

    async def astream(self, method, request):
        await self.recv_initial_metadata()
        while (event := await self.recv_message()) is not None:
            yield event

    async def send_message(self, request, end):
        assert request.follow and end

    async def recv_initial_metadata(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        self.watched = True

    async def recv_message(self) -> None:
        while not self.listed:
            await asyncio.sleep(0)

    async def end(self) -> None:
        pass

    async def recv_trailing_metadata(self) -> None:
        pass

    async def acall(self, method, request, timeout_s):
        self.listed.append(self.watched)
        return SimpleNamespace(zones=[])


def test_watch_misses_nothing_that_changes_behind_its_first_list() -> None:
    zoned = LateZoned()
    asyncio.run(ps._watch(zoned, Namespace(all=False, filter=[], quiet=True)))
    assert zoned.listed[0]


def test_watch_of_names_alone(zones, start) -> None:
    process = start("ps", "--watch", "-q")
    assert [process.stdout.readline() for _ in range(2)] == [b"web\n", b"db\n"]
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130


@pytest.mark.parametrize("format", ["json", "yaml"])
def test_watch_is_for_eyes(zone, zoned, format: str) -> None:
    assert f"--watch: expected no --format {format} beside it" in zone.sentence("ps", "--watch", "--format", format)
    assert zoned.calls == []


def test_watch_redraws_in_place_on_a_terminal_and_gives_the_cursor_back(zones, start) -> None:
    ours, theirs = pty.openpty()
    process = start("ps", "--watch", stdout=theirs)
    os.close(theirs)
    seen = b""
    while b"db " not in seen:
        seen += os.read(ours, 4096)
    zones.wait(zones.end(zones.zones["db"], 0))
    while b"\x1b[3A" not in seen:  # up over the head and two rows
        seen += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    with subprocess.Popen(["true"]):  # the end of the terminal's output is an error on Linux, not an end
        try:
            while True:
                seen += os.read(ours, 4096)
        except OSError:
            pass
    os.close(ours)
    assert seen.startswith(b"\x1b[?25l") and seen.endswith(b"\x1b[?25h")


def test_a_filter_is_read_where_it_is_given() -> None:
    assert condition("label=a=b") == ("label", "a=b") and fits(object(), [])
