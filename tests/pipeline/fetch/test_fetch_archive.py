"""Images in tar files: what skopeo writes, what both generations of `docker save` write, and tars that lie."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.tars import BLOCK, Image, Member, extra, header, image_of, record, sha256, tar_bytes, tar_of, write_layout
from support.tools import require

from pipeline import fetch
from pipeline.env import Env
from pipeline.errors import DigestMismatch, PipelineError
from pipeline.fetch.archive import MEMBERS_MAX, TarFiles
from pipeline.fetch.errors import BadImage, NoSuchImage
from pipeline.store import Store

TARS = (tar_of({"a": b"1" * 5000}), tar_of({"b": b"2"}), tar_of({"a": b"3"}))


@pytest.fixture
def image() -> Image:
    return image_of(*TARS)


def run(reference: str, env: Env) -> fetch.FetchResult:
    return fetch.run(fetch.FetchParams(reference), env)


def skopeo(*words: str) -> None:
    require("skopeo")
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", *words], check=True, capture_output=True)


def layers_of(result: fetch.FetchResult, env: Env) -> list[bytes]:
    return [env.store.read(layer.digest) for layer in result.layers]


def saved(directory: Path, members: dict[str, Any], name: str = "saved.tar") -> Path:
    path = directory / name
    path.write_bytes(tar_of(members))
    return path


def docker_members(image: Image, tags: list[str], paths: list[str], config: str = "") -> dict[str, Any]:
    """manifest.json and what it names, layers at `paths`."""
    config = config or sha256(image.config).removeprefix("sha256:") + ".json"
    entry = {"Config": config, "RepoTags": tags, "Layers": paths}
    return {"manifest.json": json.dumps([entry]).encode(), config: image.config, **dict(zip(paths, TARS, strict=True))}


# -- OCI archives ------------------------------------------------------------------------------------------------------


def test_oci_archive_of_skopeo_by_tag_by_digest_and_alone(env: Env, image: Image, tmp_path: Path) -> None:
    layout, archive = write_layout(tmp_path / "layout", {"one": image}), tmp_path / "a.tar"
    skopeo(f"oci:{layout}:one", f"oci-archive:{archive}:one")
    for name in (f"oci-archive:{archive}:one", f"oci-archive:{archive}", f"oci-archive:{archive}@{image.digest}"):
        result = run(name, env)
        assert (str(result.manifest.digest), result.reference) == (image.digest, name)
    assert layers_of(result, env) == [image.blobs[name] for name in image.layers]
    with pytest.raises(NoSuchImage, match=r"tag two, got 0 of them .there: one"):
        run(f"oci-archive:{archive}:two", env)


@pytest.mark.parametrize("change", ["flip", "cut", "missing"])
def test_damaged_blob_in_an_archive_is_refused(env: Env, image: Image, tmp_path: Path, change: str) -> None:
    layout = write_layout(tmp_path / "layout", {"one": image})
    members: dict[str, Any] = {
        str(path.relative_to(layout)): path.read_bytes() for path in sorted(layout.rglob("*")) if path.is_file()
    }
    name = "blobs/sha256/" + image.layers[1].removeprefix("sha256:")
    data = members.pop(name)
    if change != "missing":
        members[name] = data[:-1] + (bytes([data[-1] ^ 1]) if change == "flip" else b"")
    with pytest.raises((DigestMismatch, NoSuchImage)):
        run(f"oci-archive:{saved(tmp_path, members)}", env)
    assert image.layers[1].removeprefix("sha256:") not in os.listdir(env.store.blobs)
    assert os.listdir(env.store.tmp) == []


# -- Docker archives ---------------------------------------------------------------------------------------------------


def test_docker_archive_of_skopeo(env: Env, image: Image, tmp_path: Path) -> None:
    layout, archive = write_layout(tmp_path / "layout", {"one": image}), tmp_path / "a.tar"
    skopeo(f"oci:{layout}:one", f"docker-archive:{archive}:team/app:v1")
    result = run(f"docker-archive:{archive}", env)
    assert layers_of(result, env) == list(TARS)
    assert [str(item) for item in result.diff_ids] == [sha256(tar) for tar in TARS]
    assert [str(layer.digest) for layer in result.layers] == [sha256(tar) for tar in TARS]
    for name in ("team/app:v1", "docker.io/team/app:v1"):
        assert run(f"docker-archive:{archive}:{name}", env).manifest == result.manifest
    with pytest.raises(NoSuchImage, match=r"name team/app, got 0 of them .there: .*team/app:v1"):
        run(f"docker-archive:{archive}:team/app", env)


def test_docker_archive_comes_back_as_an_image_skopeo_reads(env: Env, image: Image, tmp_path: Path) -> None:
    layout, archive = write_layout(tmp_path / "layout", {"one": image}), tmp_path / "a.tar"
    skopeo(f"oci:{layout}:one", f"docker-archive:{archive}:app:1")
    env.store.tag("it", run(f"docker-archive:{archive}", env).manifest)
    skopeo(f"oci:{env.store.root}:it", f"oci:{tmp_path}/again:it")
    assert len(run(f"oci:{tmp_path}/again:it", Env(Store(tmp_path / "other"))).layers) == 3


def test_old_docker_save_with_links_for_layers_that_come_twice(env: Env, tmp_path: Path) -> None:
    image = image_of(TARS[0], TARS[1], TARS[0])
    paths = [f"{letter * 64}/layer.tar" for letter in "abc"]
    members = docker_members(image, ["nginx:1.25"], paths)
    members[paths[2]] = f"-> ../{'a' * 64}/layer.tar"
    members["repositories"] = b"{}"
    archive = saved(tmp_path, members)
    for name in ("", ":nginx:1.25", ":docker.io/library/nginx:1.25"):
        assert layers_of(run(f"docker-archive:{archive}{name}", env), env) == [TARS[0], TARS[1], TARS[0]]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("with_manifest_json", [True, False])
def test_new_docker_save_which_is_an_oci_layout_too(
    env: Env, tmp_path: Path, compressed: bool, with_manifest_json: bool
) -> None:
    image = image_of(*TARS, compression="gzip" if compressed else "none")
    layout = write_layout(tmp_path / "layout", {"1": image})
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["annotations"] = {
        "io.containerd.image.name": "docker.io/library/app:1",
        "org.opencontainers.image.ref.name": "1",
    }
    (layout / "index.json").write_text(json.dumps(index))
    if with_manifest_json:
        paths = ["blobs/sha256/" + name.removeprefix("sha256:") for name in image.layers]
        config = "blobs/sha256/" + sha256(image.config).removeprefix("sha256:")
        entry = {"Config": config, "RepoTags": ["app:1"], "Layers": paths}
        (layout / "manifest.json").write_text(json.dumps([entry]))
    members = {str(path.relative_to(layout)): path.read_bytes() for path in layout.rglob("*") if path.is_file()}
    archive = saved(tmp_path, members)
    for name in ("", ":app:1"):
        result = run(f"docker-archive:{archive}{name}", env)
        assert [str(layer.digest) for layer in result.layers] == image.layers
        assert layers_of(result, env) == [image.blobs[name] for name in image.layers]
    assert str(run(f"docker-archive:{archive}@{image.digest}", env).manifest.digest) == image.digest
    with pytest.raises(NoSuchImage, match="other"):
        run(f"docker-archive:{archive}:other", env)


def test_compressed_layer_without_a_digest_in_its_name_is_hashed(env: Env, image: Image, tmp_path: Path) -> None:
    packed = gzip.compress(TARS[0], mtime=0)
    members = docker_members(image, ["a:1"], ["1.tar", "2.tar", "3.tar"])
    members["1.tar"] = packed
    result = run(f"docker-archive:{saved(tmp_path, members)}", env)
    assert str(result.layers[0].digest) == sha256(packed)
    assert result.layers[0].media_type.endswith("+gzip")


def test_several_images_in_one_archive_need_a_name(env: Env, image: Image, tmp_path: Path) -> None:
    paths = ["1.tar", "2.tar", "3.tar"]
    members = docker_members(image, ["a:1"], paths)
    entries = json.loads(members["manifest.json"])
    entries.append(entries[0] | {"RepoTags": ["b:1", "c:2"]})
    members["manifest.json"] = json.dumps(entries).encode()
    archive = saved(tmp_path, members)
    with pytest.raises(NoSuchImage, match=r"exactly one image, .* got 2 of them .there: a:1, b:1, c:2"):
        run(f"docker-archive:{archive}", env)
    assert run(f"docker-archive:{archive}:c:2", env).layers


def test_same_archive_again_reads_no_layer(env: Env, image: Image, tmp_path: Path) -> None:
    archive = saved(tmp_path, docker_members(image, ["a:1"], ["1.tar", "2.tar", "3.tar"]))
    first = run(f"docker-archive:{archive}", env)
    data = archive.read_bytes()
    at = data.index(TARS[0])
    archive.write_bytes(data[: at + 600] + b"X" + data[at + 601 :])
    assert run(f"docker-archive:{archive}", env) == first
    with pytest.raises(DigestMismatch, match="layer 1/3"):
        run(f"docker-archive:{archive}", Env(Store(tmp_path / "other")))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"manifest.json": b"[]"}, "exactly one image"),
        ({"manifest.json": b"{}"}, "a list of images"),
        ({"manifest.json": b"[{}]"}, "Config and Layers"),
        ({"manifest.json": b"[" * 100_000}, "JSON"),
        ({"manifest.json": b'[{"Config": "c", "Layers": ["../../etc/passwd", "1.tar", "2.tar"]}]'}, "with c"),
        ({"1.tar": "-> /etc/passwd"}, "layer '1.tar', got no such file"),
        ({"1.tar": "-> 1.tar"}, "links to a file"),
        ({"1.tar": "-> "}, "layer '1.tar', got no such file"),
        ({"1.tar": TARS[1]}, "expected digest|expected .* bytes"),
    ],
)
def test_docker_archive_that_contradicts_itself_is_refused(
    env: Env, image: Image, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    members = docker_members(image, ["a:1"], ["1.tar", "2.tar", "3.tar"]) | change
    with pytest.raises(PipelineError, match=expected):
        run(f"docker-archive:{saved(tmp_path, members)}", env)
    assert os.listdir(env.store.tmp) == []


def test_config_that_is_not_what_its_name_says_is_refused(env: Env, image: Image, tmp_path: Path) -> None:
    members = docker_members(image, ["a:1"], ["1.tar", "2.tar", "3.tar"], config="0" * 64 + ".json")
    with pytest.raises(DigestMismatch, match="config of "):
        run(f"docker-archive:{saved(tmp_path, members)}", env)


def test_wrong_number_of_layers_is_refused(env: Env, tmp_path: Path) -> None:
    members = docker_members(image_of(TARS[0]), ["a:1"], ["1.tar", "2.tar", "3.tar"])
    with pytest.raises(BadImage, match="3 diff_ids, one per layer, got 1"):
        run(f"docker-archive:{saved(tmp_path, members)}", env)


# -- the tar around it -------------------------------------------------------------------------------------------------


def files(tmp_path: Path, data: bytes) -> TarFiles:
    (tmp_path / "t.tar").write_bytes(data)
    return TarFiles(tmp_path / "t.tar", subject="it")


def test_names_of_every_dialect_are_found(tmp_path: Path) -> None:
    long = "d/" + "n" * 200
    pax = extra(b"x", record("path", long + "pax") + record("size", "3")) + header(Member("short", b""), size=0)
    gnu = extra(b"L", (long + "gnu").encode() + b"\0") + header(Member("short", b"gnu"))
    prefix = header(Member("leaf", b"pre", raw={"prefix": b"some/where"}))
    body = bytes(BLOCK - 3)
    found = files(tmp_path, tar_bytes([pax, b"pax", body, gnu, b"gnu", body, prefix, b"pre", body]))
    for name, data in ((long + "pax", b"pax"), (long + "gnu", b"gnu"), ("some/where/leaf", b"pre")):
        assert found.size(name) == 3
        with found.open(name) as file:
            assert (file.read(2), file.read()) == (data[:2], data[2:])
    assert found.size("short") is None
    with pytest.raises(FileNotFoundError):
        found.open("short")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "a whole header"),
        (b"x" * 100, "a whole header"),
        (bytes(1024), "two zero blocks"),
        (b"x" * 1024, "a tar header with a right checksum"),
        (
            gzip.compress(random.Random(1).randbytes(2000)),
            "got one in gzip .decompress it first",
        ),
        (tar_of({"a": b"1"})[:512], "1 bytes of a file"),
        (header(Member("a", raw={"size": b"77777777777\0"})), "a size within the file"),
        (header(Member("a", raw={"size": b"\xff" * 12})), "a size within the file"),
        (header(Member("a", raw={"size": b"9\0"})), "a size within the file"),
        (extra(b"x", b"99 path=a\n") + header(Member("a")), "a pax record"),
        (extra(b"x", b"0 path=a\n") + header(Member("a")), "a pax record"),
        (extra(b"x", record("size", "-1")) + header(Member("a")), "a size within the file"),
        (extra(b"L", b"n" * 100_000) + header(Member("a")), "a name record of at most"),
        (header(Member("a")) + bytes(BLOCK) + header(Member("b")) + bytes(1024), "two zero blocks"),
    ],
)
def test_tar_that_is_none_is_refused_with_the_place(tmp_path: Path, data: bytes, expected: str) -> None:
    with pytest.raises(BadImage, match=expected):
        files(tmp_path, data)


def test_archive_with_too_many_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=f"at most {MEMBERS_MAX} files"):
        files(tmp_path, header(Member("a")) * (2 * MEMBERS_MAX + 1))


def test_archive_that_is_not_there_or_a_directory_is_one_sentence(env: Env, tmp_path: Path) -> None:
    with pytest.raises(NoSuchImage, match="an archive, got no "):
        run(f"oci-archive:{tmp_path}/none.tar", env)
    with pytest.raises(NoSuchImage, match="Is a directory"):
        run(f"docker-archive:{tmp_path}", env)


def test_flipped_bytes_never_give_anything_but_the_image_or_a_typed_error(image: Image, tmp_path: Path) -> None:
    members = docker_members(image, ["a:1"], ["1.tar", "2.tar", "3.tar"])
    good = tar_of(members)
    wanted = [sha256(tar) for tar in TARS]
    chance = random.Random(11)
    refused = 0
    for round in range(150):
        data = bytearray(good)
        for _ in range(chance.choice((1, 1, 3))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path = tmp_path / "flipped.tar"
        path.write_bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data))))])
        env = Env(Store(tmp_path / f"store{round % 2}"))
        try:
            result = run(f"docker-archive:{path}", env)
        except PipelineError:
            refused += 1
        else:
            assert [str(layer.digest) for layer in result.layers] == wanted
            assert layers_of(result, env) == list(TARS)
    assert refused > 20
