"""Cases 84 to 91 of the corpus: what is around the layers. Numbers are those of the robustness notes, section 1.2."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from support import facts
from support.registry import fake_registry
from support.tars import Image, image_of, sha256, tar_of, write_layout

from pipeline import fetch, unpack
from pipeline.bundle.errors import BadImageConfig, NoSuchUser
from pipeline.bundle.process import resolve_process
from pipeline.bundle.spec import ZoneSpec
from pipeline.env import Env
from pipeline.errors import DigestMismatch, PipelineError
from pipeline.fetch.errors import BadImage
from pipeline.inflate import BadCompression
from pipeline.oci import BadDigest, BadDocument
from pipeline.pack import pack_image
from pipeline.squash.model import SquashParams
from pipeline.squash.stage import run as squash
from pipeline.store import Store

TAR = tar_of({"a": b"1"})
OTHER = tar_of({"b": b"2"})


@pytest.fixture
def env(tmp_path: Path) -> Env:
    return Env(Store(tmp_path / "store"))


def unpacked(image: Image, env: Env, tmp_path: Path) -> unpack.UnpackResult:
    layout = write_layout(tmp_path / f"layout-{image.digest[7:20]}", {"t": image})
    return unpack.run(unpack.UnpackParams(fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)), env)


def altered(image: Image, *, layer: dict[str, Any] | None = None, **manifest: Any) -> Image:
    """The image with other words in its first layer's descriptor, or in its manifest."""
    document = json.loads(image.manifest) | manifest
    document["layers"][0] |= layer or {}
    return Image(json.dumps(document).encode(), image.config, image.blobs)


def configured(config: bytes, *layers: bytes) -> Image:
    """An image with exactly these bytes as its config."""
    image = image_of(*layers)
    blobs = image.blobs | {sha256(config): config}
    document = json.loads(image.manifest)
    document["config"] |= {"digest": sha256(config), "size": len(config)}
    return Image(json.dumps(document).encode(), config, blobs)


TAR_TYPE = "application/vnd.oci.image.layer.v1.tar"


@pytest.mark.parametrize(("said", "is_"), [("+gzip", "zstd"), ("+gzip", "none"), ("+zstd", "gzip"), ("", "gzip")])
def test_case_84_mislabelled_layer_is_read_by_its_bytes_with_a_warning(
    said: str, is_: str, env: Env, tmp_path: Path
) -> None:
    image = altered(image_of(TAR, compression=is_), layer={"mediaType": TAR_TYPE + said})
    result = unpacked(image, env, tmp_path)
    assert facts.of_tree(result, env) == facts.expected({"a": "f 1"})
    assert result.warnings == {f"media type says compression {said[1:] or 'none'}, the bytes say {is_}": 1}


def test_case_84_mislabelled_layer_of_another_diff_id_is_refused(env: Env, tmp_path: Path) -> None:
    wrong = {"rootfs": {"type": "layers", "diff_ids": [sha256(OTHER)]}}
    image = altered(image_of(TAR, compression="zstd", config=wrong), layer={"mediaType": TAR_TYPE + "+gzip"})
    with pytest.raises(DigestMismatch, match="diff_id"):
        unpacked(image, env, tmp_path)


@pytest.mark.parametrize("suffix", ["+bzip2", "+xz", "+gzip+encrypted", "+GZIP"])
def test_case_84_unknown_compression_in_a_media_type_is_refused(suffix: str, env: Env, tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="expected a tar layer"):
        unpacked(altered(image_of(TAR), layer={"mediaType": TAR_TYPE + suffix}), env, tmp_path)


@pytest.mark.parametrize(
    "name",
    [sha256(TAR).upper(), sha256(TAR)[:-1], sha256(TAR) + "0", "md5:" + "0" * 32, "sha384:" + "0" * 96, "", None, 5],
    ids=["upper case", "63 digits", "65 digits", "md5", "sha384", "empty", "null", "number"],
)
@pytest.mark.parametrize("where", ["diff_id", "descriptor"])
def test_case_85_what_is_no_digest_is_refused(where: str, name: object, env: Env, tmp_path: Path) -> None:
    if where == "diff_id":
        image = image_of(TAR, config={"rootfs": {"type": "layers", "diff_ids": [name]}})
    else:
        image = altered(image_of(TAR), layer={"digest": name})
    with pytest.raises((BadDigest, BadDocument, BadImage)):
        unpacked(image, env, tmp_path)


def test_case_85_upper_case_hex_is_refused(env: Env, tmp_path: Path) -> None:
    shouted = "sha256:" + sha256(TAR).removeprefix("sha256:").upper()
    with pytest.raises(BadDigest, match="expected sha256:<64 hex digits>"):
        unpacked(image_of(TAR, config={"rootfs": {"type": "layers", "diff_ids": [shouted]}}), env, tmp_path)


@pytest.mark.parametrize("names", [[], [sha256(TAR)] * 2])
def test_case_85_wrong_number_of_diff_ids_is_refused(names: list[str], env: Env, tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="1 diff_ids, one per layer"):
        unpacked(image_of(TAR, config={"rootfs": {"type": "layers", "diff_ids": names}}), env, tmp_path)


def test_case_85_sha512_is_taken_and_checked(env: Env, tmp_path: Path) -> None:
    right, wrong = (f"sha512:{hashlib.sha512(data).hexdigest()}" for data in (TAR, OTHER))
    image = image_of(TAR, config={"rootfs": {"type": "layers", "diff_ids": [right]}})
    assert facts.of_tree(unpacked(image, env, tmp_path), env) == facts.expected({"a": "f 1"})
    with pytest.raises(DigestMismatch, match="sha512:"):
        unpacked(image_of(TAR, config={"rootfs": {"type": "layers", "diff_ids": [wrong]}}), env, tmp_path)


def test_case_86_same_layer_twice_is_applied_twice_and_downloaded_once(env: Env) -> None:
    image = image_of(tar_of({"a": b"1"}), tar_of({".wh.a": b""}), tar_of({"a": b"1"}))
    with fake_registry() as registry:
        fetched = fetch.run(fetch.FetchParams(registry.add("app", "1", image)), env)
        assert len(registry.paths(image.layers[0])) == 1
    result = unpack.run(unpack.UnpackParams(fetched), env)
    assert facts.of_tree(result, env) == facts.expected({"a": "f 1"})


def test_case_87_blob_of_no_bytes_is_refused(env: Env, tmp_path: Path) -> None:
    image = image_of(b"", compression="none")
    with pytest.raises(BadCompression, match="no bytes at all"):
        unpacked(image, env, tmp_path)


def test_case_87_image_without_layers_is_an_empty_root_and_has_nothing_to_run(env: Env, tmp_path: Path) -> None:
    image = image_of(config={"config": {}})
    result = unpacked(image, env, tmp_path)
    assert facts.of_tree(result, env) == facts.expected({})
    assert squash(SquashParams(result), env).entries == 1
    with pytest.raises(BadImageConfig, match="expected an Entrypoint or Cmd, got neither"):
        resolve_process(ZoneSpec("z", "docker://x/y"), json.loads(image.config), passwd=b"", group=b"")


CONFIGS = {
    "key twice": b'{"rootfs": {"type": "layers", "diff_ids": []}, "rootfs": {"type": "layers", "diff_ids": []}}',
    "depth of 100,000": b'{"rootfs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": b'{"size": NaN, "rootfs": {"type": "layers", "diff_ids": []}}',
    "BOM": b'\xef\xbb\xbf{"rootfs": {"type": "layers", "diff_ids": []}}',
    "Env that is no UTF-8": b'{"config": {"Env": ["\xff=1"]}, "rootfs": {"type": "layers", "diff_ids": []}}',
    "lone surrogate": b'{"config": {"Env": ["\\ud800=1"]}, "rootfs": {"type": "layers", "diff_ids": ["\\ud800"]}}',
    "100 MB": b'{"pad": "' + b"x" * 100_000_000 + b'"}',
    "list": b"[]",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_case_88_hostile_config_is_a_typed_error(name: str, env: Env, tmp_path: Path) -> None:
    with pytest.raises((BadDocument, BadImage, BadDigest)):
        unpacked(configured(CONFIGS[name]), env, tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"User": "4294967296"},
        {"User": "-1"},
        {"User": "0:4294967296"},
        {"User": 5},
        {"WorkingDir": "/proc/self/fd/7"},
        {"WorkingDir": "proc/self/fd/7"},
        {"WorkingDir": "//proc/self/fd/7"},
        {"WorkingDir": "/usr/../proc/self/fd/7"},
        {"WorkingDir": "/a\0b"},
        {"Env": ["NAME"]},
        {"Env": ["A=b\0c"]},
        {"Env": "A=b"},
        {"Cmd": [5]},
    ],
    ids=repr,
)
def test_case_88_process_that_cannot_be_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises((BadImageConfig, NoSuchUser)):
        resolve_process(ZoneSpec("z", "docker://x/y"), {"config": {"Cmd": ["/x"], **config}}, passwd=b"", group=b"")


def test_case_88_volumes_and_labels_choose_nothing() -> None:
    """CVE-2022-23648 and its kind: what an image says of volumes, labels or hooks reaches no host behaviour."""
    plain = {"Cmd": ["/x"]}
    loud = plain | {
        "Volumes": {"/../../../../etc": {}, "/var/../../root": {}},
        "Labels": {"io.containers.capabilities": "all", "zonewright.privileged": "true", "--privileged": "1"},
        "Healthcheck": {"Test": ["CMD", "/bin/evil"]},
        "OnBuild": ["RUN evil"],
        "Shell": ["/bin/evil"],
    }
    processes = [
        resolve_process(ZoneSpec("z", "docker://x/y"), {"config": config}, passwd=b"", group=b"")
        for config in (plain, loud)
    ]
    assert processes[0] == processes[1]


@pytest.mark.parametrize(
    "change",
    [
        {"manifests": []},
        {"mediaType": "application/vnd.oci.image.index.v1+json"},
        {"mediaType": "text/plain"},
        {"mediaType": 5},
        {"schemaVersion": "2"},
    ],
    ids=repr,
)
def test_case_89_ambiguous_manifest_is_refused(change: dict[str, Any], env: Env, tmp_path: Path) -> None:
    with pytest.raises(PipelineError):
        unpacked(altered(image_of(TAR), **change), env, tmp_path)
    assert not list(env.store.results.iterdir())


@pytest.mark.parametrize(
    "history",
    [[], [{"created_by": "x"}] * 5, [{"empty_layer": True}], "no list", [5]],
    ids=["none", "too many", "empty ones", "text", "numbers"],
)
def test_case_90_history_that_does_not_fit_is_ignored_with_a_warning(
    history: object, env: Env, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result = unpacked(image_of(TAR, config={"history": history}), env, tmp_path)
    assert facts.of_tree(result, env) == facts.expected({"a": "f 1"})
    assert "history" in caplog.text


def test_case_90_history_that_fits_or_is_absent_is_no_warning(
    env: Env, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitting = [{"created_by": "ADD"}, {"created_by": "ENV", "empty_layer": True}]
    with caplog.at_level(logging.WARNING):
        unpacked(image_of(TAR, config={"history": fitting}), env, tmp_path)
        unpacked(image_of(OTHER), env, tmp_path)
    assert "history" not in caplog.text


def test_case_91_packing_twice_gives_the_same_bytes(env: Env, tmp_path: Path) -> None:
    """Day, umask, locale, hash seed, order and workers: test_determinism."""
    layout = write_layout(tmp_path / "layout", {"t": image_of(TAR, OTHER)})
    outs = [tmp_path / name for name in ("one", "two")]
    digests = {pack_image(f"oci:{layout}:t", out, env=Env(Store(tmp_path / f"store-{out.name}"))) for out in outs}
    assert len(digests) == 1 and outs[0].read_bytes() == outs[1].read_bytes()
