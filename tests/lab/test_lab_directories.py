"""A directory of dom0 in a real zone, by 9p over Xen and Linux's own client: what both sides see, and what stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.labzones import kill_zoned
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow]

IMAGE = "recipe:nginx"
DIRECTORY, READ_ONLY = "/srv/shared", "/srv/kept"
OPTIONS = ("-m", "160m", "--kernel", "recipe:debian", "-v", f"{DIRECTORY}:/data:dir", "-v", f"{READ_ONLY}:/kept:dir:ro")
FILES = "echo from dom0 >deep/file && ln -s /etc/passwd out && mknod null c 1 3 && head -c 1048576 /dev/urandom >big"


def dom0(lab: Lab, command: str) -> str:
    code, said = lab.shell(command, timeout_s=120)
    assert code == 0, (command, said)
    return said


@pytest.fixture(scope="module")
def shared(zone: ZoneCommand, lab: Lab) -> Iterator[str]:
    """A zone with two of dom0's directories."""
    dom0(lab, f"mkdir -p {DIRECTORY}/deep {READ_ONLY} && echo kept >{READ_ONLY}/file && cd {DIRECTORY} && {FILES}")
    assert zone("run", "-d", "--name", "shared", *OPTIONS, IMAGE, "sleep", "1000") == "shared\n"
    yield "shared"
    zone.remove_zones()
    dom0(lab, f"rm -r {DIRECTORY} {READ_ONLY}")


def serving(lab: Lab) -> set[str]:
    """The processes that serve directories."""
    look = "for p in /proc/[0-9]*; do grep -qs runtime.share.main $p/cmdline && cat $p/stat; done || true"
    found = (line.split(" (python3) ") for line in dom0(lab, look).splitlines())
    return {parts[0] for parts in found if len(parts) == 2}


def said(zone: ZoneCommand, name: str, script: str, code: int = 0) -> str:
    return zone("exec", name, "sh", "-c", script, code=code)


def test_both_sides_see_what_the_other_writes(zone: ZoneCommand, lab: Lab, shared: str) -> None:
    assert said(zone, shared, "cat /data/deep/file /kept/file") == "from dom0\nkept\n"
    said(zone, shared, "mkdir /data/made && echo from the zone >/data/made/file && mv /data/deep/file /data/made/moved")
    assert dom0(lab, f"cat {DIRECTORY}/made/file {DIRECTORY}/made/moved") == "from the zone\nfrom dom0\n"
    dom0(lab, f"echo more >>{DIRECTORY}/made/file; rm {DIRECTORY}/made/moved")
    assert said(zone, shared, "cat /data/made/file; ls /data/made") == "from the zone\nmore\nfile\n"


def test_large_file_passes_whole_both_ways(zone: ZoneCommand, lab: Lab, shared: str) -> None:
    said(zone, shared, "cp /data/big /data/copy && sync")
    first, second = (line.split()[0] for line in dom0(lab, f"sha256sum {DIRECTORY}/big {DIRECTORY}/copy").splitlines())
    assert first == second
    assert said(zone, shared, "sha256sum </data/copy").split()[0] == first


def test_owner_and_mode_are_the_zones_and_no_file_is_set_user_id(zone: ZoneCommand, lab: Lab, shared: str) -> None:
    said(zone, shared, "cp /bin/sh /data/tool && chown www-data:adm /data/tool && chmod 4751 /data/tool")
    assert dom0(lab, f"stat -c '%u %g %a' {DIRECTORY}/tool") == "33 4 751\n"


def test_nothing_but_the_directory_is_reached(zone: ZoneCommand, lab: Lab, shared: str) -> None:
    """A link is the zone's to follow, a device of the host's is none, and nothing is written where nothing may be."""
    assert said(zone, shared, "cmp /data/out /etc/passwd && readlink /data/out") == "/etc/passwd\n"
    assert said(zone, shared, "cat /data/null 2>&1 || true").strip()
    assert "Read-only" in said(zone, shared, "touch /kept/other 2>&1 || true")
    assert said(zone, shared, "mknod /data/device b 202 0 2>&1 || echo refused").endswith("refused\n")
    assert "nosuid,nodev" in said(zone, shared, "grep ' /data ' /proc/self/mounts")
    assert dom0(lab, f"ls {READ_ONLY}") == "file\n"


def test_process_that_serves_has_next_to_nothing(lab: Lab, shared: str) -> None:
    found = serving(lab)
    assert len(found) == 2
    for pid in found:
        status = dict(line.split(":", 1) for line in dom0(lab, f"cat /proc/{pid}/status").splitlines() if ":" in line)
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0b11011
        assert (int(status["CapBnd"], 16), status["NoNewPrivs"].strip()) == (0, "1")
        assert dom0(lab, f"ls -A /proc/{pid}/root") == ""


@pytest.mark.soak
def test_it_outlives_zoned_and_goes_with_the_zone(zone: ZoneCommand, lab: Lab, shared: str) -> None:
    before = serving(lab)
    kill_zoned(lab)
    said(zone, shared, "echo after >/data/after")
    assert dom0(lab, f"cat {DIRECTORY}/after") == "after\n"
    assert serving(lab) == before
    assert zone.json("system", "check")["findings"] == []
    zone("restart", shared)
    zone("wait", "--until", "ready", shared)
    assert said(zone, shared, "cat /data/after") == "after\n"
    zone("rm", "-f", shared)
    assert zone.json("system", "check")["findings"] == []
    assert serving(lab) == set()


def test_kernel_without_9p_is_told_before_anything_is_booted(zone: ZoneCommand) -> None:
    zone("run", "--name", "none", "-v", f"{DIRECTORY}:/data:dir", IMAGE, "true", code=125)
    assert b"CONFIG_NET_9P_XEN" in zone.err
    assert "none" not in [entry["name"] for entry in zone.json("ps", "-a")]
