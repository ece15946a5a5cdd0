"""Volumes, restart policies, maxima: what a spec says beside its image."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.bundle import manifest
from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import VOLUME_SQUASHFS, Bundle, Process, Resources, RestartPolicy, Volume
from pipeline.bundle.scratch import parse_scratch
from pipeline.bundle.spec import load_spec, parse_resources, parse_restart
from pipeline.bundle.volumes import MOST_DISKS, bundled, check_disks, parse_volume
from pipeline.recipe import BadRecipe
from pipeline.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


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


def test_scratch_is_a_device_or_the_size_of_a_disk_that_the_host_makes(tmp_path) -> None:
    for text, found in (("/dev/vg/web", ("/dev/vg/web", 0)), ("512m", ("", 512)), ("2g", ("", 2048)), ("16", ("", 16))):
        (tmp_path / "web.toml").write_text(f'image = "x"\nroot.scratch = "{text}"\n')
        spec = load_spec("web", tmp_path)
        assert (spec.scratch, spec.scratch_mib) == found
    (tmp_path / "web.toml").write_text('image = "x"\nroot = { scratch = "/dev/vg/web", overlay_size_mib = 5 }\n')
    with pytest.raises(BadSpec, match=r"key root.scratch: expected no root.overlay_size_mib beside it, got both"):
        load_spec("web", tmp_path)
    (tmp_path / "web.toml").write_text('image = "x"\nroot.scratch = "disk.img"\n')
    with pytest.raises(BadRecipe, match=r"key root\.scratch: expected a size such as 512m, or a block device of the "):
        load_spec("web", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("15m", "s: expected 16 MiB to 16 TiB, got '15m'"),
        ("16385g", "s: expected 16 MiB to 16 TiB, got '16385g'"),
        ("0", "s: expected a size such as 512m, or a block device of the zone's host, such as /dev/vg/web, got '0'"),
        ("1.5g", "s: expected a size such as 512m, .* got '1.5g'"),
        ("/var/disk", "s: expected a size such as 512m, .* got '/var/disk'"),
        ("/dev/../etc/passwd", "s: expected a size such as 512m, .* got '/dev/../etc/passwd'"),
        ("512m\n", "s: expected a size such as 512m"),
    ],
)
def test_scratch_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadSpec, match=said):
        parse_scratch(text, subject="s")


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


def squashfs(path: Path, used_bytes: int = 100, size_bytes: int = 104) -> str:
    """A file that says it is one."""
    path.write_bytes(b"hsqs" + bytes(36) + used_bytes.to_bytes(8, "little") + bytes(size_bytes - 48))
    return str(path)


@pytest.mark.parametrize("option", ["", ":ro"])
def test_squashfs_file_is_read_only_said_or_not(tmp_path, option: str) -> None:
    file = squashfs(tmp_path / "data.squashfs")
    assert parse_volume(f"{file}:/data{option}", subject="-v") == Volume("/data", "squashfs", file, True)
    with pytest.raises(BadSpec, match="expected a squashfs file read-only, as it always is"):
        parse_volume(f"{file}:/data:rw", subject="-v")


def test_bytes_of_a_squashfs_file_are_in_the_store_in_whole_blocks_and_its_place_is_not_told(store, tmp_path) -> None:
    file = squashfs(tmp_path / "data.squashfs", size_bytes=5000)
    volumes = (Volume("/tmp"), parse_volume(f"{file}:/data", subject="-v"), Volume("/disk", "block", "/dev/sdx"))
    memory, data, disk = bundled(volumes, store, subject="-v")
    assert (memory, disk) == (volumes[0], volumes[2])
    assert data.blob is not None and data.blob.size_bytes == 8192
    assert (data.source, data.target, data.readonly) == ("data.squashfs", "/data", True)
    assert store.read(data.blob.digest) == Path(file).read_bytes() + bytes(8192 - 5000)
    assert bundled(volumes, store, subject="-v")[1] == data
    Path(file).write_bytes(Path(file).read_bytes()[:-1] + b"x")
    assert bundled(volumes, store, subject="-v")[1].blob != data.blob


def test_squashfs_file_that_went_or_is_cut_off_is_told(store, tmp_path) -> None:
    file = squashfs(tmp_path / "data.squashfs", used_bytes=105)
    volume = parse_volume(f"{file}:/data", subject="-v")
    with pytest.raises(BadSpec, match=f"-v: {file}: expected the 105 bytes its superblock names, got 104"):
        bundled((volume,), store, subject="-v")
    Path(file).write_bytes(b"hsqs")
    with pytest.raises(BadSpec, match="expected a squashfs file, got another kind of file"):
        bundled((volume,), store, subject="-v")
    Path(file).unlink()
    with pytest.raises(BadSpec, match=f"-v: {file}: expected the file still there, got No such file"):
        bundled((volume,), store, subject="-v")
    assert not list(store.blobs.iterdir()), "nothing of them is left"


def test_device_need_not_be_one_of_this_machine() -> None:
    assert parse_volume("/dev/no/../such-disk:/data:ro", subject="-v") == Volume(
        "/data", "block", "/dev/such-disk", True
    )


def test_a_bundle_carries_the_files_of_its_volumes_each_once(store, tmp_path) -> None:
    file = squashfs(tmp_path / "data.squashfs")
    texts = (f"{file}:/a", f"{file}:/b", "tmpfs:/c", "/dev/such-disk:/d")
    volumes = bundled([parse_volume(text, subject="-v") for text in texts], store, subject="-v")
    blob = store.put(b"x")
    made = Bundle("web", blob, "6", (), (), blob, Process(("/x",), ()), volumes=volumes)
    carried = [part for part in manifest.parts(made) if part.media_type == VOLUME_SQUASHFS]
    assert [(part.digest, part.annotations[manifest.TITLE]) for part in carried] == [
        (volumes[0].blob.digest, "volume.0.squashfs")
    ]
    assert manifest.read(store, manifest.put(store, made)) == made


def test_disks_have_no_more_names() -> None:
    many = [Volume(f"/{number}", "block", "/dev/x") for number in range(MOST_DISKS + 1)]
    check_disks([*many[1:], Volume("/tmp")], subject="-v")
    with pytest.raises(BadSpec, match="-v: expected at most 14 files and devices, got 15"):
        check_disks(many, subject="-v")


def test_directory_is_the_hosts_own_by_its_path(tmp_path, monkeypatch) -> None:
    assert parse_volume(f"{tmp_path}:/data", subject="-v") == Volume("/data", "directory", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert parse_volume("./:/data:ro", subject="-v") == Volume("/data", "directory", str(tmp_path), readonly=True)


def test_directory_of_another_host_is_said_to_be_one() -> None:
    assert parse_volume("/srv/none/here:/data:dir", subject="-v") == Volume("/data", "directory", "/srv/none/here")
    with pytest.raises(BadSpec, match="the absolute path of a directory of the zone's host, got 'srv'"):
        parse_volume("srv:/data:dir", subject="-v")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tmpfs", "expected tmpfs:TARGET"),
        ("data:/a", "volumes with names are not kept here"),
        ("tmpfs:a", "an absolute target"),
        ("tmpfs:/", "an absolute target"),
        ("tmpfs:/proc/x", "outside /, /dev, /proc, /sys"),
        ("tmpfs:/a/../dev", "outside /, /dev, /proc, /sys"),
        ("tmpfs:/a:size=0m", "ro, rw, dir or size"),
        ("tmpfs:/a:z", "got 'z'"),
        ("/nowhere/at/all:/a", "expected a source that is there"),
        ("/dev/null:/a", "expected a squashfs file, a block device or a directory"),
    ],
)
def test_volumes_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(BadSpec, match=said):
        parse_volume(text, subject="-v")
