"""Volumes, restart policies, maxima: what a spec says beside its image."""

from __future__ import annotations

import pytest

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import Resources, RestartPolicy, Volume
from pipeline.bundle.spec import ZoneSpec, load_spec, parse_resources, parse_restart
from pipeline.bundle.stage import _refuse_disks
from pipeline.bundle.volumes import parse_volume
from pipeline.recipe import BadRecipe

EVERYTHING = """
image = "x"
restart = "on-failure:3"
stdin_open = true
tty = true
labels = { tier = "front" }
volumes = ["tmpfs:/scratch:size=64m", "tmpfs:/run/app:ro"]
[resources]
memory_mib = 128
memory_max_mib = 512
vcpus_max = 4
"""


def test_spec_says_it_all(tmp_path) -> None:
    (tmp_path / "web.toml").write_text(EVERYTHING)
    spec = load_spec("web", tmp_path)
    assert spec.resources == Resources(128, 512, 1, 4)
    assert (spec.restart, spec.stdin_open, spec.tty) == (RestartPolicy("on-failure", 3), True, True)
    assert spec.labels == {"tier": "front"}
    assert spec.volumes == (Volume("/scratch", size_mib=64), Volume("/run/app", readonly=True))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ('restart = "sometimes"', r"key restart: expected no, on-failure\[:MAX\], always or unless-stopped"),
        ('labels = { "a b" = "" }', "key labels"),
        ('volumes = ["tmpfs:scratch"]', r"key volumes\[0\]: expected tmpfs:TARGET"),
        ("resources = { vcpus_max = 0 }", "key resources.vcpus_max: expected at least 1"),
    ],
)
def test_schema_names_the_key(tmp_path, key: str, said: str) -> None:
    (tmp_path / "web.toml").write_text(f'image = "x"\n{key}\n')
    with pytest.raises(BadRecipe, match=said):
        load_spec("web", tmp_path)


def test_maxima_are_at_least_what_the_zone_begins_with() -> None:
    assert parse_resources({}, subject="s") == Resources(256, 256, 1, 1)
    with pytest.raises(BadSpec, match=r"s\.memory_max_mib: expected at least 256, what the zone begins with, got 128"):
        parse_resources({"memory_max_mib": 128}, subject="s")
    with pytest.raises(BadSpec, match=r"s\.vcpus_max"):
        parse_resources({"vcpus": 4, "vcpus_max": 2}, subject="s")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("no", RestartPolicy()),
        ("always", RestartPolicy("always")),
        ("on-failure", RestartPolicy("on-failure")),
        ("on-failure:5", RestartPolicy("on-failure", 5)),
    ],
)
def test_restart_policies(text: str, policy: RestartPolicy) -> None:
    assert parse_restart(text, subject="s") == policy


@pytest.mark.parametrize("text", ["", "never", "always:3", "on-failure:", "on-failure:0", "on-failure:x"])
def test_restart_policies_that_are_none(text: str) -> None:
    with pytest.raises(BadSpec, match="expected no, on-failure"):
        parse_restart(text, subject="--restart")


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("tmpfs:/a", Volume("/a")),
        ("tmpfs:/a//b/:rw", Volume("/a/b")),
        ("tmpfs:/a:size=2g:ro", Volume("/a", readonly=True, size_mib=2048)),
        ("tmpfs:/a:ro:size=5", Volume("/a", readonly=True, size_mib=5)),
    ],
)
def test_tmpfs(text: str, volume: Volume) -> None:
    assert parse_volume(text, subject="-v") == volume


def test_squashfs_file_is_one(tmp_path) -> None:
    (tmp_path / "data.squashfs").write_bytes(b"hsqs" + bytes(100))
    found = parse_volume(f"{tmp_path}/data.squashfs:/data:ro", subject="-v")
    assert found == Volume("/data", "squashfs", f"{tmp_path}/data.squashfs", True)
    with pytest.raises(BadSpec, match="expected tmpfs, got a squashfs, which zoned does not plug in yet"):
        _refuse_disks(ZoneSpec("web", "x", volumes=(found,)))


def test_directory_of_the_host_is_refused_with_the_option_it_would_need(tmp_path) -> None:
    with pytest.raises(BadSpec, match=r"CONFIG_NET_9P_XEN, which Debian's cloud kernel lacks .*zone cp"):
        parse_volume(f"{tmp_path}:/data", subject="-v")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tmpfs", "expected tmpfs:TARGET"),
        ("data:/a", "volumes with names are not kept here"),
        ("tmpfs:a", "an absolute target"),
        ("tmpfs:/", "an absolute target"),
        ("tmpfs:/proc/x", "outside /, /dev, /proc, /sys"),
        ("tmpfs:/a/../dev", "outside /, /dev, /proc, /sys"),
        ("tmpfs:/a:size=0m", "ro, rw or size"),
        ("tmpfs:/a:z", "got 'z'"),
        ("/nowhere/at/all:/a", "expected a source that is there"),
        ("/dev/null:/a", "expected a squashfs file or a block device"),
    ],
)
def test_volumes_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(BadSpec, match=said):
        parse_volume(text, subject="-v")
